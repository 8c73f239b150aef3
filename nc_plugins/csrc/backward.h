// Backward, from the output's gradient g, the input, and mean and rstd of every patch.
// (Included like simd.h.)
//
// With r = rstd, gz = g * r, gain a, c = p - mean(p) for the values p of a patch, I values each:
//     dW[o, i] = sum over positions of gz[o] * c[i]         dgain[o] = sum_i W[o, i] * dW[o, i]
//     v[i]     = sum_o a[o] * W[o, i] * gz[o]               what reaches value i through the
//     product dp[i]    = v[i] - mean(v) - (p[i] - mean(p)) * s,     s = r^2 / I * sum_i v[i] * c[i]
// and each pixel sums the dp of the windows that see it. The sum of v goes straight into planes;
// the other two terms need all channels, so they follow as two single-channel maps. No sum depends
// on how many threads there are.

template <class T>
struct BackwardPass {
  const nc::Backward<T>& args;
  const nc::Geometry& g;
  const Layout& layout;
  Gather<T> gather;
  const nc::Parallel& parallel;
  int64_t panels;
  T* scaled = nullptr;  // gz as panels: [G, panels, O, panel]

  T* allocate(int64_t count) const { return scratch<T>(args.allocate, args.context, count); }
  const T* scaled_panel(int64_t group, int64_t p) const {
    return scaled + (group * panels + p) * g.out_channels * panel<T>;
  }

  // One reading of g: gz, and the sums over positions that are the gradient of the bias.
  void scale_grad() {
    int64_t O = g.out_channels;
    scaled = allocate(g.groups * panels * O * panel<T>);
    T* sums = args.grad_bias ? allocate(g.groups * panels * O) : nullptr;
    const auto& grad = args.grad;
    parallel(g.groups * panels, [&](int64_t task) {
      int64_t group = task / panels;
      Columns<T> columns(g, layout, task % panels);
      T* to = scaled + task * O * panel<T>;
      T rstd[panel<T>];
      read_map(g, columns, group, args.rstd, rstd);
      if (!args.scale)
        for (int64_t i = 0; i < panel<T>; i++) rstd[i] = i < columns.count ? 1 : 0;
      for (int64_t p = 0; p < columns.pieces; p++) {
        const auto& piece = columns.piece[p];
        const T* from = grad.data + piece.sample * grad.sample + group * O * grad.channel +
                        piece.position * grad.pixel;
        if (grad.pixel == 1)
          for (int64_t o = 0; o < O; o++)
            memcpy(to + o * panel<T> + piece.at, from + o * grad.channel, piece.length * sizeof(T));
        else
          transpose(from, grad.pixel, piece.length, O, to + piece.at, panel<T>);
      }
      for (int64_t o = 0; o < O; o++, to += panel<T>) {
        for (int64_t i = columns.count; i < panel<T>; i++) to[i] = 0;
        Vector<T> sum{};
        for (int64_t at = 0; at < panel<T>; at += width<T>) {
          Vector<T> value = load(to + at);
          sum += value;
          store(to + at, value * load(rstd + at));
        }
        if (sums) {
          T total = 0;
          for (int64_t i = 0; i < width<T>; i++) total += sum[i];
          sums[task * O + o] = total;
        }
      }
    });
    if (sums)
      for (int64_t group = 0; group < g.groups; group++)
        for (int64_t o = 0; o < O; o++) {
          double total = 0;
          for (int64_t p = 0; p < panels; p++) total += sums[(group * panels + p) * O + o];
          args.grad_bias[group * O + o] = static_cast<T>(total);
        }
  }

  Standard<T> standard(const Columns<T>& columns, int64_t group) const {
    Standard<T> s;  // c alone: rstd is in gz
    read_map(g, columns, group, args.mean, s.mean);
    read_map(g, columns, group, args.rest, s.rest);
    for (int64_t i = 0; i < panel<T>; i++) {
      if (!args.center) s.mean[i] = s.rest[i] = 0;
      s.factor[i] = 1;
    }
    return s;
  }

  // --- weight and gain: a task has some rows of the im2col matrix, or several strips of them where
  // maps are small, and a share of the panels and of the output's channels.

  static constexpr int64_t several = 4;  // panels summed before a tile is written; strips in a task

