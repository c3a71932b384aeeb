/* gRPC's unary calls over HTTP/2 without I/O: bytes in, whole requests out, replies in, bytes out.
 *
 * nghttp2 owns HTTP/2 (framing, HPACK, flow control, floods of pings, settings and continuations). Ours is only gRPC's
 * thin layer (PROTOCOL-HTTP2.md of grpc): the five bytes before a message, its headers, trailers and percent-encoded
 * message, and the limits that keep one connection from taking the memory of all. stream.h: what is held; reply.h and
 * request.h: nghttp2's callbacks for what is sent and received; here: the Python type.
 * One Connection is used by one thread, under the interpreter's lock. Nothing here touches a socket or a clock.
 */
#include "request.h"

static PyObject *fail(Connection *c, const char *what, int code) {
  c->failed = true;
  if (!PyErr_Occurred()) PyErr_Format(PyExc_ConnectionError, "%s: %s", what, nghttp2_strerror(code));
  return NULL;
}

static PyObject *done(Connection *c, const char *what, int code) { return code ? fail(c, what, code) : Py_NewRef(Py_None); }

static int session_new(Connection *c, uint32_t streams_max, uint32_t window, uint32_t ack_max) {
  nghttp2_session_callbacks *callbacks = NULL;
  nghttp2_option *option = NULL;
  int failed = nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option);
  if (!failed) {
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_not_sent);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, ack_max);
    nghttp2_option_set_stream_reset_rate_limit(option, UINT32_MAX, UINT32_MAX); /* count_unanswered() is stricter */
    failed = nghttp2_session_server_new2(&c->session, callbacks, c, option);
  }
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_option_del(option);
  nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, streams_max},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)c->header_max},
  };
  return failed || nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 3) ||
         nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, (int32_t)window * 4);
}

/* The limits of a Connection; false, with ValueError, where they are none. */
static bool limits_of(Connection *c, PyObject *args, PyObject *kwargs, PyObject **paths, unsigned int numbers[3]) {
  static char *names[] = {"paths", "streams_max", "message_max", "header_max", "budget", "budget_all", "window", "ack_max",
                          "resets", "resets_rate", NULL};
  unsigned int resets = 1000, resets_rate = 200;
  c->message_max = 4 << 20;
  c->header_max = 16 << 10;
  c->budget = 32 << 20;
  c->budget_all = 256 << 20;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$InnnnIIII", names, &PyDict_Type, paths, &numbers[0], &c->message_max,
                                   &c->header_max, &c->budget, &c->budget_all, &numbers[1], &numbers[2], &resets, &resets_rate))
    return false;
  c->resets_left = c->resets = resets;
  c->resets_rate = resets_rate;
  bool fit = c->message_max >= 0 && c->message_max <= UINT32_MAX && c->header_max >= 0 && c->header_max <= INT32_MAX &&
             c->budget >= 0 && c->budget_all >= 0 && numbers[1] <= INT32_MAX / 4;
  if (!fit) PyErr_SetString(PyExc_ValueError, "a limit is out of range");
  return fit;
}

static int connection_init(Connection *c, PyObject *args, PyObject *kwargs) {
  PyObject *paths;
  unsigned int numbers[3] = {256, 1 << 20, 256}; /* streams, window, acknowledgements */
  if (c->paths) {
    PyErr_SetString(PyExc_RuntimeError, "a Connection is made once");
    return -1;
  }
  if (!limits_of(c, args, kwargs, &paths, numbers)) return -1;
  Py_INCREF(paths);
  c->paths = paths;
  if (!(c->cancelled = PyList_New(0))) return -1;
  int failed = session_new(c, numbers[0], numbers[1], numbers[2]);
  if (failed) PyErr_NoMemory();
  return failed ? -1 : 0;
}

static void connection_dealloc(Connection *c) {
  while (c->first) stream_free(c, c->first);
  nghttp2_session_del(c->session);
  Py_XDECREF(c->paths);
  Py_XDECREF(c->cancelled);
  Py_TYPE(c)->tp_free((PyObject *)c);
}

static bool usable(Connection *c) {
  if (c->session && !c->failed) return true;
  PyErr_SetString(PyExc_ConnectionError, "the connection has failed");
  return false;
}

PyDoc_STRVAR(feed_doc, "feed(data, now): take what came from the peer. Raises ConnectionError: send out() and close.");
static PyObject *connection_feed(Connection *c, PyObject *args) {
  Py_buffer data;
  if (!PyArg_ParseTuple(args, "y*d", &data, &c->now)) return NULL;
  ssize_t read = usable(c) ? nghttp2_session_mem_recv(c->session, data.buf, (size_t)data.len) : -1;
  PyBuffer_Release(&data);
  if (c->failed) return NULL;
  if (read < 0) return fail(c, "feed", (int)read);
  if (nghttp2_session_get_outbound_queue_size(c->session) > QUEUE_MAX) return fail(c, "feed", NGHTTP2_ERR_FLOODED);
  Py_RETURN_NONE;
}

