// What every kernel starts with. The launcher passes two structs, and how many threads have something to do.
#pragma once

typedef long long i64;
typedef unsigned long long u64;
typedef signed char i8;
typedef unsigned char u8;

#define KERNEL extern "C" __global__ void
#define THREAD_OR_RETURN                                   \
  i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x; \
  if (thread >= threads) return;
