// A tree ensemble and the exact contributions of its features, equal to ONNX Runtime's margin and models/shap.py bit for
// bit: leaves are added in the order of the trees in float32, table entries in the order of the blocks in double. What
// is parallel is rows, trees, blocks and columns, never a sum.
#include "kernel.cuh"

struct Forest {
  i64 trees, blocks, columns;
  const int *root;       // [trees]
  const int *left;       // [nodes], -1 at a leaf
  const int *right;      // [nodes]
  const int *feature;    // [nodes]
  const float *threshold;
  const u8 *default_left;
  const float *value;
  const float *base;     // [1]
  const int *split_at;   // [blocks + 1]
  const int *split;      // [splits] node
  const i64 *table_at;   // [blocks + 1]
  const int *width;      // [blocks] columns in the block's table
  const float *table;
  const int *entry_at;   // [columns + 1]
  const int *entry_block; // [entries] in the order of the blocks
  const int *entry_place; // [entries] which column of the block's table
};

struct Rows {
  i64 rows, width;
  const float *row;     // [rows, width]
  float *leaf;          // [trees, rows]
  float *margin;        // [rows]
  int *answer;          // [blocks, rows] a bit each split of the block, 1 where it goes left
  double *contribution; // [rows, columns]
};

__device__ inline bool goes_left(const Forest *f, const float *row, int node) {
  float x = row[f->feature[node]];
  return x < f->threshold[node] || (x != x && f->default_left[node]);
}

// Threads: [trees, rows].
KERNEL find_leaf(const Forest *f, const Rows *r, i64 threads) {
  THREAD_OR_RETURN
  const float *row = r->row + thread % r->rows * r->width;
  int node = f->root[thread / r->rows];
  while (f->left[node] >= 0) node = goes_left(f, row, node) ? f->left[node] : f->right[node];
  r->leaf[thread] = f->value[node];
}

// Threads: [rows].
KERNEL add_leaves(const Forest *f, const Rows *r, i64 threads) {
  THREAD_OR_RETURN
  float sum = 0.0f;
  for (i64 tree = 0; tree < f->trees; tree++) sum += r->leaf[tree * r->rows + thread];
  r->margin[thread] = sum + f->base[0];
}

// Threads: [blocks, rows].
KERNEL ask_splits(const Forest *f, const Rows *r, i64 threads) {
  THREAD_OR_RETURN
  const float *row = r->row + thread % r->rows * r->width;
  i64 block = thread / r->rows;
  int answer = 0;
  for (int i = f->split_at[block]; i < f->split_at[block + 1]; i++)
    answer |= (int)goes_left(f, row, f->split[i]) << (i - f->split_at[block]);
  r->answer[thread] = answer;
}

// Threads: [columns, rows].
KERNEL contribute(const Forest *f, const Rows *r, i64 threads) {
  THREAD_OR_RETURN
  i64 row = thread % r->rows, column = thread / r->rows;
  double sum = 0.0;
  for (int i = f->entry_at[column]; i < f->entry_at[column + 1]; i++) {
    i64 block = f->entry_block[i];
    sum += f->table[f->table_at[block] + (i64)r->answer[block * r->rows + row] * f->width[block] + f->entry_place[i]];
  }
  r->contribution[row * f->columns + column] = sum;
}