  void weight_grads() const {
    int64_t O = g.out_channels, I = g.patch(), all = g.groups * O * I;
    int64_t wide = panels <= several ? several : 1;
    int64_t strip = round_up(ceil_div(I, ceil_div(I, panel<T>)), width<T>);
    int64_t strips = ceil_div(I, strip), tasks = g.groups * ceil_div(strips, wide);
    int64_t shares = least(ceil_div(24, tasks), most(1, panels / 8));
    int64_t height =
        round_up(ceil_div(O, most(1, least(O / 128, ceil_div(24, tasks * shares)))), NC_ROWS);
    int64_t heights = ceil_div(O, height);
    T* parts = shares > 1 ? allocate(shares * all) : args.grad_weight;
    T* gains = args.grad_gain ? allocate(shares * strips * g.groups * O) : nullptr;
    parallel(tasks * shares * heights, [&](int64_t task) {
      // Tasks that follow each other, and so fall to one thread, share panels: those that the same
      // thread has just scaled. A core far from it would fetch each line of them from its cache.
      int64_t share = task / (heights * tasks), low = task / tasks % heights * height;
      int64_t high = least(O, low + height), rest = task % tasks;
      int64_t group = rest / ceil_div(strips, wide), at = rest % ceil_div(strips, wide) * wide;
      int64_t begin = panels * share / shares, end = panels * (share + 1) / shares;
      T* to = parts + share * all + group * O * I;
      auto finish = [&](int64_t o, int64_t s, const T* sums) {
        int64_t first = s * strip, count = least(strip, I - first);
        T gain = args.gain ? args.gain[group * O + o] : 1;
        if (gains)
          gains[((share * strips + s) * g.groups + group) * O + o] =
              dot(sums, args.weight + (group * O + o) * I + first, count);
        for (int64_t i = 0; i < count; i++) to[o * I + first + i] = sums[i] * gain;
      };
      T* turned = thread_buffer<T>(2, wide * several * panel<T> * panel<T>);
      T* sums = thread_buffer<T>(1, (wide == 1 ? height : NC_ROWS) * panel<T>);
      auto multiply_strip = [&](int64_t p, int64_t now, int64_t o, int64_t s, const T* right,
                                T* sum, bool accumulate) {
        multiply<T, false>(least(NC_ROWS, high - o),
                           {scaled_panel(group, p) + o * panel<T>, panel<T>, 1}, panel<T>, now,
                           O * panel<T>, right, sum,
                           ceil_div(least(strip, I - s * strip), width<T>), accumulate);
      };
      if (wide > 1) {  // all positions at once: tiles are finished while they are near
        int64_t last = least(strips, at + wide);
        for (int64_t s = at; s < last; s++)
          turn(group, s * strip, least(I, (s + 1) * strip), begin, end - begin,
               turned + (s - at) * several * panel<T> * panel<T>);
        for (int64_t o = low; o < high; o += NC_ROWS)
          for (int64_t s = at; s < last; s++) {
            for (int64_t m = 0; m < NC_ROWS; m++) {
              int64_t i = (o + m) * I + s * strip;
              fetch(args.weight + group * O * I + i, strip);
              fetch<true>(to + i, strip);
            }
            multiply_strip(begin, end - begin, o, s,
                           turned + (s - at) * several * panel<T> * panel<T>, sums, false);
            for (int64_t m = 0; m < least(NC_ROWS, high - o); m++)
              finish(o + m, s, sums + m * panel<T>);
          }
        return;
      }
      for (int64_t p = begin; p < end; p += several) {
        int64_t now = least(several, end - p);
        turn(group, at * strip, least(I, (at + 1) * strip), p, now, turned);
        for (int64_t o = low; o < high; o += NC_ROWS)
          multiply_strip(p, now, o, at, turned, sums + (o - low) * panel<T>, p > begin);
      }
      for (int64_t o = low; o < high; o++) {
        int64_t ahead = (o + NC_ROWS) * I + at * strip;
        fetch(args.weight + group * O * I + ahead, strip);
        fetch<true>(to + ahead, strip);
        finish(o, at, sums + (o - low) * panel<T>);
      }
    });
    if (shares > 1)
      parallel(g.groups * O, [&](int64_t o) {
        T* to = args.grad_weight + o * I;
        memcpy(to, parts + o * I, I * sizeof(T));
        for (int64_t s = 1; s < shares; s++)
          for (int64_t i = 0; i < I; i++) to[i] += parts[s * all + o * I + i];
      });
    if (gains)
      for (int64_t o = 0; o < g.groups * O; o++) {
        double total = 0;
        for (int64_t s = 0; s < shares * strips; s++) total += gains[s * g.groups * O + o];
        args.grad_gain[o] = static_cast<T>(total);
      }
  }

