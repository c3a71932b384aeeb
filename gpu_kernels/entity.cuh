// One entity: its counters in the view of an application, and one use more.
#pragma once
#include "graph.cuh"

// The columns of entity_state that come from node `n`'s counters alone; application `masked` (-1: none) is left out.
// any: whether there is another.
__device__ inline void write_counts(const State *s, i64 n, i64 now_ms, double amount, int masked, bool any, float *out) {
  i64 count = s->uses[n];
  double sum = s->amount_sum[2 * n], squares = s->amount_sum[2 * n + 1], largest = s->amount_max[2 * n];
  bool masked_first = false;
  if (masked >= 0) {
    count -= 1;
    sum -= s->amount[masked];
    squares -= s->amount[masked] * s->amount[masked];
    if (s->amount[masked] == largest) largest = s->amount_max[2 * n + 1];
    masked_first = s->time_ms[masked] == s->first_ms[2 * n];
  }
  for (int w = 0; w < WINDOWS; w++) {
    i64 now_epoch = now_ms / width_ms[w], newest = s->bucket_epoch[n * WINDOWS + w];
    i64 oldest = (newest > now_epoch ? newest : now_epoch) - BUCKETS + 1, inside = 0;
    for (i64 epoch = oldest; epoch <= newest; epoch++) inside += s->bucket[(n * WINDOWS + w) * BUCKETS + bucket_of(epoch)];
    if (masked >= 0 && s->time_ms[masked] / width_ms[w] >= oldest) inside -= 1;
    out[w] = (float)inside;
  }
  out[4] = (float)count;
  out[6] = 0.0f;
  if (!any) return;
  out[6] = (float)((double)(now_ms - s->first_ms[2 * n + (masked_first ? 1 : 0)]) / HOUR_MS / 24.0);
  double mean = sum / (double)count;
  out[7] = (float)mean;
  if (sum > 0) out[8] = (float)(amount / mean);
  if (largest > 0) out[10] = (float)(amount / largest);
  double variance = squares / (double)count - mean * mean;
  if (variance > SPREAD_MIN * mean * mean) out[11] = (float)((amount - mean) / sqrt(variance));
}

// Add application `a`, which names node `n` in slot `e`, to the node's ring, sums and buckets.
__device__ inline void add_use(const State *s, i64 n, int a, int e) {
  i64 time_ms = s->time_ms[a];
  double amount = s->amount[a];
  if (s->uses[n] < 2) s->first_ms[2 * n + s->uses[n]] = time_ms;
  s->previous[(i64)a * SLOTS + e] = s->newest[n];
  s->newest[n] = a * SLOTS + e;
  s->ring[n * KEPT + s->uses[n] % KEPT] = a;
  s->uses[n] += 1;
  s->amount_sum[2 * n] += amount;
  s->amount_sum[2 * n + 1] += amount * amount;
  double *largest = s->amount_max + 2 * n;
  if (amount > largest[0]) {
    largest[1] = largest[0];
    largest[0] = amount;
  } else if (amount > largest[1]) {
    largest[1] = amount;
  }
  for (int w = 0; w < WINDOWS; w++) {
    int *bucket = s->bucket + (n * WINDOWS + w) * BUCKETS, *newest = s->bucket_epoch + n * WINDOWS + w;
    i64 epoch = time_ms / width_ms[w], skipped = epoch - BUCKETS + 1;
    for (skipped = skipped > *newest + 1 ? skipped : *newest + 1; skipped <= epoch; skipped++) bucket[bucket_of(skipped)] = 0;
    *newest = (int)epoch;
    bucket[bucket_of(epoch)] += 1;
  }
}
