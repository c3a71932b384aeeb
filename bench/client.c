/* A client for load: unary gRPC calls over one HTTP/2 connection without I/O, on nghttp2. The counterpart of
 * server/native/http2.c, so that what asks is not slower than what is measured. Only for benchmarks: it trusts the server.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX 5
#define WINDOW (1 << 24)

typedef struct Stream {
  struct Stream *before, *after;
  PyObject *message;      /* what is asked */
  size_t sent;
  int status;             /* grpc-status, -1 while unknown */
  uint8_t *body;
  size_t length, room;
} Stream;

typedef struct {
  PyObject_HEAD
  nghttp2_session *session;
  PyObject *path, *authority, *answers;
  Stream *first;
  Py_ssize_t open;
} Client;

static void stream_free(Client *c, Stream *s) {
  if (s->before) s->before->after = s->after; else c->first = s->after;
  if (s->after) s->after->before = s->before;
  c->open--;
  Py_XDECREF(s->message);
  free(s->body);
  free(s);
}

static ssize_t read_request(nghttp2_session *session, int32_t id, uint8_t *out, size_t room, uint32_t *flags,
                            nghttp2_data_source *source, void *user) {
  (void)session; (void)id; (void)user;
  Stream *s = source->ptr;
  size_t message = (size_t)PyBytes_GET_SIZE(s->message), n = 0;
  if (s->sent < PREFIX) {
    uint8_t prefix[PREFIX] = {0, (uint8_t)(message >> 24), (uint8_t)(message >> 16), (uint8_t)(message >> 8), (uint8_t)message};
    n = PREFIX - s->sent < room ? PREFIX - s->sent : room;
    memcpy(out, prefix + s->sent, n);
    s->sent += n;
  }
  if (s->sent >= PREFIX) {
    size_t left = PREFIX + message - s->sent, take = left < room - n ? left : room - n;
    memcpy(out + n, PyBytes_AS_STRING(s->message) + (s->sent - PREFIX), take);
    s->sent += take;
    n += take;
  }
  if (s->sent == PREFIX + message) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return (ssize_t)n;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *user) {
  (void)flags; (void)user; (void)value_n;
  Stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (s && name_n == 11 && !memcmp(name, "grpc-status", 11)) s->status = atoi((const char *)value);
  return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t n, void *user) {
  (void)flags; (void)user;
  Stream *s = nghttp2_session_get_stream_user_data(session, id);
  if (!s) return 0;
  if (s->length + n > s->room) {
    size_t room = (s->length + n) * 2;
    uint8_t *grown = realloc(s->body, room);
    if (!grown) return NGHTTP2_ERR_CALLBACK_FAILURE;
    s->body = grown;
    s->room = room;
  }
  memcpy(s->body + s->length, bytes, n);
  s->length += n;
  return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user) {
  Client *c = user;
  Stream *s = nghttp2_session_get_stream_user_data(session, id);
  if (!s) return 0;
  nghttp2_session_set_stream_user_data(session, id, NULL);
  int status = code == NGHTTP2_NO_ERROR || s->status >= 0 ? s->status : -1;
  PyObject *answer = s->length >= PREFIX
                         ? Py_BuildValue("(iiy#)", (int)id, status, (char *)s->body + PREFIX, (Py_ssize_t)(s->length - PREFIX))
                         : Py_BuildValue("(iiy#)", (int)id, status, "", (Py_ssize_t)0);
  int failed = !answer || PyList_Append(c->answers, answer);
  Py_XDECREF(answer);
  stream_free(c, s);
  return failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int client_init(Client *c, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"path", "authority", NULL};
  PyObject *path, *authority;
  if (c->path) {
    PyErr_SetString(PyExc_RuntimeError, "a Client is made once");
    return -1;
  }
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "SS", names, &path, &authority)) return -1;
  c->path = Py_NewRef(path);
  c->authority = Py_NewRef(authority);
  if (!(c->answers = PyList_New(0))) return -1;
  nghttp2_session_callbacks *callbacks;
  if (nghttp2_session_callbacks_new(&callbacks)) return -1;
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  int failed = nghttp2_session_client_new(&c->session, callbacks, c);
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
  failed = failed || nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 1) ||
           nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, WINDOW);
  if (failed) PyErr_NoMemory();
  return failed ? -1 : 0;
}

static void client_dealloc(Client *c) {
  while (c->first) stream_free(c, c->first);
  nghttp2_session_del(c->session);
  Py_XDECREF(c->path);
  Py_XDECREF(c->authority);
  Py_XDECREF(c->answers);
  Py_TYPE(c)->tp_free((PyObject *)c);
}

static bool made(Client *c) {
  if (!c->session) PyErr_SetString(PyExc_RuntimeError, "the Client is not made");
  return c->session;
}

