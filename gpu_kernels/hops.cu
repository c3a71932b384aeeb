// Two hops around each row: what features/hops.py says, item by item. The kernels run after `use` has tied the batch's
// applications to the uses before them, and before `commit`: labels are those after the last report before the row.
// How many items there are is known only once they are counted, so the launcher runs a sum after each count.
#include "graph.cuh"

#define NEAR 32
#define FAR 4

struct Hops {
  i64 masked;                 // 1: rows look from now, each without itself; 0: from before themselves
  const int *row_application; // [b] index in the batch, -1 none
  const int *row_masked;      // [b] application left out as if it had never come, -1 none
  const int *row_event;       // [b] position; what is reported there and later is not known
  const i64 *row_time;        // [b]
  const int *report_event;    // as of Batch
  const u8 *report_head;
  const i8 *label_after;
  u8 *near_count;  // [b, SLOTS]
  int *near_end;   // [b, SLOTS] running sum of near_count
  int *near;       // [M] application
  int *near_row;   // [M]
  u8 *near_code;   // [M] flags of a neighbour's columns, from bit 0 on
  float *near_state; // [M, NEIGHBOR]
  u8 *far_count;   // [M, SLOTS]
  int *far_end;    // [M, SLOTS] running sum of far_count
  int *far;        // [N] application
  int *far_near;   // [N] which of the M
  u8 *far_code;    // [N]
  float *far_state; // [N, NEIGHBOR]
};

// int: the place of node `n`'s use before the one at `place`, -1 where that was its first (which names place 0).
__device__ inline int use_before(const State *s, int place, int n) {
  int earlier = s->previous[place];
  return earlier >= place || s->node[earlier] != n ? -1 : earlier;
}

__device__ inline int application_of(const State *s, const Hops *h, i64 row) {
  return h->row_application[row] >= 0 ? (int)(s->sizes[1] + h->row_application[row]) : h->row_masked[row];
}

// How many of the uses of the entity at `from`, an application's place, come before it, at most NEAR; their applications
// go to `out` where there is one.
__device__ int near_of(const State *s, int from, bool masked, int *out) {
  int n = s->node[from], mine = from / SLOTS, found = 0;
  if (n < 0) return 0;
  for (int place = masked ? s->newest[n] : use_before(s, from, n); place >= 0 && found < NEAR; place = use_before(s, place, n)) {
    if (place / SLOTS == mine) continue;
    if (out) out[found] = place / SLOTS;
    found++;
  }
  return found;
}

// As near_of, of an application that is near to `own`, which is left out; at most FAR.
__device__ int far_of(const State *s, int from, int own, int *out) {
  int n = s->node[from], mine = from / SLOTS, found = 0;
  if (n < 0) return 0;
  for (int place = use_before(s, from, n); place >= 0 && found < FAR; place = use_before(s, place, n)) {
    if (place / SLOTS == mine || place / SLOTS == own) continue;
    if (out) out[found] = place / SLOTS;
    found++;
  }
  return found;
}

// The columns of application `a`, seen by a row at `now_ms`; its flags.
__device__ u8 describe(const State *s, const Hops *h, int a, i64 row, i64 now_ms, float *out) {
  int own = application_of(s, h, row);
  u8 code = s->node[(i64)a * SLOTS] == s->node[(i64)own * SLOTS];
  for (int which = 0; which < 2; which++) {
    i8 label = label_before(s, h, a, h->row_event[row], which);
    code |= (label == 1) << (1 + 2 * which) | (label == 0) << (2 + 2 * which);
  }
  out[0] = (float)((double)(now_ms - s->time_ms[a]) / HOUR_MS);
  out[1] = (float)s->amount[a];
  for (int bit = 0; bit < 5; bit++) out[2 + bit] = code >> bit & 1;
  for (int r = 0; r < RECORD; r++) out[7 + r] = s->record[(i64)a * RECORD + r];
  return code;
}

// Threads: [b, SLOTS].
KERNEL count_near(const State *s, const Hops *h, i64 threads) {
  THREAD_OR_RETURN
  int own = application_of(s, h, thread / SLOTS);
  h->near_count[thread] = own < 0 ? 0 : (u8)near_of(s, own * SLOTS + (int)(thread % SLOTS), h->masked, nullptr);
}

// Threads: [b, SLOTS].
KERNEL fill_near(const State *s, const Hops *h, i64 threads) {
  THREAD_OR_RETURN
  i64 row = thread / SLOTS;
  int own = application_of(s, h, row), count = h->near_count[thread], first = h->near_end[thread] - count;
  if (count == 0) return;
  near_of(s, own * SLOTS + (int)(thread % SLOTS), h->masked, h->near + first);
  for (int i = first; i < first + count; i++) h->near_row[i] = (int)row;
}

// Threads: [M, SLOTS].
KERNEL count_far(const State *s, const Hops *h, i64 threads) {
  THREAD_OR_RETURN
  i64 i = thread / SLOTS;
  int own = application_of(s, h, h->near_row[i]);
  h->far_count[thread] = (u8)far_of(s, h->near[i] * SLOTS + (int)(thread % SLOTS), own, nullptr);
}

// Threads: [M, SLOTS].
KERNEL fill_far(const State *s, const Hops *h, i64 threads) {
  THREAD_OR_RETURN
  i64 i = thread / SLOTS;
  int count = h->far_count[thread], first = h->far_end[thread] - count;
  if (count == 0) return;
  far_of(s, h->near[i] * SLOTS + (int)(thread % SLOTS), application_of(s, h, h->near_row[i]), h->far + first);
  for (int k = first; k < first + count; k++) h->far_near[k] = (int)i;
}

// Threads: [M].
KERNEL describe_near(const State *s, const Hops *h, i64 threads) {
  THREAD_OR_RETURN
  i64 row = h->near_row[thread];
  h->near_code[thread] = describe(s, h, h->near[thread], row, h->row_time[row], h->near_state + thread * NEIGHBOR);
}

// Threads: [N]. Its gap is counted from the near one.
KERNEL describe_far(const State *s, const Hops *h, i64 threads) {
  THREAD_OR_RETURN
  i64 near = h->far_near[thread], row = h->near_row[near];
  h->far_code[thread] =
      describe(s, h, h->far[thread], row, s->time_ms[h->near[near]], h->far_state + thread * NEIGHBOR);
}
