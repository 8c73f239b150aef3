// im2col one panel at a time, and the statistics of patches. (Included like simd.h.)
//
// The input is first copied into planes: padded images in which the values that one tap contributes
// to a row of the output are contiguous. A row of the im2col matrix is then a shifted view of a
// plane. PanelColumns, RowReader and Gather turn it into panels, which are standardised while they
// are in the cache. The im2col matrix has one column for each output position of each sample (N *
// L) and one row for each channel and tap (I = C * K).

// Values allocated behind each buffer, so that a vector load may start at its last value.
constexpr int64_t slack = 64;

// A buffer of `count` values that lives until the end of the call.
template <class T>
T* scratch_buffer(void* (*allocate)(void*, size_t), void* context, int64_t count) {
  return static_cast<T*>(allocate(context, (count + slack) * sizeof(T)));
}

// A buffer of `count` values of this thread (see nc::ThreadBuffers).
template <class T>
T* thread_buffer(int slot, int64_t count) {
  return static_cast<T*>(nc::thread_buffers().take(slot, (count + slack) * sizeof(T)));
}

// One axis of a plane. Padding is part of the plane. Where the kernel has size 1, the plane holds
// only the pixels that the stride visits.
struct Axis {
  int64_t size;         // in plane indices
  int64_t output_step;  // plane indices from one output position to the next
  int64_t padding;      // zeros to the left, in input pixels
  int64_t input_step;   // input pixels from one plane index to the next
  // The plane index of an input pixel, or -1 if the plane does not hold it.
  int64_t index(int64_t input) const {
    int64_t padded = input + padding;
    return padded % input_step || padded / input_step >= size ? -1 : padded / input_step;
  }
};

// The layout of a plane: [depth][height][phase][phase_size]. Phase r of a row holds its columns r,
// r + stride, r + 2 * stride, ..., so the values that one tap contributes to a row of the output
// are contiguous.
struct PlaneLayout {
  Axis axis[3];
  int64_t phases, phase_size;
  int64_t row_size, size;        // values in a row and in a plane
  int64_t contiguous_positions;  // output positions in a run: those of a row, or all
  bool is_input;                 // the planes equal the input: kernel and stride 1, no padding
  bool covers_input;             // the planes hold every input pixel

  explicit PlaneLayout(const nc::Geometry& g) {
    is_input = covers_input = true;
    for (int a = 0; a < 3; a++) {
      bool one = g.kernel[a] == 1;
      int64_t window = g.dilation[a] * (g.kernel[a] - 1) + 1;
      axis[a] = one ? Axis{g.out[a], 1, g.pad[a], g.stride[a]}
                    : Axis{(g.out[a] - 1) * g.stride[a] + window, g.stride[a], g.pad[a], 1};
      is_input &= one && g.stride[a] == 1 && g.pad[a] == 0 && g.in[a] == g.out[a];
      covers_input &= axis[a].input_step == 1 && axis[a].size >= g.in[a] + g.pad[a];
    }
    phases = min(axis[2].output_step, axis[2].size);  // a larger stride has one output column
    phase_size = ceil_div(axis[2].size, phases);
    row_size = phases * phase_size;
    size = axis[0].size * axis[1].size * row_size;
    contiguous_positions = is_input ? g.out_size() : g.out[2];
  }

  // The offset in a plane of tap 0 of output position k.
  int64_t position_offset(const nc::Geometry& g, int64_t k) const {
    int64_t w = k % g.out[2], h = k / g.out[2] % g.out[1], d = k / g.out[2] / g.out[1];
    return (d * axis[0].output_step * axis[1].size + h * axis[1].output_step) * row_size + w;
  }
  // The offset of tap t from tap 0, the same for every output position.
  int64_t tap_offset(const nc::Geometry& g, int64_t t) const {
    int64_t w = t % g.kernel[2], h = t / g.kernel[2] % g.kernel[1],
            d = t / g.kernel[2] / g.kernel[1];
    int64_t column = w * g.dilation[2];
    return (d * g.dilation[0] * axis[1].size + h * g.dilation[1]) * row_size +
           column % phases * phase_size + column / phases;
  }

