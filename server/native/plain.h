/* A DecideRequest whose bytes are as protobuf writes them, read in place: fields in ascending order, each number in the
 * fewest bytes, nothing unknown, no default written out. Then the bytes, with the entries of `features` in order, are the
 * canonical ones that are hashed. Anything else is not plain and Python's to judge. Every read is bounded by `end`.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ENTITIES_MAX 64
#define CONSENTS_MAX 64
#define FEATURES_MAX 256

typedef struct {
  const uint8_t *at, *end;
} Bytes;

typedef struct {
  Bytes type, id;
} Identifier;

typedef struct {
  Bytes purpose;
  int64_t given_at_ms;
} Consent;

typedef struct {
  Bytes whole, name, text; /* `whole` with tag and length; `text` empty where it is a number */
  double number;
} Entry;

typedef struct {
  bool given, has_battery;
  Bytes vin;
  int64_t kind, price_minor, down_payment_minor, age_months, mileage_km, list_price_minor;
  double battery_health;
} Vehicle;

typedef struct {
  Bytes application_id, tenant, product, currency, applicant_id, features; /* features: all entries, as they lie */
  int64_t amount_minor, term_months, repayment, upfront_fee_minor, monthly_fee_minor, event_time_ms;
  bool human_review_requested;
  Vehicle vehicle;
  size_t entities_n, consents_n, features_n;
  Identifier entities[ENTITIES_MAX];
  Consent consents[CONSENTS_MAX];
  Entry entries[FEATURES_MAX];
} Request;

static size_t size_of(Bytes b) { return (size_t)(b.end - b.at); }

static bool next_is(Bytes *b, uint8_t byte) {
  if (b->at == b->end || *b->at != byte) return false;
  b->at++;
  return true;
}

/* A varint below 2^63 in the fewest bytes. */
static bool read_varint(Bytes *b, uint64_t *value) {
  *value = 0;
  for (int shift = 0; shift < 63; shift += 7) {
    if (b->at == b->end) return false;
    uint8_t byte = *b->at++;
    *value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return byte || !shift;
  }
  return false;
}

static bool read_part(Bytes *b, Bytes *part) {
  uint64_t n;
  if (!read_varint(b, &n) || n > size_of(*b)) return false;
  part->at = b->at;
  part->end = b->at += n;
  return true;
}

/* A field of text, which is not empty: that would not be written. */
static bool read_text(Bytes *b, uint8_t tag, Bytes *text) {
  return next_is(b, tag) && read_part(b, text) && text->at < text->end;
}

/* A field with a number from 0 to `most`; 0 is not written. */
static bool read_number(Bytes *b, uint8_t tag, int64_t most, int64_t *number) {
  uint64_t value;
  if (!next_is(b, tag)) return true;
  if (!read_varint(b, &value) || !value || value > (uint64_t)most) return false;
  *number = (int64_t)value;
  return true;
}

static bool read_double(Bytes *b, double *number) {
  if (size_of(*b) < 8) return false;
  uint64_t bits = load64(b->at);
  memcpy(number, &bits, 8);
  b->at += 8;
  return true;
}

static bool read_entity(Bytes b, Identifier *entity) {
  return read_text(&b, 0x0a, &entity->type) && read_text(&b, 0x12, &entity->id) && b.at == b.end;
}

static bool read_consent(Bytes b, Consent *consent) {
  consent->given_at_ms = 0;
  return read_text(&b, 0x0a, &consent->purpose) && read_number(&b, 0x10, INT64_MAX, &consent->given_at_ms) && b.at == b.end;
}

static bool read_entry(Bytes b, Entry *entry) {
  Bytes value;
  if (!read_text(&b, 0x0a, &entry->name) || !read_text(&b, 0x12, &value) || b.at != b.end) return false;
  entry->text.at = entry->text.end = NULL;
  if (next_is(&value, 0x09)) return read_double(&value, &entry->number) && value.at == value.end;
  return read_text(&value, 0x12, &entry->text) && value.at == value.end;
}