PyDoc_STRVAR(ask_doc, "ask(message) -> stream: call with these bytes.");
static PyObject *client_ask(Client *c, PyObject *message) {
  if (!made(c)) return NULL;
  if (!PyBytes_Check(message)) return PyErr_Format(PyExc_TypeError, "message must be bytes");
  Stream *s = calloc(1, sizeof *s);
  if (!s) return PyErr_NoMemory();
#define NV(n, v, v_n) {(uint8_t *)(n), (uint8_t *)(v), sizeof(n) - 1, (size_t)(v_n), NGHTTP2_NV_FLAG_NONE}
  nghttp2_nv nv[] = {
      NV(":method", "POST", 4), NV(":scheme", "http", 4),
      NV(":path", PyBytes_AS_STRING(c->path), PyBytes_GET_SIZE(c->path)),
      NV(":authority", PyBytes_AS_STRING(c->authority), PyBytes_GET_SIZE(c->authority)),
      NV("te", "trailers", 8), NV("content-type", "application/grpc", 16),
  };
  nghttp2_data_provider provider = {.source = {.ptr = s}, .read_callback = read_request};
  Py_INCREF(message);
  s->message = message;
  s->status = -1;
  s->after = c->first;
  if (c->first) c->first->before = s;
  c->first = s;
  c->open++;
  int32_t id = nghttp2_submit_request(c->session, NULL, nv, sizeof nv / sizeof *nv, &provider, s);
  if (id < 0) {
    stream_free(c, s);
    return PyErr_Format(PyExc_ConnectionError, "ask: %s", nghttp2_strerror(id));
  }
  return PyLong_FromLong(id);
}

PyDoc_STRVAR(feed_doc, "feed(data) -> [(stream, status, reply)]: what came; status -1 where the call was broken off.");
static PyObject *client_feed(Client *c, PyObject *args) {
  Py_buffer data;
  if (!made(c) || !PyArg_ParseTuple(args, "y*", &data)) return NULL;
  ssize_t read = nghttp2_session_mem_recv(c->session, data.buf, (size_t)data.len);
  PyBuffer_Release(&data);
  if (read < 0) return PyErr_Format(PyExc_ConnectionError, "feed: %s", nghttp2_strerror((int)read));
  PyObject *answers = c->answers, *fresh = PyList_New(0);
  if (!fresh) return NULL;
  c->answers = fresh;
  return answers;
}

PyDoc_STRVAR(out_doc, "out() -> bytes: what to send now.");
static PyObject *client_out(Client *c, PyObject *none) {
  (void)none;
  if (!made(c)) return NULL;
  Py_ssize_t length = 0, size = 65536;
  PyObject *out = PyBytes_FromStringAndSize(NULL, size);
  while (out) {
    const uint8_t *bytes;
    ssize_t n = nghttp2_session_mem_send(c->session, &bytes);
    if (n < 0) {
      Py_DECREF(out);
      return PyErr_Format(PyExc_ConnectionError, "out: %s", nghttp2_strerror((int)n));
    }
    if (!n) break;
    if (length + n > size) {
      while (size < length + n) size *= 2;
      if (_PyBytes_Resize(&out, size)) return NULL;
    }
    memcpy(PyBytes_AS_STRING(out) + length, bytes, (size_t)n);
    length += n;
  }
  if (out) _PyBytes_Resize(&out, length);
  return out;
}

static PyObject *get_open(Client *c, void *unused) { (void)unused; return PyLong_FromSsize_t(c->open); }
static PyGetSetDef client_properties[] = {{"open", (getter)get_open, NULL, "calls not answered", NULL}, {NULL, NULL, NULL, NULL, NULL}};
static PyMethodDef client_methods[] = {
    {"ask", (PyCFunction)client_ask, METH_O, ask_doc},
    {"feed", (PyCFunction)client_feed, METH_VARARGS, feed_doc},
    {"out", (PyCFunction)client_out, METH_NOARGS, out_doc},
    {NULL, NULL, 0, NULL},
};
static PyTypeObject client_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "bench.client.Client",
    .tp_basicsize = sizeof(Client),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = PyDoc_STR("Client(path, authority): one connection that calls one method."),
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)client_init,
    .tp_dealloc = (destructor)client_dealloc,
    .tp_methods = client_methods,
    .tp_getset = client_properties,
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "client", "Unary gRPC calls for load, without I/O.", -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_client(void) {
  if (PyType_Ready(&client_type) < 0) return NULL;
  PyObject *client = PyModule_Create(&module);
  if (client && PyModule_AddObjectRef(client, "Client", (PyObject *)&client_type) < 0) Py_CLEAR(client);
  return client;
}
