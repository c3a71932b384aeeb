/* gRPC's unary calls over HTTP/2 without I/O: bytes in, whole requests out, replies in, bytes out.
 *
 * nghttp2 owns HTTP/2 (framing, HPACK, flow control, floods of resets, pings, settings and continuations). Here is only
 * gRPC's thin layer (PROTOCOL-HTTP2.md of grpc): the five bytes before a message, its headers, trailers and
 * percent-encoded message, and the limits that keep one connection from taking the memory of all.
 * One Connection is used by one thread, under the interpreter's lock. Nothing here touches a socket or a clock.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX 5           /* compressed flag, length */
#define METADATA_MAX 64    /* entries kept of one request */
#define TRAILERS_MAX 8
#define OUT_STEP 65536

enum { CANCELLED_STATUS = 1, INTERNAL = 13, UNIMPLEMENTED = 12, RESOURCE_EXHAUSTED = 8 };

typedef struct Stream {
  struct Stream *before, *after; /* open streams of the connection, the oldest first */
  int32_t id;
  int method;                 /* index of the path, -1 unknown */
  int64_t timeout_us;         /* -1: none */
  bool post, grpc, compressed, bad_timeout, too_large, answered, taken, whole;
  size_t header_bytes;
  PyObject *metadata;         /* list of (name, value), or NULL */
  uint8_t *body;              /* as received: prefix and message */
  size_t length, room;
  PyObject *message;          /* bytes of the reply, or NULL */
  size_t sent;                /* of prefix and reply */
  int status;
  char *text;                 /* percent-encoded grpc-message, or NULL */
  PyObject *trailers;         /* tuple of (name, value), or NULL */
  double opened;
} Stream;

typedef struct {
  PyObject_HEAD
  nghttp2_session *session;
  PyObject *paths;            /* dict: path -> index */
  PyObject *cancelled;        /* list of ids of taken streams that the peer gave up */
  Stream *first, *last;
  Py_ssize_t open, buffered, message_max, header_max, budget;
  double now;
  bool failed;
} Connection;

/* ---- streams ---- */

static Stream *stream_of(nghttp2_session *session, int32_t id) { return nghttp2_session_get_stream_user_data(session, id); }

static void stream_free(Connection *c, Stream *s) {
  if (s->before) s->before->after = s->after; else c->first = s->after;
  if (s->after) s->after->before = s->before; else c->last = s->before;
  c->open--;
  c->buffered -= (Py_ssize_t)s->room;
  free(s->body);
  free(s->text);
  Py_XDECREF(s->metadata);
  Py_XDECREF(s->message);
  Py_XDECREF(s->trailers);
  free(s);
}

static void body_drop(Connection *c, Stream *s) {
  c->buffered -= (Py_ssize_t)s->room;
  free(s->body);
  s->body = NULL;
  s->length = s->room = 0;
}

static int body_add(Connection *c, Stream *s, const uint8_t *bytes, size_t n) {
  if (s->length + n > s->room) {
    size_t room = s->room ? s->room * 2 : 1024;
    while (room < s->length + n) room *= 2;
    uint8_t *grown = realloc(s->body, room);
    if (!grown) return -1;
    c->buffered += (Py_ssize_t)(room - s->room);
    s->body = grown;
    s->room = room;
  }
  memcpy(s->body + s->length, bytes, n);
  s->length += n;
  return 0;
}

/* ---- replies ---- */

static nghttp2_nv pair(const char *name, size_t name_n, const char *value, size_t value_n) {
  nghttp2_nv nv = {(uint8_t *)name, (uint8_t *)value, name_n, value_n, NGHTTP2_NV_FLAG_NONE};
  return nv;
}
#define PAIR(name, value) pair(name, sizeof(name) - 1, value, sizeof(value) - 1)

/* grpc-status, grpc-message and the trailing metadata; how many. `digits` holds the status. */
static size_t trailer_pairs(Stream *s, nghttp2_nv *nv, char digits[12]) {
  size_t n = 0;
  int length = snprintf(digits, 12, "%d", s->status);
  nv[n++] = pair("grpc-status", 11, digits, (size_t)length);
  if (s->text) nv[n++] = pair("grpc-message", 12, s->text, strlen(s->text));
  Py_ssize_t extra = s->trailers ? PyTuple_GET_SIZE(s->trailers) : 0;
  for (Py_ssize_t i = 0; i < extra; i++) {
    PyObject *item = PyTuple_GET_ITEM(s->trailers, i), *name = PyTuple_GET_ITEM(item, 0), *value = PyTuple_GET_ITEM(item, 1);
    nv[n++] = pair(PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name), PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value));
  }
  return n;
}

