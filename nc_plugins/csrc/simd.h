// Vectors of one instruction set, the GEMM micro-kernel (tile) and transposes.
//
// The micro-kernel multiplies rows of a left matrix by a panel: a matrix [k][panel_width],
// contiguous row by row, as in BLIS. Panels hold a few columns of the im2col matrix or of the
// output's gradient.
//
// Each nc_conv_<instruction set>.cpp includes this file, gather.h, forward.h and backward.h inside
// an anonymous namespace, after a pragma that enables the instruction set. It defines
// NC_VECTOR_BYTES, the size of a vector, and the register tile: NC_ROWS rows of NC_VECTORS vectors.

#define NC_INLINE inline __attribute__((always_inline))

// type: a vector of T. mask and lane: integers of the same size. The attributes allow loads from
// any address of a T.
template <class T>
struct VectorTypes;
template <>
struct VectorTypes<float> {
  typedef float type __attribute__((vector_size(NC_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t mask __attribute__((vector_size(NC_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t lane;
};
template <>
struct VectorTypes<double> {
  typedef double type __attribute__((vector_size(NC_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t mask __attribute__((vector_size(NC_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t lane;
};
template <class T>
using Vector = typename VectorTypes<T>::type;

template <class T>
constexpr int64_t vector_width = NC_VECTOR_BYTES / sizeof(T);  // values of a vector
template <class T>
constexpr int64_t panel_width = NC_VECTORS * vector_width<T>;  // columns of a panel

// Unaligned load and store, and a vector with x in every lane.
template <class T>
NC_INLINE Vector<T> load(const T* p) {
  return *reinterpret_cast<const Vector<T>*>(p);
}
template <class T>
NC_INLINE void store(T* p, Vector<T> v) {
  *reinterpret_cast<Vector<T>*>(p) = v;
}
template <class T>
NC_INLINE Vector<T> broadcast(T x) {
  return x - Vector<T>{};
}

// width times -1, then width times 0: a vector loaded from entry width - n is a mask of n lanes.
template <class T>
struct LaneTable {
  typename VectorTypes<T>::lane lanes[2 * vector_width<T>];
  constexpr LaneTable() : lanes() {
    for (int64_t i = 0; i < vector_width<T>; i++) lanes[i] = -1;
  }
};
template <class T>
constexpr LaneTable<T> lane_table{};

// v in the first n lanes, zero in the others.
template <class T>
NC_INLINE Vector<T> first_lanes(Vector<T> v, int64_t n) {
  using Mask = typename VectorTypes<T>::mask;
  Mask mask = *reinterpret_cast<const Mask*>(lane_table<T>.lanes + vector_width<T> - n);
  return reinterpret_cast<Vector<T>>(reinterpret_cast<Mask>(v) & mask);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

// Products that a tile sums in registers before it is written (k_c of BLIS). It bounds the panel
// rows that must stay in the cache, and the rounding error of a sum.
constexpr int64_t k_block = 256;

// The left matrix of a product: value (m, k) is data[m * row_stride + k * k_stride].
template <class T>
struct LeftMatrix {
  const T* data;
  int64_t row_stride, k_stride;
};

// The micro-kernel: c[M][panel_width] = sum over k of a(m, k) * b[k][panel_width], added to c if
// `accumulate`. Only the first NV vectors of each row of c are computed.
//
// k runs over `blocks` blocks of `steps`: after each block a advances by `block_stride`, while b is
// contiguous. If PACKED, the M values of a step are contiguous in a. Otherwise a has k_stride 1,
// and the kernel prefetches the next M rows, half a cache line a step: rows of a large weight are
// too far apart for the hardware prefetcher.
template <class T, int M, int NV, bool PACKED>
__attribute__((noinline)) void tile(LeftMatrix<T> a, int64_t steps, int64_t blocks,
                                    int64_t block_stride, const T* b, T* c, bool accumulate) {
  Vector<T> acc[M][NV];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) acc[m][v] = Vector<T>{};
  for (int64_t block = 0; block < blocks; block++, a.data += block_stride) {
    const T* left = a.data;
    const T* next_row = a.data + M * a.row_stride;
    // A step prefetches `fetched` values. A row of k_block values takes row_steps + 1 steps, then
    // the next row follows.
    constexpr int64_t fetched = 32 / sizeof(T), row_steps = k_block / fetched - 1;
    for (int64_t k = 0; k < steps; k++, b += panel_width<T>) {
      if (!PACKED) {
        __builtin_prefetch(next_row);
        next_row += (k & row_steps) == row_steps ? a.row_stride - row_steps * fetched : fetched;
      }
      Vector<T> right[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) right[v] = load(b + v * vector_width<T>);
#pragma GCC unroll 16
      for (int m = 0; m < M; m++) {
        Vector<T> value = broadcast(PACKED ? left[m] : left[m * a.row_stride]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) acc[m][v] += value * right[v];
      }
      left += PACKED ? a.k_stride : 1;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      T* target = c + m * panel_width<T> + v * vector_width<T>;
      store(target, accumulate ? load(target) + acc[m][v] : acc[m][v]);
    }
}

// tile() for a number of vectors that is known at run time.
template <class T, int M, bool PACKED>
NC_INLINE void tile_of_rows(LeftMatrix<T> a, int64_t steps, int64_t blocks, int64_t block_stride,
                            const T* b, T* c, int64_t vectors, bool accumulate) {
  switch (vectors) {
#if NC_VECTORS > 2
    case 3:
      return tile<T, M, 3, PACKED>(a, steps, blocks, block_stride, b, c, accumulate);
#endif
    case 2:
      return tile<T, M, 2, PACKED>(a, steps, blocks, block_stride, b, c, accumulate);
    default:
      return tile<T, M, 1, PACKED>(a, steps, blocks, block_stride, b, c, accumulate);
  }
}

// tile() for up to NC_ROWS rows. A packed left matrix always has NC_ROWS rows, so c must have room
// for them.
template <class T, bool PACKED>
void multiply(int64_t rows, LeftMatrix<T> a, int64_t steps, int64_t blocks, int64_t block_stride,
              const T* b, T* c, int64_t vectors, bool accumulate) {
  if (rows == NC_ROWS || PACKED)
    return tile_of_rows<T, NC_ROWS, PACKED>(a, steps, blocks, block_stride, b, c, vectors,
                                            accumulate);
  for (; rows >= 2; rows -= 2, a.data += 2 * a.row_stride, c += 2 * panel_width<T>)
    tile_of_rows<T, 2, PACKED>(a, steps, blocks, block_stride, b, c, vectors, accumulate);
  if (rows) tile_of_rows<T, 1, PACKED>(a, steps, blocks, block_stride, b, c, vectors, accumulate);
}

// Half of the lanes of a and b, interleaved: a[i], b[i], a[i + 1], b[i + 1], ... with i from 0 if
// HALF is 0, from width / 2 if HALF is 1.
#ifdef __clang__
template <class T, int HALF, int... LANE>
NC_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b, std::integer_sequence<int, LANE...>) {
  constexpr int n = vector_width<T>;
  return __builtin_shufflevector(a, b, (HALF * n / 2 + LANE / 2 + LANE % 2 * n)...);
}
template <class T, int HALF>
NC_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b) {
  return interleave<T, HALF>(a, b, std::make_integer_sequence<int, vector_width<T>>{});
}
#else  // GCC has the same builtin from version 12 on
template <class T, int HALF>
NC_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b) {
  constexpr int n = vector_width<T>;
  typename VectorTypes<T>::mask lanes;
#pragma GCC unroll 16
  for (int i = 0; i < n; i++)
    lanes[i] = static_cast<typename VectorTypes<T>::lane>(HALF * n / 2 + i / 2 + i % 2 * n);
  return __builtin_shuffle(a, b, lanes);
}
#endif

// to[j][i] = from[i][j] for a square of vector_width rows and columns. Strides are those of the
// rows. Interleaving row i with row i + width / 2, log2(width) times, transposes the square.
template <class T>
NC_INLINE void transpose_square(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int n = vector_width<T>;
  Vector<T> row[n], next[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; i++) row[i] = load(from + i * from_stride);
#pragma GCC unroll 4
  for (int done = 1; done < n; done *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; i++) {
      next[2 * i] = interleave<T, 0>(row[i], row[i + n / 2]);
      next[2 * i + 1] = interleave<T, 1>(row[i], row[i + n / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) row[i] = next[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; i++) store(to + i * to_stride, row[i]);
}

// to[j][i] = from[i][j] for any number of rows and columns. It converts channels_last pixels to one
// plane for each channel, and back.
template <class T>
void transpose(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to,
               int64_t to_stride) {
  constexpr int64_t n = vector_width<T>;
  for (int64_t i = 0; i < rows; i += n)
    for (int64_t j = 0; j < columns; j += n) {
      const T* square = from + i * from_stride + j;
      T* target = to + j * to_stride + i;
      if (i + n <= rows && j + n <= columns)
        transpose_square(square, from_stride, target, to_stride);
      else
        for (int64_t b = 0; b < min(n, columns - j); b++)
          for (int64_t a = 0; a < min(n, rows - i); a++)
            target[b * to_stride + a] = square[a * from_stride + b];
    }
}
