// Normalized convolution on CPU: what the torch binding (nc_conv.cpp) and the kernels say to
// each other. Knows nothing of torch.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nc {

// Runs task(i) for i in [0, n), in parallel; tasks of one call must not depend on each other.
struct Parallel {
  int64_t threads;
  void (*run)(int64_t n, void (*task)(const void*, int64_t), const void* context);

  template <class F>
  void operator()(int64_t n, const F& task) const {
    run(n, [](const void* f, int64_t i) { (*static_cast<const F*>(f))(i); }, &task);
  }
};

// A convolution over three spatial axes (an image has depth 1), in input pixels.
// Channels are those of one group.
struct Geometry {
  int64_t batch, groups, in_channels, out_channels;
  int64_t in[3], out[3], kernel[3], stride[3], pad[3], dilation[3];

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t patch() const { return in_channels * taps(); }  // I of the definition
  int64_t in_size() const { return in[0] * in[1] * in[2]; }
  int64_t out_size() const { return out[0] * out[1] * out[2]; }  // L, positions of a sample
  int64_t columns() const { return batch * out_size(); }
};

// [N, channels, size] in memory: contiguous (pixel == 1) or channels_last (channel == 1).
template <class T>
struct Image {
  T* data;
  int64_t sample, channel, pixel;  // strides in elements
};

template <class T>
struct Forward {
  Geometry geometry;
  Image<const T> input;
  const T *weight, *gain, *bias;  // [G*O, I], [G*O] or null
  Image<T> output;
  T *mean, *rest, *rstd;  // [N, G, L] each, written; the mean of a patch is mean + rest
  double eps;
  bool center, scale;
  void* (*allocate)(void* context, size_t bytes);  // scratch, 64-byte aligned, freed by the caller
  void* context;
};

template <class T>
struct Backward {
  Geometry geometry;
  Image<const T> input, grad;
  const T *weight, *gain, *mean, *rest, *rstd;
  Image<T> grad_input;                     // data null: not wanted
  T *grad_weight, *grad_gain, *grad_bias;  // null: not wanted
  bool center, scale;
  void* (*allocate)(void* context, size_t bytes);
  void* context;
};

// The kernels are compiled once for each instruction set and chosen when the library is loaded.
struct Kernels {
  const char* name;
  void (*forward_float)(const Forward<float>&, const Parallel&);
  void (*forward_double)(const Forward<double>&, const Parallel&);
  void (*backward_float)(const Backward<float>&, const Parallel&);
  void (*backward_double)(const Backward<double>&, const Parallel&);
};

extern const Kernels baseline, avx2, avx512;

}  // namespace nc
