/* What a peer sends: nghttp2's callbacks, and what is refused of it. */
#pragma once
#include "reply.h"

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
  (void)session;
  Connection *c = user;
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  return stream_new(c, frame->hd.stream_id) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

#define IS(text) (name_n == sizeof(text) - 1 && !memcmp(name, text, sizeof(text) - 1))

static int metadata_add(Connection *c, Stream *s, const uint8_t *name, size_t name_n, const uint8_t *value, size_t value_n) {
  if (!s->metadata && !(s->metadata = PyList_New(0))) return NGHTTP2_ERR_CALLBACK_FAILURE;
  if (PyList_GET_SIZE(s->metadata) >= METADATA_MAX) {
    s->too_large = true;
    return 0;
  }
  PyObject *item = Py_BuildValue("(y#y#)", name, (Py_ssize_t)name_n, value, (Py_ssize_t)value_n);
  int failed = !item || PyList_Append(s->metadata, item);
  Py_XDECREF(item);
  hold(c, s, s->header_bytes);
  return failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *user) {
  Connection *c = user;
  Stream *s = stream_of(session, frame->hd.stream_id);
  (void)flags;
  if (!s || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0; /* trailers of a request say nothing to us */
  s->header_bytes += name_n + value_n + 32; /* RFC 9113 6.5.2 */
  if (s->too_large || s->header_bytes > (size_t)c->header_max) {
    s->too_large = true;
    return 0;
  }
  if (IS(":path")) {
    PyObject *path = PyBytes_FromStringAndSize((const char *)value, (Py_ssize_t)value_n);
    if (!path) return NGHTTP2_ERR_CALLBACK_FAILURE;
    PyObject *index = PyDict_GetItemWithError(c->paths, path);
    Py_DECREF(path);
    if (index) s->method = (int)PyLong_AsLong(index);
    if (PyErr_Occurred()) return NGHTTP2_ERR_CALLBACK_FAILURE;
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
    return metadata_add(c, s, name, name_n, value, value_n);
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
  if (over_budget(c, n)) return refuse(c, s, RESOURCE_EXHAUSTED, "too much is being sent") ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
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
  if (over_budget(c, 0)) return refuse(c, s, RESOURCE_EXHAUSTED, "too much is being sent");
  return 0;
}

static int check_message(Connection *c, Stream *s) {
  if (!s->length) return refuse(c, s, UNIMPLEMENTED, "the request has no message");
  if (s->length < PREFIX) return refuse(c, s, INTERNAL, "the message is cut short");
  size_t length = (size_t)s->body[1] << 24 | (size_t)s->body[2] << 16 | (size_t)s->body[3] << 8 | s->body[4];
  if (s->body[0] == 1) return refuse(c, s, UNIMPLEMENTED, "messages must not be compressed");
  if (s->body[0]) return refuse(c, s, INTERNAL, "the message's first byte must be 0");
  if (length + PREFIX > s->length) return refuse(c, s, INTERNAL, "the message is cut short");
  if (length + PREFIX < s->length) return refuse(c, s, UNIMPLEMENTED, "the request is more than one message");
  s->whole = true;
  return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  Connection *c = user;
  if (frame->hd.type == NGHTTP2_SETTINGS) c->greeted = true;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  Stream *s = stream_of(session, frame->hd.stream_id);
  if (!s) return 0;
  int failed = 0;
  if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) failed = check_headers(c, s);
  if (!failed && !s->answered && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) failed = check_message(c, s);
  return failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* A stream that ends unanswered was work for nothing, whoever ended it (CVE-2023-44487, CVE-2025-8671): so many at once
 * and a second, then the connection ends. nghttp2's own limit says so only to who reads it.
 */
static int count_unanswered(Connection *c) {
  c->resets_left += (c->now - c->counted) * c->resets_rate;
  c->counted = c->now;
  if (c->resets_left > c->resets) c->resets_left = c->resets;
  c->resets_left -= 1;
  return c->resets_left < 0 ? nghttp2_session_terminate_session(c->session, NGHTTP2_ENHANCE_YOUR_CALM) : 0;
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
  if (!s->answered && count_unanswered(c)) failed = 1;
  stream_free(c, s);
  return failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}
