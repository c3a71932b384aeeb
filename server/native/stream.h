/* A connection, its streams and the memory that they hold. */
#pragma once
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
#define TEXT_MAX 2048      /* bytes of a grpc-message, before it is encoded */
#define OUT_STEP 65536
#define QUEUE_MAX 4096     /* frames of control that may wait for a peer to read them */

enum { CANCELLED_STATUS = 1, INTERNAL = 13, UNIMPLEMENTED = 12, RESOURCE_EXHAUSTED = 8 };

typedef struct Stream {
  struct Stream *before, *after; /* open streams of the connection, the oldest first */
  int32_t id;
  int method;                 /* index of the path, -1 unknown */
  int64_t timeout_us;         /* -1: none */
  bool post, grpc, compressed, bad_timeout, too_large, answered, taken, whole;
  size_t header_bytes, held;  /* held: counted against the budgets */
  PyObject *metadata;         /* list of (name, value), or NULL */
  uint8_t *body;              /* as received: prefix and message */
  size_t length, room;
  PyObject *message;          /* bytes of the reply, or NULL */
  size_t sent;                /* of prefix and reply */
  int status;
  char *text;                 /* percent-encoded grpc-message, or NULL */
  PyObject *trailers;         /* tuple of (name, value), or NULL */
  double opened, answered_at; /* answered_at: when expire() first saw it answered, 0 before */
} Stream;

typedef struct {
  PyObject_HEAD
  nghttp2_session *session;
  PyObject *paths;            /* dict: path -> index */
  PyObject *cancelled;        /* list of ids of taken streams that ended unanswered */
  Stream *first, *last;
  Py_ssize_t open, held, message_max, header_max, budget, budget_all;
  double now;
  double resets_left, resets, resets_rate, counted; /* streams that may still end unanswered; refilled up to `counted` */
  bool failed, greeted;
} Connection;

static Py_ssize_t held_all; /* by every connection of the process */

/* A stream's own: what came of a request until it is answered, the reply until it is sent. */
static void hold(Connection *c, Stream *s, size_t bytes) {
  Py_ssize_t more = (Py_ssize_t)bytes - (Py_ssize_t)s->held;
  s->held = bytes;
  c->held += more;
  held_all += more;
}

static bool over_budget(Connection *c, size_t more) {
  return c->held + (Py_ssize_t)more > c->budget || held_all + (Py_ssize_t)more > c->budget_all;
}

static Stream *stream_of(nghttp2_session *session, int32_t id) { return nghttp2_session_get_stream_user_data(session, id); }

static Stream *stream_new(Connection *c, int32_t id) {
  Stream *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->id = id;
  s->method = -1;
  s->timeout_us = -1;
  s->opened = c->now;
  s->before = c->last;
  if (c->last) c->last->after = s; else c->first = s;
  c->last = s;
  c->open++;
  nghttp2_session_set_stream_user_data(c->session, id, s);
  return s;
}

static void body_drop(Stream *s) {
  free(s->body);
  s->body = NULL;
  s->length = s->room = 0;
}

static void stream_free(Connection *c, Stream *s) {
  if (s->before) s->before->after = s->after; else c->first = s->after;
  if (s->after) s->after->before = s->before; else c->last = s->before;
  c->open--;
  hold(c, s, 0);
  body_drop(s);
  free(s->text);
  Py_XDECREF(s->metadata);
  Py_XDECREF(s->message);
  Py_XDECREF(s->trailers);
  free(s);
}

static int body_add(Connection *c, Stream *s, const uint8_t *bytes, size_t n) {
  if (s->length + n > s->room) {
    size_t room = s->room ? s->room * 2 : 1024;
    while (room < s->length + n) room *= 2;
    uint8_t *grown = realloc(s->body, room);
    if (!grown) return -1;
    s->body = grown;
    s->room = room;
    hold(c, s, s->header_bytes + room);
  }
  memcpy(s->body + s->length, bytes, n);
  s->length += n;
  return 0;
}
