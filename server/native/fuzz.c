/* Coverage-guided fuzzing of http2.c: libFuzzer's bytes are what a peer sends, under AddressSanitizer.
 *
 * The first byte says in pieces of which size they come and how requests are answered. Every message taken is echoed,
 * refused or left open; what is open is expired at the end. `make fuzz` builds and runs it.
 */
#include "http2.c"

static PyObject *paths, *type;

static void call(PyObject *object, const char *name, PyObject *result) {
  (void)object; (void)name;
  if (!result) {
    if (!PyErr_ExceptionMatches(PyExc_ConnectionError)) {
      PyErr_Print();
      abort();
    }
    PyErr_Clear();
  }
  Py_XDECREF(result);
}

static void answer_all(PyObject *connection, int how) {
  PyObject *requests = PyObject_CallMethod(connection, "take", NULL), *replies = PyList_New(0);
  for (Py_ssize_t i = 0; requests && i < PyList_GET_SIZE(requests); i++) {
    PyObject *request = PyList_GET_ITEM(requests, i);
    PyObject *stream = PyTuple_GET_ITEM(request, 0), *message = PyTuple_GET_ITEM(request, 2);
    PyObject *reply = (how + i) % 3 == 0   ? Py_BuildValue("(OOisO)", stream, message, 0, "", Py_None)
                      : (how + i) % 3 == 1 ? Py_BuildValue("(OOis((yy)))", stream, Py_None, 3, "100 % \xe9\x94\x99", "a", "b")
                                           : NULL;
    if (reply) PyList_Append(replies, reply);
    Py_XDECREF(reply);
    PyErr_Clear();
  }
  Py_XDECREF(requests);
  call(connection, "reply", PyObject_CallMethod(connection, "reply", "O", replies));
  Py_DECREF(replies);
  call(connection, "gone", PyObject_CallMethod(connection, "gone", NULL));
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc; (void)argv;
  Py_InitializeEx(0);
  PyObject *made = PyInit_http2();
  type = made ? PyObject_GetAttrString(made, "Connection") : NULL;
  paths = Py_BuildValue("{yi}", "/s/Echo", 0);
  if (!type || !paths) abort();
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  int how = data[0];
  size_t step = how & 1 ? 1 + (size_t)(how >> 1) : size;
  PyObject *args = PyTuple_Pack(1, paths);
  PyObject *limits = Py_BuildValue("{sisnsnsn}", "streams_max", 8, "message_max", (Py_ssize_t)4096, "header_max",
                                   (Py_ssize_t)1024, "budget", (Py_ssize_t)16384);
  PyObject *connection = PyObject_Call(type, args, limits);
  Py_DECREF(args);
  Py_DECREF(limits);
  if (!connection) abort();
  for (size_t at = 1; at < size; at += step) {
    size_t n = size - at < step ? size - at : step;
    call(connection, "feed", PyObject_CallMethod(connection, "feed", "y#d", data + at, (Py_ssize_t)n, (double)at));
    answer_all(connection, how);
    call(connection, "out", PyObject_CallMethod(connection, "out", "n", (Py_ssize_t)(how & 2 ? 100 : 1 << 20)));
  }
  if (how & 4) call(connection, "drain", PyObject_CallMethod(connection, "drain", NULL));
  call(connection, "expire", PyObject_CallMethod(connection, "expire", "d", 1e9));
  call(connection, "out", PyObject_CallMethod(connection, "out", NULL));
  Py_DECREF(connection);
  return 0;
}