  // Calls visit(plane offset, input offset, count, step) for every span that a plane and an image
  // of the input have in common: `count` values, contiguous in the plane and `step` apart in the
  // image.
  template <class F>
  void for_each_span(const nc::Geometry& g, const F& visit) const {
    int64_t step = phases * axis[2].input_step, padding = axis[2].padding;
    for (int64_t d = 0; d < g.in[0]; d++)
      for (int64_t h = 0; h < g.in[1]; h++) {
        int64_t plane_d = axis[0].index(d), plane_h = axis[1].index(h);
        if (plane_d < 0 || plane_h < 0) continue;
        for (int64_t phase = 0; phase < phases; phase++) {
          int64_t begin = max(0, ceil_div(padding - phase, step));
          int64_t end = min(phase_size, ceil_div(g.in[2] + padding - phase, step));
          if (end > begin)
            visit((plane_d * axis[1].size + plane_h) * row_size + phase * phase_size + begin,
                  (d * g.in[1] + h) * g.in[2] + begin * step + phase - padding, end - begin, step);
        }
      }
  }
};

// Planes in memory: [N, G * planes_per_group] of them.
template <class T>
struct Planes {
  const T* data;
  int64_t sample_stride, channel_stride;
  int64_t planes_per_group;
  bool is_input;  // the memory is the input's: it ends with the last value, there is no slack
};

// Copies the input [N, G * C, *in] into planes [N, G * C, layout.size], or returns the input where
// it has that layout already.
template <class T>
Planes<T> make_planes(const nc::Geometry& g, const PlaneLayout& layout, const nc::Image<const T>& x,
                      void* (*allocate)(void*, size_t), void* context,
                      const nc::Parallel& parallel) {
  if (layout.is_input && x.pixel_stride == 1)
    return {x.data, x.sample_stride, x.channel_stride, g.in_channels, true};
  int64_t channels = g.groups * g.in_channels;
  T* data = scratch_buffer<T>(allocate, context, g.batch * channels * layout.size);
  // In channels_last a task transposes neighbouring channels.
  int64_t task_channels = x.pixel_stride == 1 ? 1 : 64, tasks = ceil_div(channels, task_channels);
  parallel(g.batch * tasks, [&](int64_t task) {
    int64_t n = task / tasks, first = task % tasks * task_channels;
    int64_t last = min(channels, first + task_channels);
    T* planes = data + (n * channels + first) * layout.size;
    if (!layout.is_input) memset(planes, 0, (last - first) * layout.size * sizeof(T));
    layout.for_each_span(g, [&](int64_t to, int64_t from, int64_t count, int64_t step) {
      const T* pixels =
          x.data + n * x.sample_stride + first * x.channel_stride + from * x.pixel_stride;
      if (x.channel_stride == 1)
        return transpose(pixels, step * x.pixel_stride, count, last - first, planes + to,
                         layout.size);
      for (int64_t c = first; c < last; c++) {
        const T* source = pixels + (c - first) * x.channel_stride;
        T* target = planes + (c - first) * layout.size + to;
        if (step == 1)
          memcpy(target, source, count * sizeof(T));
        else
          for (int64_t i = 0; i < count; i++) target[i] = source[i * step];
      }
    });
  });
  return {data, channels * layout.size, layout.size, g.in_channels, false};
}

// The columns [first, first + count) of the im2col matrix that panel `index` holds, split into
// runs.
template <class T>
struct PanelColumns {
  // Columns [column, column + length) of the panel: the same sample, contiguous from `offset` on.
  struct Run {
    int64_t column, length, sample, offset;
  };
  int64_t first, count;
  int64_t vectors;  // that hold a column
  int64_t input_run_count = 0, output_run_count = 0;
  Run input_runs[panel_width<T>];   // contiguous in a plane under any tap; offset is that of tap 0
  Run output_runs[panel_width<T>];  // contiguous in the output, one for each sample

