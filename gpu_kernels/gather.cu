// What was known strictly before each row: neighbours, entity state and links, all rows at once.
// A batch's own events stand in sorted keys, so "before" is a binary search: an entity's recent applications are the
// uses of the batch up to the row, then its ring of before the batch; labels and counts are those after the last report
// before the row. The kernels up to `finish_links` run before `use` changes rings; `outcomes` after `chain`.
#include "graph.cuh"
#include "entity.cuh"

// Threads: [b, SLOTS].
KERNEL prepare_rows(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  i64 row = thread / SLOTS, e = thread % SLOTS;
  int mine = b->row_application[row], masked = b->row_masked[row];
  b->row_node[thread] = mine >= 0 ? b->app_node[(i64)mine * SLOTS + e] : masked >= 0 ? s->node[(i64)masked * SLOTS + e] : -1;
  if (e < GRAPH) b->link_count[row * GRAPH + e] = 0;
}

// int: the row's k-th most recent application of node `n`, from 0, `masked` left out; -1 where there is none.
__device__ int recent_of(const State *s, const Batch *b, i64 row, i64 n, int k) {
  i64 first = lower_bound(b->use_key, b->applications * SLOTS, sort_key((int)n, 0)), inside = 0, uses = s->uses[n];
  if (b->row_application[row] >= 0)
    inside = lower_bound(b->use_key, b->applications * SLOTS, sort_key((int)n, (i64)b->row_application[row] * SLOTS)) - first;
  for (i64 j = 1; j <= KEPT && j <= uses + inside; j++) {
    int a = j <= inside ? (int)(s->sizes[1] + place_of(b->use_key[first + inside - j]) / SLOTS)
                        : s->ring[n * KEPT + (uses + inside - j) % KEPT];
    if (a != b->row_masked[row] && k-- == 0) return a;
  }
  return -1;
}

// Threads: [b, SLOTS, RING].
KERNEL neighbors(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  i64 entity = thread / RING, row = entity / SLOTS;
  int k = (int)(thread % RING), n = b->row_node[entity];
  int a = n < 0 ? -1 : recent_of(s, b, row, n, k);
  b->recent[thread] = b->linked[thread] = a;
  if (a < 0) return;
  bool same = s->node[(i64)a * SLOTS] == b->row_node[row * SLOTS];
  if (same || !b->links[entity]) b->linked[thread] = -1;
  if (k >= FANOUT) return;
  float *out = b->neighbor_state + (entity * FANOUT + k) * NEIGHBOR;
  b->neighbor_mask[entity * FANOUT + k] = 1;
  out[0] = (float)((double)(b->row_time[row] - s->time_ms[a]) / HOUR_MS);
  out[1] = (float)s->amount[a];
  out[2] = same;
  for (int which = 0; which < 2; which++) {
    i8 label = label_before(s, b, a, b->row_event[row], which);
    out[3 + 2 * which] = label == 1;
    out[4 + 2 * which] = label == 0;
  }
  for (int r = 0; r < RECORD; r++) out[7 + r] = s->record[(i64)a * RECORD + r];
}

// Threads: [b, SLOTS]. The columns of entity_state that come from the recent applications.
KERNEL recents(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  if (b->row_node[thread] < 0) return;
  i64 row = thread / SLOTS;
  const int *recent = b->recent + thread * RING;
  float *out = b->entity_state + thread * ENTITY;
  int applicant[RING], labelled = 0, bad = 0, applicants = 0, others = 0;
  for (int j = 0; j < RING && recent[j] >= 0; j++) {
    i8 label = label_before(s, b, recent[j], b->row_event[row], 0);
    labelled += label >= 0;
    bad += label == 1;
    applicant[j] = s->node[(i64)recent[j] * SLOTS];
    bool fresh = true;
    for (int i = 0; i < j; i++) fresh = fresh && applicant[i] != applicant[j];
    applicants += fresh;
    others += fresh && applicant[j] != b->row_node[row * SLOTS];
  }
  if (recent[0] >= 0) {
    out[5] = (float)((double)(b->row_time[row] - s->time_ms[recent[0]]) / HOUR_MS);
    if (s->amount[recent[0]] > 0) out[9] = (float)(b->row_amount[row] / s->amount[recent[0]]);
  }
  out[14] = (float)((bad + RATE_PRIOR) / (labelled + RATE_WEIGHT));
  out[18] = (float)applicants;
  out[19] = (float)others;
}

// Threads: [b, SLOTS, RING]. The first to name an application counts it.
KERNEL count_links(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  i64 row = thread / (SLOTS * RING);
  const int *linked = b->linked + row * SLOTS * RING;
  int mine = (int)(thread % (SLOTS * RING)), a = linked[mine], shared = 0, *counts = b->link_count + row * GRAPH;
  if (a < 0) return;
  bool fresh = true;
  for (int i = 0; i < mine; i++) {
    if (linked[i] == a) return;
    fresh = fresh && (linked[i] < 0 || s->node[(i64)linked[i] * SLOTS] != s->node[(i64)a * SLOTS]);
  }
  for (int i = mine; i < SLOTS * RING; i++) shared += linked[i] == a;
  i8 label = label_before(s, b, a, b->row_event[row], 0);
  atomicAdd(&counts[0], 1);
  if (fresh) atomicAdd(&counts[1], 1);
  if ((double)(b->row_time[row] - s->time_ms[a]) <= 24 * HOUR_MS) atomicAdd(&counts[2], 1);
  if (label == 1) atomicAdd(&counts[3], 1);
  if (label >= 0) atomicAdd(&counts[4], 1);
  atomicMax(&counts[5], shared);
}

