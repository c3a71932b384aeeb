/* What a peer is told: a reply and its trailers, or a refusal. */
#pragma once
#include "stream.h"

static nghttp2_nv pair(const char *name, size_t name_n, const char *value, size_t value_n) {
  nghttp2_nv nv = {(uint8_t *)name, (uint8_t *)value, name_n, value_n, NGHTTP2_NV_FLAG_NONE};
  return nv;
}
#define PAIR(name, value) pair(name, sizeof(name) - 1, value, sizeof(value) - 1)

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

/* grpc-message: every byte outside printable ASCII, and '%', as %XX. A text too long for a header ends early. */
static char *percent_encoded(const char *text, size_t n) {
  static const char hex[] = "0123456789ABCDEF";
  if (n > TEXT_MAX)
    for (n = TEXT_MAX; n && ((unsigned char)text[n] & 0xc0) == 0x80;) n--; /* not inside a character */
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
  body_drop(s);
  Py_CLEAR(s->metadata);
  hold(c, s, message ? (size_t)PyBytes_GET_SIZE(message) : 0);
  if (text_n && !(s->text = percent_encoded(text, text_n))) return NGHTTP2_ERR_NOMEM;
  Py_XINCREF(trailers);
  s->trailers = trailers;
  nghttp2_nv nv[5 + TRAILERS_MAX];
  nv[0] = PAIR(":status", "200");
  nv[1] = PAIR("content-type", "application/grpc");
  if (!message) {
    char digits[12];
    size_t n = 2;
    if (status == UNIMPLEMENTED) nv[n++] = PAIR("grpc-accept-encoding", "identity");
    n += trailer_pairs(s, nv + n, digits);
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
  body_drop(s);
  Py_CLEAR(s->metadata);
  hold(c, s, 0);
  nghttp2_nv nv[] = {pair(":status", 7, status, 3), PAIR("allow", "POST")};
  return nghttp2_submit_response(c->session, s->id, nv, strcmp(status, "405") ? 1 : 2, NULL);
}

/* A reply has ended while its request has not: ask for no more of it (RFC 9113 8.1). */
static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  (void)user;
  bool ended = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) && frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
  if (!ended || nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id)) return 0;
  return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* Headers or trailers that nghttp2 will not send, being too large: the caller hears of it rather than waits. */
static int on_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user) {
  (void)user; (void)code;
  if (frame->hd.type != NGHTTP2_HEADERS || !stream_of(session, frame->hd.stream_id)) return 0;
  return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_INTERNAL_ERROR) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}