static ssize_t read_reply(nghttp2_session *session, int32_t id, uint8_t *out, size_t room, uint32_t *flags,
                          nghttp2_data_source *source, void *user) {
  (void)user; (void)source;
  Stream *s = stream_of(session, id);
  if (!s || !s->message) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  size_t message = (size_t)PyBytes_GET_SIZE(s->message), total = PREFIX + message, n = 0;
  if (s->sent < PREFIX) {
    uint8_t prefix[PREFIX] = {0, (uint8_t)(message >> 24), (uint8_t)(message >> 16), (uint8_t)(message >> 8), (uint8_t)message};
    n = PREFIX - s->sent < room ? PREFIX - s->sent : room;
    memcpy(out, prefix + s->sent, n);
    s->sent += n;
  }
  if (s->sent >= PREFIX && n < room) {
    size_t left = total - s->sent, take = left < room - n ? left : room - n;
    memcpy(out + n, PyBytes_AS_STRING(s->message) + (s->sent - PREFIX), take);
    s->sent += take;
    n += take;
  }
  if (s->sent == total) {
    nghttp2_nv nv[2 + TRAILERS_MAX];
    char digits[12];
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    if (nghttp2_submit_trailer(session, id, nv, trailer_pairs(s, nv, digits))) return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  return (ssize_t)n;
}

/* grpc-message: every byte outside printable ASCII, and '%', as %XX. */
static char *percent_encoded(const char *text, size_t n) {
  static const char hex[] = "0123456789ABCDEF";
  char *out = malloc(3 * n + 1), *at = out;
  if (!out) return NULL;
  for (size_t i = 0; i < n; i++) {
    unsigned char byte = (unsigned char)text[i];
    if (byte < 0x20 || byte > 0x7e || byte == '%') {
      *at++ = '%'; *at++ = hex[byte >> 4]; *at++ = hex[byte & 15];
    } else {
      *at++ = (char)byte;
    }
  }
  *at = 0;
  return out;
}

/* Answer one stream; message NULL for trailers alone. 0, or nghttp2's error. */
static int answer(Connection *c, Stream *s, PyObject *message, int status, const char *text, size_t text_n, PyObject *trailers) {
  s->answered = true;
  s->status = status;
  body_drop(c, s);
  if (text_n && !(s->text = percent_encoded(text, text_n))) return NGHTTP2_ERR_NOMEM;
  Py_XINCREF(trailers);
  s->trailers = trailers;
  nghttp2_nv nv[4 + TRAILERS_MAX];
  nv[0] = PAIR(":status", "200");
  nv[1] = PAIR("content-type", "application/grpc");
  if (!message) {
    char digits[12];
    size_t n = 2 + trailer_pairs(s, nv + 2, digits);
    return nghttp2_submit_response(c->session, s->id, nv, n, NULL);
  }
  Py_INCREF(message);
  s->message = message;
  nghttp2_data_provider provider = {.source = {.ptr = NULL}, .read_callback = read_reply};
  return nghttp2_submit_response(c->session, s->id, nv, 2, &provider);
}

static int refuse(Connection *c, Stream *s, int status, const char *text) {
  return answer(c, s, NULL, status, text, strlen(text), NULL);
}

static int refuse_http(Connection *c, Stream *s, const char *status) {
  s->answered = true;
  body_drop(c, s);
  nghttp2_nv nv = pair(":status", 7, status, 3);
  return nghttp2_submit_response(c->session, s->id, &nv, 1, NULL);
}

/* ---- what the peer sends ---- */

/* grpc-timeout: at most 8 digits and a unit, in µs; -2 where it is none. */
static int64_t timeout_of(const uint8_t *text, size_t n) {
  if (n < 2 || n > 9) return -2;
  int64_t value = 0;
  for (size_t i = 0; i < n - 1; i++) {
    if (text[i] < '0' || text[i] > '9') return -2;
    value = value * 10 + (text[i] - '0');
  }
  switch (text[n - 1]) {
    case 'H': return value * 3600 * 1000000;
    case 'M': return value * 60 * 1000000;
    case 'S': return value * 1000000;
    case 'm': return value * 1000;
    case 'u': return value;
    case 'n': return value / 1000;
  }
  return -2;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  Connection *c = user;
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  Stream *s = calloc(1, sizeof *s);
  if (!s) return NGHTTP2_ERR_CALLBACK_FAILURE;
  s->id = frame->hd.stream_id;
  s->method = -1;
  s->timeout_us = -1;
  s->opened = c->now;
  s->before = c->last;
  if (c->last) c->last->after = s; else c->first = s;
  c->last = s;
  c->open++;
  nghttp2_session_set_stream_user_data(session, s->id, s);
  return 0;
}

#define IS(text) (name_n == sizeof(text) - 1 && !memcmp(name, text, sizeof(text) - 1))

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *user) {
  Connection *c = user;
  Stream *s = stream_of(session, frame->hd.stream_id);
  (void)flags;
  if (!s) return 0;
  s->header_bytes += name_n + value_n + 32; /* RFC 9113 6.5.2 */
  if (s->header_bytes > (size_t)c->header_max) {
    s->too_large = true;
    return 0;
  }
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0; /* trailers of a request say nothing to us */
  if (IS(":path")) {
    PyObject *path = PyBytes_FromStringAndSize((const char *)value, (Py_ssize_t)value_n);
    if (!path) return NGHTTP2_ERR_CALLBACK_FAILURE;
    PyObject *index = PyDict_GetItemWithError(c->paths, path);
    Py_DECREF(path);
    if (index) s->method = (int)PyLong_AsLong(index);
    else if (PyErr_Occurred()) return NGHTTP2_ERR_CALLBACK_FAILURE;
  } else if (IS(":method")) {
    s->post = value_n == 4 && !memcmp(value, "POST", 4);
  } else if (IS("content-type")) {
    s->grpc = value_n >= 16 && !memcmp(value, "application/grpc", 16) &&
              (value_n == 16 || value[16] == '+' || value[16] == ';');
  } else if (IS("grpc-timeout")) {
    s->timeout_us = timeout_of(value, value_n);
    s->bad_timeout = s->timeout_us == -2;
  } else if (IS("grpc-encoding")) {
    s->compressed = !(value_n == 8 && !memcmp(value, "identity", 8));
  } else if (name_n && name[0] != ':' && !IS("te") && !IS("user-agent") && !IS("grpc-accept-encoding") && !IS("accept-encoding")) {
    if (!s->metadata && !(s->metadata = PyList_New(0))) return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (PyList_GET_SIZE(s->metadata) >= METADATA_MAX) {
      s->too_large = true;
      return 0;
    }
    PyObject *item = Py_BuildValue("(y#y#)", name, (Py_ssize_t)name_n, value, (Py_ssize_t)value_n);
    int failed = !item || PyList_Append(s->metadata, item);
    Py_XDECREF(item);
    if (failed) return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t n, void *user) {
  Connection *c = user;
  Stream *s = stream_of(session, id);
  (void)flags;
  if (!s || s->answered) return 0;
  if (s->length + n > (size_t)c->message_max + PREFIX)
    return refuse(c, s, RESOURCE_EXHAUSTED, "the message is too large") ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
  if (c->buffered + (Py_ssize_t)n > c->budget)
    return refuse(c, s, RESOURCE_EXHAUSTED, "too much is being sent on this connection") ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
  return body_add(c, s, bytes, n) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* A request's headers are complete: refuse at once what never can be served. */
static int check_headers(Connection *c, Stream *s) {
  if (s->too_large) return refuse(c, s, RESOURCE_EXHAUSTED, "the headers are too large");
  if (!s->post) return refuse_http(c, s, "405");
  if (!s->grpc) return refuse_http(c, s, "415");
  if (s->method < 0) return refuse(c, s, UNIMPLEMENTED, "unknown method");
  if (s->compressed) return refuse(c, s, UNIMPLEMENTED, "messages must not be compressed");
  if (s->bad_timeout) return refuse(c, s, INTERNAL, "grpc-timeout cannot be read");
  return 0;
}

static int check_message(Connection *c, Stream *s) {
  if (s->length < PREFIX) return refuse(c, s, INTERNAL, "the request has no message");
  size_t length = (size_t)s->body[1] << 24 | (size_t)s->body[2] << 16 | (size_t)s->body[3] << 8 | s->body[4];
  if (s->body[0] == 1) return refuse(c, s, UNIMPLEMENTED, "messages must not be compressed");
  if (s->body[0] || length + PREFIX != s->length) return refuse(c, s, INTERNAL, "the request is not one message");
  s->whole = true;
  return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  Connection *c = user;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  Stream *s = stream_of(session, frame->hd.stream_id);
  if (!s) return 0;
  int failed = 0;
  if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) failed = check_headers(c, s);
  if (!failed && !s->answered && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) failed = check_message(c, s);
  return failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user) {
  Connection *c = user;
  Stream *s = stream_of(session, id);
  (void)code;
  if (!s) return 0;
  nghttp2_session_set_stream_user_data(session, id, NULL);
  int failed = 0;
  if (s->taken && !s->answered) {
    PyObject *number = PyLong_FromLong(id);
    failed = !number || PyList_Append(c->cancelled, number);
    Py_XDECREF(number);
  }
  stream_free(c, s);
  return failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* ---- Connection ---- */

static PyObject *fail(Connection *c, const char *what, int code) {
  c->failed = true;
  if (!PyErr_Occurred()) PyErr_Format(PyExc_ConnectionError, "%s: %s", what, nghttp2_strerror(code));
  return NULL;
}

static int session_new(Connection *c, uint32_t streams_max, uint32_t window, uint32_t ack_max, uint64_t resets, uint64_t resets_rate) {
  nghttp2_session_callbacks *callbacks = NULL;
  nghttp2_option *option = NULL;
  int failed = nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option);
  if (!failed) {
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, ack_max);
    nghttp2_option_set_stream_reset_rate_limit(option, resets, resets_rate);
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

static int connection_init(Connection *c, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"paths", "streams_max", "message_max", "header_max", "budget", "window", "ack_max", "resets", "resets_rate", NULL};
  PyObject *paths;
  unsigned int streams_max = 256, window = 1 << 20, ack_max = 256;
  unsigned long long resets = 1000, resets_rate = 33;
  if (c->session) {
    PyErr_SetString(PyExc_RuntimeError, "a Connection is made once");
    return -1;
  }
  c->message_max = 4 << 20;
  c->header_max = 16 << 10;
  c->budget = 16 << 20;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$InnnIIKK", names, &PyDict_Type, &paths, &streams_max, &c->message_max,
                                   &c->header_max, &c->budget, &window, &ack_max, &resets, &resets_rate))
    return -1;
  Py_INCREF(paths);
  c->paths = paths;
  if (!(c->cancelled = PyList_New(0))) return -1;
  if (session_new(c, streams_max, window, ack_max, resets, resets_rate)) {
    PyErr_NoMemory();
    return -1;
  }
  return 0;
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
  Py_RETURN_NONE;
}

