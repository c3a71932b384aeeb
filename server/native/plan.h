/* What a Decoder knows of tenants and products, made once from the tuples of server/native/plain.py, which it keeps:
 * every text here lies in one of their strings.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

#include "blake2b.h"
#include "plain.h"

#define SLOTS_MAX 16
#define AMOUNTS 9 /* features.specs.APPLICATION_FIELDS */
#define VEHICLE_KINDS 4

enum { STRIP, COMPACT, CARD, PHONE, IP, NORMALISERS }; /* features.tokens */

typedef struct {
  Bytes text;
  PyObject *object;
} Name; /* the first member of whatever is looked up */

typedef struct {
  Name name;
  BlakeStart token, body;
} Tenant;

typedef struct {
  Name name;
  PyObject *number;
} Code;

typedef struct {
  Name name;
  size_t rank; /* its place among the entries of a canonical body */
  double low, high;
  Code *codes; /* NULL for a number */
  Py_ssize_t codes_n;
} Feature;

typedef struct {
  Name name;
  int normaliser, slot, slots, purpose; /* purpose: of the consent it needs, -1 for none */
} Kind;

typedef struct {
  Name name;
  int slot, purpose, parts[SLOTS_MAX];
  Py_ssize_t parts_n;
} Compound;

typedef struct {
  Name name, currency;
  PyObject *schema, *amounts[AMOUNTS]; /* amounts: names of its application features, None where it has none */
  double unit, vehicle_kinds[VEHICLE_KINDS];
  int64_t amount_low, amount_high, term_low, term_high;
  int has_vehicle;
  Kind applicant, *kinds;
  Compound *compounds;
  Name *purposes;
  Feature *features;
  Py_ssize_t kinds_n, compounds_n, purposes_n, features_n;
} Product;

static int compare(Bytes a, Bytes b) {
  size_t n = size_of(a) < size_of(b) ? size_of(a) : size_of(b);
  int order = n ? memcmp(a.at, b.at, n) : 0;
  return order ? order : (size_of(a) > size_of(b)) - (size_of(a) < size_of(b));
}

/* The item of that name in an ascending table, or NULL. */
static const void *find(const void *items, Py_ssize_t n, size_t size, Bytes name) {
  size_t low = 0, high = (size_t)n;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const Name *item = (const Name *)((const char *)items + middle * size);
    int order = compare(name, item->text);
    if (!order) return item;
    if (order < 0) high = middle; else low = middle + 1;
  }
  return NULL;
}

#define FIND(table, n, name) find(table, n, sizeof *(table), name)

static int unfit(const char *what) {
  PyErr_SetString(PyExc_ValueError, what);
  return -1;
}

static int name_of(PyObject *object, Name *name) {
  Py_ssize_t n;
  const char *text = PyUnicode_AsUTF8AndSize(object, &n);
  if (!text) return -1;
  name->object = object;
  name->text.at = (const uint8_t *)text;
  name->text.end = name->text.at + n;
  return 0;
}

typedef int (*Parse)(PyObject *from, void *item, const Product *of);

/* A table of the items of a tuple of tuples. ascending: whether it is to be searched, its names in the order of bytes. */
static int table(PyObject *from, void *made, Py_ssize_t *n, size_t size, Parse parse, const Product *of, bool ascending) {
  char *items = PyMem_Calloc((size_t)PyTuple_GET_SIZE(from) + 1, size);
  if (!items) return PyErr_NoMemory(), -1;
  memcpy(made, &items, sizeof items);
  for (*n = 0; *n < PyTuple_GET_SIZE(from); ++*n) {
    PyObject *one = PyTuple_GET_ITEM(from, *n);
    Name *item = (Name *)(items + (size_t)*n * size);
    if (parse(one, item, of)) return -1;
    if (ascending && *n && compare(((Name *)((char *)item - size))->text, item->text) >= 0) return unfit("names must ascend");
  }
  return 0;
}

static int parse_tenant(PyObject *from, void *item, const Product *none) {
  Tenant *tenant = item;
  PyObject *name;
  const char *key;
  Py_ssize_t key_n;
  (void)none;
  if (!PyArg_ParseTuple(from, "Uy#", &name, &key, &key_n) || name_of(name, &tenant->name)) return -1;
  if (key_n < 1 || key_n > BLAKE_KEY_MAX) return unfit("a key has 1 to 64 bytes");
  tenant->token = blake_keyed((const uint8_t *)key, (size_t)key_n, 8);
  tenant->body = blake_keyed((const uint8_t *)key, (size_t)key_n, 16);
  return 0;
}

static int parse_purpose(PyObject *from, void *item, const Product *of) {
  PyObject *name;
  (void)of;
  return PyArg_ParseTuple(from, "U", &name) ? name_of(name, item) : -1;
}

