// Columns that the graph knows go into rows that the host has filled in as far as it can.
#include "kernel.cuh"

struct Columns {
  i64 columns, entity_stats, graph_stats, slots;
  const int *column;     // [columns] of the rows
  const int *first_slot; // [columns], -1: a statistic of links
  const int *last_slot;  // [columns] inclusive; of several slots the largest counts
  const int *stat;       // [columns]
};

struct Filled {
  i64 rows, width;
  const float *entity_state; // [rows, slots, entity_stats]
  const float *graph_state;  // [rows, graph_stats]
  float *row;                // [rows, width]
};

// Threads: [rows, columns].
KERNEL fill(const Columns *c, const Filled *f, i64 threads) {
  THREAD_OR_RETURN
  i64 row = thread / c->columns, i = thread % c->columns;
  float *out = f->row + row * f->width + c->column[i];
  if (c->first_slot[i] < 0) {
    *out = f->graph_state[row * c->graph_stats + c->stat[i]];
    return;
  }
  const float *state = f->entity_state + row * c->slots * c->entity_stats + c->stat[i];
  float largest = state[c->first_slot[i] * c->entity_stats];
  for (int slot = c->first_slot[i] + 1; slot <= c->last_slot[i]; slot++) {
    float next = state[slot * c->entity_stats];
    if (!(largest >= next || next != next)) largest = next;  // as np.fmax: what is missing loses
  }
  *out = largest;
}