// Threads: [b].
KERNEL finish_links(const State *, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  if (b->row_application[thread] < 0 && b->row_masked[thread] < 0) return;
  const int *counts = b->link_count + thread * GRAPH;
  float *out = b->graph_state + thread * GRAPH;
  for (int i = 0; i < 4; i++) out[i] = (float)counts[i];
  out[4] = (float)((counts[3] + RATE_PRIOR) / (counts[4] + RATE_WEIGHT));
  out[5] = (float)counts[5];
}

// Threads: [b, SLOTS]. For rows of before the batch; `use` does it for its own, in their order.
KERNEL counters(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  i64 row = thread / SLOTS;
  if (b->row_node[thread] < 0) return;
  write_counts(s, b->row_node[thread], b->row_time[row], b->row_amount[row], b->row_masked[row],
               b->recent[thread * RING] >= 0, b->entity_state + thread * ENTITY);
}

// The score of an entity: its rate drawn to the beta prior of its slot (features/graph.py says how it is estimated).
__device__ double score(const State *s, const double *known_totals, int slot, int which, int masked, int bad, int results) {
  double totals[TOTALS];
  for (int t = 0; t < TOTALS; t++) totals[t] = known_totals[t];
  i8 label = masked >= 0 ? s->label[2 * (i64)masked + which] : (i8)UNKNOWN;
  for (int e = 0; label >= 0 && e < SLOTS; e++) {
    i64 n = s->node[(i64)masked * SLOTS + e];
    if (n < 0 || s->slot[n] != slot) continue;
    const int *counts = s->label_count + 4 * n + 2 * which;
    total(totals, counts[1], counts[0] + counts[1], -1.0);
    total(totals, counts[1] - (label == 1), counts[0] + counts[1] - 1, 1.0);
  }
  double known = totals[0], all = totals[1], all_bad = totals[2];
  double mean = RATE_PRIOR / RATE_WEIGHT, weight = RATE_WEIGHT;
  if (known >= KNOWN_MIN && all - known >= KNOWN_MIN && all_bad >= BAD_MIN) {
    mean = all_bad / all;
    double repeated = all - totals[3] / all - known + 1.0;
    double excess = (totals[4] - mean * all_bad) - mean * (1.0 - mean) * (known - 1.0);
    weight = WEIGHT_MOST;
    if (excess > 0.0) {
      weight = mean * (1.0 - mean) * repeated / excess - 1.0;
      weight = weight < WEIGHT_LEAST ? WEIGHT_LEAST : weight > WEIGHT_MOST ? WEIGHT_MOST : weight;
    }
  }
  return (bad + mean * weight) / (results + weight);
}

// Threads: [b, SLOTS]. The columns of entity_state that come from known outcomes.
KERNEL outcomes(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  i64 row = thread / SLOTS, n = b->row_node[thread], entries = b->reports * SLOTS;
  if (n < 0) return;
  int masked = b->row_masked[row], slot = s->slot[n], bad[2], good[2];
  i64 position = (i64)b->row_event[row] * SLOTS;
  i64 i = lower_bound(b->label_key, entries, sort_key((int)n, position));
  i64 c = lower_bound(b->chain_key, entries, sort_key(slot, position));
  const int *counts = s->label_count + 4 * n;
  if (i > 0 && group_of(b->label_key[i - 1]) == n) counts = b->count_after + 4 * entry_of(b, b->label_key[i - 1]);
  else if (i < entries && group_of(b->label_key[i]) == n)
    counts = b->count_before + 4 * entry_of(b, b->label_key[i]);
  bool changed = c > 0 && group_of(b->chain_key[c - 1]) == slot;
  float *out = b->entity_state + thread * ENTITY;
  for (int which = 0; which < 2; which++) {
    i8 label = masked >= 0 ? s->label[2 * (i64)masked + which] : (i8)UNKNOWN;
    good[which] = counts[2 * which] - (label == 0);
    bad[which] = counts[2 * which + 1] - (label == 1);
    const double *totals = changed ? b->totals_after + (2 * (c - 1) + which) * TOTALS : s->totals + (2 * slot + which) * TOTALS;
    int results = bad[which] + good[which];
    out[12 + 3 * which] = (float)bad[which];
    out[13 + 3 * which] = (float)((bad[which] + RATE_PRIOR) / (results + RATE_WEIGHT));
    out[20 + which] = (float)score(s, totals, slot, which, masked, bad[which], results);
  }
  out[17] = (float)(bad[0] + good[0]);
}
