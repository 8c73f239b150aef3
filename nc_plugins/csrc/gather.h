// Where the values of a patch lie, and how they come into panels: im2col a few columns at a time,
// standardised while it is in the cache. (Included like simd.h.)

// Reading one vector past the end of a scratch buffer is allowed: this much room is behind each.
constexpr int64_t slack = 64;

template <class T>
T* scratch(void* (*allocate)(void*, size_t), void* context, int64_t count) {
  return static_cast<T*>(allocate(context, (count + slack) * sizeof(T)));
}

// A buffer of this thread, kept from call to call.
template <class T>
T* thread_buffer(int slot, int64_t count) {
  struct Buffer {
    void* data = nullptr;
    size_t bytes = 0;
    ~Buffer() { free(data); }
  };
  static thread_local Buffer buffers[4];
  Buffer& buffer = buffers[slot];
  size_t bytes = (count + slack) * sizeof(T);
  if (buffer.bytes < bytes) {
    free(buffer.data);
    buffer.bytes = 0;
    if (posix_memalign(&buffer.data, 64, bytes)) {
      buffer.data = nullptr;
      throw std::bad_alloc();
    }
    buffer.bytes = bytes;
  }
  return static_cast<T*>(buffer.data);
}

// How one axis of the input lies in a plane. Padding is part of the plane. An axis whose kernel is
// 1 keeps only what the stride sees.
struct Axis {
  int64_t size, step, origin, spread;  // index in the plane = (input index + origin) / spread
  int64_t inside(int64_t i) const {    // -1: not in the plane
    int64_t at = i + origin;
    return at % spread || at / spread >= size ? -1 : at / spread;
  }
};

// The input as planes of [depth][height][phase][column]: columns that one stride apart belong
// together lie side by side, so whatever a tap sees along an output row is contiguous.
struct Layout {
  Axis axis[3];
  int64_t phases, columns, row, size;  // row, size: values in a row and in a plane
  int64_t runs_on;  // output positions that are contiguous: a row of them, or all
  bool dense;       // the planes are the input itself
  bool whole;       // every input pixel has a place

  explicit Layout(const nc::Geometry& g) {
    dense = whole = true;
    for (int a = 0; a < 3; a++) {
      bool one = g.kernel[a] == 1;
      int64_t reach = g.dilation[a] * (g.kernel[a] - 1);
      axis[a] = one ? Axis{g.out[a], 1, g.pad[a], g.stride[a]}
                    : Axis{(g.out[a] - 1) * g.stride[a] + reach + 1, g.stride[a], g.pad[a], 1};
      dense &= one && g.stride[a] == 1 && g.pad[a] == 0 && g.in[a] == g.out[a];
      whole &= axis[a].spread == 1 && axis[a].size >= g.in[a] + g.pad[a];
    }
    phases = least(axis[2].step, axis[2].size);  // a larger stride has one output column
    columns = ceil_div(axis[2].size, phases);
    row = phases * columns;
    size = axis[0].size * axis[1].size * row;
    runs_on = dense ? g.out_size() : g.out[2];
  }

  int64_t position(const nc::Geometry& g, int64_t k) const {  // of output position k under tap 0
    int64_t w = k % g.out[2], h = k / g.out[2] % g.out[1], d = k / g.out[2] / g.out[1];
    return (d * axis[0].step * axis[1].size + h * axis[1].step) * row + w;
  }
  int64_t tap(const nc::Geometry& g, int64_t t) const {  // what tap t adds to a position
    int64_t w = t % g.kernel[2], h = t / g.kernel[2] % g.kernel[1],
            d = t / g.kernel[2] / g.kernel[1];
    int64_t right = w * g.dilation[2];
    return (d * g.dilation[0] * axis[1].size + h * g.dilation[1]) * row + right % phases * columns +
           right / phases;
  }

