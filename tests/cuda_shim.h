// CUDA C on the CPU: enough for kernels that neither synchronise nor share memory. `run_threads` runs each thread to its
// end, in the order it is given; what comes out must not depend on that order.
#pragma once
#include <math.h>

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __restrict__

struct dim3_ {
  unsigned x, y, z;
};
static dim3_ blockIdx, blockDim, threadIdx, gridDim;

template <typename T> static T atomicAdd(T *at, T by) {
  T was = *at;
  *at = was + by;
  return was;
}
template <typename T> static T atomicMin(T *at, T other) {
  T was = *at;
  *at = other < was ? other : was;
  return was;
}
template <typename T> static T atomicMax(T *at, T other) {
  T was = *at;
  *at = other > was ? other : was;
  return was;
}
template <typename T> static T atomicCAS(T *at, T expected, T now) {
  T was = *at;
  if (was == expected) *at = now;
  return was;
}

extern "C" void run_threads(void *kernel, const void *first, const void *second, long long threads,
                            const long long *order, long long count, unsigned block) {
  auto function = (void (*)(const void *, const void *, long long))kernel;
  blockDim = {block, 1, 1};
  gridDim = {(unsigned)(count / block), 1, 1};
  for (long long i = 0; i < count; i++) {
    blockIdx = {(unsigned)(order[i] / block), 0, 0};
    threadIdx = {(unsigned)(order[i] % block), 0, 0};
    function(first, second, threads);
  }
}
