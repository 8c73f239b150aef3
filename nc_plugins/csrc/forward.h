// Forward: panels of standardised patches times the weight. (Included like simd.h.)
//
// The weight is read as it lies, row by row: no centred copy, no packing. Gain and bias are applied
// to each tile before it leaves the cache.

template <class T>
struct ForwardPass {
  const nc::Forward<T>& args;
  const nc::Geometry& g;
  const Layout& layout;
  Gather<T> gather, pixels;  // of the input; of its pixels' moments, where a kernel sees several

  // Mean and centred sum of squares of a panel's patches.
  Moments<T, NC_VECTORS> patch_moments(const Columns<T>& columns, int64_t group) const {
    int64_t K = g.taps(), C = g.in_channels;
    if (K == 1) return gather.moments(columns, group);
    // Over taps, from each pixel's. The tap in the middle is the origin: never far from the mean,
    // unless the patch varies much.
    Moments<T, NC_VECTORS> moments;
    T* origins = thread_buffer<T>(0, 3 * K * panel<T>);
    T *means = origins + K * panel<T>, *squares = means + K * panel<T>;
    pixels.raw(columns, group, 0, 3 * K, origins);
    for (int64_t v = 0; v < NC_VECTORS; v++) {
      Vector<T> origin = load(origins + K / 2 * panel<T> + v * width<T>), mean{}, sum{};
      for (int64_t at = v * width<T>; at < K * panel<T>; at += panel<T>) {
        Vector<T> value = (load(origins + at) - origin) + load(means + at);
        store(means + at, value);
        mean += value;
      }
      mean *= static_cast<T>(1) / static_cast<T>(K);
      for (int64_t at = v * width<T>; at < K * panel<T>; at += panel<T>) {
        Vector<T> d = load(means + at) - mean;
        sum += load(squares + at) + d * d * static_cast<T>(C);
      }
      moments.origin[v] = origin;
      moments.mean[v] = mean;
      moments.squares[v] = sum;
    }
    return moments;
  }

  // Mean and rstd of the columns go to the output maps, and come back as what standardises them.
  Standard<T> statistics(const Columns<T>& columns, int64_t group) const {
    Moments<T, NC_VECTORS> moments = patch_moments(columns, group);
    Standard<T> standard;
    T mean[panel<T>], rest[panel<T>], rstd[panel<T>];
    T per = static_cast<T>(1) / static_cast<T>(g.patch()), eps = static_cast<T>(args.eps);
    for (int64_t v = 0; v < NC_VECTORS; v++) {
      Vector<T> sum = moments.origin[v] + moments.mean[v];  // and what this addition loses:
      Vector<T> back = sum - moments.origin[v];
      store(mean + v * width<T>, sum);
      store(rest + v * width<T>, (moments.origin[v] - (sum - back)) + (moments.mean[v] - back));
      store(rstd + v * width<T>, moments.squares[v] * per + eps);
    }
    for (int64_t i = 0; i < panel<T>; i++) {
      rstd[i] = 1 / std::sqrt(rstd[i]);
      standard.mean[i] = args.center ? mean[i] : 0;
      standard.rest[i] = args.center ? rest[i] : 0;
      standard.factor[i] = args.scale ? rstd[i] : 1;
    }
    for (int64_t p = 0; p < columns.pieces; p++) {
      const auto& piece = columns.piece[p];
      int64_t to = (piece.sample * g.groups + group) * g.out_size() + piece.position;
      memcpy(args.mean + to, mean + piece.at, piece.length * sizeof(T));
      memcpy(args.rest + to, rest + piece.at, piece.length * sizeof(T));
      memcpy(args.rstd + to, rstd + piece.at, piece.length * sizeof(T));
    }
    return standard;
  }

  // Rows [first, last) of a group's output for panels [begin, end), whose patches follow each
  // other.
  void outputs(int64_t group, int64_t begin, int64_t end, const T* patches, int64_t first,
               int64_t last) const {
    int64_t I = g.patch(), height = round_up(last - first, NC_ROWS) * panel<T>;
    T* sums = thread_buffer<T>(1, (end - begin) * height);
    for (int64_t k = 0; k < I; k += depth)
      for (int64_t o = first; o < last; o += NC_ROWS) {
        int64_t rows = least(NC_ROWS, last - o), steps = least(depth, I - k);
        const T* weight = args.weight + (group * g.out_channels + o) * I + k;
        for (int64_t p = begin; p < end; p++) {  // inside: the rows of the weight stay near
          T* to = sums + (p - begin) * height + (o - first) * panel<T>;
          int64_t vectors = ceil_div(least(panel<T>, g.columns() - p * panel<T>), width<T>);
          multiply<T, false>(rows, {weight, I, 1}, steps, 1, 0,
                             patches + ((p - begin) * I + k) * panel<T>, to, vectors, k > 0);
          if (k + steps == I && args.output.pixel == 1)
            write(Columns<T>(g, layout, p), group * g.out_channels + o, rows, to);
        }
      }
    if (args.output.pixel != 1)  // whole pixels, not a few channels of each
      for (int64_t p = begin; p < end; p++)
        write(Columns<T>(g, layout, p), group * g.out_channels + first, last - first,
              sums + (p - begin) * height);
  }

