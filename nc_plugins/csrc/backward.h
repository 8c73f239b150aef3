// The backward pass. (Included like simd.h.)
//
// Let p be a patch, c = p - mean(p), r its rstd, a the gain, g the gradient of the output at the
// position of the patch, and gz[o] = g[o] * r. Then, with sums over positions or output channels,
//     dbias[o]  = sum_k g[o]
//     dW[o, i]  = a[o] * sum_k gz[o] * c[i]
//     da[o]     = sum_k sum_i W[o, i] * gz[o] * c[i]
//     v[i]      = sum_o a[o] * W[o, i] * gz[o]             the gradient through the convolution
//     dp[i]     = v[i] - mean(v) - c[i] * s                 less that through mean and rstd,
//     s         = r^2 / I * sum_i v[i] * c[i]
// and the gradient of a pixel is the sum of dp over the patches that contain it. scatter_channels()
// sums v; through_statistics() subtracts the other two terms, which need sums over all channels and
// reduce to single-channel maps.
//
// No sum depends on the number of threads: tasks split the work by size alone.

template <class T>
struct BackwardPass {
  const nc::Backward<T>& args;
  const nc::Geometry& g;
  const PlaneLayout& layout;
  Gather<T> gather;
  const nc::Parallel& parallel;
  int64_t panels;
  T* scaled = nullptr;  // gz as panels [G, panels, O, panel_width], 0 behind the last column

  T* allocate(int64_t count) const { return scratch_buffer<T>(args.allocate, args.context, count); }
  const T* scaled_panel(int64_t group, int64_t p) const {
    return scaled + (group * panels + p) * g.out_channels * panel_width<T>;
  }

