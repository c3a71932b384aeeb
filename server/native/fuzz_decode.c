/* Coverage-guided fuzzing of decode.c: libFuzzer's bytes are a request, or several, under AddressSanitizer.
 *
 * The first byte says which of the decoders reads them, or that they are split. They are read where libFuzzer put them, so
 * that a byte too far is seen. MIAOPI_FUZZ_PLANS is a file with the decoders' arguments. `make fuzz` builds and runs it.
 */
#include "decode.c"

#define DECODERS 2

static Decoder *decoders[DECODERS];

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  static char text[1 << 20];
  (void)argc; (void)argv;
  const char *path = getenv("MIAOPI_FUZZ_PLANS");
  FILE *file = path ? fopen(path, "rb") : NULL;
  if (!file || fread(text, 1, sizeof text - 1, file) == 0) abort();
  fclose(file);
  Py_Initialize();
  PyObject *module = PyInit_decode(), *names = PyDict_New(), *plans = PyRun_String(text, Py_eval_input, names, names);
  for (int i = 0; plans && i < DECODERS; i++)
    decoders[i] = (Decoder *)PyObject_CallObject((PyObject *)&decoder_type, PyTuple_GetItem(plans, i));
  if (!module || !plans || !decoders[DECODERS - 1] || PyErr_Occurred()) {
    PyErr_Print();
    abort();
  }
  return 0;
}

/* What is plain is plain again, and the same. */
static void check_decoded(const Decoder *d, Bytes body) {
  PyObject *made = decoded(d, body, EVENT_TIME_MAX), *again = decoded(d, body, EVENT_TIME_MAX);
  bool whole = made && (made == Py_None || (PyTuple_GET_SIZE(made) == 16 && PyBytes_GET_SIZE(PyTuple_GET_ITEM(made, 6)) == 128));
  if (!whole || PyObject_RichCompareBool(made, again, Py_EQ) != 1) abort();
  Py_DECREF(made);
  Py_DECREF(again);
}

/* The parts are the whole but for their tags and lengths. */
static void check_split(const Decoder *d, Bytes body) {
  PyObject *parts = parts_of(body, 16);
  size_t n = 0;
  if (!parts) abort();
  for (Py_ssize_t i = 0; parts != Py_None && i < PyList_GET_SIZE(parts); i++) {
    const char *at = PyBytes_AS_STRING(PyList_GET_ITEM(parts, i));
    Bytes part = {(const uint8_t *)at, (const uint8_t *)at + PyBytes_GET_SIZE(PyList_GET_ITEM(parts, i))};
    check_decoded(d, part);
    n += 2 + size_of(part);
  }
  if (n > size_of(body)) abort();
  Py_DECREF(parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size) return 0;
  Bytes body = {data + 1, data + size};
  const Decoder *d = decoders[data[0] % DECODERS];
  if (data[0] & 4) check_split(d, body); else check_decoded(d, body);
  return 0;
}