static PyObject *request_of(Connection *c, Stream *s) {
  PyObject *message = PyBytes_FromStringAndSize((char *)s->body + PREFIX, (Py_ssize_t)(s->length - PREFIX));
  if (!message) return NULL;
  PyObject *metadata = s->metadata ? s->metadata : Py_None;
  PyObject *request = Py_BuildValue("(iiNLO)", (int)s->id, s->method, message, (long long)s->timeout_us, metadata);
  if (request) {
    s->taken = true;
    hold(c, s, s->length - PREFIX);
    body_drop(s);
    Py_CLEAR(s->metadata);
  }
  return request;
}

PyDoc_STRVAR(take_doc, "take() -> [(stream, method, message, timeout_us, metadata)]: whole requests not taken before.\n\n"
                       "method: index in paths; timeout_us: -1 for none; metadata: None or [(name, value)], bytes.");
static PyObject *connection_take(Connection *c, PyObject *none) {
  (void)none;
  PyObject *requests = PyList_New(0);
  for (Stream *s = c->first; requests && s; s = s->after) {
    if (!s->whole || s->taken || s->answered) continue;
    PyObject *request = request_of(c, s);
    if (!request || PyList_Append(requests, request)) Py_CLEAR(requests);
    Py_XDECREF(request);
  }
  return requests;
}

PyDoc_STRVAR(gone_doc, "gone() -> [stream]: taken requests that ended unanswered since the last call: the peer gave them up or broke them.");
static PyObject *connection_gone(Connection *c, PyObject *none) {
  (void)none;
  PyObject *gone = c->cancelled, *fresh = PyList_New(0);
  if (gone && fresh) c->cancelled = fresh;
  return gone && fresh ? gone : fresh;
}

PyDoc_STRVAR(reply_doc, "reply([(stream, message, status, text, trailers)]): answer requests; one that is gone is passed over.\n\n"
                        "message: bytes or None; status: gRPC's number; text: str; trailers: None or ((name, value), …), bytes.");
static PyObject *connection_reply(Connection *c, PyObject *replies) {
  if (!usable(c)) return NULL;
  PyObject *batch = PySequence_Fast(replies, "replies must be a sequence");
  if (!batch) return NULL;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(batch); i++) {
    int id, status;
    const char *text;
    Py_ssize_t text_n;
    PyObject *message, *trailers;
    PyObject *item = PySequence_Fast_GET_ITEM(batch, i);
    if (!PyTuple_Check(item) || !PyArg_ParseTuple(item, "iOis#O", &id, &message, &status, &text, &text_n, &trailers)) {
      if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "a reply is (stream, message, status, text, trailers)");
      goto wrong;
    }
    bool fits = message == Py_None || (PyBytes_Check(message) && PyBytes_GET_SIZE(message) <= UINT32_MAX);
    if (!fits || !trailers_fit(trailers)) {
      PyErr_SetString(PyExc_TypeError, "message is bytes or None; trailers are None or a tuple of pairs of bytes");
      goto wrong;
    }
    Stream *s = stream_of(c->session, id);
    if (!s || s->answered) continue;
    int failed = answer(c, s, message == Py_None ? NULL : message, status, text, (size_t)text_n, trailers == Py_None ? NULL : trailers);
    if (failed) {
      fail(c, "reply", failed);
      goto wrong;
    }
  }
  Py_DECREF(batch);
  Py_RETURN_NONE;
wrong:
  Py_DECREF(batch);
  return NULL;
}

PyDoc_STRVAR(out_doc, "out(room=262144) -> bytes: what to send now, a little over `room` at most; empty for nothing.");
static PyObject *connection_out(Connection *c, PyObject *args) {
  Py_ssize_t room = 1 << 18, length = 0, size = OUT_STEP;
  if (!PyArg_ParseTuple(args, "|n", &room)) return NULL;
  PyObject *out = NULL;
  while (length < room && c->session) {
    const uint8_t *bytes;
    ssize_t n = nghttp2_session_mem_send(c->session, &bytes);
    if (n < 0) {
      Py_XDECREF(out);
      return fail(c, "out", (int)n);
    }
    if (!n) break;
    if (!out && !(out = PyBytes_FromStringAndSize(NULL, size))) return NULL;
    if (length + n > size) {
      while (size < length + n) size *= 2;
      if (_PyBytes_Resize(&out, size)) return NULL;
    }
    memcpy(PyBytes_AS_STRING(out) + length, bytes, (size_t)n);
    length += n;
  }
  if (!out) return PyBytes_FromStringAndSize(NULL, 0);
  _PyBytes_Resize(&out, length);
  return out;
}

