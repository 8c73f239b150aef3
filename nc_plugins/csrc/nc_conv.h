// Normalized convolution on CPU: the interface between the torch binding (nc_conv.cpp) and the
// kernels (forward.h, backward.h). It does not depend on torch.
//
// Letters in comments: N samples, G groups, C input and O output channels of one group, K taps of
// the kernel, I = C * K values of a patch, L output positions of a sample.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace nc {

// Runs task(i) for i in [0, n) in parallel. The tasks of one call must not depend on each other.
struct Parallel {
  int64_t threads;
  void (*run)(int64_t n, void (*task)(const void* context, int64_t i), const void* context);

  template <class F>
  void operator()(int64_t n, const F& task) const {
    run(n, [](const void* f, int64_t i) { (*static_cast<const F*>(f))(i); }, &task);
  }
};

// The buffers that a thread keeps from task to task, one for each slot in [0, 4).
class ThreadBuffers {
 public:
  ~ThreadBuffers() { clear(); }
  // Returns `bytes` of 64-byte aligned memory, valid until the slot is taken again.
  void* take(int slot, size_t bytes) {
    Buffer& buffer = buffers_[slot];
    if (buffer.bytes < bytes) {
      free(buffer.data);
      buffer = {};
      if (posix_memalign(&buffer.data, 64, bytes)) {
        buffer = {};
        throw std::bad_alloc();
      }
      buffer.bytes = bytes;
    }
    return buffer.data;
  }
  // Frees the buffers if they hold more than 16 MiB, which one large image would otherwise leave
  // behind. Each thread calls it after its tasks of a parallel loop. Tasks that need so much memory
  // take far longer than the operating system needs to provide it again.
  void trim() {
    constexpr size_t max_kept = 16 << 20;
    size_t kept = 0;
    for (const Buffer& buffer : buffers_) kept += buffer.bytes;
    if (kept > max_kept) clear();
  }

 private:
  struct Buffer {
    void* data = nullptr;
    size_t bytes = 0;
  };
  void clear() {
    for (Buffer& buffer : buffers_) {
      free(buffer.data);
      buffer = {};
    }
  }
  Buffer buffers_[4];
};

inline ThreadBuffers& thread_buffers() {
  static thread_local ThreadBuffers buffers;
  return buffers;
}

// A convolution over three spatial axes in input pixels. An image has depth 1, a line also height
// 1. in_channels and out_channels count the channels of one group. pad holds the zeros to the left
// of each axis; the zeros to the right follow from out.
struct Geometry {
  int64_t batch, groups, in_channels, out_channels;
  int64_t in[3], out[3], kernel[3], stride[3], pad[3], dilation[3];

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }  // K
  int64_t patch() const { return in_channels * taps(); }              // I
  int64_t in_size() const { return in[0] * in[1] * in[2]; }           // pixels of a sample
  int64_t out_size() const { return out[0] * out[1] * out[2]; }       // L
  int64_t columns() const { return batch * out_size(); }              // of the im2col matrix
};

// A tensor [N, channels, pixels], contiguous (pixel_stride is 1) or channels_last (channel_stride
// is 1). Strides count elements.
template <class T>
struct Image {
  T* data;
  int64_t sample_stride, channel_stride, pixel_stride;
};

// Arguments of the forward pass. The mean of a patch is mean + mean_correction: the second term is
// the rounding error of the first.
template <class T>
struct Forward {
  Geometry geometry;
  Image<const T> input;
  const T *weight, *gain, *bias;     // [G * O, I], [G * O] or null, [G * O] or null
  Image<T> output;                   // written
  T *mean, *mean_correction, *rstd;  // [N, G, L] each, written
  double eps;
  bool center, scale;
  // Returns 64-byte aligned memory that lives until the end of the call.
  void* (*allocate)(void* context, size_t bytes);
  void* context;
};

// Arguments of the backward pass. A gradient whose pointer is null is not computed.
template <class T>
struct Backward {
  Geometry geometry;
  Image<const T> input, grad;
  const T *weight, *gain, *mean, *mean_correction, *rstd;  // as in Forward
  Image<T> grad_input;
  T *grad_weight, *grad_gain, *grad_bias;
  bool center, scale;
  void* (*allocate)(void* context, size_t bytes);
  void* context;
};

// The kernels of one instruction set. All sets that the compiler supports are compiled; the fastest
// one that the processor supports is chosen when the library is loaded.
struct Kernels {
  const char* name;
  void (*forward_float)(const Forward<float>&, const Parallel&);
  void (*forward_double)(const Forward<double>&, const Parallel&);
  void (*backward_float)(const Backward<float>&, const Parallel&);
  void (*backward_double)(const Backward<double>&, const Parallel&);
};

extern const Kernels baseline, avx2, avx512;

}  // namespace nc