  PanelColumns(const nc::Geometry& g, const PlaneLayout& layout, int64_t index) {
    int64_t positions = g.out_size();
    first = index * panel_width<T>;
    count = min(panel_width<T>, g.columns() - first);
    vectors = ceil_div(count, vector_width<T>);
    for (int64_t column = 0; column < count;) {
      int64_t n = (first + column) / positions, k = (first + column) % positions;
      int64_t length = min(count - column, positions - k);
      output_runs[output_run_count++] = {column, length, n, k};
      for (int64_t end = column + length; column < end;) {
        int64_t step =
            min(end - column, layout.contiguous_positions - k % layout.contiguous_positions);
        input_runs[input_run_count++] = {column, step, n, layout.position_offset(g, k)};
        column += step;
        k += step;
      }
    }
  }
};

// What standardises the columns of a panel: x -> ((x - mean) - mean_correction) * factor. The
// correction is the rounding error of the mean. It is the same for all values of a patch, so in a
// sum of thousands of products it would not average out.
template <class T>
struct Standardization {
  T mean[panel_width<T>], mean_correction[panel_width<T>], factor[panel_width<T>];
};

// Reads rows of the im2col matrix at the columns of a panel. A vector of a row takes its lanes from
// up to PARTS runs: a full vector is loaded from each and blended by a mask.
template <class T, int PARTS>
struct RowReader {
  using Mask = typename VectorTypes<T>::mask;
  const T* plane = nullptr;
  int64_t offset[NC_VECTORS][PARTS];
  Mask lanes[NC_VECTORS][PARTS];

  RowReader(const PanelColumns<T>& columns, const Planes<T>& planes) {
    for (int64_t v = 0, r = 0; v < NC_VECTORS; v++) {
      int64_t begin = v * vector_width<T>, end = begin + vector_width<T>;
      for (int part = 0; part < PARTS; part++) {
        if (part && r + 1 < columns.input_run_count && columns.input_runs[r + 1].column < end) r++;
        const auto& run = columns.input_runs[r];
        offset[v][part] = run.sample * planes.sample_stride + run.offset + begin - run.column;
        if (v >= columns.vectors) offset[v][part] = offset[0][0];
        for (int64_t i = 0; i < vector_width<T>; i++)
          lanes[v][part][i] = begin + i >= run.column ? -1 : 0;
      }
      if (r + 1 < columns.input_run_count && columns.input_runs[r + 1].column == end) r++;
    }
  }
  // Selects a row: the plane of its channel in sample 0, advanced by the offset of its tap.
  NC_INLINE void select(const T* row) { plane = row; }
  // Vector v of the selected row.
  NC_INLINE Vector<T> operator[](int64_t v) const {
    Vector<T> value = load(plane + offset[v][0]);
#pragma GCC unroll 4
    for (int part = 1; part < PARTS; part++) {
      Mask next = reinterpret_cast<Mask>(load(plane + offset[v][part]));
      Mask bits = reinterpret_cast<Mask>(value);
      value = reinterpret_cast<Vector<T>>(((bits ^ next) & lanes[v][part]) ^ bits);
    }
    return value;
  }
};

// The same for any number of runs, without loads past the end of a run.
template <class T>
struct RowReader<T, 0> {
  const PanelColumns<T>& columns;
  int64_t sample_stride;
  T values[panel_width<T>] = {};

  RowReader(const PanelColumns<T>& columns, const Planes<T>& planes)
      : columns(columns), sample_stride(planes.sample_stride) {}
  NC_INLINE void select(const T* row) {
    for (int64_t r = 0; r < columns.input_run_count; r++) {
      const auto& run = columns.input_runs[r];
      const T* from = row + run.sample * sample_stride + run.offset;
      for (int64_t i = 0; i < run.length; i++) values[run.column + i] = from[i];
    }
  }
  NC_INLINE Vector<T> operator[](int64_t v) const { return load(values + v * vector_width<T>); }
};

