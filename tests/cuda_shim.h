// CUDA C on the CPU: enough for kernels that neither synchronise nor share memory. `run_threads` runs each thread to its
// end, in the order it is given, on one or several workers; what comes out must not depend on either.
#pragma once
#include <math.h>
#include <string.h>

#include <thread>
#include <vector>

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __restrict__

struct dim3_ {
  unsigned x, y, z;
};
static thread_local dim3_ blockIdx, blockDim, threadIdx, gridDim;

static double __longlong_as_double(long long bits) {
  double found;
  memcpy(&found, &bits, sizeof found);
  return found;
}
template <typename T> static T __ldcg(const T *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
template <typename T> static T atomicAdd(T *at, T by) { return __atomic_fetch_add(at, by, __ATOMIC_RELAXED); }
template <typename T> static T atomicCAS(T *at, T expected, T now) {
  __atomic_compare_exchange_n(at, &expected, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <typename T> static T atomicMin(T *at, T other) {
  T was = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (other < was && !__atomic_compare_exchange_n(at, &was, other, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return was;
}
template <typename T> static T atomicMax(T *at, T other) {
  T was = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (other > was && !__atomic_compare_exchange_n(at, &was, other, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return was;
}

extern "C" void run_threads(void *kernel, const void *first, const void *second, long long threads,
                            const long long *order, long long count, unsigned block, int workers) {
  auto function = (void (*)(const void *, const void *, long long))kernel;
  auto work = [&](long long start) {
    blockDim = {block, 1, 1};
    gridDim = {(unsigned)(count / block), 1, 1};
    for (long long i = start; i < count; i += workers) {
      blockIdx = {(unsigned)(order[i] / block), 0, 0};
      threadIdx = {(unsigned)(order[i] % block), 0, 0};
      function(first, second, threads);
    }
  };
  std::vector<std::thread> others;
  for (int worker = 1; worker < workers; worker++) others.emplace_back(work, worker);
  work(0);
  for (auto &other : others) other.join();
}
