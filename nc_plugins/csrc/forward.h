// The forward pass: out[o, k] = gain[o] * sum_i weight[o, i] * (p[i] - mean(p)) * rstd(p) + bias[o]
// for every patch p, a column of the im2col matrix. (Included like simd.h.)
//
// It multiplies the weight by panels of standardised patches. The weight is neither centred nor
// packed: the micro-kernel reads its rows in place. Gain and bias are applied while a tile is in
// the cache.

template <class T>
struct ForwardPass {
  const nc::Forward<T>& args;
  const nc::Geometry& g;
  const PlaneLayout& layout;
  Gather<T> gather;  // of the input
  Gather<T> pixels;  // of pixel_moments(), where the kernel has several taps

  // Moments of the patches that are the columns of a panel, over the I values of each.
  Moments<T, NC_VECTORS> patch_moments(const PanelColumns<T>& columns, int64_t group) const {
    int64_t K = g.taps(), C = g.in_channels;
    if (K == 1) return gather.channel_moments(columns, group);
    // Merge the moments of the K pixels. The origin is that of the middle tap, which is close to
    // the mean of the patch unless the patch varies a lot.
    Moments<T, NC_VECTORS> moments;
    T* origins = thread_buffer<T>(0, 3 * K * panel_width<T>);
    T *means = origins + K * panel_width<T>, *squares = means + K * panel_width<T>;
    pixels.im2col_rows(columns, group, 0, 3 * K, origins);
    for (int64_t v = 0; v < NC_VECTORS; v++) {
      Vector<T> origin = load(origins + K / 2 * panel_width<T> + v * vector_width<T>), mean{},
                sum{};
      for (int64_t i = v * vector_width<T>; i < K * panel_width<T>; i += panel_width<T>) {
        Vector<T> value = (load(origins + i) - origin) + load(means + i);
        store(means + i, value);
        mean += value;
      }
      mean *= static_cast<T>(1) / static_cast<T>(K);
      for (int64_t i = v * vector_width<T>; i < K * panel_width<T>; i += panel_width<T>) {
        Vector<T> d = load(means + i) - mean;
        sum += load(squares + i) + d * d * static_cast<T>(C);
      }
      moments.origin[v] = origin;
      moments.mean[v] = mean;
      moments.squares[v] = sum;
    }
    return moments;
  }

  // Computes mean, mean correction and rstd of a panel's patches, writes them to the maps and
  // returns what standardises the patches.
  Standardization<T> statistics(const PanelColumns<T>& columns, int64_t group) const {
    Moments<T, NC_VECTORS> moments = patch_moments(columns, group);
    Standardization<T> standard;
    T mean[panel_width<T>], correction[panel_width<T>], rstd[panel_width<T>];
    T inverse_size = static_cast<T>(1) / static_cast<T>(g.patch()), eps = static_cast<T>(args.eps);
    for (int64_t v = 0; v < NC_VECTORS; v++) {
      // The sum of two numbers and its rounding error (2Sum, Knuth).
      Vector<T> sum = moments.origin[v] + moments.mean[v];
      Vector<T> addend = sum - moments.origin[v];
      store(mean + v * vector_width<T>, sum);
      store(correction + v * vector_width<T>,
            (moments.origin[v] - (sum - addend)) + (moments.mean[v] - addend));
      store(rstd + v * vector_width<T>, moments.squares[v] * inverse_size + eps);
    }
    for (int64_t i = 0; i < panel_width<T>; i++) {
      rstd[i] = 1 / std::sqrt(rstd[i]);
      standard.mean[i] = args.center ? mean[i] : 0;
      standard.mean_correction[i] = args.center ? correction[i] : 0;
      standard.factor[i] = args.scale ? rstd[i] : 1;
    }
    for (int64_t p = 0; p < columns.output_run_count; p++) {
      const auto& run = columns.output_runs[p];
      int64_t to = (run.sample * g.groups + group) * g.out_size() + run.offset;
      memcpy(args.mean + to, mean + run.column, run.length * sizeof(T));
      memcpy(args.mean_correction + to, correction + run.column, run.length * sizeof(T));
      memcpy(args.rstd + to, rstd + run.column, run.length * sizeof(T));
    }
    return standard;
  }

  // Computes output channels [first, last) of a group for panels [begin, end). `patches` holds
  // these panels, [end - begin][I][panel_width].
  void outputs(int64_t group, int64_t begin, int64_t end, const T* patches, int64_t first,
               int64_t last) const {
    int64_t I = g.patch(), sums_size = round_up(last - first, NC_ROWS) * panel_width<T>;
    T* sums =
        thread_buffer<T>(1, (end - begin) * sums_size);  // [end - begin][channels][panel_width]
    for (int64_t k = 0; k < I; k += k_block)
      for (int64_t o = first; o < last; o += NC_ROWS) {
        int64_t rows = min(NC_ROWS, last - o), steps = min(k_block, I - k);
        const T* weight = args.weight + (group * g.out_channels + o) * I + k;
        for (int64_t p = begin; p < end;
             p++) {  // innermost: these rows of the weight stay in the cache
          T* to = sums + (p - begin) * sums_size + (o - first) * panel_width<T>;
          int64_t vectors =
              ceil_div(min(panel_width<T>, g.columns() - p * panel_width<T>), vector_width<T>);
          multiply<T, false>(rows, {weight, I, 1}, steps, 1, 0,
                             patches + ((p - begin) * I + k) * panel_width<T>, to, vectors, k > 0);
          if (k + steps == I && args.output.pixel_stride == 1)
            write(PanelColumns<T>(g, layout, p), group * g.out_channels + o, rows, to);
        }
      }
    // In channels_last a pixel's channels are contiguous, so all of them are written at once.
    if (args.output.pixel_stride != 1)
      for (int64_t p = begin; p < end; p++)
        write(PanelColumns<T>(g, layout, p), group * g.out_channels + first, last - first,
              sums + (p - begin) * sums_size);
  }

