/* Coverage-guided fuzzing of http2.c: libFuzzer's bytes are what a peer sends, under AddressSanitizer.
 *
 * The first byte says in pieces of which size they come and how requests are answered. Every message taken is echoed,
 * refused or left open; what is open expires now and then and at the end. Of a connection that is gone nothing is held,
 * and none holds more than its limits say. `make fuzz` builds and runs it.
 */
#include "http2.c"

#define STREAMS 8
#define BUDGET 16384
#define MESSAGE 4096
#define HEADER 1024

static PyObject *paths, *type;
static char text[5000];

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
                      : (how + i) % 3 == 1 ? Py_BuildValue("(OOis((yy)))", stream, Py_None, 3, how & 8 ? text : "100 % \xe9\x94\x99", "a", "b")
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
  for (size_t i = 0; i < sizeof text - 1; i++) text[i] = "\xe9\x94\x99"[i % 3];
  text[sizeof text - 2] = 0; /* whole characters */
  return 0;
}

static void expire(PyObject *connection, double now) {
  call(connection, "expire", PyObject_CallMethod(connection, "expire", "ddd", now, 500.0, 500.0));
}

static void check(Connection *c) {
  size_t count = 0, bytes = 0;
  for (Stream *s = c->first; s; s = s->after) {
    count++;
    bytes += s->held;
    if (s->length > MESSAGE + PREFIX || (s->after && s->after->before != s)) abort();
  }
  if (count != (size_t)c->open || bytes != (size_t)c->held || c->held != held_all) abort();
  if (count > STREAMS || bytes > 2 * BUDGET + STREAMS * (HEADER + MESSAGE)) abort();
}

static PyObject *connection_new(void) {
  PyObject *args = PyTuple_Pack(1, paths);
  PyObject *limits = Py_BuildValue("{sisnsnsnsi}", "streams_max", STREAMS, "message_max", (Py_ssize_t)MESSAGE, "header_max",
                                   (Py_ssize_t)HEADER, "budget", (Py_ssize_t)BUDGET, "resets", 20);
  PyObject *connection = PyObject_Call(type, args, limits);
  Py_DECREF(args);
  Py_DECREF(limits);
  if (!connection) abort();
  return connection;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  int how = data[0];
  size_t step = how & 1 ? 1 + (size_t)(how >> 1) : size;
  PyObject *connection = connection_new();
  for (size_t at = 1; at < size; at += step) {
    size_t n = size - at < step ? size - at : step;
    call(connection, "feed", PyObject_CallMethod(connection, "feed", "y#d", data + at, (Py_ssize_t)n, (double)at));
    check((Connection *)connection);
    if (how & 16) expire(connection, (double)at);
    if (how & 64 && at > size / 4) call(connection, "notice", PyObject_CallMethod(connection, "notice", NULL));
    if (how & 32 && at > size / 2) call(connection, "drain", PyObject_CallMethod(connection, "drain", NULL));
    answer_all(connection, how);
    call(connection, "out", PyObject_CallMethod(connection, "out", "n", (Py_ssize_t)(how & 2 ? 100 : 1 << 20)));
    check((Connection *)connection);
  }
  if (how & 4) call(connection, "drain", PyObject_CallMethod(connection, "drain", NULL));
  expire(connection, 1e6);
  expire(connection, 2e6);
  call(connection, "out", PyObject_CallMethod(connection, "out", NULL));
  Py_DECREF(connection);
  if (held_all || Py_REFCNT(paths) != 1) abort();
  return 0;
}
