// The kernels for AVX2 and FMA. 16 vector registers hold a tile of 6 x 2 vectors, 2 vectors of the
// panel and a broadcast value.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "nc_conv.h"

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define NC_VECTOR_BYTES 32
#define NC_ROWS 6
#define NC_VECTORS 2
namespace {
#include "simd.h"
#include "gather.h"
#include "forward.h"
#include "backward.h"
}  // namespace
#ifdef __clang__
#pragma clang attribute pop
#endif

const nc::Kernels nc::avx2 = {"avx2", forward<float>, forward<double>, backward<float>,
                              backward<double>};
#endif