  static T dot(const T* a, const T* b, int64_t count) {
    Vector<T> sums{};
    int64_t i = 0;
    for (; i + width<T> <= count; i += width<T>) sums += load(a + i) * load(b + i);
    T sum = 0;
    for (; i < count; i++) sum += a[i] * b[i];
    for (int64_t lane = 0; lane < width<T>; lane++) sum += sums[lane];
    return sum;
  }

  // Rows [first, last) less the patches' means, transposed: [count panels][panel columns][panel].
  void turn(int64_t group, int64_t first, int64_t last, int64_t p, int64_t count, T* to) const {
    T* rows = thread_buffer<T>(0, panel<T> * panel<T>);
    for (int64_t q = 0; q < count; q++, to += panel<T> * panel<T>) {
      Columns<T> columns(g, layout, p + q);
      gather.standardized(columns, group, first, last, standard(columns, group), rows);
      for (int64_t i = 0; i < last - first; i += width<T>)
        for (int64_t j = 0; j < columns.vectors * width<T>; j += width<T>)
          transpose_square(rows + i * panel<T> + j, panel<T>, to + j * panel<T> + i, panel<T>);
      // gz is 0 behind the last column, and 0 times what is not a number would be none either
      memset(to + columns.count * panel<T>, 0, (panel<T> - columns.count) * panel<T> * sizeof(T));
    }
  }

  // --- input

