// Events of a batch go into the graph in log order, though every kernel runs over all of them at once.
// Each kernel says over what its threads run. Order matters within an entity, an application and a slot's totals alone,
// so each of these is walked by one thread. Nothing here depends on the order of threads.
#include "graph.cuh"
#include "entity.cuh"

__device__ i64 find(const State *s, u64 token, bool insert) {
  u64 mask = (u64)s->places - 1;
  u64 at = (token * 0x9E3779B97F4A7C15ull) >> 20 & mask;
  while (true) {
    u64 there = __ldcg(&s->key[at]);  // others insert meanwhile: past the caches that do not see it
    if (there == 0 && insert) there = atomicCAS(&s->key[at], 0ull, token);
    if (there == 0) return insert ? (i64)at : -1;
    if (there == token) return (i64)at;
    at = (at + 1) & mask;
  }
}

// Threads: places of the former hash, whose key and place are given as the batch's `use_key` and `at`.
KERNEL rehash(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  if (b->use_key[thread] != 0) s->place[find(s, b->use_key[thread], true)] = b->at[thread];
}

// Threads: [n, SLOTS].
KERNEL resolve(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  u64 token = b->token[thread];
  b->at[thread] = -1;
  if (token == 0) return;
  i64 at = find(s, token, true);
  b->at[thread] = (int)at;
  atomicMin(&s->place[at], UNNUMBERED + (int)thread);  // changes nothing where there is a number
}

// Threads: [n, SLOTS]. New entities are numbered as the log names them first.
KERNEL mark_first(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  int at = b->at[thread];
  b->fresh[thread] = at >= 0 && s->place[at] == UNNUMBERED + (int)thread;
}

// Threads: [n, SLOTS].
KERNEL number(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  if (b->fresh[thread]) s->place[b->at[thread]] = (int)s->sizes[0] + b->rank[thread] - 1;
}

// Threads: [n, SLOTS].
KERNEL record(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  i64 mine = thread / SLOTS, a = s->sizes[1] + mine;
  int e = (int)(thread % SLOTS), at = b->at[thread];
  int n = at < 0 ? -1 : s->place[at];
  b->app_node[thread] = s->node[a * SLOTS + e] = n;
  b->use_key[thread] = n < 0 ? ABSENT : sort_key(n, thread);
  if (e < RECORD) s->record[a * RECORD + e] = b->app_record[mine * RECORD + e];
  if (e > 0) return;
  s->time_ms[a] = b->app_time[mine];
  s->amount[a] = b->app_amount[mine];
  s->schema[a] = b->app_schema[mine];
  s->label[2 * a] = s->label[2 * a + 1] = UNKNOWN;
  s->report_of[a] = -1;
  s->of_sequence[b->app_sequence[mine]] = (int)a;
}

// Threads: [n, SLOTS] in the order of use_key; the first of each entity walks all of its uses.
KERNEL use(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  u64 key = b->use_key[thread];
  int n = group_of(key);
  if (key == ABSENT || (thread > 0 && group_of(b->use_key[thread - 1]) == n)) return;
  for (i64 i = thread; i < threads && group_of(b->use_key[i]) == n;) {
    i64 mine = place_of(b->use_key[i]) / SLOTS, after = i;
    while (after < threads && group_of(b->use_key[after]) == n && place_of(b->use_key[after]) / SLOTS == mine) after++;
    if (s->uses[n] == 0) s->slot[n] = (i8)(place_of(b->use_key[after - 1]) % SLOTS);
    int row = b->app_row[mine];
    for (i64 j = i; row >= 0 && j < after; j++)
      write_counts(s, n, b->app_time[mine], b->app_amount[mine], -1, s->uses[n] > 0,
                   b->entity_state + ((i64)row * SLOTS + place_of(b->use_key[j]) % SLOTS) * ENTITY);
    for (; i < after; i++) add_use(s, n, (int)(s->sizes[1] + mine), place_of(b->use_key[i]) % SLOTS);
  }
}

