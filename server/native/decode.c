/* The Application of a plain DecideRequest: what server/wire.py makes of the same bytes, checked and hashed in one pass.
 *
 * Only what needs no second look is decoded here. Whatever is unusual gives None: Python judges the same bytes, and every
 * error is Python's. Nothing is kept of a request, memory is bounded by its size and nothing recurses.
 */
#include "plan.h"

#include <inttypes.h>
#include <stdio.h>

/* As in server/wire.py and features/application.py. */
#define ID_MAX 128
#define IDENTIFIER_MAX 256
#define VIN_MAX 64
#define MONEY_MAX 1000000000000000
#define EVENT_TIME_MAX 4102444800000
#define AGE_MONTHS_MAX 1200
#define MILEAGE_KM_MAX 5000000
#define REPAYMENT_METHODS 4

typedef struct {
  PyObject_HEAD
  PyObject *given[3]; /* what the plans lie in */
  Tenant *tenants, consortium;
  Product *products;
  Py_ssize_t tenants_n, products_n;
  int shares, replaying;
} Decoder;

typedef struct {
  const Tenant *tenant;
  const Product *product;
  uint32_t purposes;                     /* one bit for each purpose of the product that there is consent for */
  uint64_t tokens[SLOTS_MAX], shared[SLOTS_MAX];
  uint8_t body_hash[16];
  uint16_t entry_of[FEATURES_MAX];       /* by rank, from 1 */
  const Feature *features[FEATURES_MAX]; /* by entry */
  const Code *codes[FEATURES_MAX];       /* NULL for a number */
} Checked;

/* ---- tokens ---- */

/* An identifier written in one way, as in features/tokens.py; how many bytes, 0 where nothing is left or it is unusual. */
static size_t normalised(int normaliser, Bytes text, uint8_t out[IDENTIFIER_MAX]) {
  size_t n = 0;
  if (!readable(text, IDENTIFIER_MAX)) return 0;
  if (normaliser == STRIP || normaliser == IP) {
    while (text.at < text.end && *text.at == ' ') text.at++;
    while (text.at < text.end && text.end[-1] == ' ') text.end--;
  }
  for (; text.at < text.end; text.at++) {
    uint8_t c = *text.at;
    if (normaliser == PHONE && (c < '0' || c > '9')) continue;
    if ((normaliser == COMPACT || normaliser == CARD) && (c == ' ' || (normaliser == CARD && c == '-'))) continue;
    if ((normaliser == COMPACT || normaliser == CARD) && c >= 'a' && c <= 'z') c -= 'a' - 'A';
    if (normaliser == IP && c >= 'A' && c <= 'Z') c += 'a' - 'A';
    out[n++] = c;
  }
  size_t prefix = n == 15 && !memcmp(out, "0086", 4) ? 4 : n == 13 && !memcmp(out, "86", 2) ? 2 : 0;
  if (normaliser != PHONE || !prefix) return n;
  memmove(out, out + prefix, n - prefix);
  return n - prefix;
}

static uint64_t token_of(const BlakeStart *key, const Name *kind, const uint8_t *normal, size_t n) {
  Blake blake;
  uint8_t digest[8];
  blake_begin(&blake, key);
  blake_add(&blake, kind->text.at, size_of(kind->text));
  blake_add(&blake, (const uint8_t *)"", 1);
  blake_add(&blake, normal, n);
  blake_end(&blake, digest, sizeof digest);
  uint64_t token = load64(digest);
  return token ? token : 1;
}

static bool allowed(int purpose, uint32_t purposes) { return purpose < 0 || purposes >> purpose & 1; }

/* One entity into the first free slot of its kind, unless it is there. */
static bool place(const Kind *kind, Bytes id, const BlakeStart *key, uint32_t purposes, uint64_t tokens[SLOTS_MAX]) {
  uint8_t normal[IDENTIFIER_MAX];
  size_t n = normalised(kind->normaliser, id, normal);
  if (!n) return false;
  if (!allowed(kind->purpose, purposes)) return true;
  uint64_t token = token_of(key, &kind->name, normal, n);
  for (int slot = kind->slot; slot < kind->slot + kind->slots; slot++) {
    if (!tokens[slot]) tokens[slot] = token;
    if (tokens[slot] == token) return true;
  }
  return false;
}

static void join(const Compound *compound, const BlakeStart *key, uint64_t tokens[SLOTS_MAX]) {
  char text[21 * SLOTS_MAX + 1];
  int n = 0;
  for (Py_ssize_t i = 0; i < compound->parts_n; i++) {
    uint64_t part = tokens[compound->parts[i]];
    if (!part) return;
    n += snprintf(text + n, sizeof text - (size_t)n, i ? ",%" PRIu64 : "%" PRIu64, part);
  }
  tokens[compound->slot] = token_of(key, &compound->name, (const uint8_t *)text, (size_t)n);
}