  // visit(place in the plane, place in the image, count, step): `count` values that follow each
  // other in the plane and are `step` apart in the image; all that the two have in common.
  template <class F>
  void each_span(const nc::Geometry& g, const F& visit) const {
    int64_t step = phases * axis[2].spread, origin = axis[2].origin;
    for (int64_t d = 0; d < g.in[0]; d++)
      for (int64_t h = 0; h < g.in[1]; h++) {
        int64_t pd = axis[0].inside(d), ph = axis[1].inside(h);
        if (pd < 0 || ph < 0) continue;
        for (int64_t phase = 0; phase < phases; phase++) {
          int64_t left = most(0, ceil_div(origin - phase, step));
          int64_t end = least(columns, ceil_div(g.in[2] + origin - phase, step));
          if (end > left)
            visit((pd * axis[1].size + ph) * row + phase * columns + left,
                  (d * g.in[1] + h) * g.in[2] + left * step + phase - origin, end - left, step);
        }
      }
  }
};

template <class T>
struct Planes {
  const T* data;
  int64_t sample, channel;  // strides
  int64_t per_group;        // planes of a sample that belong to one group
  bool exact;               // nothing may be read past a run: the memory is not ours
};

template <class T>
Planes<T> make_planes(const nc::Geometry& g, const Layout& layout, const nc::Image<const T>& x,
                      void* (*allocate)(void*, size_t), void* context,
                      const nc::Parallel& parallel) {
  if (layout.dense && x.pixel == 1) return {x.data, x.sample, x.channel, g.in_channels, true};
  int64_t channels = g.groups * g.in_channels;
  T* data = scratch<T>(allocate, context, g.batch * channels * layout.size);
  // channels_last: a task takes channels that lie side by side
  int64_t together = x.pixel == 1 ? 1 : 64, tasks = ceil_div(channels, together);
  parallel(g.batch * tasks, [&](int64_t task) {
    int64_t n = task / tasks, first = task % tasks * together;
    int64_t last = least(channels, first + together);
    T* planes = data + (n * channels + first) * layout.size;
    if (!layout.dense) memset(planes, 0, (last - first) * layout.size * sizeof(T));
    layout.each_span(g, [&](int64_t to, int64_t from, int64_t count, int64_t step) {
      const T* pixels = x.data + n * x.sample + first * x.channel + from * x.pixel;
      if (x.channel == 1)
        return transpose(pixels, step * x.pixel, count, last - first, planes + to, layout.size);
      for (int64_t c = first; c < last; c++) {
        const T* source = pixels + (c - first) * x.channel;
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

// The columns of one panel: output positions, counted over all samples.
template <class T>
struct Columns {
  struct Run {
    int64_t at, length, sample, position;  // column in the panel; position in the plane or output
  };
  int64_t first, count, vectors, runs = 0, pieces = 0;
  Run run[panel<T>];    // contiguous in the planes
  Run piece[panel<T>];  // contiguous in the output: one a sample

  Columns(const nc::Geometry& g, const Layout& layout, int64_t index) {
    int64_t positions = g.out_size();
    first = index * panel<T>;
    count = least(panel<T>, g.columns() - first);
    vectors = ceil_div(count, width<T>);
    for (int64_t at = 0; at < count;) {
      int64_t n = (first + at) / positions, k = (first + at) % positions;
      int64_t length = least(count - at, positions - k);
      piece[pieces++] = {at, length, n, k};
      for (int64_t end = at + length; at < end;) {
        int64_t step = least(end - at, layout.runs_on - k % layout.runs_on);
        run[runs++] = {at, step, n, layout.position(g, k)};
        at += step;
        k += step;
      }
    }
  }
};

// What is taken off each column of a panel, and what it is then multiplied by. A mean comes in two
// parts, itself and what rounding took from it: that remainder is the same for all of a patch's
// values, so in a sum of thousands of products it would not average out.
template <class T>
struct Standard {
  T mean[panel<T>], rest[panel<T>], factor[panel<T>];
};

// One row of the im2col matrix at the columns of a panel. A vector of it comes from up to PARTS
// runs, each loaded whole and blended in where its lanes are; the first call says from which plane.
template <class T, int PARTS>
struct Row {
  using Mask = typename Vectors<T>::mask;
  const T* seen = nullptr;
  int64_t offset[NC_VECTORS][PARTS];
  Mask lanes[NC_VECTORS][PARTS];

  Row(const Columns<T>& columns, const Planes<T>& planes) {
    for (int64_t v = 0, r = 0; v < NC_VECTORS; v++) {
      int64_t begin = v * width<T>, end = begin + width<T>;
      for (int part = 0; part < PARTS; part++) {
        if (part && r + 1 < columns.runs && columns.run[r + 1].at < end) r++;
        const auto& run = columns.run[r];
        offset[v][part] = run.sample * planes.sample + run.position + begin - run.at;
        if (v >= columns.vectors) offset[v][part] = offset[0][0];
        for (int64_t i = 0; i < width<T>; i++) lanes[v][part][i] = begin + i >= run.at ? -1 : 0;
      }
      if (r + 1 < columns.runs && columns.run[r + 1].at == end) r++;
    }
  }
  NC_INLINE void at(const T* plane) { seen = plane; }
  NC_INLINE Vector<T> operator[](int64_t v) const {
    Vector<T> value = load(seen + offset[v][0]);
#pragma GCC unroll 4
    for (int part = 1; part < PARTS; part++) {
      Mask there = reinterpret_cast<Mask>(load(seen + offset[v][part]));
      Mask here = reinterpret_cast<Mask>(value);
      value = reinterpret_cast<Vector<T>>(((here ^ there) & lanes[v][part]) ^ here);
    }
    return value;
  }
};

// Any number of runs, and no reading past them.
template <class T>
struct Row<T, 0> {
  const Columns<T>& columns;
  int64_t sample;
  T values[panel<T>] = {};

  Row(const Columns<T>& columns, const Planes<T>& planes)
      : columns(columns), sample(planes.sample) {}
  NC_INLINE void at(const T* plane) {
    for (int64_t r = 0; r < columns.runs; r++) {
      const auto& run = columns.run[r];
      const T* from = plane + run.sample * sample + run.position;
      for (int64_t i = 0; i < run.length; i++) values[run.at + i] = from[i];
    }
  }
  NC_INLINE Vector<T> operator[](int64_t v) const { return load(values + v * width<T>); }
};

// Mean and centred sum of squares of columns, over the rows seen so far. The mean is kept as its
// distance from one of the first rows, near which differences are exact.
template <class T, int64_t VECTORS>
struct Moments {
  int64_t rows = 0;
  Vector<T> origin[VECTORS] = {}, mean[VECTORS] = {}, squares[VECTORS] = {};

  // ROWS rows, value(k, v) each: two passes over what the registers hold, then merged with what was
  // there (Chan et al. 1983). No difference of large numbers.
  template <int64_t ROWS, class F>
  NC_INLINE void add(const F& value) {
    T part = static_cast<T>(ROWS) / static_cast<T>(rows + ROWS);
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
      mean[v] += delta * part;
      squares[v] += sum_of_squares + delta * delta * (static_cast<T>(rows) * part);
    }
    rows += ROWS;
  }
};

template <class T>
struct Gather {
  const nc::Geometry& g;
  const Layout& layout;
  Planes<T> planes;
  const int64_t* taps;  // Layout::tap of each

  const T* plane(int64_t group, int64_t channel) const {
    return planes.data + (group * planes.per_group + channel) * planes.channel;
  }

  // use(row) with the kind of row that these columns need.
  template <class F>
  void with_row(const Columns<T>& columns, const F& use) const {
    int64_t parts = 1;
    for (int64_t v = 0, r = 0; v < columns.vectors; v++) {
      int64_t some = 0, end = (v + 1) * width<T>;
      for (; r < columns.runs && columns.run[r].at < end; r++) some++;
      if (v && some + 1 > parts) parts = some + (columns.run[r - some].at > end - width<T>);
      if (!v) parts = some;
    }
    bool past =
        planes.exact && columns.first + columns.count == g.columns() && columns.count % width<T>;
    if (past || parts > 4) return use(Row<T, 0>(columns, planes));
    if (parts > 2) return use(Row<T, 4>(columns, planes));
    if (parts > 1) return use(Row<T, 2>(columns, planes));
    use(Row<T, 1>(columns, planes));
  }

  // Rows [first, last) of a group's im2col matrix, [rows][panel].
  void raw(const Columns<T>& columns, int64_t group, int64_t first, int64_t last, T* to) const {
    int64_t K = g.taps();
    with_row(columns, [&](auto row) {
      for (int64_t i = first; i < last; i++, to += panel<T>) {
        row.at(plane(group, i / K) + taps[i % K]);
        for (int64_t v = 0; v < NC_VECTORS; v++) store(to + v * width<T>, row[v]);
      }
    });
  }

  void standardized(const Columns<T>& columns, int64_t group, int64_t first, int64_t last,
                    const Standard<T>& standard, T* to) const {
    int64_t K = g.taps(), c = first / K, t = first % K;
    Vector<T> mean[NC_VECTORS], rest[NC_VECTORS], factor[NC_VECTORS];
    for (int64_t v = 0; v < NC_VECTORS; v++) {
      mean[v] = load(standard.mean + v * width<T>);
      rest[v] = load(standard.rest + v * width<T>);
      factor[v] = load(standard.factor + v * width<T>);
    }
    with_row(columns, [&](auto row) {
      const T* channel = plane(group, c);
      for (int64_t i = first; i < last; i++, to += panel<T>) {
        row.at(channel + taps[t]);
#pragma GCC unroll 4
        for (int64_t v = 0; v < NC_VECTORS; v++)
          store(to + v * width<T>, ((row[v] - mean[v]) - rest[v]) * factor[v]);
        if (++t == K) {
          t = 0;
          channel += planes.channel;
        }
      }
    });
  }

  // Over a group's channels; for kernels of 1, where a column is a pixel.
  Moments<T, NC_VECTORS> moments(const Columns<T>& columns, int64_t group) const {
    Moments<T, NC_VECTORS> sums;
    with_row(columns, [&](auto row) {
      const T* from = plane(group, 0);
      auto value = [&](int64_t k, int64_t v) {
        row.at(from + k * planes.channel);
        return row[v];
      };
      int64_t c = 0;
      for (; c + 8 <= g.in_channels; c += 8, from += 8 * planes.channel)
        sums.template add<8>(value);
      for (; c < g.in_channels; c++, from += planes.channel) sums.template add<1>(value);
    });
    return sums;
  }
};

// For kernels larger than 1: mean and centred sum of squares of every pixel over a group's
// channels, as planes (origin, mean, squares) for each sample and group. A patch's own follow from
// those of its few pixels.
template <class T>
Planes<T> pixel_moments(const nc::Geometry& g, const Layout& layout, const Planes<T>& planes,
                        void* (*allocate)(void*, size_t), void* context,
                        const nc::Parallel& parallel) {
  constexpr int64_t block = 4 * width<T>;  // not more than the slack: it may end past the planes
  int64_t blocks = ceil_div(layout.size, block), room = blocks * block;
  T* maps = scratch<T>(allocate, context, g.batch * g.groups * 3 * room);
  parallel(g.batch * g.groups, [&](int64_t task) {
    int64_t n = task / g.groups, first = task % g.groups * g.in_channels;
    T* to = maps + task * 3 * room;
    for (int64_t b = 0; b < blocks; b++) {
      const T* from = planes.data + n * planes.sample + first * planes.channel + b * block;
      Moments<T, 4> moments;
      auto value = [&](int64_t k, int64_t v) {
        return load(from + k * planes.channel + v * width<T>);
      };
      int64_t c = 0;
      for (; c + 8 <= g.in_channels; c += 8, from += 8 * planes.channel)
        moments.template add<8>(value);
      for (; c < g.in_channels; c++, from += planes.channel) moments.template add<1>(value);
      for (int64_t v = 0; v < 4; v++) {
        T* at = to + b * block + v * width<T>;
        store(at, moments.origin[v]);
        store(at + room, moments.mean[v]);
        store(at + 2 * room, moments.squares[v]);
      }
    }
  });
  return {maps, g.groups * 3 * room, room, 3, false};
}

// A map [N, G, L] at the columns of a panel; 0 past the last column.
template <class T>
void read_map(const nc::Geometry& g, const Columns<T>& columns, int64_t group, const T* map,
              T* to) {
  for (int64_t i = 0; i < panel<T>; i++) to[i] = 0;
  for (int64_t p = 0; p < columns.pieces; p++) {
    const auto& piece = columns.piece[p];
    const T* from = map + (piece.sample * g.groups + group) * g.out_size() + piece.position;
    for (int64_t i = 0; i < piece.length; i++) to[piece.at + i] = from[i];
  }
}