  // Applies gain and bias to sums [rows][panel_width] and writes them to output channels
  // [o, o + rows), counted over all groups.
  void write(const PanelColumns<T>& columns, int64_t o, int64_t rows, T* sums) const {
    const auto& out = args.output;
    auto affine = [&](int64_t m, const T* from, int64_t count, T* to) {
      T gain = args.gain ? args.gain[o + m] : 1, bias = args.bias ? args.bias[o + m] : 0;
      int64_t i = 0;
      for (; i + vector_width<T> <= count; i += vector_width<T>)
        store(to + i, load(from + i) * gain + broadcast(bias));
      for (; i < count; i++) to[i] = from[i] * gain + bias;
    };
    bool contiguous = out.pixel_stride == 1;
    if (!contiguous)
      for (int64_t m = 0; m < rows; m++)
        affine(m, sums + m * panel_width<T>, panel_width<T>, sums + m * panel_width<T>);
    for (int64_t p = 0; p < columns.output_run_count; p++) {
      const auto& run = columns.output_runs[p];
      T* to = out.data + run.sample * out.sample_stride + o * out.channel_stride +
              run.offset * out.pixel_stride;
      const T* from = sums + run.column;
      if (!contiguous) transpose(from, panel_width<T>, rows, run.length, to, out.pixel_stride);
      for (int64_t m = 0; contiguous && m < rows; m++)
        affine(m, from + m * panel_width<T>, run.length, to + m * out.channel_stride);
    }
  }

  // One task for each panel, from the statistics to the output. It suits many panels.
  void parallel_over_panels(int64_t panels, const nc::Parallel& parallel) const {
    parallel(g.groups * panels, [&](int64_t task) {
      int64_t group = task / panels, p = task % panels;
      PanelColumns<T> columns(g, layout, p);
      Standardization<T> standard = statistics(columns, group);
      T* patches = thread_buffer<T>(0, g.patch() * panel_width<T>);
      gather.standardized_rows(columns, group, 0, g.patch(), standard, patches);
      outputs(group, p, p + 1, patches, 0, g.out_channels);
    });
  }

  // For few panels, as small maps with a large weight have: the tasks first gather all panels
  // together, then share the output channels, so that each thread reads a part of the weight once.
  void parallel_over_channels(int64_t panels, const nc::Parallel& parallel) const {
    int64_t I = g.patch(), row_blocks = ceil_div(I, k_block), all_panels = g.groups * panels;
    T* patches = scratch_buffer<T>(args.allocate, args.context, all_panels * I * panel_width<T>);
    auto* standards = reinterpret_cast<Standardization<T>*>(
        args.allocate(args.context, all_panels * sizeof(Standardization<T>)));
    parallel(all_panels, [&](int64_t i) {
      standards[i] = statistics(PanelColumns<T>(g, layout, i % panels), i / panels);
    });
    parallel(all_panels * row_blocks, [&](int64_t task) {
      int64_t i = task / row_blocks, first = task % row_blocks * k_block;
      gather.standardized_rows(PanelColumns<T>(g, layout, i % panels), i / panels, first,
                               min(I, first + k_block), standards[i],
                               patches + (i * I + first) * panel_width<T>);
    });
    int64_t task_channels =
        min(8 * NC_ROWS, round_up(ceil_div(g.out_channels, parallel.threads), NC_ROWS));
    int64_t tasks = ceil_div(g.out_channels, task_channels);
    parallel(g.groups * tasks, [&](int64_t task) {
      int64_t group = task / tasks, first = task % tasks * task_channels;
      outputs(group, 0, panels, patches + group * panels * I * panel_width<T>, first,
              min(g.out_channels, first + task_channels));
    });
  }
};

// Computes the output and the maps of mean, mean correction and rstd. See nc_conv.h for the shapes.
template <class T>
void forward(const nc::Forward<T>& args, const nc::Parallel& parallel) {
  const nc::Geometry& g = args.geometry;
  PlaneLayout layout(g);
  auto* taps = static_cast<int64_t*>(args.allocate(args.context, g.taps() * sizeof(int64_t)));
  for (int64_t t = 0; t < g.taps(); t++) taps[t] = layout.tap_offset(g, t);
  Planes<T> planes = make_planes(g, layout, args.input, args.allocate, args.context, parallel);
  Planes<T> moments{};
  if (g.taps() > 1)
    moments = pixel_moments(g, layout, planes, args.allocate, args.context, parallel);
  ForwardPass<T> pass{args, g, layout, {g, layout, planes, taps}, {g, layout, moments, taps}};
  int64_t panels = ceil_div(g.columns(), panel_width<T>);
  // Few panels do not divide evenly among the threads. They are then computed together if the whole
  // im2col matrix is small. Both ways sum in the same order.
  int64_t bytes = g.groups * panels * g.patch() * panel_width<T> * sizeof(T);
  if (panels >= 12 * parallel.threads || bytes > (32 << 20))
    pass.parallel_over_panels(panels, parallel);
  else
    pass.parallel_over_channels(panels, parallel);
}
