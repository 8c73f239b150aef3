// Forward: panels of standardised patches times the weight. (Included like simd.h.)
//
// The weight is read as it lies, row by row: no centred copy, no packing. Gain and bias are applied
// to each tile before it leaves the cache.

constexpr int64_t depth = 512;  // steps a tile sums before it is written: cache, and rounding

template <class T>
struct ForwardPass {
  const nc::Forward<T>& args;
  const nc::Geometry& g;
  const Layout& layout;
  Gather<T> gather;

  // Mean and rstd of the columns go to the output maps, and come back as what standardises them.
  Standard<T> statistics(const Columns<T>& columns, int64_t group, const Moments<T>& m) const {
    Standard<T> standard;
    T rstd[panel<T>];
    for (int64_t i = 0; i < panel<T>; i++) {
      rstd[i] = static_cast<T>(1) /
                std::sqrt(m.squares[i] / static_cast<T>(g.patch()) + static_cast<T>(args.eps));
      standard.shift[i] = args.center ? m.mean[i] : 0;
      standard.factor[i] = args.scale ? rstd[i] : 1;
    }
    for (int64_t p = 0; p < columns.pieces; p++) {
      const auto& piece = columns.piece[p];
      int64_t to = (piece.sample * g.groups + group) * g.out_size() + piece.position;
      for (int64_t i = 0; i < piece.length; i++) {
        args.mean[to + i] = m.mean[piece.at + i];
        args.rstd[to + i] = rstd[piece.at + i];
      }
    }
    return standard;
  }

  // Rows [first, last) of a group's output for panels [begin, end), whose patches follow each other.
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
          if (k + steps == I) write(Columns<T>(g, layout, p), group * g.out_channels + o, rows, to);
        }
      }
  }

  void write(const Columns<T>& columns, int64_t o, int64_t rows, const T* sums) const {
    const auto& out = args.output;
    T gain[NC_ROWS], bias[NC_ROWS];
    for (int64_t m = 0; m < rows; m++) {
      gain[m] = args.gain ? args.gain[o + m] : 1;
      bias[m] = args.bias ? args.bias[o + m] : 0;
    }
    for (int64_t p = 0; p < columns.pieces; p++) {
      const auto& piece = columns.piece[p];
      T* to = out.data + piece.sample * out.sample + o * out.channel + piece.position * out.pixel;
      const T* from = sums + piece.at;
      if (out.pixel == 1) {
        for (int64_t m = 0; m < rows; m++)
          for (int64_t i = 0; i < piece.length; i++)
            to[m * out.channel + i] = from[m * panel<T> + i] * gain[m] + bias[m];
      } else {
        for (int64_t i = 0; i < piece.length; i++)
          for (int64_t m = 0; m < rows; m++)
            to[i * out.pixel + m] = from[m * panel<T> + i] * gain[m] + bias[m];
      }
    }
  }

  // Where there are many panels, each thread takes some from beginning to end.
  void by_panel(int64_t panels, const nc::Parallel& parallel) const {
    parallel(g.groups * panels, [&](int64_t task) {
      int64_t group = task / panels, I = g.patch();
      int64_t p = task % panels;
      Columns<T> columns(g, layout, p);
      T* patches = thread_buffer<T>(0, I * panel<T>);
      Moments<T> moments;
      constexpr int64_t some = 16;  // rows: still in the nearest cache when they are summed
      for (int64_t i = 0; i < I; i += some) {
        int64_t last = least(I, i + some);
        gather.raw(columns, group, i, last, patches + i * panel<T>);
        moments.add(patches + i * panel<T>, last - i, columns.vectors);
      }
      Standard<T> standard = statistics(columns, group, moments);
      standard.apply(patches, I, columns.vectors);
      outputs(group, p, p + 1, patches, 0, g.out_channels);
    });
  }

  // Where there are few (small maps under large weights), all threads gather and then multiply
  // together: each panel's rows in parts, the output's channels in parts.
  void by_part(int64_t panels, const nc::Parallel& parallel) const {
    int64_t I = g.patch(), parts = ceil_div(I, depth), all = g.groups * panels;
    T* patches = scratch<T>(args.allocate, args.context, all * I * panel<T>);
    auto* moments = reinterpret_cast<Moments<T>*>(
        args.allocate(args.context, all * parts * sizeof(Moments<T>)));
    auto* standards = reinterpret_cast<Standard<T>*>(
        args.allocate(args.context, all * sizeof(Standard<T>)));
    auto each_part = [&](const auto& work) {
      parallel(all * parts, [&](int64_t task) {
        int64_t of = task / parts, first = task % parts * depth;
        work(task, of, Columns<T>(g, layout, of % panels), first, least(I, first + depth),
             patches + (of * I + first) * panel<T>);
      });
    };
    each_part([&](int64_t task, int64_t of, const Columns<T>& columns, int64_t first, int64_t last,
                  T* rows) {
      gather.raw(columns, of / panels, first, last, rows);
      Moments<T> sum;
      sum.add(rows, last - first, columns.vectors);
      moments[task] = sum;
    });
    for (int64_t of = 0; of < all; of++) {
      Moments<T> sum = moments[of * parts];
      for (int64_t part = 1; part < parts; part++) sum.merge(moments[of * parts + part]);
      standards[of] = statistics(Columns<T>(g, layout, of % panels), of / panels, sum);
    }
    each_part([&](int64_t, int64_t of, const Columns<T>& columns, int64_t first, int64_t last,
                  T* rows) { standards[of].apply(rows, last - first, columns.vectors); });

    int64_t share = round_up(ceil_div(g.out_channels, parallel.threads), NC_ROWS);
    share = least(share, 8 * NC_ROWS);
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
  Planes<T> planes = make_planes(g, layout, args.input, args.allocate, args.context, parallel);
  auto* taps = static_cast<int64_t*>(args.allocate(args.context, g.taps() * sizeof(int64_t)));
  for (int64_t t = 0; t < g.taps(); t++) taps[t] = layout.tap(g, t);
  ForwardPass<T> pass{args, g, layout, {g, layout, planes, taps}};
  int64_t panels = ceil_div(g.columns(), panel<T>);
  if (panels >= 4 * parallel.threads)
    pass.by_panel(panels, parallel);
  else
    pass.by_part(panels, parallel);
}
