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
    if (posix_memalign(&buffer.data, 64, bytes)) abort();
    buffer.bytes = bytes;
  }
  return static_cast<T*>(buffer.data);
}

// How one axis of the input lies in a plane. Padding is part of the plane. An axis whose kernel is 1
// keeps only what the stride sees.
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
  int64_t runs_on;                     // output positions that are contiguous: a row of them, or all
  bool dense;                          // the planes are the input itself

  explicit Layout(const nc::Geometry& g) {
    dense = true;
    for (int a = 0; a < 3; a++) {
      bool one = g.kernel[a] == 1;
      int64_t reach = g.dilation[a] * (g.kernel[a] - 1);
      axis[a] = one ? Axis{g.out[a], 1, g.pad[a], g.stride[a]}
                    : Axis{(g.out[a] - 1) * g.stride[a] + reach + 1, g.stride[a], g.pad[a], 1};
      dense &= one && g.stride[a] == 1 && g.pad[a] == 0;
    }
    phases = axis[2].step;
    columns = ceil_div(axis[2].size, phases);
    row = phases * columns;
    size = axis[0].size * axis[1].size * row;
    bool whole = row == g.out[2] && axis[1].step == 1 && axis[1].size == g.out[1] &&
                 axis[0].step == 1 && axis[0].size == g.out[0];
    runs_on = whole ? g.out_size() : g.out[2];
  }

  int64_t column(int64_t i) const {  // of an input column within a row, -1 if it is not there
    int64_t at = axis[2].inside(i);
    return at < 0 ? -1 : at % phases * columns + at / phases;
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
};

template <class T>
struct Planes {
  const T* data;
  int64_t sample, channel;  // strides
  bool exact;               // nothing may be read past a run: the memory is not ours
};

// Copies between an image's plane and ours: visit(plane row, image row) for each row seen.
template <class F>
void each_row(const nc::Geometry& g, const Layout& layout, const F& visit) {
  for (int64_t d = 0; d < g.in[0]; d++)
    for (int64_t h = 0; h < g.in[1]; h++) {
      int64_t pd = layout.axis[0].inside(d), ph = layout.axis[1].inside(h);
      bool seen = pd >= 0 && ph >= 0;
      visit(seen ? (pd * layout.axis[1].size + ph) * layout.row : -1,
            (d * g.in[1] + h) * g.in[2]);
    }
}

template <class T>
Planes<T> make_planes(const nc::Geometry& g, const Layout& layout, const nc::Image<const T>& x,
                      void* (*allocate)(void*, size_t), void* context,
                      const nc::Parallel& parallel) {
  if (layout.dense && x.pixel == 1) return {x.data, x.sample, x.channel, true};
  int64_t channels = g.groups * g.in_channels;
  T* data = scratch<T>(allocate, context, g.batch * channels * layout.size);
  // channels_last: a task takes the channels that share cache lines
  int64_t together = x.pixel == 1 ? 1 : 16, tasks = ceil_div(channels, together);
  parallel(g.batch * tasks, [&](int64_t task) {
    int64_t n = task / tasks, first = task % tasks * together;
    int64_t last = least(channels, first + together);
    T* planes = data + (n * channels + first) * layout.size;
    if (!layout.dense) memset(planes, 0, (last - first) * layout.size * sizeof(T));
    bool straight = layout.phases == 1 && layout.axis[2].spread == 1;
    int64_t left = layout.axis[2].origin;
    int64_t fits = least(g.in[2], layout.columns - left);
    each_row(g, layout, [&](int64_t to, int64_t from) {
      if (to < 0) return;
      for (int64_t c = first; c < last; c++) {
        const T* source = x.data + n * x.sample + c * x.channel + from * x.pixel;
        T* target = planes + (c - first) * layout.size + to;
        if (straight)
          for (int64_t i = 0; i < fits; i++) target[left + i] = source[i * x.pixel];
        else
          for (int64_t i = 0; i < g.in[2]; i++) {
            int64_t at = layout.column(i);
            if (at >= 0) target[at] = source[i * x.pixel];
          }
      }
    });
  });
  return {data, channels * layout.size, layout.size, false};
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

template <class T>
struct Gather {
  const nc::Geometry& g;
  const Layout& layout;
  const Planes<T>& planes;
  const int64_t* taps;  // Layout::tap of each

  // The values [rows first to last of the im2col matrix][panel], as they are.
  void raw(const Columns<T>& columns, int64_t group, int64_t first, int64_t last, T* to) const {
    int64_t K = g.taps();
    for (int64_t i = first; i < last; i++, to += panel<T>) {
      const T* plane =
          planes.data + (group * g.in_channels + i / K) * planes.channel + taps[i % K];
      for (int64_t r = 0; r < columns.runs; r++) {
        const auto& run = columns.run[r];
        const T* from = plane + run.sample * planes.sample + run.position;
        T* target = to + run.at;
        int64_t j = 0;
        // Whole vectors, also past the end of the run: the next run, or row, overwrites that. Not
        // behind the last row: what lies there may be another thread's.
        bool exact = planes.exact || i + 1 == last;
        int64_t end = exact ? run.length - width<T> + 1 : run.length;
        for (; j < end; j += width<T>) store(target + j, load(from + j));
        for (; j < run.length; j++) target[j] = from[j];
      }
    }
  }
};

// Mean and centred sum of squares of each column, over the rows seen so far.
template <class T>
struct Moments {
  int64_t rows = 0;
  T mean[panel<T>] = {}, squares[panel<T>] = {};

  // Merges (Chan et al. 1983): no difference of large numbers.
  NC_INLINE void merge(int64_t at, Vector<T> other_mean, Vector<T> other_squares, int64_t before,
                       int64_t more) {
    Vector<T> here = load(mean + at), delta = other_mean - here;
    T part = static_cast<T>(more) / static_cast<T>(before + more);
    store(mean + at, here + delta * part);
    store(squares + at, load(squares + at) + other_squares +
                            delta * delta * (static_cast<T>(before) * part));
  }
  void merge(const Moments& other) {
    for (int64_t at = 0; at < panel<T>; at += width<T>)
      merge(at, load(other.mean + at), load(other.squares + at), rows, other.rows);
    rows += other.rows;
  }
  // Sixteen rows at a time: two passes over what the registers hold.
  void add(const T* values, int64_t count, int64_t vectors) {
    constexpr int64_t most_rows = 16;
    for (int64_t i = 0; i < count; i += most_rows) {
      int64_t some = least(most_rows, count - i);
      for (int64_t at = 0; at < vectors * width<T>; at += width<T>) {
        const T* from = values + i * panel<T> + at;
        Vector<T> sum{}, sum_of_squares{};
        for (int64_t k = 0; k < some; k++) sum += load(from + k * panel<T>);
        sum *= static_cast<T>(1) / static_cast<T>(some);
        for (int64_t k = 0; k < some; k++) {
          Vector<T> d = load(from + k * panel<T>) - sum;
          sum_of_squares += d * d;
        }
        merge(at, sum, sum_of_squares, rows, some);
      }
      rows += some;
    }
  }
};

// What is taken off each column of a panel, and what it is then multiplied by.
template <class T>
struct Standard {
  T shift[panel<T>], factor[panel<T>];

  void apply(T* rows, int64_t count, int64_t vectors) const {
    for (int64_t i = 0; i < count; i++)
      for (int64_t at = 0; at < vectors * width<T>; at += width<T>) {
        T* here = rows + i * panel<T> + at;
        store(here, (load(here) - load(shift + at)) * load(factor + at));
      }
  }
};

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