static bool read_vehicle(Bytes b, Vehicle *v) {
  v->given = true;
  if (!read_text(&b, 0x0a, &v->vin) || !read_number(&b, 0x10, INT32_MAX, &v->kind) ||
      !read_number(&b, 0x18, INT64_MAX, &v->price_minor) || !read_number(&b, 0x20, INT64_MAX, &v->down_payment_minor) ||
      !read_number(&b, 0x28, INT32_MAX, &v->age_months) || !read_number(&b, 0x30, INT32_MAX, &v->mileage_km))
    return false;
  if (next_is(&b, 0x39)) {
    v->has_battery = true;
    if (!read_double(&b, &v->battery_health)) return false;
  }
  return read_number(&b, 0x40, INT64_MAX, &v->list_price_minor) && b.at == b.end;
}

static bool read_lists(Bytes *b, Request *r) {
  Bytes part;
  while (next_is(b, 0x5a))
    if (r->entities_n == ENTITIES_MAX || !read_part(b, &part) || !read_entity(part, &r->entities[r->entities_n++])) return false;
  while (next_is(b, 0x62))
    if (r->consents_n == CONSENTS_MAX || !read_part(b, &part) || !read_consent(part, &r->consents[r->consents_n++])) return false;
  r->features.at = b->at;
  while (next_is(b, 0x6a)) {
    const uint8_t *start = b->at - 1;
    if (r->features_n == FEATURES_MAX || !read_part(b, &part)) return false;
    Entry *entry = &r->entries[r->features_n++];
    entry->whole.at = start;
    entry->whole.end = part.end;
    if (!read_entry(part, entry)) return false;
  }
  r->features.end = b->at;
  return true;
}

/* False where `b` is not plain. */
static bool read_request(Bytes b, Request *r) {
  memset(r, 0, offsetof(Request, entities));
  if (!read_text(&b, 0x0a, &r->application_id) || !read_text(&b, 0x12, &r->tenant) || !read_text(&b, 0x1a, &r->product) ||
      !read_text(&b, 0x22, &r->currency) || !read_number(&b, 0x28, INT64_MAX, &r->amount_minor) ||
      !read_number(&b, 0x30, INT32_MAX, &r->term_months) || !read_number(&b, 0x38, INT32_MAX, &r->repayment) ||
      !read_number(&b, 0x40, INT64_MAX, &r->upfront_fee_minor) || !read_number(&b, 0x48, INT64_MAX, &r->monthly_fee_minor) ||
      !read_text(&b, 0x52, &r->applicant_id) || !read_lists(&b, r))
    return false;
  Bytes part;
  if (next_is(&b, 0x72) && (!read_part(&b, &part) || !read_vehicle(part, &r->vehicle))) return false;
  if (next_is(&b, 0x78) && !(r->human_review_requested = next_is(&b, 1))) return false;
  if (b.at == b.end) return true;
  return next_is(&b, 0x80) && read_number(&b, 0x01, INT64_MAX, &r->event_time_ms) && r->event_time_ms && b.at == b.end;
}

/* ---- texts ---- */

/* Whether it is 1 to `most` bytes of printable ASCII. */
static bool printable(Bytes b, size_t most) {
  if (b.at == b.end || size_of(b) > most) return false;
  for (; b.at < b.end; b.at++)
    if (*b.at < 0x20 || *b.at > 0x7e) return false;
  return true;
}

/* The same, or with 汉字 of U+4E00 to U+9FA5: no normalisation to NFKC, case or digit changes one of these. */
static bool readable(Bytes b, size_t most) {
  if (b.at == b.end || size_of(b) > most) return false;
  while (b.at < b.end) {
    if (*b.at >= 0x20 && *b.at <= 0x7e) {
      b.at++;
      continue;
    }
    if (size_of(b) < 3 || *b.at >> 4 != 0xe || b.at[1] >> 6 != 2 || b.at[2] >> 6 != 2) return false;
    uint32_t point = (uint32_t)(b.at[0] & 15) << 12 | (uint32_t)(b.at[1] & 63) << 6 | (b.at[2] & 63);
    if (point < 0x4e00 || point > 0x9fa5) return false;
    b.at += 3;
  }
  return true;
}
