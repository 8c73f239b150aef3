// Vectors of the instruction set at hand and the one kernel that multiplies: a tile of a matrix
// product whose right side is a panel, `panel` columns wide and contiguous row by row.
//
// Included inside an anonymous namespace, once for each instruction set (NC_VECTOR_BYTES wide,
// tiles of NC_ROWS x NC_VECTORS vectors), after a #pragma that switches the compiler to it.

#define NC_INLINE inline __attribute__((always_inline))

template <class T>
struct Vectors;
template <>
struct Vectors<float> {
  typedef float type __attribute__((vector_size(NC_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t mask __attribute__((vector_size(NC_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t lane;
};
template <>
struct Vectors<double> {
  typedef double type __attribute__((vector_size(NC_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t mask __attribute__((vector_size(NC_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t lane;
};
template <class T>
using Vector = typename Vectors<T>::type;

template <class T>
constexpr int64_t width = NC_VECTOR_BYTES / sizeof(T);  // values in a vector
template <class T>
constexpr int64_t panel = NC_VECTORS * width<T>;  // columns of a panel

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

// The first n lanes of v, zero in the others.
template <class T>
struct LaneTable {
  typename Vectors<T>::lane lanes[2 * width<T>];
  constexpr LaneTable() : lanes() {
    for (int64_t i = 0; i < width<T>; i++) lanes[i] = -1;
  }
};
template <class T>
constexpr LaneTable<T> lane_table{};

template <class T>
NC_INLINE Vector<T> first_lanes(Vector<T> v, int64_t n) {
  using Mask = typename Vectors<T>::mask;
  Mask mask = *reinterpret_cast<const Mask*>(lane_table<T>.lanes + width<T> - n);
  return reinterpret_cast<Vector<T>>(reinterpret_cast<Mask>(v) & mask);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

constexpr int64_t depth = 256;  // steps a tile sums before it is written: cache, and rounding

// The left side of a product: value (row m, step k) is at data[m * row + k * step].
template <class T>
struct Left {
  const T* data;
  int64_t row, step;
};

// c[M][panel] (+)= sum over steps of a(m, k) * b[k][panel], `blocks` times `steps` of them: after
// each block a moves on by `jump`, b goes straight on. Only the first NV vectors of c are touched.
// A left side that is not packed has step 1; while its rows are read, the rows behind them are
// fetched, half a cache line a step: rows of a large weight are too far apart for the hardware to
// see that they will be next.
template <class T, int M, int NV, bool PACKED>
__attribute__((noinline)) void tile(Left<T> a, int64_t steps, int64_t blocks, int64_t jump,
                                    const T* b, T* c, bool accumulate) {
  Vector<T> acc[M][NV];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) acc[m][v] = Vector<T>{};
  for (int64_t block = 0; block < blocks; block++, a.data += jump) {
    const T* left = a.data;
    const T* ahead = a.data + M * a.row;
    constexpr int64_t fetched = 32 / sizeof(T), turn = depth / fetched - 1;
    for (int64_t k = 0; k < steps; k++, b += panel<T>) {
      if (!PACKED) {
        __builtin_prefetch(ahead);
        ahead += (k & turn) == turn ? a.row - turn * fetched : fetched;
      }
      Vector<T> right[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) right[v] = load(b + v * width<T>);
#pragma GCC unroll 16
      for (int m = 0; m < M; m++) {
        Vector<T> value = broadcast(PACKED ? left[m] : left[m * a.row]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) acc[m][v] += value * right[v];
      }
      left += PACKED ? a.step : 1;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      T* at = c + m * panel<T> + v * width<T>;
      store(at, accumulate ? load(at) + acc[m][v] : acc[m][v]);
    }
}

template <class T, int M, bool PACKED>
NC_INLINE void tile_of_rows(Left<T> a, int64_t steps, int64_t blocks, int64_t jump, const T* b,
                            T* c, int64_t vectors, bool accumulate) {
  switch (vectors) {
#if NC_VECTORS > 2
    case 3:
      return tile<T, M, 3, PACKED>(a, steps, blocks, jump, b, c, accumulate);
#endif
    case 2:
      return tile<T, M, 2, PACKED>(a, steps, blocks, jump, b, c, accumulate);
    default:
      return tile<T, M, 1, PACKED>(a, steps, blocks, jump, b, c, accumulate);
  }
}

// A tile of up to NC_ROWS rows. A packed left side holds NC_ROWS values for each step.
template <class T, bool PACKED>
void multiply(int64_t rows, Left<T> a, int64_t steps, int64_t blocks, int64_t jump, const T* b,
              T* c, int64_t vectors, bool accumulate) {
  if (rows == NC_ROWS || PACKED)
    return tile_of_rows<T, NC_ROWS, PACKED>(a, steps, blocks, jump, b, c, vectors, accumulate);
  for (; rows >= 2; rows -= 2, a.data += 2 * a.row, c += 2 * panel<T>)
    tile_of_rows<T, 2, PACKED>(a, steps, blocks, jump, b, c, vectors, accumulate);
  if (rows) tile_of_rows<T, 1, PACKED>(a, steps, blocks, jump, b, c, vectors, accumulate);
}

// The lanes of two vectors in turn: a[i], b[i], a[i + 1], b[i + 1], ..., a vector of them, from i = 0
// on if HALF is 0 and from i = width / 2 on if HALF is 1.
#ifdef __clang__
template <class T, int HALF, int... LANE>
NC_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b, std::integer_sequence<int, LANE...>) {
  constexpr int n = width<T>;
  return __builtin_shufflevector(a, b, (HALF * n / 2 + LANE / 2 + LANE % 2 * n)...);
}
template <class T, int HALF>
NC_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b) {
  return interleave<T, HALF>(a, b, std::make_integer_sequence<int, width<T>>{});
}
#else  // GCC has the same builtin from version 12 on
template <class T, int HALF>
NC_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b) {
  constexpr int n = width<T>;
  typename Vectors<T>::mask lanes;
#pragma GCC unroll 16
  for (int i = 0; i < n; i++)
    lanes[i] = static_cast<typename Vectors<T>::lane>(HALF * n / 2 + i / 2 + i % 2 * n);
  return __builtin_shuffle(a, b, lanes);
}
#endif

// to[j][i] = from[i][j] for a square of `width` rows, which lie so far apart.
template <class T>
NC_INLINE void transpose_square(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int n = width<T>;
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

// The same for any number of rows and columns. In channels_last this is how pixels become planes,
// and planes pixels.
template <class T>
void transpose(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to,
               int64_t to_stride) {
  constexpr int64_t n = width<T>;
  for (int64_t i = 0; i < rows; i += n)
    for (int64_t j = 0; j < columns; j += n) {
      const T* square = from + i * from_stride + j;
      T* target = to + j * to_stride + i;
      if (i + n <= rows && j + n <= columns)
        transpose_square(square, from_stride, target, to_stride);
      else
        for (int64_t b = 0; b < least(n, columns - j); b++)
          for (int64_t a = 0; a < least(n, rows - i); a++)
            target[b * to_stride + a] = square[a * from_stride + b];
    }
}