  // Out of the cache, with gain and bias.
  void write(const Columns<T>& columns, int64_t o, int64_t rows, T* sums) const {
    const auto& out = args.output;
    auto affine = [&](int64_t m, const T* from, int64_t count, T* to) {
      T gain = args.gain ? args.gain[o + m] : 1, bias = args.bias ? args.bias[o + m] : 0;
      int64_t i = 0;
      for (; i + width<T> <= count; i += width<T>)
        store(to + i, load(from + i) * gain + broadcast(bias));
      for (; i < count; i++) to[i] = from[i] * gain + bias;
    };
    bool planes = out.pixel == 1;
    if (!planes)
      for (int64_t m = 0; m < rows; m++)
        affine(m, sums + m * panel<T>, panel<T>, sums + m * panel<T>);
    for (int64_t p = 0; p < columns.pieces; p++) {
      const auto& piece = columns.piece[p];
      T* to = out.data + piece.sample * out.sample + o * out.channel + piece.position * out.pixel;
      const T* from = sums + piece.at;
      if (!planes) transpose(from, panel<T>, rows, piece.length, to, out.pixel);
      for (int64_t m = 0; planes && m < rows; m++)
        affine(m, from + m * panel<T>, piece.length, to + m * out.channel);
    }
  }

  // Where there are many panels, each thread takes some from beginning to end.
  void by_panel(int64_t panels, const nc::Parallel& parallel) const {
    parallel(g.groups * panels, [&](int64_t task) {
      int64_t group = task / panels, p = task % panels;
      Columns<T> columns(g, layout, p);
      Standard<T> standard = statistics(columns, group);
      T* patches = thread_buffer<T>(0, g.patch() * panel<T>);
      gather.standardized(columns, group, 0, g.patch(), standard, patches);
      outputs(group, p, p + 1, patches, 0, g.out_channels);
    });
  }

  // Where there are few (small maps under large weights), the threads first gather together, then
  // share the output's channels.
  void by_channel(int64_t panels, const nc::Parallel& parallel) const {
    int64_t I = g.patch(), parts = ceil_div(I, depth), all = g.groups * panels;
    T* patches = scratch<T>(args.allocate, args.context, all * I * panel<T>);
    auto* standards =
        reinterpret_cast<Standard<T>*>(args.allocate(args.context, all * sizeof(Standard<T>)));
    parallel(all, [&](int64_t of) {
      standards[of] = statistics(Columns<T>(g, layout, of % panels), of / panels);
    });
    parallel(all * parts, [&](int64_t task) {
      int64_t of = task / parts, first = task % parts * depth;
      gather.standardized(Columns<T>(g, layout, of % panels), of / panels, first,
                          least(I, first + depth), standards[of],
                          patches + (of * I + first) * panel<T>);
    });
    int64_t share =
        least(8 * NC_ROWS, round_up(ceil_div(g.out_channels, parallel.threads), NC_ROWS));
    int64_t shares = ceil_div(g.out_channels, share);
    parallel(g.groups * shares, [&](int64_t task) {
      int64_t group = task / shares, first = task % shares * share;
      outputs(group, 0, panels, patches + group * panels * I * panel<T>, first,
              least(g.out_channels, first + share));
    });
  }
};

template <class T>
void forward(const nc::Forward<T>& args, const nc::Parallel& parallel) {
  const nc::Geometry& g = args.geometry;
  Layout layout(g);
  auto* taps = static_cast<int64_t*>(args.allocate(args.context, g.taps() * sizeof(int64_t)));
  for (int64_t t = 0; t < g.taps(); t++) taps[t] = layout.tap(g, t);
  Planes<T> planes = make_planes(g, layout, args.input, args.allocate, args.context, parallel);
  Planes<T> moments{};
  if (g.taps() > 1)
    moments = pixel_moments(g, layout, planes, args.allocate, args.context, parallel);
  ForwardPass<T> pass{args, g, layout, {g, layout, planes, taps}, {g, layout, moments, taps}};
  int64_t panels = ceil_div(g.columns(), panel<T>);
  // With few panels to a thread their shares are uneven, so all gather together, as long as the
  // whole im2col matrix is small. The sums are the same.
  int64_t bytes = g.groups * panels * g.patch() * panel<T> * sizeof(T);
  if (panels >= 12 * parallel.threads || bytes > (32 << 20))
    pass.by_panel(panels, parallel);
  else
    pass.by_channel(panels, parallel);
}