static bool make_tokens(const Product *p, const Request *r, const BlakeStart *key, uint32_t purposes, uint64_t tokens[SLOTS_MAX]) {
  memset(tokens, 0, SLOTS_MAX * sizeof *tokens);
  if (!place(&p->applicant, r->applicant_id, key, UINT32_MAX, tokens)) return false;
  for (size_t i = 0; i < r->entities_n; i++) {
    const Kind *kind = FIND(p->kinds, p->kinds_n, r->entities[i].type);
    if (!kind || !place(kind, r->entities[i].id, key, purposes, tokens)) return false;
  }
  if (p->has_vehicle) {
    Bytes type = {(const uint8_t *)"vehicle", (const uint8_t *)"vehicle" + 7};
    const Kind *kind = FIND(p->kinds, p->kinds_n, type);
    if (!kind || !place(kind, r->vehicle.vin, key, purposes, tokens)) return false;
  }
  for (Py_ssize_t i = 0; i < p->compounds_n; i++)
    if (allowed(p->compounds[i].purpose, purposes)) join(&p->compounds[i], key, tokens);
  return true;
}

/* ---- checks ---- */

static bool within(int64_t value, int64_t low, int64_t high) { return low <= value && value <= high; }

static bool check_loan(const Product *p, const Request *r, int replaying) {
  return printable(r->application_id, ID_MAX) && !compare(r->currency, p->currency.text) &&
         within(r->amount_minor, p->amount_low, p->amount_high) && within(r->term_months, p->term_low, p->term_high) &&
         r->upfront_fee_minor <= r->amount_minor && r->monthly_fee_minor <= r->amount_minor &&
         within(r->repayment, 1, REPAYMENT_METHODS) &&
         (replaying ? within(r->event_time_ms, 1, EVENT_TIME_MAX) : !r->event_time_ms);
}

static bool check_vehicle(const Product *p, const Vehicle *v) {
  if (!p->has_vehicle || !v->given) return !p->has_vehicle && !v->given;
  return readable(v->vin, VIN_MAX) && within(v->kind, 1, VEHICLE_KINDS) && p->vehicle_kinds[v->kind - 1] >= 0 &&
         within(v->price_minor, 1, MONEY_MAX) && v->down_payment_minor <= v->price_minor && v->age_months <= AGE_MONTHS_MAX &&
         v->mileage_km <= MILEAGE_KM_MAX && v->list_price_minor <= MONEY_MAX &&
         (!v->has_battery || (v->battery_health >= 0 && v->battery_health <= 1));
}

static bool check_consents(const Request *r, int64_t latest_ms, Checked *c) {
  c->purposes = 0;
  for (size_t i = 0; i < r->consents_n; i++) {
    const Consent *consent = &r->consents[i];
    if (!printable(consent->purpose, ID_MAX) || !within(consent->given_at_ms, 1, latest_ms)) return false;
    for (size_t k = 0; k < i; k++)
      if (!compare(consent->purpose, r->consents[k].purpose)) return false;
    const Name *purpose = FIND(c->product->purposes, c->product->purposes_n, consent->purpose);
    if (purpose) c->purposes |= 1u << (purpose - c->product->purposes);
  }
  return true;
}

static bool check_features(const Request *r, Checked *c) {
  memset(c->entry_of, 0, sizeof c->entry_of);
  for (size_t i = 0; i < r->features_n; i++) {
    const Entry *entry = &r->entries[i];
    const Feature *f = FIND(c->product->features, c->product->features_n, entry->name);
    bool text = entry->text.at != entry->text.end;
    if (!f || c->entry_of[f->rank] || text != (f->codes != NULL)) return false;
    c->entry_of[f->rank] = (uint16_t)(i + 1);
    c->features[i] = f;
    c->codes[i] = text ? FIND(f->codes, f->codes_n, entry->text) : NULL;
    if (text ? !c->codes[i] : !(f->low <= entry->number && entry->number <= f->high)) return false;
  }
  return true;
}

/* Of the canonical bytes: the entries of features in the order that protobuf gives them. */
static void hash_body(Bytes body, const Request *r, Checked *c) {
  Blake blake;
  blake_begin(&blake, &c->tenant->body);
  blake_add(&blake, body.at, (size_t)(r->features.at - body.at));
  for (Py_ssize_t rank = 0; rank < c->product->features_n; rank++) {
    if (!c->entry_of[rank]) continue;
    Bytes entry = r->entries[c->entry_of[rank] - 1].whole;
    blake_add(&blake, entry.at, size_of(entry));
  }
  blake_add(&blake, r->features.end, (size_t)(body.end - r->features.end));
  blake_end(&blake, c->body_hash, sizeof c->body_hash);
}