static PyObject *request_of(Connection *c, Stream *s) {
  PyObject *message = PyBytes_FromStringAndSize((char *)s->body + PREFIX, (Py_ssize_t)(s->length - PREFIX));
  if (!message) return NULL;
  PyObject *metadata = s->metadata ? s->metadata : Py_None;
  PyObject *request = Py_BuildValue("(iiNLO)", (int)s->id, s->method, message, (long long)s->timeout_us, metadata);
  if (request) {
    s->taken = true;
    body_drop(c, s);
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

PyDoc_STRVAR(gone_doc, "gone() -> [stream]: taken requests that the peer gave up since the last call.");
static PyObject *connection_gone(Connection *c, PyObject *none) {
  (void)none;
  PyObject *gone = c->cancelled, *fresh = PyList_New(0);
  if (!fresh) return NULL;
  c->cancelled = fresh;
  return gone;
}

/* Trailing metadata is a tuple of at most TRAILERS_MAX (bytes, bytes). */
static bool trailers_fit(PyObject *trailers) {
  if (trailers == Py_None) return true;
  if (!PyTuple_Check(trailers) || PyTuple_GET_SIZE(trailers) > TRAILERS_MAX) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(trailers); i++) {
    PyObject *item = PyTuple_GET_ITEM(trailers, i);
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2) return false;
    if (!PyBytes_Check(PyTuple_GET_ITEM(item, 0)) || !PyBytes_Check(PyTuple_GET_ITEM(item, 1))) return false;
  }
  return true;
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
    if ((message != Py_None && !PyBytes_Check(message)) || !trailers_fit(trailers)) {
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

PyDoc_STRVAR(out_doc, "out(room=1048576) -> bytes: what to send now, a little over `room` at most; empty for nothing.");
static PyObject *connection_out(Connection *c, PyObject *args) {
  Py_ssize_t room = 1 << 20, length = 0, size = OUT_STEP;
  if (!PyArg_ParseTuple(args, "|n", &room)) return NULL;
  PyObject *out = PyBytes_FromStringAndSize(NULL, size);
  while (out && length < room && c->session) {
    const uint8_t *bytes;
    ssize_t n = nghttp2_session_mem_send(c->session, &bytes);
    if (n < 0) {
      Py_DECREF(out);
      return fail(c, "out", (int)n);
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

PyDoc_STRVAR(drain_doc, "drain(): tell the peer to open no more requests (GOAWAY); those that are open are still answered.");
static PyObject *connection_drain(Connection *c, PyObject *none) {
  (void)none;
  if (!usable(c)) return NULL;
  int32_t last = nghttp2_session_get_last_proc_stream_id(c->session);
  int failed = nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
  if (failed) return fail(c, "drain", failed);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(expire_doc, "expire(before) -> int: refuse requests opened before a time and still not whole; how many.");
static PyObject *connection_expire(Connection *c, PyObject *args) {
  double before;
  long expired = 0;
  if (!PyArg_ParseTuple(args, "d", &before) || !usable(c)) return NULL;
  for (Stream *s = c->first; s && s->opened < before; s = s->after) {
    if (s->whole) continue;
    int failed = s->answered ? 0 : refuse(c, s, CANCELLED_STATUS, "the request took too long to arrive");
    if (!failed) failed = nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
    if (failed) return fail(c, "expire", failed);
    expired++;
  }
  return PyLong_FromLong(expired);
}

static PyObject *get_open(Connection *c, void *unused) { (void)unused; return PyLong_FromSsize_t(c->open); }
static PyObject *get_buffered(Connection *c, void *unused) { (void)unused; return PyLong_FromSsize_t(c->buffered); }
static PyObject *get_finished(Connection *c, void *unused) {
  (void)unused;
  bool alive = c->session && !c->failed && (nghttp2_session_want_read(c->session) || nghttp2_session_want_write(c->session));
  return PyBool_FromLong(!alive);
}

static PyGetSetDef connection_properties[] = {
    {"open", (getter)get_open, NULL, "requests that are open", NULL},
    {"buffered", (getter)get_buffered, NULL, "bytes held of requests not taken", NULL},
    {"finished", (getter)get_finished, NULL, "whether nothing more is to be read or sent: close", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef connection_methods[] = {
    {"feed", (PyCFunction)connection_feed, METH_VARARGS, feed_doc},
    {"take", (PyCFunction)connection_take, METH_NOARGS, take_doc},
    {"gone", (PyCFunction)connection_gone, METH_NOARGS, gone_doc},
    {"reply", (PyCFunction)connection_reply, METH_O, reply_doc},
    {"out", (PyCFunction)connection_out, METH_VARARGS, out_doc},
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

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "http2", "gRPC's unary calls over HTTP/2 without I/O, on nghttp2.", -1, NULL, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_http2(void) {
  if (PyType_Ready(&connection_type) < 0) return NULL;
  PyObject *made = PyModule_Create(&module);
  if (!made) return NULL;
  Py_INCREF(&connection_type);
  if (PyModule_AddObject(made, "Connection", (PyObject *)&connection_type) < 0 ||
      PyModule_AddStringConstant(made, "NGHTTP2", nghttp2_version(0)->version_str) < 0) {
    Py_DECREF(made);
    return NULL;
  }
  return made;
}
