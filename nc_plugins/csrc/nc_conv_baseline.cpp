// The kernels for every processor of the architecture, with vectors of 16 bytes (SSE2, NEON).
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "nc_conv.h"

#define NC_VECTOR_BYTES 16
#define NC_ROWS 4
#define NC_VECTORS 2
namespace {
#include "simd.h"
#include "gather.h"
#include "forward.h"
#include "backward.h"
}  // namespace

const nc::Kernels nc::baseline = {"baseline", forward<float>, forward<double>, backward<float>,
                                  backward<double>};