static int parse_kind(PyObject *from, void *item, const Product *of) {
  Kind *k = item;
  PyObject *name;
  if (!PyArg_ParseTuple(from, "Uiiii", &name, &k->normaliser, &k->slot, &k->slots, &k->purpose) || name_of(name, &k->name)) return -1;
  bool fits = k->slot >= 0 && k->slots > 0 && k->slots <= SLOTS_MAX && k->slot <= SLOTS_MAX - k->slots;
  if (!fits || k->normaliser < 0 || k->normaliser >= NORMALISERS || k->purpose < -1 || k->purpose >= of->purposes_n)
    return unfit("an entity's slots, normaliser or purpose");
  return 0;
}

static int parse_compound(PyObject *from, void *item, const Product *of) {
  Compound *c = item;
  PyObject *name, *parts;
  if (!PyArg_ParseTuple(from, "UiiO!", &name, &c->slot, &c->purpose, &PyTuple_Type, &parts) || name_of(name, &c->name)) return -1;
  c->parts_n = PyTuple_GET_SIZE(parts);
  if (c->parts_n < 1 || c->parts_n > SLOTS_MAX || c->slot < 0 || c->slot >= SLOTS_MAX || c->purpose < -1 || c->purpose >= of->purposes_n)
    return unfit("a compound's slot, purpose or parts");
  for (Py_ssize_t i = 0; i < c->parts_n; i++) {
    long part = PyLong_AsLong(PyTuple_GET_ITEM(parts, i));
    if (part < 0 || part >= SLOTS_MAX) return PyErr_Occurred() ? -1 : unfit("a compound's parts");
    c->parts[i] = (int)part;
  }
  return 0;
}

static int parse_code(PyObject *from, void *item, const Product *of) {
  Code *code = item;
  PyObject *name;
  (void)of;
  return PyArg_ParseTuple(from, "UO!", &name, &PyFloat_Type, &code->number) ? name_of(name, &code->name) : -1;
}

static int parse_feature(PyObject *from, void *item, const Product *of) {
  Feature *f = item;
  PyObject *name, *codes;
  Py_ssize_t rank;
  if (!PyArg_ParseTuple(from, "UnddO!", &name, &rank, &f->low, &f->high, &PyTuple_Type, &codes) || name_of(name, &f->name)) return -1;
  if (rank < 0) return unfit("a feature's rank");
  f->rank = (size_t)rank;
  return PyTuple_GET_SIZE(codes) ? table(codes, &f->codes, &f->codes_n, sizeof *f->codes, parse_code, of, true) : 0;
}

static int parse_product(PyObject *from, void *item, const Product *none) {
  Product *p = item;
  PyObject *name, *currency, *amounts, *kinds, *applicant, *entities, *compounds, *purposes, *features;
  (void)none;
  if (!PyArg_ParseTuple(from, "UOUdLLLLO!O!O!O!O!O!O!", &name, &p->schema, &currency, &p->unit, &p->amount_low, &p->amount_high,
                        &p->term_low, &p->term_high, &PyTuple_Type, &amounts, &PyTuple_Type, &kinds, &PyTuple_Type, &applicant,
                        &PyTuple_Type, &entities, &PyTuple_Type, &compounds, &PyTuple_Type, &purposes, &PyTuple_Type, &features))
    return -1;
  if (name_of(name, &p->name) || name_of(currency, &p->currency)) return -1;
  if (PyTuple_GET_SIZE(amounts) != AMOUNTS) return unfit("names of the application's features");
  for (int i = 0; i < AMOUNTS; i++) p->amounts[i] = PyTuple_GET_ITEM(amounts, i);
  p->has_vehicle = PyTuple_GET_SIZE(kinds) > 0;
  double *k = p->vehicle_kinds;
  if (p->has_vehicle && !PyArg_ParseTuple(kinds, "dddd", k, k + 1, k + 2, k + 3)) return -1;
  if (PyTuple_GET_SIZE(purposes) > SLOTS_MAX) return unfit("more purposes than slots");
  if (PyTuple_GET_SIZE(features) > FEATURES_MAX) return unfit("too many features");
  if (table(purposes, &p->purposes, &p->purposes_n, sizeof *p->purposes, parse_purpose, p, true) ||
      parse_kind(applicant, &p->applicant, p) ||
      table(entities, &p->kinds, &p->kinds_n, sizeof *p->kinds, parse_kind, p, true) ||
      table(compounds, &p->compounds, &p->compounds_n, sizeof *p->compounds, parse_compound, p, false) ||
      table(features, &p->features, &p->features_n, sizeof *p->features, parse_feature, p, true))
    return -1;
  for (Py_ssize_t i = 0; i < p->features_n; i++)
    if (p->features[i].rank >= (size_t)p->features_n) return unfit("a feature's rank");
  return 0;
}

static void products_free(Product *products, Py_ssize_t n) {
  for (Product *p = products; p && p <= products + n; p++) { /* with the one that could not be parsed, or the room after */
    for (Py_ssize_t i = 0; p->features && i <= p->features_n; i++) PyMem_Free(p->features[i].codes);
    PyMem_Free(p->features);
    PyMem_Free(p->purposes);
    PyMem_Free(p->compounds);
    PyMem_Free(p->kinds);
  }
  PyMem_Free(products);
}