/* False where it is not plain. */
static bool check(const Decoder *d, Bytes body, int64_t latest_ms, Request *r, Checked *c) {
  if (!read_request(body, r)) return false;
  c->tenant = FIND(d->tenants, d->tenants_n, r->tenant);
  c->product = FIND(d->products, d->products_n, r->product);
  if (!c->tenant || !c->product || !check_loan(c->product, r, d->replaying) || !check_vehicle(c->product, &r->vehicle) ||
      !check_consents(r, latest_ms, c) || !check_features(r, c) ||
      !make_tokens(c->product, r, &c->tenant->token, c->purposes, c->tokens))
    return false;
  if (d->shares && !make_tokens(c->product, r, &d->consortium.token, c->purposes, c->shared)) return false;
  hash_body(body, r, c);
  return true;
}

/* ---- values ---- */

static int put(PyObject *numbers, PyObject *name, double number) {
  if (name == Py_None) return 0;
  PyObject *value = PyFloat_FromDouble(number);
  int failed = value ? PyDict_SetItem(numbers, name, value) : -1;
  Py_XDECREF(value);
  return failed;
}

static int put_amounts(const Product *p, const Request *r, PyObject *numbers) {
  const Vehicle *v = &r->vehicle;
  if (put(numbers, p->amounts[0], (double)r->amount_minor / p->unit) || put(numbers, p->amounts[1], (double)r->term_months)) return -1;
  if (!p->has_vehicle) return 0;
  double known[] = {p->vehicle_kinds[v->kind - 1], (double)v->price_minor / p->unit, (double)v->down_payment_minor / p->unit,
                    (double)v->age_months, (double)v->mileage_km};
  for (int i = 0; i < 5; i++)
    if (put(numbers, p->amounts[2 + i], known[i])) return -1;
  if (v->has_battery && put(numbers, p->amounts[7], v->battery_health)) return -1;
  return v->list_price_minor ? put(numbers, p->amounts[8], (double)v->list_price_minor / p->unit) : 0;
}

static PyObject *numbers_of(const Request *r, const Checked *c) {
  PyObject *numbers = PyDict_New();
  if (!numbers) return NULL;
  int failed = put_amounts(c->product, r, numbers);
  for (size_t i = 0; !failed && i < r->features_n; i++) {
    PyObject *name = c->features[i]->name.object;
    failed = c->codes[i] ? PyDict_SetItem(numbers, name, c->codes[i]->number) : put(numbers, name, r->entries[i].number);
  }
  if (failed) Py_CLEAR(numbers);
  return numbers;
}

static PyObject *text_of(Bytes text) { return PyUnicode_DecodeASCII((const char *)text.at, (Py_ssize_t)size_of(text), NULL); }

static PyObject *consents_of(const Request *r) {
  PyObject *consents = PyDict_New();
  for (size_t i = 0; consents && i < r->consents_n; i++) {
    PyObject *purpose = text_of(r->consents[i].purpose), *given = PyLong_FromLongLong(r->consents[i].given_at_ms);
    if (!purpose || !given || PyDict_SetItem(consents, purpose, given)) Py_CLEAR(consents);
    Py_XDECREF(purpose);
    Py_XDECREF(given);
  }
  return consents;
}

static PyObject *bytes_of(const void *bytes, size_t n) { return PyBytes_FromStringAndSize(bytes, (Py_ssize_t)n); }

static PyObject *shared_of(const Decoder *d, const Checked *c) {
  if (d->shares) return bytes_of(c->shared, sizeof c->shared);
  Py_RETURN_NONE;
}

static PyObject *decoded(const Decoder *d, Bytes body, int64_t latest_ms) {
  Request r;
  Checked c;
  if (!check(d, body, latest_ms, &r, &c)) Py_RETURN_NONE;
  return Py_BuildValue(
      "(NOOOLLNNOLLNLNNN)", text_of(r.application_id), c.tenant->name.object, c.product->schema, c.product->name.object,
      (long long)r.amount_minor, (long long)r.term_months, bytes_of(c.tokens, sizeof c.tokens), numbers_of(&r, &c),
      PyTuple_GET_ITEM(d->given[2], r.repayment - 1), (long long)r.upfront_fee_minor, (long long)r.monthly_fee_minor,
      PyBool_FromLong(r.human_review_requested), (long long)r.event_time_ms, bytes_of(c.body_hash, sizeof c.body_hash),
      consents_of(&r), shared_of(d, &c));
}

#include "decode_module.h"