PyDoc_STRVAR(notice_doc, "notice(): tell the peer to open its next requests elsewhere; those that are on their way are still taken.");
static PyObject *connection_notice(Connection *c, PyObject *none) {
  (void)none;
  return usable(c) ? done(c, "notice", nghttp2_submit_shutdown_notice(c->session)) : NULL;
}

PyDoc_STRVAR(drain_doc, "drain(): tell the peer to open no more requests (GOAWAY); those that are open are still answered.");
static PyObject *connection_drain(Connection *c, PyObject *none) {
  (void)none;
  if (!usable(c)) return NULL;
  int32_t last = nghttp2_session_get_last_proc_stream_id(c->session);
  return done(c, "drain", nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0));
}

PyDoc_STRVAR(expire_doc, "expire(now, arrival, reading) -> int: end requests that have been arriving for more than `arrival` "
                         "seconds and replies not read `reading` seconds after; how many.");
static PyObject *connection_expire(Connection *c, PyObject *args) {
  double now, arrival, reading;
  long expired = 0;
  if (!PyArg_ParseTuple(args, "ddd", &now, &arrival, &reading) || !usable(c)) return NULL;
  for (Stream *s = c->first; s; s = s->after) {
    int failed = 0;
    if (s->answered && !s->answered_at) {
      s->answered_at = now;
    } else if (s->answered && now - s->answered_at > reading) {
      failed = nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
      expired++;
    } else if (!s->answered && !s->whole && now - s->opened > arrival) {
      failed = refuse(c, s, CANCELLED_STATUS, "the request took too long to arrive");
      expired++;
    }
    if (failed) return fail(c, "expire", failed);
  }
  return PyLong_FromLong(expired);
}

static PyObject *get_open(Connection *c, void *unused) { (void)unused; return PyLong_FromSsize_t(c->open); }
static PyObject *get_held(Connection *c, void *unused) { (void)unused; return PyLong_FromSsize_t(c->held); }
static PyObject *get_greeted(Connection *c, void *unused) { (void)unused; return PyBool_FromLong(c->greeted); }
static PyObject *get_finished(Connection *c, void *unused) {
  (void)unused;
  bool alive = c->session && !c->failed && (nghttp2_session_want_read(c->session) || nghttp2_session_want_write(c->session));
  return PyBool_FromLong(!alive);
}

static PyGetSetDef connection_properties[] = {
    {"open", (getter)get_open, NULL, "requests that are open", NULL},
    {"held", (getter)get_held, NULL, "bytes of requests not answered and of replies not sent", NULL},
    {"greeted", (getter)get_greeted, NULL, "whether the peer has said that it speaks HTTP/2", NULL},
    {"finished", (getter)get_finished, NULL, "whether nothing more is to be read or sent: close", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef connection_methods[] = {
    {"feed", (PyCFunction)connection_feed, METH_VARARGS, feed_doc},
    {"take", (PyCFunction)connection_take, METH_NOARGS, take_doc},
    {"gone", (PyCFunction)connection_gone, METH_NOARGS, gone_doc},
    {"reply", (PyCFunction)connection_reply, METH_O, reply_doc},
    {"out", (PyCFunction)connection_out, METH_VARARGS, out_doc},
    {"notice", (PyCFunction)connection_notice, METH_NOARGS, notice_doc},
    {"drain", (PyCFunction)connection_drain, METH_NOARGS, drain_doc},
    {"expire", (PyCFunction)connection_expire, METH_VARARGS, expire_doc},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject connection_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "server.native.http2.Connection",
    .tp_basicsize = sizeof(Connection),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = PyDoc_STR("Connection(paths, *, …): the server's side of one HTTP/2 connection that carries unary gRPC calls.\n\n"
                        "paths: dict of the served b'/service/Method' to a number."),
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)connection_init,
    .tp_dealloc = (destructor)connection_dealloc,
    .tp_methods = connection_methods,
    .tp_getset = connection_properties,
};

PyDoc_STRVAR(held_doc, "held() -> int: bytes held by all connections of the process.");
static PyObject *module_held(PyObject *self, PyObject *none) { (void)self; (void)none; return PyLong_FromSsize_t(held_all); }
static PyMethodDef functions[] = {{"held", module_held, METH_NOARGS, held_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "http2", "gRPC's unary calls over HTTP/2 without I/O, on nghttp2.", -1, functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_http2(void) {
  if (PyType_Ready(&connection_type) < 0) return NULL;
  PyObject *made = PyModule_Create(&module);
  if (made && (PyModule_AddObjectRef(made, "Connection", (PyObject *)&connection_type) < 0 ||
               PyModule_AddStringConstant(made, "NGHTTP2", nghttp2_version(0)->version_str) < 0))
    Py_CLEAR(made);
  return made;
}