// Threads: [r]; the first report of an application walks all of its reports. State keeps the labels of before the batch.
KERNEL relabel(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  if (!b->report_head[thread]) return;
  int a = s->of_sequence[b->report_subject[thread]];
  i8 known[2] = {UNKNOWN, UNKNOWN};
  for (int which = 0; a >= 0 && which < 2; which++) known[which] = s->label[2 * (i64)a + which];
  i64 r = thread;
  do {
    b->report_application[r] = a;
    for (int which = 0; which < 2; which++) {
      b->label_before[2 * r + which] = known[which];
      i8 said = b->reported[2 * r + which];
      if (said == PRESUMED_GOOD) known[which] = known[which] == UNKNOWN ? 0 : known[which];
      else if (said != UNCHANGED) known[which] = said;
      b->label_after[2 * r + which] = known[which];
    }
  } while (++r < threads && !b->report_head[r]);
  if (a >= 0) s->report_of[a] = (int)(r - 1);
}

// Threads: [r, SLOTS].
KERNEL touch(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  i64 r = thread / SLOTS;
  int a = b->report_application[r];
  bool same = true;
  for (int which = 0; which < 2; which++) same = same && b->label_before[2 * r + which] == b->label_after[2 * r + which];
  int n = a < 0 || same ? -1 : s->node[(i64)a * SLOTS + thread % SLOTS];
  b->label_key[thread] = n < 0 ? ABSENT : sort_key(n, (i64)b->report_event[r] * SLOTS + thread % SLOTS);
}

// Threads: [r, SLOTS] in the order of label_key; the first of each entity walks all of its changes.
KERNEL count_labels(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  u64 key = b->label_key[thread];
  int n = group_of(key);
  if (key == ABSENT) b->chain_key[thread] = ABSENT;
  if (key == ABSENT || (thread > 0 && group_of(b->label_key[thread - 1]) == n)) return;
  int *counts = s->label_count + 4 * (i64)n;
  for (i64 i = thread; i < threads && group_of(b->label_key[i]) == n; i++) {
    i64 entry = entry_of(b, b->label_key[i]), r = entry / SLOTS;
    b->chain_key[i] = sort_key(s->slot[n], place_of(b->label_key[i]));
    for (int which = 0; which < 2; which++) {
      for (int value = 0; value < 2; value++) b->count_before[4 * entry + 2 * which + value] = counts[2 * which + value];
      i8 old = b->label_before[2 * r + which], now = b->label_after[2 * r + which];
      if (old >= 0) counts[2 * which + old]--;
      if (now >= 0) counts[2 * which + now]++;
      for (int value = 0; value < 2; value++) b->count_after[4 * entry + 2 * which + value] = counts[2 * which + value];
    }
  }
}

// Threads: [SLOTS, 2]. Sums of doubles keep the order of the log: a slot's totals are one chain.
KERNEL chain(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  int slot = (int)thread / 2, which = (int)thread % 2;
  i64 entries = b->reports * SLOTS;
  double totals[TOTALS];
  for (int t = 0; t < TOTALS; t++) totals[t] = s->totals[thread * TOTALS + t];
  for (i64 i = lower_bound(b->chain_key, entries, sort_key(slot, 0));
       i < entries && group_of(b->chain_key[i]) == slot; i++) {
    i64 entry = entry_of(b, b->chain_key[i]), r = entry / SLOTS;
    const int *before = b->count_before + 4 * entry + 2 * which;
    int counts[2] = {before[0], before[1]};
    i8 old = b->label_before[2 * r + which], now = b->label_after[2 * r + which];
    if (old != now) {
      count_label(counts, totals, old, -1);
      count_label(counts, totals, now, 1);
    }
    for (int t = 0; t < TOTALS; t++) b->totals_after[(2 * i + which) * TOTALS + t] = totals[t];
  }
  for (int t = 0; t < TOTALS; t++) b->totals_new[thread * TOTALS + t] = totals[t];
}