// Mean and centred sum of squares of VECTORS vectors of columns over the rows that were added. The
// mean of a column is origin + mean: the origin is one of its values, so differences from it are
// small and lose no digits.
template <class T, int64_t VECTORS>
struct Moments {
  int64_t rows = 0;
  Vector<T> origin[VECTORS] = {}, mean[VECTORS] = {}, squares[VECTORS] = {};

  // Adds ROWS rows; value(k, v) is vector v of row k. Two passes over the rows, which stay in
  // registers, give their mean and sum of squares. These are merged with the earlier rows' by the
  // formula of Chan et al. (1983), which never subtracts two large numbers.
  template <int64_t ROWS, class F>
  NC_INLINE void add(const F& value) {
    T fraction = static_cast<T>(ROWS) / static_cast<T>(rows + ROWS);
#pragma GCC unroll 4
    for (int64_t v = 0; v < VECTORS; v++) {
      if (!rows) origin[v] = value(0, v);
      Vector<T> held[ROWS], sum{}, sum_of_squares{};
#pragma GCC unroll 8
      for (int64_t k = 0; k < ROWS; k++) sum += held[k] = value(k, v) - origin[v];
      sum *= static_cast<T>(1) / static_cast<T>(ROWS);
#pragma GCC unroll 8
      for (int64_t k = 0; k < ROWS; k++) {
        held[k] -= sum;
        sum_of_squares += held[k] * held[k];
      }
      Vector<T> delta = sum - mean[v];
      mean[v] += delta * fraction;
      // In this order, because delta * delta may be infinite, and 0 * infinity is NaN.
      squares[v] += sum_of_squares + delta * (delta * (static_cast<T>(rows) * fraction));
    }
    rows += ROWS;
  }
};

// Copies parts of the im2col matrix into panels.
template <class T>
struct Gather {
  const nc::Geometry& g;
  const PlaneLayout& layout;
  Planes<T> planes;
  const int64_t* taps;  // PlaneLayout::tap_offset of each tap

  // The plane of a channel of a group in sample 0.
  const T* plane(int64_t group, int64_t channel) const {
    return planes.data + (group * planes.planes_per_group + channel) * planes.channel_stride;
  }

  // Calls use(reader) with the fastest RowReader that these columns allow.
  template <class F>
  void with_row_reader(const PanelColumns<T>& columns, const F& use) const {
    int64_t parts = 1;  // runs in one vector, the maximum over the vectors
    for (int64_t v = 0, r = 0; v < columns.vectors; v++) {
      int64_t begun = 0, end = (v + 1) * vector_width<T>;  // runs that begin in vector v
      for (; r < columns.input_run_count && columns.input_runs[r].column < end; r++) begun++;
      if (v && begun + 1 > parts)
        parts = begun + (columns.input_runs[r - begun].column > end - vector_width<T>);
      if (!v) parts = begun;
    }
    bool overreads = planes.is_input && columns.first + columns.count == g.columns() &&
                     columns.count % vector_width<T>;
    if (overreads || parts > 4) return use(RowReader<T, 0>(columns, planes));
    if (parts > 2) return use(RowReader<T, 4>(columns, planes));
    if (parts > 1) return use(RowReader<T, 2>(columns, planes));
    use(RowReader<T, 1>(columns, planes));
  }

  // Writes rows [first, last) of a group's im2col matrix at these columns: [last -
  // first][panel_width].
  void im2col_rows(const PanelColumns<T>& columns, int64_t group, int64_t first, int64_t last,
                   T* to) const {
    int64_t K = g.taps();
    with_row_reader(columns, [&](auto row) {
      for (int64_t i = first; i < last; i++, to += panel_width<T>) {
        row.select(plane(group, i / K) + taps[i % K]);
        for (int64_t v = 0; v < NC_VECTORS; v++) store(to + v * vector_width<T>, row[v]);
      }
    });
  }