  // Computes gz and the gradient of the bias in one pass over g.
  void scale_grad() {
    int64_t O = g.out_channels;
    scaled = allocate(g.groups * panels * O * panel_width<T>);
    T* sums = args.grad_bias ? allocate(g.groups * panels * O) : nullptr;
    const auto& grad = args.grad;
    parallel(g.groups * panels, [&](int64_t task) {
      int64_t group = task / panels;
      PanelColumns<T> columns(g, layout, task % panels);
      T* to = scaled + task * O * panel_width<T>;
      T rstd[panel_width<T>];
      read_map(g, columns, group, args.rstd, rstd);
      if (!args.scale)
        for (int64_t i = 0; i < panel_width<T>; i++) rstd[i] = i < columns.count ? 1 : 0;
      for (int64_t p = 0; p < columns.output_run_count; p++) {
        const auto& run = columns.output_runs[p];
        const T* from = grad.data + run.sample * grad.sample_stride +
                        group * O * grad.channel_stride + run.offset * grad.pixel_stride;
        if (grad.pixel_stride == 1)
          for (int64_t o = 0; o < O; o++)
            memcpy(to + o * panel_width<T> + run.column, from + o * grad.channel_stride,
                   run.length * sizeof(T));
        else
          transpose(from, grad.pixel_stride, run.length, O, to + run.column, panel_width<T>);
      }
      for (int64_t o = 0; o < O; o++, to += panel_width<T>) {
        for (int64_t i = columns.count; i < panel_width<T>; i++) to[i] = 0;
        Vector<T> sum{};
        for (int64_t i = 0; i < panel_width<T>; i += vector_width<T>) {
          Vector<T> value = load(to + i);
          sum += value;
          store(to + i, value * load(rstd + i));
        }
        if (sums) {
          T total = 0;
          for (int64_t i = 0; i < vector_width<T>; i++) total += sum[i];
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

  // What turns a panel of patches into c. The factor is 1, because gz contains rstd.
  Standardization<T> standard(const PanelColumns<T>& columns, int64_t group) const {
    Standardization<T> s;
    read_map(g, columns, group, args.mean, s.mean);
    read_map(g, columns, group, args.mean_correction, s.mean_correction);
    for (int64_t i = 0; i < panel_width<T>; i++) {
      if (!args.center) s.mean[i] = s.mean_correction[i] = 0;
      s.factor[i] = 1;
    }
    return s;
  }

  // The gradients of weight and gain.
  //
  // The product is gz [O, columns] times c transposed [columns, I], summed over all panels. Its I
  // columns are cut into strips of at most panel_width. A task computes one strip, or four strips
  // for small maps, for a range of the output channels (O splits) and a range of the panels (panel
  // splits, whose partial sums are added at the end).

  static constexpr int64_t block = 4;  // panels summed in registers, and strips of a task

  void weight_grads() const {
    int64_t O = g.out_channels, I = g.patch(), weight_size = g.groups * O * I;
    int64_t task_strips = panels <= block ? block : 1;
    int64_t strip = round_up(ceil_div(I, ceil_div(I, panel_width<T>)), vector_width<T>);
    int64_t strips = ceil_div(I, strip);
    int64_t strip_tasks = ceil_div(strips, task_strips), tasks = g.groups * strip_tasks;
    // About 24 tasks in all.
    int64_t panel_splits = min(ceil_div(24, tasks), max(1, panels / 8));
    int64_t split_channels =
        round_up(ceil_div(O, max(1, min(O / 128, ceil_div(24, tasks * panel_splits)))), NC_ROWS);
    int64_t channel_splits = ceil_div(O, split_channels);
    T* partial_weight = panel_splits > 1 ? allocate(panel_splits * weight_size) : args.grad_weight;
    T* partial_gain = args.grad_gain ? allocate(panel_splits * strips * g.groups * O) : nullptr;
    parallel(tasks * panel_splits * channel_splits, [&](int64_t task) {
      // Consecutive tasks, which one thread runs, use the same panels: those that this thread
      // scaled in scale_grad(), so that they are in its cache.
      int64_t split = task / (channel_splits * tasks);
      int64_t o_begin = task / tasks % channel_splits * split_channels;
      int64_t o_end = min(O, o_begin + split_channels);
      int64_t group = task % tasks / strip_tasks,
              s_begin = task % tasks % strip_tasks * task_strips;
      int64_t p_begin = panels * split / panel_splits, p_end = panels * (split + 1) / panel_splits;
      T* to = partial_weight + split * weight_size + group * O * I;
      // Writes the sums of output channel o and strip s.
      auto finish = [&](int64_t o, int64_t s, const T* sums) {
        int64_t first = s * strip, count = min(strip, I - first);
        T gain = args.gain ? args.gain[group * O + o] : 1;
        if (partial_gain)
          partial_gain[((split * strips + s) * g.groups + group) * O + o] =
              dot(sums, args.weight + (group * O + o) * I + first, count);
        for (int64_t i = 0; i < count; i++) to[o * I + first + i] = sums[i] * gain;
      };
      constexpr int64_t square = panel_width<T> * panel_width<T>;
      T* patches = thread_buffer<T>(2, task_strips * block * square);
      T* sums = thread_buffer<T>(1, (task_strips == 1 ? split_channels : NC_ROWS) * panel_width<T>);
      // sum (+)= channels from o on of gz times strip s of c transposed, over `count` panels from p
      // on.
      auto multiply_strip = [&](int64_t p, int64_t count, int64_t o, int64_t s, const T* right,
                                T* sum, bool accumulate) {
        multiply<T, false>(min(NC_ROWS, o_end - o),
                           {scaled_panel(group, p) + o * panel_width<T>, panel_width<T>, 1},
                           panel_width<T>, count, O * panel_width<T>, right, sum,
                           ceil_div(min(strip, I - s * strip), vector_width<T>), accumulate);
      };
      if (task_strips > 1) {  // one block has all panels, so a tile is finished at once
        int64_t s_end = min(strips, s_begin + task_strips);
        for (int64_t s = s_begin; s < s_end; s++)
          transposed_patches(group, s * strip, min(I, (s + 1) * strip), p_begin, p_end - p_begin,
                             patches + (s - s_begin) * block * square);
        for (int64_t o = o_begin; o < o_end; o += NC_ROWS)
          for (int64_t s = s_begin; s < s_end; s++) {
            for (int64_t m = 0; m < NC_ROWS; m++) {
              int64_t i = (o + m) * I + s * strip;
              prefetch(args.weight + group * O * I + i, strip);
              prefetch<true>(to + i, strip);
            }
            multiply_strip(p_begin, p_end - p_begin, o, s, patches + (s - s_begin) * block * square,
                           sums, false);
            for (int64_t m = 0; m < min(NC_ROWS, o_end - o); m++)
              finish(o + m, s, sums + m * panel_width<T>);
          }
        return;
      }
      for (int64_t p = p_begin; p < p_end; p += block) {
        int64_t count = min(block, p_end - p);
        transposed_patches(group, s_begin * strip, min(I, (s_begin + 1) * strip), p, count,
                           patches);
        for (int64_t o = o_begin; o < o_end; o += NC_ROWS)
          multiply_strip(p, count, o, s_begin, patches, sums + (o - o_begin) * panel_width<T>,
                         p > p_begin);
      }
      for (int64_t o = o_begin; o < o_end; o++) {
        int64_t next = (o + NC_ROWS) * I + s_begin * strip;
        prefetch(args.weight + group * O * I + next, strip);
        prefetch<true>(to + next, strip);
        finish(o, s_begin, sums + (o - o_begin) * panel_width<T>);
      }
    });
    if (panel_splits > 1)
      parallel(g.groups * O, [&](int64_t o) {
        T* to = args.grad_weight + o * I;
        memcpy(to, partial_weight + o * I, I * sizeof(T));
        for (int64_t split = 1; split < panel_splits; split++)
          for (int64_t i = 0; i < I; i++) to[i] += partial_weight[split * weight_size + o * I + i];
      });
    if (partial_gain)
      for (int64_t o = 0; o < g.groups * O; o++) {
        double total = 0;
        for (int64_t i = 0; i < panel_splits * strips; i++)
          total += partial_gain[i * g.groups * O + o];
        args.grad_gain[o] = static_cast<T>(total);
      }
  }

  // sum_i a[i] * b[i] over `count` values.
  static T dot(const T* a, const T* b, int64_t count) {
    Vector<T> sums{};
    int64_t i = 0;
    for (; i + vector_width<T> <= count; i += vector_width<T>) sums += load(a + i) * load(b + i);
    T sum = 0;
    for (; i < count; i++) sum += a[i] * b[i];
    for (int64_t lane = 0; lane < vector_width<T>; lane++) sum += sums[lane];
    return sum;
  }

  // Writes rows [first, last) of c for `count` panels from p on, transposed: [count][column of the
  // panel][row], both of size panel_width.
  void transposed_patches(int64_t group, int64_t first, int64_t last, int64_t p, int64_t count,
                          T* to) const {
    T* rows = thread_buffer<T>(0, panel_width<T> * panel_width<T>);
    for (int64_t q = 0; q < count; q++, to += panel_width<T> * panel_width<T>) {
      PanelColumns<T> columns(g, layout, p + q);
      gather.standardized_rows(columns, group, first, last, standard(columns, group), rows);
      for (int64_t i = 0; i < last - first; i += vector_width<T>)
        for (int64_t j = 0; j < columns.vectors * vector_width<T>; j += vector_width<T>)
          transpose_square(rows + i * panel_width<T> + j, panel_width<T>,
                           to + j * panel_width<T> + i, panel_width<T>);
      // gz is 0 behind the last column, but 0 times NaN would be NaN
      memset(to + columns.count * panel_width<T>, 0,
             (panel_width<T> - columns.count) * panel_width<T> * sizeof(T));
    }
  }

  // The gradient of the input.

  // Prefetches `count` values. Rows of a large weight are too far apart for the hardware
  // prefetcher.
  template <bool WRITE = false>
  static void prefetch(const T* row, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / sizeof(T)) __builtin_prefetch(row + i, WRITE);
  }

  // Packs columns [first, last) of a group's weight, times the gain, for the micro-kernel. They are
  // the left matrix of rows [first, last) of v: [blocks of NC_ROWS columns][O][NC_ROWS].
  void pack_weight(int64_t group, int64_t first, int64_t last, T* __restrict to) const {
    int64_t O = g.out_channels, I = g.patch();
    for (int64_t o = 0; o < O; o++, to += NC_ROWS) {
      const T* __restrict from = args.weight + (group * O + o) * I;
      T gain = args.gain ? args.gain[group * O + o] : 1;
      prefetch(from + 8 * I + first, last - first);
      int64_t i = first;
      for (; i + NC_ROWS <= last; i += NC_ROWS)
        for (int64_t m = 0; m < NC_ROWS; m++) to[(i - first) * O + m] = from[i + m] * gain;
      for (int64_t m = 0; i < last && m < NC_ROWS; m++)
        to[(i - first) * O + m] = i + m < last ? from[i + m] * gain : 0;
    }
  }

  // Computes `count` rows of v for panel p, [count][panel_width], from packed columns of the
  // weight.
  void products(const T* packed, int64_t count, int64_t group, int64_t p, int64_t vectors,
                T* v) const {
    int64_t O = g.out_channels;
    for (int64_t k = 0; k < O; k += k_block)
      for (int64_t i = 0; i < count; i += NC_ROWS)
        multiply<T, true>(NC_ROWS, {packed + i * O + k * NC_ROWS, 1, NC_ROWS}, min(k_block, O - k),
                          1, 0, scaled_panel(group, p) + k * panel_width<T>, v + i * panel_width<T>,
                          vectors, k > 0);
  }

  // For a 1x1 kernel with stride 1 and no padding. A patch is a pixel, so a task computes all
  // channels of a panel, the statistics included, and writes each pixel once.
  void dense_input_grads() const {
    int64_t C = g.in_channels, O = g.out_channels, packed_rows = round_up(C, NC_ROWS);
    T* packed = allocate(g.groups * packed_rows * O);
    constexpr int64_t task_rows = 16 * NC_ROWS;
    int64_t tasks = ceil_div(C, task_rows);
    parallel(g.groups * tasks, [&](int64_t task) {
      int64_t group = task / tasks, first = task % tasks * task_rows;
      pack_weight(group, first, min(C, first + task_rows),
                  packed + (group * packed_rows + first) * O);
    });
    parallel(g.groups * panels, [&](int64_t task) {
      int64_t group = task / panels, p = task % panels;
      PanelColumns<T> columns(g, layout, p);
      T* v = thread_buffer<T>(0, packed_rows * panel_width<T>);
      T* pixels = thread_buffer<T>(1, C * panel_width<T>);
      products(packed + group * packed_rows * O, C, group, p, columns.vectors, v);
      gather.im2col_rows(columns, group, 0, C, pixels);
      T mean[panel_width<T>], correction[panel_width<T>], rstd[panel_width<T>];
      read_map(g, columns, group, args.mean, mean);
      read_map(g, columns, group, args.mean_correction, correction);
      read_map(g, columns, group, args.rstd, rstd);
      Standardization<T> s = standard(columns, group);
      T inverse_size = static_cast<T>(1) / static_cast<T>(C);
      for (int64_t column = 0; column < columns.vectors * vector_width<T>;
           column += vector_width<T>) {
        Vector<T> c_mean = load(s.mean + column), c_correction = load(s.mean_correction + column),
                  sums{}, dots{};
        for (int64_t c = 0; c < C; c++) {
          Vector<T> value = load(v + c * panel_width<T> + column);
          sums += value;
          dots += value * ((load(pixels + c * panel_width<T> + column) - c_mean) - c_correction);
        }
        Vector<T> r = load(rstd + column), m = load(mean + column),
                  m_correction = load(correction + column);
        sums *= args.center ? inverse_size : 0;
        dots *= r * r * (args.scale ? inverse_size : 0);
        for (int64_t c = 0; c < C; c++) {
          T* target = v + c * panel_width<T> + column;
          store(target,
                load(target) - sums -
                    ((load(pixels + c * panel_width<T> + column) - m) - m_correction) * dots);
        }
      }
      const auto& out = args.grad_input;
      for (int64_t q = 0; q < columns.output_run_count; q++) {
        const auto& run = columns.output_runs[q];
        T* to = out.data + run.sample * out.sample_stride + group * C * out.channel_stride +
                run.offset * out.pixel_stride;
        if (out.pixel_stride == 1)
          for (int64_t c = 0; c < C; c++)
            memcpy(to + c * out.channel_stride, v + c * panel_width<T> + run.column,
                   run.length * sizeof(T));
        else
          transpose(v + run.column, panel_width<T>, C, run.length, to, out.pixel_stride);
      }
    });
  }

  // For any kernel. A task has a chunk of a group's channels in one sample, or in all samples where
  // maps are small, so no two tasks add to the same pixel.
  void input_grads() const {
    int64_t C = g.in_channels, K = g.taps(), L = g.out_size();
    int64_t chunks = ceil_div(C * K, 96);  // a task has about 96 rows of v
    if (chunks > 1) chunks = round_up(chunks, 2);
    int64_t chunk_channels = ceil_div(C, min(C, chunks));
    if (chunk_channels > 4 && chunk_channels * K % NC_ROWS)
      chunk_channels = min(C, round_up(chunk_channels, NC_ROWS));
    chunks = ceil_div(C, chunk_channels);
    // For small maps one task takes all samples, so that the weight is packed once.
    int64_t batch_splits =
        L >= 512 || g.batch * chunk_channels * layout.size > (1 << 18) ? g.batch : 1;
    int64_t map_size = g.groups * g.columns();
    T* sum = allocate(chunks * map_size);
    T* dot = allocate(chunks * map_size);
    parallel(g.groups * chunks * batch_splits, [&](int64_t task) {
      // Consecutive tasks have the same samples: the panels that this thread scaled are in its
      // cache.
      int64_t chunk = task % chunks, group = task / chunks % g.groups,
              split = task / chunks / g.groups;
      int64_t first = chunk * chunk_channels, last = min(C, first + chunk_channels),
              samples = g.batch / batch_splits;
      scatter_channels(group, first, last, split * samples, (split + 1) * samples,
                       sum + chunk * map_size, dot + chunk * map_size);
    });
    T* maps = allocate(g.batch * g.groups * 3 * layout.size);
    parallel(g.batch * g.groups, [&](int64_t task) {
      statistics_maps(task, chunks, sum, dot, maps + task * 3 * layout.size);
    });
    int64_t task_channels = args.grad_input.channel_stride == 1 ? C : 1, tasks = C / task_channels;
    parallel(g.batch * g.groups * tasks, [&](int64_t task) {
      through_statistics(task / tasks, task % tasks * task_channels, task_channels,
                         maps + task / tasks * 3 * layout.size);
    });
  }

  // Writes grad_input = sum of v over the patches of a pixel, for channels [first, last) of a group
  // in samples [begin, end). Also writes, for every patch, the sums of v and of v * c over these
  // channels to the maps `sum` and `dot` [N, G, L].
  void scatter_channels(int64_t group, int64_t first, int64_t last, int64_t begin, int64_t end,
                        T* sum, T* dot) const {
    int64_t K = g.taps(), L = g.out_size(), O = g.out_channels, channels = last - first;
    int64_t rows = channels * K, samples = end - begin, packed_rows = round_up(rows, NC_ROWS);
    T* packed = thread_buffer<T>(0, packed_rows * O);
    T* v = thread_buffer<T>(1, packed_rows * panel_width<T>);
    T* planes = thread_buffer<T>(2, samples * channels * layout.size);
    memset(planes, 0, (samples * channels * layout.size + slack) * sizeof(T));
    pack_weight(group, first * K, last * K, packed);
    for (int64_t p = begin * L / panel_width<T>; p * panel_width<T> < end * L; p++) {
      PanelColumns<T> columns(g, layout, p);
      products(packed, rows, group, p, columns.vectors, v);
      Standardization<T> s = standard(columns, group);
      T sums[panel_width<T> + vector_width<T>], dots[panel_width<T> + vector_width<T>];
      for (int64_t r = 0; r < columns.input_run_count; r++) {
        const auto& run = columns.input_runs[r];
        if (run.sample < begin || run.sample >= end) continue;
        const T* x =
            gather.plane(group, first) + run.sample * gather.planes.sample_stride + run.offset;
        T* to = planes + (run.sample - begin) * channels * layout.size + run.offset;
        for (int64_t i = 0; i < run.length; i += vector_width<T>)
          scatter_vector(v + run.column + i, x + i, s.mean + run.column + i,
                         s.mean_correction + run.column + i, to + i, channels,
                         min(vector_width<T>, run.length - i), sums + run.column + i,
                         dots + run.column + i);
      }
      for (int64_t q = 0; q < columns.output_run_count; q++) {
        const auto& run = columns.output_runs[q];
        if (run.sample < begin || run.sample >= end) continue;
        int64_t to = (run.sample * g.groups + group) * L + run.offset;
        memcpy(sum + to, sums + run.column, run.length * sizeof(T));
        memcpy(dot + to, dots + run.column, run.length * sizeof(T));
      }
    }
    for (int64_t n = begin; n < end; n++)
      from_planes(planes + (n - begin) * channels * layout.size, n, group * g.in_channels + first,
                  channels);
  }

  // Adds the rows of v at `count` columns, at most one vector, to the planes `to`, and writes the
  // sums of v and of v * c over these rows. x points at tap 0 of the first column in the input's
  // planes. Taps are the outer loop: the stores of neighbouring taps overlap, and a load right
  // after them would wait.
  void scatter_vector(const T* v, const T* x, const T* mean, const T* correction, T* to,
                      int64_t channels, int64_t count, T* sums, T* dots) const {
    int64_t K = g.taps(), plane = gather.planes.channel_stride;
    Vector<T> sum{}, dot{}, m = load(mean), m_correction = load(correction);
    T edge[vector_width<T>] = {};
    bool no_overread = count < vector_width<T> && gather.planes.is_input;
    for (int64_t t = 0; t < K; t++) {
      const T* from = x + gather.taps[t];
      T* target = to + gather.taps[t];
      for (int64_t c = 0; c < channels; c++, from += plane, target += layout.size) {
        Vector<T> value = load(v + (c * K + t) * panel_width<T>), pixel;
        if (count < vector_width<T>) value = first_lanes<T>(value, count);
        if (no_overread) {
          memcpy(edge, from, count * sizeof(T));
          pixel = load(edge);
        } else {
          pixel = load(from);
        }
        store(target, load(target) + value);
        sum += value;
        dot += value * ((pixel - m) - m_correction);
      }
    }
    store(sums, sum);
    store(dots, dot);  // lanes from `count` on belong to the next run, which overwrites them
  }

  // Copies planes of gradients [channels, layout.size] to channels of sample n of grad_input, and
  // writes 0 to the pixels that no patch contains.
  void from_planes(const T* planes, int64_t n, int64_t channel, int64_t channels) const {
    const auto& out = args.grad_input;
    T* image = out.data + n * out.sample_stride + channel * out.channel_stride;
    if (!layout.covers_input)
      for (int64_t i = 0; i < g.in_size(); i++)
        for (int64_t c = 0; c < channels; c++)
          image[i * out.pixel_stride + c * out.channel_stride] = 0;
    layout.for_each_span(g, [&](int64_t from, int64_t to, int64_t count, int64_t step) {
      if (out.channel_stride == 1)
        return transpose(planes + from, layout.size, channels, count, image + to * out.pixel_stride,
                         step * out.pixel_stride);
      for (int64_t c = 0; c < channels; c++) {
        T* target = image + c * out.channel_stride + to;
        const T* source = planes + c * layout.size + from;
        if (step == 1)
          memcpy(target, source, count * sizeof(T));
        else
          for (int64_t i = 0; i < count; i++) target[i * step] = source[i];
      }
    });
  }

  // Computes the maps of the gradient through mean and rstd for sample and group `task`. That
  // gradient of a pixel x is the sum over its patches of mean(v) + (x - mean(p)) * s, which equals
  // offset + (x - origin) * slope with three maps in the layout of a plane. The origin is the mean
  // of one of the patches, so the differences are small and lose no digits.
  void statistics_maps(int64_t task, int64_t chunks, const T* sum, const T* dot, T* maps) const {
    int64_t L = g.out_size(), K = g.taps(), row = g.out[2], size = layout.size;
    T *origin = maps, *offset = maps + size, *slope = maps + 2 * size;
    T *mean_v = thread_buffer<T>(0, 2 * L), *s = mean_v + L;
    memset(maps, 0, 3 * size * sizeof(T));
    memset(mean_v, 0, 2 * L * sizeof(T));
    const T *mean = args.mean + task * L, *correction = args.mean_correction + task * L;
    const T* rstd = args.rstd + task * L;
    for (int64_t chunk = 0; chunk < chunks; chunk++)
      for (int64_t k = 0; k < L; k++) {
        int64_t i = chunk * g.groups * g.columns() + task * L + k;
        mean_v[k] += sum[i];
        s[k] += dot[i];
      }
    T inverse_size = static_cast<T>(1) / static_cast<T>(g.patch());
    for (int64_t k = 0; k < L; k++) {
      mean_v[k] *= args.center ? inverse_size : 0;
      s[k] *= args.scale ? inverse_size * rstd[k] * rstd[k] : 0;
    }
    auto for_each_patch = [&](const auto& add) {
      for (int64_t t = 0; t < K; t++)
        for (int64_t k = 0; k < L; k += row) {
          int64_t at = layout.position_offset(g, k) + gather.taps[t];
          for (int64_t i = 0; i < row; i++) add(at + i, k + i);
        }
    };
    for_each_patch([&](int64_t at, int64_t k) { origin[at] = mean[k]; });
    for_each_patch([&](int64_t at, int64_t k) {
      offset[at] += mean_v[k] - ((mean[k] - origin[at]) + correction[k]) * s[k];
      slope[at] += s[k];
    });
  }

  // Subtracts the gradient through mean and rstd from `channels` channels, from `first` on, of
  // sample and group `map` of grad_input.
  void through_statistics(int64_t map, int64_t first, int64_t channels, const T* maps) const {
    const T *origin = maps, *offset = maps + layout.size, *slope = maps + 2 * layout.size;
    const auto& out = args.grad_input;
    const auto& x = args.input;
    int64_t n = map / g.groups, channel = map % g.groups * g.in_channels + first;
    const T* values = x.data + n * x.sample_stride + channel * x.channel_stride;
    T* image = out.data + n * out.sample_stride + channel * out.channel_stride;
    // The slope is 0 at a pixel that no patch contains, whose value may be NaN.
    auto gradient = [&](T value, int64_t q) {
      T change = (value - origin[q]) * slope[q];
      return offset[q] + (slope[q] == 0 ? 0 : change);
    };
    layout.for_each_span(g, [&](int64_t from, int64_t to, int64_t count, int64_t step) {
      if (out.channel_stride != 1 && step == 1) {
        for (int64_t i = 0, q = from; i < count; i++, q++)
          image[to + i] -= gradient(values[to + i], q);
        return;
      }
      for (int64_t i = 0, q = from; i < count; i++, q++) {
        T* target = image + (to + i * step) * out.pixel_stride;
        const T* source = values + (to + i * step) * x.pixel_stride;
        for (int64_t c = 0; c < channels; c++) target[c] -= gradient(source[c], q);
      }
    });
  }
};

// Computes the gradients that are asked for. See nc_conv.h for the shapes.
template <class T>
void backward(const nc::Backward<T>& args, const nc::Parallel& parallel) {
  const nc::Geometry& g = args.geometry;
  PlaneLayout layout(g);
  Planes<T> planes = make_planes(g, layout, args.input, args.allocate, args.context, parallel);
  auto* taps = static_cast<int64_t*>(args.allocate(args.context, g.taps() * sizeof(int64_t)));
  for (int64_t t = 0; t < g.taps(); t++) taps[t] = layout.tap_offset(g, t);
  int64_t panels = ceil_div(g.columns(), panel_width<T>);
  BackwardPass<T> pass{args, g, layout, {g, layout, planes, taps}, parallel, panels};
  pass.scale_grad();
  if (args.grad_weight) pass.weight_grads();
  if (args.grad_input.data) {
    if (layout.is_input &&
        panels >= 24)  // the ways differ in rounding: do not ask for threads here
      pass.dense_input_grads();
    else
      pass.input_grads();
  }
}