// Threads: max(r, SLOTS * 2 * TOTALS). What the gathering had to see as it was before the batch.
KERNEL commit(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  if (b->reports > 0 && thread < SLOTS * 2 * TOTALS) s->totals[thread] = b->totals_new[thread];
  if (thread == 0 && b->applications > 0) {
    s->sizes[0] += b->rank[b->applications * SLOTS - 1];
    s->sizes[1] += b->applications;
  }
  if (thread >= b->reports || (thread + 1 < b->reports && !b->report_head[thread + 1])) return;
  int a = b->report_application[thread];
  if (a < 0) return;
  for (int which = 0; which < 2; which++) s->label[2 * (i64)a + which] = b->label_after[2 * thread + which];
  s->report_of[a] = -1;
}

// Threads: [1]. at[0]: uses of the entity of token[0], 0 where there is none.
KERNEL uses_of(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  i64 at = find(s, b->token[0], false);
  b->at[thread] = at < 0 ? 0 : s->uses[s->place[at]];
}

// Make node `n` what it would be, had only the applications that still name it come.
__device__ void count_again(const State *s, int n) {
  int left = 0, oldest = 0, place = s->newest[n];
  for (int i = s->uses[n]; i > 0; i--) {  // those left are linked the other way round: no scratch, however many
    int earlier = s->previous[place];
    if (s->node[place] == n) {
      s->previous[place] = oldest;
      oldest = place;
      left++;
    }
    place = earlier;
  }
  s->uses[n] = s->newest[n] = 0;
  for (int i = 0; i < 2; i++) {
    s->first_ms[2 * (i64)n + i] = 0;
    s->amount_sum[2 * (i64)n + i] = s->amount_max[2 * (i64)n + i] = 0.0;
  }
  for (int i = 0; i < WINDOWS * BUCKETS; i++) s->bucket[(i64)n * WINDOWS * BUCKETS + i] = 0;
  for (int i = 0; i < WINDOWS; i++) s->bucket_epoch[(i64)n * WINDOWS + i] = 0;
  for (int i = 0; i < KEPT; i++) s->ring[(i64)n * KEPT + i] = 0;
  for (int which = 0; which < 2; which++) {
    int *counts = s->label_count + 4 * (i64)n + 2 * which;
    total(s->totals + (2 * s->slot[n] + which) * TOTALS, counts[1], counts[0] + counts[1], -1.0);
    counts[0] = counts[1] = 0;
  }
  if (left > 0) s->slot[n] = (i8)(oldest % SLOTS);
  for (place = oldest; left > 0; left--) {
    int later = s->previous[place], a = place / SLOTS;
    add_use(s, n, a, place % SLOTS);
    for (int which = 0; which < 2; which++)
      count_label(s->label_count + 4 * (i64)n + 2 * which, s->totals + (2 * s->slot[n] + which) * TOTALS,
                  s->label[2 * (i64)a + which], 1);
    place = later;
  }
}

// Threads: [1], rare. Empties the slots app_schema[1], a bit each, of the applications of token[0] of the schema
// app_schema[0] (0: all) and counts anew whom they named. at: scratch, int [uses * SLOTS].
KERNEL forget(const State *s, const Batch *b, i64 threads) {
  THREAD_OR_RETURN
  i64 at = find(s, b->token[thread], false);
  if (at < 0) return;
  int n = s->place[at], *named = b->at, found = 0, place = s->newest[n];
  for (int i = s->uses[n]; i > 0; i--, place = s->previous[place]) {
    i64 a = place / SLOTS;
    if (place % SLOTS != 0 || (b->app_schema[0] != 0 && s->schema[a] != b->app_schema[0])) continue;
    for (int e = 0; e < SLOTS; e++) {
      int node = s->node[a * SLOTS + e], i = found;
      if (node < 0 || !(b->app_schema[1] >> e & 1)) continue;
      s->node[a * SLOTS + e] = -1;
      while (i > 0 && named[i - 1] > node) i--;
      if (i > 0 && named[i - 1] == node) continue;
      for (int j = found++; j > i; j--) named[j] = named[j - 1];
      named[i] = node;
    }
  }
  for (int i = 0; i < found; i++) count_again(s, named[i]);
}