  // Rows of a large weight are far apart; the hardware does not see the next one coming.
  template <bool WRITE = false>
  static void fetch(const T* row, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / sizeof(T)) __builtin_prefetch(row + i, WRITE);
  }

  // Columns of the weight, rows [first, last) of v, with their gain: [blocks][O][NC_ROWS].
  void pack_weight(int64_t group, int64_t first, int64_t last, T* __restrict to) const {
    int64_t O = g.out_channels, I = g.patch();
    for (int64_t o = 0; o < O; o++, to += NC_ROWS) {
      const T* __restrict from = args.weight + (group * O + o) * I;
      T gain = args.gain ? args.gain[group * O + o] : 1;
      fetch(from + 8 * I + first, last - first);
      int64_t i = first;
      for (; i + NC_ROWS <= last; i += NC_ROWS)
        for (int64_t m = 0; m < NC_ROWS; m++) to[(i - first) * O + m] = from[i + m] * gain;
      for (int64_t m = 0; i < last && m < NC_ROWS; m++)
        to[(i - first) * O + m] = i + m < last ? from[i + m] * gain : 0;
    }
  }

  // v[count][panel] of one panel, from packed columns of the weight.
  void products(const T* packed, int64_t count, int64_t group, int64_t p, int64_t vectors,
                T* v) const {
    int64_t O = g.out_channels;
    for (int64_t k = 0; k < O; k += depth)
      for (int64_t i = 0; i < count; i += NC_ROWS)
        multiply<T, true>(NC_ROWS, {packed + i * O + k * NC_ROWS, 1, NC_ROWS}, least(depth, O - k),
                          1, 0, scaled_panel(group, p) + k * panel<T>, v + i * panel<T>, vectors,
                          k > 0);
  }

  // Dense 1x1 (a patch is a pixel): all of a panel's channels at once, written once.
  void dense_input_grads() const {
    int64_t C = g.in_channels, O = g.out_channels, height = round_up(C, NC_ROWS);
    T* packed = allocate(g.groups * height * O);
    constexpr int64_t block = 16 * NC_ROWS;
    int64_t blocks = ceil_div(C, block);
    parallel(g.groups * blocks, [&](int64_t task) {
      int64_t group = task / blocks, first = task % blocks * block;
      pack_weight(group, first, least(C, first + block), packed + (group * height + first) * O);
    });
    parallel(g.groups * panels, [&](int64_t task) {
      int64_t group = task / panels, p = task % panels;
      Columns<T> columns(g, layout, p);
      T* v = thread_buffer<T>(0, height * panel<T>);
      T* pixels = thread_buffer<T>(1, C * panel<T>);
      products(packed + group * height * O, C, group, p, columns.vectors, v);
      gather.raw(columns, group, 0, C, pixels);
      T mean[panel<T>], rest[panel<T>], rstd[panel<T>];
      read_map(g, columns, group, args.mean, mean);
      read_map(g, columns, group, args.rest, rest);
      read_map(g, columns, group, args.rstd, rstd);
      Standard<T> s = standard(columns, group);
      T per = static_cast<T>(1) / static_cast<T>(C);
      for (int64_t at = 0; at < columns.vectors * width<T>; at += width<T>) {
        Vector<T> shift = load(s.mean + at), more = load(s.rest + at), sums{}, dots{};
        for (int64_t c = 0; c < C; c++) {
          Vector<T> value = load(v + c * panel<T> + at);
          sums += value;
          dots += value * ((load(pixels + c * panel<T> + at) - shift) - more);
        }
        Vector<T> r = load(rstd + at), m = load(mean + at), m_rest = load(rest + at);
        sums *= args.center ? per : 0;
        dots *= r * r * (args.scale ? per : 0);
        for (int64_t c = 0; c < C; c++) {
          T* here = v + c * panel<T> + at;
          store(here, load(here) - sums - ((load(pixels + c * panel<T> + at) - m) - m_rest) * dots);
        }
      }
      const auto& out = args.grad_input;
      for (int64_t q = 0; q < columns.pieces; q++) {
        const auto& piece = columns.piece[q];
        T* to = out.data + piece.sample * out.sample + group * C * out.channel +
                piece.position * out.pixel;
        if (out.pixel == 1)
          for (int64_t c = 0; c < C; c++)
            memcpy(to + c * out.channel, v + c * panel<T> + piece.at, piece.length * sizeof(T));
        else
          transpose(v + piece.at, panel<T>, C, piece.length, to, out.pixel);
      }
    });
  }

  // Any kernel: a task has some channels of some samples, so that no two add to the same pixel.
  void input_grads() const {
    int64_t C = g.in_channels, K = g.taps(), L = g.out_size();
    int64_t chunks = ceil_div(C * K, 96);  // about so many rows of v in a task
    if (chunks > 1) chunks = round_up(chunks, 2);
    int64_t few = ceil_div(C, least(C, chunks));
    if (few > 4 && few * K % NC_ROWS) few = least(C, round_up(few, NC_ROWS));
    chunks = ceil_div(C, few);
    // Small maps: all samples share the packed weight.
    int64_t sets = L >= 512 || g.batch * few * layout.size > (1 << 18) ? g.batch : 1;
    int64_t all = g.groups * g.columns();
    T* sum = allocate(chunks * all);
    T* dot = allocate(chunks * all);
    parallel(g.groups * chunks * sets, [&](int64_t task) {
      // Samples outside, as panels lie: a thread finds what it has scaled.
      int64_t chunk = task % chunks, group = task / chunks % g.groups,
              set = task / chunks / g.groups;
      int64_t first = chunk * few, last = least(C, first + few), samples = g.batch / sets;
      scatter_channels(group, first, last, set * samples, (set + 1) * samples, sum + chunk * all,
                       dot + chunk * all);
    });
    T* maps = allocate(g.batch * g.groups * 3 * layout.size);
    parallel(g.batch * g.groups, [&](int64_t task) {
      statistics_maps(task, chunks, sum, dot, maps + task * 3 * layout.size);
    });
    int64_t together = args.grad_input.channel == 1 ? C : 1, tasks = C / together;
    parallel(g.batch * g.groups * tasks, [&](int64_t task) {
      through_statistics(task / tasks, task % tasks * together, together,
                         maps + task / tasks * 3 * layout.size);
    });
  }

  // grad_input = sum over windows of v, for channels [first, last) of samples [begin, end); and
  // each window's sum of v and of v * c over these channels.
  void scatter_channels(int64_t group, int64_t first, int64_t last, int64_t begin, int64_t end,
                        T* sum, T* dot) const {
    int64_t K = g.taps(), L = g.out_size(), O = g.out_channels, few = last - first;
    int64_t rows = few * K, samples = end - begin, height = round_up(rows, NC_ROWS);
    T* packed = thread_buffer<T>(0, height * O);
    T* v = thread_buffer<T>(1, height * panel<T>);
    T* planes = thread_buffer<T>(2, samples * few * layout.size);
    memset(planes, 0, (samples * few * layout.size + slack) * sizeof(T));
    pack_weight(group, first * K, last * K, packed);
    for (int64_t p = begin * L / panel<T>; p * panel<T> < end * L; p++) {
      Columns<T> columns(g, layout, p);
      products(packed, rows, group, p, columns.vectors, v);
      Standard<T> s = standard(columns, group);
      T sums[panel<T> + width<T>], dots[panel<T> + width<T>];
      for (int64_t r = 0; r < columns.runs; r++) {
        const auto& run = columns.run[r];
        if (run.sample < begin || run.sample >= end) continue;
        const T* x = gather.plane(group, first) + run.sample * gather.planes.sample + run.position;
        T* to = planes + (run.sample - begin) * few * layout.size + run.position;
        for (int64_t i = 0; i < run.length; i += width<T>)
          scatter_vector(v + run.at + i, x + i, s.mean + run.at + i, s.rest + run.at + i, to + i,
                         few, least(width<T>, run.length - i), sums + run.at + i,
                         dots + run.at + i);
      }
      for (int64_t q = 0; q < columns.pieces; q++) {
        const auto& piece = columns.piece[q];
        if (piece.sample < begin || piece.sample >= end) continue;
        int64_t to = (piece.sample * g.groups + group) * L + piece.position;
        memcpy(sum + to, sums + piece.at, piece.length * sizeof(T));
        memcpy(dot + to, dots + piece.at, piece.length * sizeof(T));
      }
    }
    for (int64_t n = begin; n < end; n++)
      from_planes(planes + (n - begin) * few * layout.size, n, group * g.in_channels + first, few);
  }

  // One vector of columns, all rows of v: to every tap's pixels of every channel, and the two sums.
  // Taps outside, so that what was just written is not read again at once, one pixel further.
  void scatter_vector(const T* v, const T* x, const T* mean, const T* rest, T* to, int64_t channels,
                      int64_t count, T* sums, T* dots) const {
    int64_t K = g.taps(), plane = gather.planes.channel;
    Vector<T> sum{}, dot{}, m = load(mean), m_rest = load(rest);
    T edge[width<T>] = {};
    bool exact = count < width<T> && gather.planes.exact;
    for (int64_t t = 0; t < K; t++) {
      const T* from = x + gather.taps[t];
      T* target = to + gather.taps[t];
      for (int64_t c = 0; c < channels; c++, from += plane, target += layout.size) {
        Vector<T> value = load(v + (c * K + t) * panel<T>), seen;
        if (count < width<T>) value = first_lanes<T>(value, count);
        if (exact) {
          memcpy(edge, from, count * sizeof(T));
          seen = load(edge);
        } else {
          seen = load(from);
        }
        store(target, load(target) + value);
        sum += value;
        dot += value * ((seen - m) - m_rest);
      }
    }
    store(sums, sum);
    store(dots, dot);  // lanes from `count` on are the next run's, which writes them after us
  }

  // Planes of gradients, some channels of a sample, to the image; 0 where no window looks.
  void from_planes(const T* planes, int64_t n, int64_t channel, int64_t channels) const {
    const auto& out = args.grad_input;
    T* image = out.data + n * out.sample + channel * out.channel;
    if (!layout.whole)
      for (int64_t i = 0; i < g.in_size(); i++)
        for (int64_t c = 0; c < channels; c++) image[i * out.pixel + c * out.channel] = 0;
    layout.each_span(g, [&](int64_t from, int64_t to, int64_t count, int64_t step) {
      if (out.channel == 1)
        return transpose(planes + from, layout.size, channels, count, image + to * out.pixel,
                         step * out.pixel);
      for (int64_t c = 0; c < channels; c++) {
        T* target = image + c * out.channel + to;
        const T* source = planes + c * layout.size + from;
        if (step == 1)
          memcpy(target, source, count * sizeof(T));
        else
          for (int64_t i = 0; i < count; i++) target[i * step] = source[i];
      }
    });
  }

  // What follows through mean and rstd: grad_input -= sum over windows of
  // mean(v) + (x - mean(p)) * s, as offset + (x - level) * slope with three maps in the layout of a
  // plane. The level is the mean of one window that sees the pixel: no large mean cancels.
  void statistics_maps(int64_t task, int64_t chunks, const T* sum, const T* dot, T* maps) const {
    int64_t L = g.out_size(), K = g.taps(), row = g.out[2], size = layout.size;
    T *level = maps, *offset = maps + size, *slope = maps + 2 * size;
    T *mean_v = thread_buffer<T>(0, 2 * L), *s = mean_v + L;
    memset(maps, 0, 3 * size * sizeof(T));
    memset(mean_v, 0, 2 * L * sizeof(T));
    const T *mean = args.mean + task * L, *rest = args.rest + task * L;
    const T* rstd = args.rstd + task * L;
    for (int64_t chunk = 0; chunk < chunks; chunk++)
      for (int64_t k = 0; k < L; k++) {
        int64_t at = chunk * g.groups * g.columns() + task * L + k;
        mean_v[k] += sum[at];
        s[k] += dot[at];
      }
    T per = static_cast<T>(1) / static_cast<T>(g.patch());
    for (int64_t k = 0; k < L; k++) {
      mean_v[k] *= args.center ? per : 0;
      s[k] *= args.scale ? per * rstd[k] * rstd[k] : 0;
    }
    auto each_window = [&](const auto& add) {
      for (int64_t t = 0; t < K; t++)
        for (int64_t k = 0; k < L; k += row) {
          int64_t at = layout.position(g, k) + gather.taps[t];
          for (int64_t i = 0; i < row; i++) add(at + i, k + i);
        }
    };
    each_window([&](int64_t at, int64_t k) { level[at] = mean[k]; });
    each_window([&](int64_t at, int64_t k) {
      offset[at] += mean_v[k] - ((mean[k] - level[at]) + rest[k]) * s[k];
      slope[at] += s[k];
    });
  }

  void through_statistics(int64_t map, int64_t first, int64_t channels, const T* maps) const {
    const T *level = maps, *offset = maps + layout.size, *slope = maps + 2 * layout.size;
    const auto& out = args.grad_input;
    const auto& x = args.input;
    int64_t n = map / g.groups, channel = map % g.groups * g.in_channels + first;
    const T* values = x.data + n * x.sample + channel * x.channel;
    T* image = out.data + n * out.sample + channel * out.channel;
    layout.each_span(g, [&](int64_t from, int64_t to, int64_t count, int64_t step) {
      if (out.channel != 1 && step == 1) {
        for (int64_t i = 0, q = from; i < count; i++, q++)
          image[to + i] -= offset[q] + (values[to + i] - level[q]) * slope[q];
        return;
      }
      for (int64_t i = 0, q = from; i < count; i++, q++) {
        T* target = image + (to + i * step) * out.pixel;
        const T* source = values + (to + i * step) * x.pixel;
        for (int64_t c = 0; c < channels; c++)
          target[c] -= offset[q] + (source[c] - level[q]) * slope[q];
      }
    });
  }
};

template <class T>
void backward(const nc::Backward<T>& args, const nc::Parallel& parallel) {
  const nc::Geometry& g = args.geometry;
  Layout layout(g);
  Planes<T> planes = make_planes(g, layout, args.input, args.allocate, args.context, parallel);
  auto* taps = static_cast<int64_t*>(args.allocate(args.context, g.taps() * sizeof(int64_t)));
  for (int64_t t = 0; t < g.taps(); t++) taps[t] = layout.tap(g, t);
  int64_t panels = ceil_div(g.columns(), panel<T>);
  BackwardPass<T> pass{args, g, layout, {g, layout, planes, taps}, parallel, panels};
  pass.scale_grad();
  if (args.grad_weight) pass.weight_grads();
  if (args.grad_input.data) {
    if (layout.dense && panels >= 24)  // not by threads: the two sum in another order
      pass.dense_input_grads();
    else
      pass.input_grads();
  }
}