  // The same, with each column standardised.
  void standardized_rows(const PanelColumns<T>& columns, int64_t group, int64_t first, int64_t last,
                         const Standardization<T>& standard, T* to) const {
    int64_t K = g.taps(), c = first / K, t = first % K;
    Vector<T> mean[NC_VECTORS], correction[NC_VECTORS], factor[NC_VECTORS];
    for (int64_t v = 0; v < NC_VECTORS; v++) {
      mean[v] = load(standard.mean + v * vector_width<T>);
      correction[v] = load(standard.mean_correction + v * vector_width<T>);
      factor[v] = load(standard.factor + v * vector_width<T>);
    }
    with_row_reader(columns, [&](auto row) {
      const T* channel = plane(group, c);
      for (int64_t i = first; i < last; i++, to += panel_width<T>) {
        row.select(channel + taps[t]);
#pragma GCC unroll 4
        for (int64_t v = 0; v < NC_VECTORS; v++)
          store(to + v * vector_width<T>, ((row[v] - mean[v]) - correction[v]) * factor[v]);
        if (++t == K) {
          t = 0;
          channel += planes.channel_stride;
        }
      }
    });
  }

  // Moments of these columns over a group's channels, for a kernel with one tap.
  Moments<T, NC_VECTORS> channel_moments(const PanelColumns<T>& columns, int64_t group) const {
    Moments<T, NC_VECTORS> sums;
    with_row_reader(columns, [&](auto row) {
      const T* from = plane(group, 0);
      auto value = [&](int64_t k, int64_t v) {
        row.select(from + k * planes.channel_stride);
        return row[v];
      };
      int64_t c = 0;
      for (; c + 8 <= g.in_channels; c += 8, from += 8 * planes.channel_stride)
        sums.template add<8>(value);
      for (; c < g.in_channels; c++, from += planes.channel_stride) sums.template add<1>(value);
    });
    return sums;
  }
};

// Moments of every pixel of the planes over a group's channels, for kernels with several taps:
// planes [N, G, 3] of origin, mean and squares. Those of a patch follow from its K pixels, so a
// channel is read once rather than K times.
template <class T>
Planes<T> pixel_moments(const nc::Geometry& g, const PlaneLayout& layout, const Planes<T>& planes,
                        void* (*allocate)(void*, size_t), void* context,
                        const nc::Parallel& parallel) {
  constexpr int64_t block =
      4 * vector_width<T>;  // at most the slack: the last block may end behind the planes
  int64_t blocks = ceil_div(layout.size, block), plane_size = blocks * block;
  T* maps = scratch_buffer<T>(allocate, context, g.batch * g.groups * 3 * plane_size);
  parallel(g.batch * g.groups, [&](int64_t task) {
    int64_t n = task / g.groups, first = task % g.groups * g.in_channels;
    T* to = maps + task * 3 * plane_size;
    for (int64_t b = 0; b < blocks; b++) {
      const T* from =
          planes.data + n * planes.sample_stride + first * planes.channel_stride + b * block;
      Moments<T, 4> moments;
      auto value = [&](int64_t k, int64_t v) {
        return load(from + k * planes.channel_stride + v * vector_width<T>);
      };
      int64_t c = 0;
      for (; c + 8 <= g.in_channels; c += 8, from += 8 * planes.channel_stride)
        moments.template add<8>(value);
      for (; c < g.in_channels; c++, from += planes.channel_stride) moments.template add<1>(value);
      for (int64_t v = 0; v < 4; v++) {
        T* target = to + b * block + v * vector_width<T>;
        store(target, moments.origin[v]);
        store(target + plane_size, moments.mean[v]);
        store(target + 2 * plane_size, moments.squares[v]);
      }
    }
  });
  return {maps, g.groups * 3 * plane_size, plane_size, 3, false};
}

// Reads a map [N, G, L] at the columns of a panel, and 0 behind the last column.
template <class T>
void read_map(const nc::Geometry& g, const PanelColumns<T>& columns, int64_t group, const T* map,
              T* to) {
  for (int64_t i = 0; i < panel_width<T>; i++) to[i] = 0;
  for (int64_t p = 0; p < columns.output_run_count; p++) {
    const auto& run = columns.output_runs[p];
    const T* from = map + (run.sample * g.groups + group) * g.out_size() + run.offset;
    for (int64_t i = 0; i < run.length; i++) to[run.column + i] = from[i];
  }
}
