// The kernels for AVX-512. 32 vector registers hold a tile of 8 x 3 vectors, 3 vectors of the panel
// and a broadcast value.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "nc_conv.h"

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif
#define NC_VECTOR_BYTES 64
#define NC_ROWS 8
#define NC_VECTORS 3
namespace {
#include "simd.h"
#include "gather.h"
#include "forward.h"
#include "backward.h"
}  // namespace
#ifdef __clang__
#pragma clang attribute pop
#endif

const nc::Kernels nc::avx512 = {"avx512", forward<float>, forward<double>, backward<float>,
                                backward<double>};
#endif
