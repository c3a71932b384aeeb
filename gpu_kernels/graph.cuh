// The graph on the device (`State`) and one stretch of the log (`Batch`): what apply.cu and gather.cu work on.
//
// The launcher writes each struct as one row of 8-byte words in the order of the fields here, so a struct is the only
// place where its layout stands. Sizes: H hash places, N nodes, A applications, Q sequence numbers; of a batch, n
// applications, r reports, b own applications ("rows"). "Position" is an event's index in the batch.
#pragma once
#include "kernel.cuh"

#define SLOTS 16
#define RECORD 8
#define RING 16
#define KEPT 17
#define BUCKETS 6
#define WINDOWS 4
#define FANOUT 8
#define ENTITY 22
#define GRAPH 6
#define NEIGHBOR 15
#define TOTALS 5
#define HOUR_MS 3600000.0
#define SPREAD_MIN 1e-6
#define RATE_PRIOR 0.5
#define RATE_WEIGHT 10.0
#define KNOWN_MIN 20.0
#define BAD_MIN 5.0
#define WEIGHT_LEAST 2.0
#define WEIGHT_MOST 1000.0
#define UNKNOWN (-1)
#define UNCHANGED (-2)
#define PRESUMED_GOOD 2
#define UNNUMBERED (1 << 30)  // place of a new key: this and where in the batch it came first; an empty one is above
#define ABSENT (~0ull)        // key of what is sorted behind all else

struct State {
  i64 places;         // H, a power of two
  i64 *sizes;         // [2] nodes, applications
  u64 *key;           // [H], 0 empty
  int *place;         // [H] node
  int *uses;          // [N]
  i64 *first_ms;      // [N, 2]
  double *amount_sum; // [N, 2] of amounts and of their squares
  double *amount_max; // [N, 2]
  int *bucket;        // [N, WINDOWS, BUCKETS]
  int *bucket_epoch;  // [N, WINDOWS]
  int *label_count;   // [N, 2, 2] fraud/default, good/bad
  int *ring;          // [N, KEPT]
  i8 *slot;           // [N]
  double *totals;     // [SLOTS, 2, TOTALS]
  int *newest;        // [N] place of the last use: application * SLOTS + slot
  i64 *time_ms;       // [A]
  double *amount;     // [A]
  u64 *schema;        // [A]
  int *node;          // [A, SLOTS], -1 absent
  int *previous;      // [A, SLOTS]
  float *record;      // [A, RECORD]
  i8 *label;          // [A, 2]
  int *report_of;     // [A] last report of the batch, -1 none
  int *of_sequence;   // [Q], -1 no application
};

struct Batch {
  i64 applications, reports, rows;
  const u64 *token;        // [n, SLOTS]
  const i64 *app_time;     // [n]
  const double *app_amount;
  const u64 *app_schema;
  const float *app_record; // [n, RECORD]
  const i64 *app_sequence;
  const int *app_row;      // [n] row, -1 not an own one
  const i64 *report_subject; // [r] ascending, of one subject by position
  const int *report_event;   // [r] position
  const i8 *reported;        // [r, 2]
  const u8 *report_head;     // [r] 1 at the first of a subject
  const int *report_at;      // [events] report at a position, -1 none
  const int *row_application; // [b] index in the batch, -1 none
  const int *row_event;       // [b] position; what stands there and later is not seen
  const int *row_masked;      // [b] application left out as if it had never come, -1 none
  const i64 *row_time;
  const double *row_amount;
  const u8 *links;            // [b, SLOTS]
  int *at;                 // [n, SLOTS] hash place, -1 absent
  int *fresh;              // [n, SLOTS] 1 where a new key comes first
  int *rank;               // [n, SLOTS] running sum of fresh
  int *app_node;           // [n, SLOTS]
  u64 *use_key;            // [n, SLOTS] node << 32 | index in the batch * SLOTS + slot
  int *report_application; // [r]
  i8 *label_before;        // [r, 2]
  i8 *label_after;         // [r, 2]
  u64 *label_key;          // [r, SLOTS] node << 32 | position * SLOTS + slot
  u64 *chain_key;          // [r, SLOTS] slot of the node << 32 | position * SLOTS + slot
  int *count_before;       // [r, SLOTS, 2, 2]
  int *count_after;        // [r, SLOTS, 2, 2]
  double *totals_after;    // [r * SLOTS, 2, TOTALS] in the order of chain_key
  double *totals_new;      // [SLOTS, 2, TOTALS]
  int *row_node;           // [b, SLOTS]
  int *recent;             // [b, SLOTS, RING] application, newest first, -1 none
  int *linked;             // [b, SLOTS, RING] those of others by a linking slot
  int *link_count;         // [b, GRAPH] applications, applicants, in 24 hours, bad, labelled, most shared
  float *entity_state;     // [b, SLOTS, ENTITY]
  float *graph_state;      // [b, GRAPH]
  float *neighbor_state;   // [b, SLOTS, FANOUT, NEIGHBOR]
  u8 *neighbor_mask;       // [b, SLOTS, FANOUT]
};

__device__ const i64 width_ms[WINDOWS] = {600000, 14400000, 100800000, 432000000};  // an hour, day, week, 30 days / 6

// Where the first of `count` ascending keys stands that is not below `key`.
__device__ inline i64 lower_bound(const u64 *keys, i64 count, u64 key) {
  i64 low = 0, high = count;
  while (low < high) {
    i64 middle = (low + high) / 2;
    if (keys[middle] < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

__device__ inline u64 sort_key(int group, i64 place) { return (u64)(unsigned)group << 32 | (u64)place; }
__device__ inline int group_of(u64 key) { return (int)(key >> 32); }
__device__ inline int place_of(u64 key) { return (int)(key & 0xffffffffu); }

// What a key of label_key or chain_key stands for: index in [r, SLOTS].
__device__ inline i64 entry_of(const Batch *b, u64 key) {
  return (i64)b->report_at[place_of(key) / SLOTS] * SLOTS + place_of(key) % SLOTS;
}

// floor modulo: windows reach before 1970 where times are small
__device__ inline int bucket_of(i64 epoch) { return (int)((epoch % BUCKETS + BUCKETS) % BUCKETS); }

// Put an entity into the totals of its slot (`by` 1) or take it out (-1).
__device__ inline void total(double *totals, int bad, int results, double by) {
  if (results <= 0) return;
  totals[0] += by;
  totals[1] += by * results;
  totals[2] += by * bad;
  totals[3] += by * results * results;
  totals[4] += by * bad * bad / results;
}

// Count `by` (1 or -1) results `value` in an entity's counts [2] and its slot's totals; none if unknown.
__device__ inline void count_label(int *counts, double *totals, int value, int by) {
  if (value < 0) return;
  total(totals, counts[1], counts[0] + counts[1], -1.0);
  counts[value] += by;
  total(totals, counts[1], counts[0] + counts[1], 1.0);
}

// A label of application `a` after the last report before the position `event`. Told of a batch by what has its
// report_event, report_head and label_after.
template <typename Reports>
__device__ inline i8 label_before(const State *s, const Reports *b, int a, int event, int which) {
  int r = s->report_of[a];
  while (r >= 0 && b->report_event[r] >= event) r = b->report_head[r] ? -1 : r - 1;
  return r < 0 ? s->label[2 * (i64)a + which] : b->label_after[2 * r + which];
}
