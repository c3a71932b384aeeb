/* The Python face of decode.c. */

PyDoc_STRVAR(decode_doc, "decode(body, latest_consent_ms) -> the fields of features.application.Application, in its order, or None.\n\n"
                         "tokens and shared_tokens are the bytes of 16 uint64, the latter None without a consortium.");
static PyObject *decoder_decode(Decoder *d, PyObject *const *args, Py_ssize_t n) {
  if (n != 2 || !PyBytes_Check(args[0]) || !d->given[0]) {
    PyErr_SetString(PyExc_TypeError, "decode(body: bytes, latest_consent_ms: int)");
    return NULL;
  }
  long long latest_ms = PyLong_AsLongLong(args[1]);
  if (latest_ms == -1 && PyErr_Occurred()) return NULL;
  const uint8_t *at = (const uint8_t *)PyBytes_AS_STRING(args[0]);
  Bytes body = {at, at + PyBytes_GET_SIZE(args[0])};
  return decoded(d, body, latest_ms);
}

static int decoder_init(Decoder *d, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"tenants", "products", "repayment_methods", "consortium", "replaying", NULL};
  PyObject *tenants, *products, *methods;
  const char *key;
  Py_ssize_t key_n;
  if (d->given[0]) return PyErr_SetString(PyExc_RuntimeError, "a Decoder is made once"), -1;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!z#p", names, &PyTuple_Type, &tenants, &PyTuple_Type, &products,
                                   &PyTuple_Type, &methods, &key, &key_n, &d->replaying))
    return -1;
  if (PyTuple_GET_SIZE(methods) != REPAYMENT_METHODS || (key && (key_n < 1 || key_n > BLAKE_KEY_MAX)))
    return unfit("four methods of repayment, and a key of 1 to 64 bytes");
  d->given[0] = Py_NewRef(tenants);
  d->given[1] = Py_NewRef(products);
  d->given[2] = Py_NewRef(methods);
  d->shares = key != NULL;
  if (key) d->consortium.token = blake_keyed((const uint8_t *)key, (size_t)key_n, 8);
  if (table(tenants, &d->tenants, &d->tenants_n, sizeof *d->tenants, parse_tenant, NULL, true)) return -1;
  return table(products, &d->products, &d->products_n, sizeof *d->products, parse_product, NULL, true);
}

static void decoder_dealloc(Decoder *d) {
  products_free(d->products, d->products_n);
  PyMem_Free(d->tenants);
  for (int i = 0; i < 3; i++) Py_XDECREF(d->given[i]);
  Py_TYPE(d)->tp_free((PyObject *)d);
}

static PyObject *parts_of(Bytes body, Py_ssize_t most) {
  PyObject *parts = PyList_New(0);
  Bytes part;
  while (parts && body.at < body.end) {
    if (PyList_GET_SIZE(parts) >= most || !next_is(&body, 0x0a) || !read_part(&body, &part)) {
      Py_DECREF(parts);
      Py_RETURN_NONE;
    }
    PyObject *bytes = bytes_of(part.at, size_of(part));
    if (!bytes || PyList_Append(parts, bytes)) Py_CLEAR(parts);
    Py_XDECREF(bytes);
  }
  return parts;
}

PyDoc_STRVAR(split_doc, "split(body, most) -> the messages in field 1 of one that has nothing else; None with more of them or else.");
static PyObject *split(PyObject *self, PyObject *args) {
  PyObject *bytes;
  Py_ssize_t most;
  (void)self;
  if (!PyArg_ParseTuple(args, "Sn", &bytes, &most)) return NULL;
  const uint8_t *at = (const uint8_t *)PyBytes_AS_STRING(bytes);
  Bytes body = {at, at + PyBytes_GET_SIZE(bytes)};
  return parts_of(body, most);
}

PyDoc_STRVAR(blake_doc, "blake2b(key, message, digest_size) -> bytes: as hashlib, of at least one byte under a key.");
static PyObject *blake(PyObject *self, PyObject *args) {
  const char *key, *message;
  Py_ssize_t key_n, message_n, digest_n;
  uint8_t digest[64];
  Blake state;
  (void)self;
  if (!PyArg_ParseTuple(args, "y#y#n", &key, &key_n, &message, &message_n, &digest_n)) return NULL;
  if (key_n < 1 || key_n > BLAKE_KEY_MAX || message_n < 1 || digest_n < 1 || digest_n > 64) {
    PyErr_SetString(PyExc_ValueError, "a key and a digest of 1 to 64 bytes, and a message");
    return NULL;
  }
  BlakeStart start = blake_keyed((const uint8_t *)key, (size_t)key_n, (size_t)digest_n);
  blake_begin(&state, &start);
  blake_add(&state, (const uint8_t *)message, (size_t)message_n);
  blake_end(&state, digest, (size_t)digest_n);
  return bytes_of(digest, (size_t)digest_n);
}

static PyMethodDef decoder_methods[] = {
    {"decode", (PyCFunction)(void (*)(void))decoder_decode, METH_FASTCALL, decode_doc},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject decoder_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "server.native.decode.Decoder",
    .tp_basicsize = sizeof(Decoder),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = PyDoc_STR("Decoder(tenants, products, repayment_methods, consortium, replaying): see server/native/plain.py."),
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)decoder_init,
    .tp_dealloc = (destructor)decoder_dealloc,
    .tp_methods = decoder_methods,
};

static PyMethodDef functions[] = {
    {"split", split, METH_VARARGS, split_doc},
    {"blake2b", blake, METH_VARARGS, blake_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "decode", "Checked applications from plain DecideRequests.", -1, functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_decode(void) {
  if (PyType_Ready(&decoder_type) < 0) return NULL;
  PyObject *made = PyModule_Create(&module);
  if (!made) return NULL;
  Py_INCREF(&decoder_type);
  if (PyModule_AddObject(made, "Decoder", (PyObject *)&decoder_type) < 0 ||
      PyModule_AddIntConstant(made, "FEATURES_MAX", FEATURES_MAX) < 0) {
    Py_DECREF(made);
    return NULL;
  }
  return made;
}
