// The operators torch.ops.nc_plugins.nc_conv_forward and nc_conv_backward, on CPU tensors. They
// check their arguments, allocate the results and call the kernels. nc_plugins/ops/cpu.py calls
// them.
#include <Python.h>
#include <torch/library.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <torch/version.h>

#include <optional>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "nc_conv.h"

namespace {

using at::IntArrayRef;
using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The kernels that this processor supports, fastest first.
std::vector<const nc::Kernels*> supported_kernels() {
  std::vector<const nc::Kernels*> sets;
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && __builtin_cpu_supports("fma")) sets.push_back(&nc::avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back(&nc::avx2);
#endif
  sets.push_back(&nc::baseline);
  return sets;
}

const nc::Kernels* kernels = supported_kernels().front();  // those in use

// Trims the buffers of this thread at the end of a scope, also after an exception.
struct TrimBuffers {
  ~TrimBuffers() { nc::thread_buffers().trim(); }
};

// Runs task(context, i) for i in [0, n) on the threads of torch.
void run_parallel(int64_t n, void (*task)(const void*, int64_t), const void* context) {
#ifdef INTRA_OP_PARALLEL
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    TrimBuffers trim;
    for (int64_t i = begin; i < end; i++) task(context, i);
  });
#else
  // Compiled without OpenMP, the template above runs on one thread. A loop of TensorIterator is
  // compiled into torch and has torch's threads. Element i of this tensor stands for task i.
  Tensor tasks = at::empty({n}, at::kByte);
  auto* first = static_cast<const char*>(tasks.const_data_ptr());
  auto loop = [&](char** data, const int64_t*, int64_t size0, int64_t size1) {
    TrimBuffers trim;
    int64_t begin = data[0] - first;
    for (int64_t i = begin; i < begin + size0 * size1; i++) task(context, i);
  };
  at::TensorIteratorConfig()
      .check_all_same_dtype(false)
      .resize_outputs(false)
      .add_output(tasks)
      .build()
      .for_each(loop, 1);
#endif
}

nc::Parallel parallel() { return {at::get_num_threads(), run_parallel}; }

// The scratch memory of one call. Up to 16 MiB of it stay with the thread for its next call: fresh
// memory costs a page fault every 4 KiB, which takes longer than the arithmetic on small maps.
class Scratch {
 public:
  ~Scratch() {
    if (used_ > max_kept || used_ <= kept().nbytes()) return;
    try {
      kept() = allocate_bytes(used_);
    } catch (...) {  // out of memory: the next call allocates again
    }
  }
  static void* allocate(void* self, size_t size) { return static_cast<Scratch*>(self)->take(size); }

 private:
  static constexpr size_t max_kept = 16 << 20;
  static Tensor allocate_bytes(size_t size) {
    return at::empty({static_cast<int64_t>(size)}, at::kByte);
  }
  static Tensor& kept() {
    static thread_local Tensor memory = allocate_bytes(0);
    return memory;
  }
  void* take(size_t size) {
    size_t offset = used_;
    used_ += (size + 63) / 64 * 64;
    if (used_ <= kept().nbytes()) return static_cast<char*>(kept().data_ptr()) + offset;
    held_.push_back(allocate_bytes(size));
    return held_.back().data_ptr();
  }
  size_t used_ = 0;           // bytes that this call asked for
  std::vector<Tensor> held_;  // memory of this call alone
};

// `x` as a contiguous or channels_last tensor, whichever it is closer to.
Tensor arranged(const Tensor& x) { return x.contiguous(x.suggest_memory_format()); }

// The memory of an arranged tensor [N, channels, *size].
template <class T>
nc::Image<T> image(const Tensor& x) {
  auto* data = static_cast<T*>(x.data_ptr());
  int64_t channels = x.size(1),
          pixels = channels ? x.numel() / std::max<int64_t>(x.size(0), 1) / channels : 0;
  if (x.is_contiguous()) return {data, channels * pixels, pixels, 1};
  return {data, channels * pixels, 1, channels};
}

// The memory of an optional contiguous tensor, or null.
template <class T>
const T* pointer(const OptionalTensor& x) {
  return x ? x->const_data_ptr<T>() : nullptr;
}

// [N, channels, *output size].
std::vector<int64_t> output_shape(const nc::Geometry& g, int64_t channels, int64_t axes) {
  std::vector<int64_t> shape{g.batch, channels};
  shape.insert(shape.end(), g.out + 3 - axes, g.out + 3);
  return shape;
}

// Returns the output [N, O, *size] and, for backward, three maps [N, groups, *size]: mean, mean
// correction and rstd of every patch. The arguments are those of the schema below.
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& input, const Tensor& weight,
                                                   const OptionalTensor& bias,
                                                   const OptionalTensor& gain, IntArrayRef stride,
                                                   IntArrayRef pads, IntArrayRef dilation,
                                                   int64_t groups, double eps, bool center,
                                                   bool scale) {
  nc::Geometry geometry = nc::check_geometry(input, weight, stride, pads, dilation, groups);
  nc::check_vector("bias", bias, weight, input);
  nc::check_vector("gain", gain, weight, input);
  TORCH_CHECK(eps > 0, "nc_conv: eps is ", eps, ", wanted a number above 0");
  Tensor x = arranged(input), w = weight.contiguous();
  OptionalTensor a = gain, b = bias;
  if (a) a = a->contiguous();
  if (b) b = b->contiguous();
  int64_t axes = x.dim() - 2;
  Tensor out =
      at::empty(output_shape(geometry, w.size(0), axes), x.options(), x.suggest_memory_format());
  auto map = [&] { return at::empty(output_shape(geometry, groups, axes), x.options()); };
  Tensor mean = map(), mean_correction = map(), rstd = map();
  if (out.numel() == 0) {  // the maps are not empty if weight has no output channels
    for (auto& t : {mean, mean_correction, rstd}) t.zero_();
    return {out, mean, mean_correction, rstd};
  }
  Scratch scratch;
  auto run = [&](auto zero, auto kernel) {
    using T = decltype(zero);
    nc::Forward<T> args{geometry,
                        image<const T>(x),
                        w.const_data_ptr<T>(),
                        pointer<T>(a),
                        pointer<T>(b),
                        image<T>(out),
                        mean.mutable_data_ptr<T>(),
                        mean_correction.mutable_data_ptr<T>(),
                        rstd.mutable_data_ptr<T>(),
                        eps,
                        center,
                        scale,
                        Scratch::allocate,
                        &scratch};
    kernel(args, parallel());
  };
  if (x.scalar_type() == at::kDouble)
    run(double{}, kernels->forward_double);
  else
    run(float{}, kernels->forward_float);
  return {out, mean, mean_correction, rstd};
}

// Returns the gradients of input, weight, bias and gain. A gradient that is not needed has size 0.
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& input, const Tensor& weight, const OptionalTensor& gain,
    const Tensor& mean, const Tensor& mean_correction, const Tensor& rstd, IntArrayRef stride,
    IntArrayRef pads, IntArrayRef dilation, int64_t groups, bool center, bool scale,
    bool need_input, bool need_weight, bool need_bias, bool need_gain) {
  nc::Geometry geometry = nc::check_geometry(input, weight, stride, pads, dilation, groups);
  int64_t axes = input.dim() - 2;
  nc::check_vector("gain", gain, weight, input);
  nc::check_shape("grad", grad, output_shape(geometry, weight.size(0), axes), input);
  std::vector<int64_t> map_shape = output_shape(geometry, groups, axes);
  nc::check_shape("mean", mean, map_shape, input);
  nc::check_shape("mean_correction", mean_correction, map_shape, input);
  nc::check_shape("rstd", rstd, map_shape, input);
  Tensor x = arranged(input), w = weight.contiguous();
  Tensor g = grad.contiguous(x.suggest_memory_format());
  Tensor m = mean.contiguous(), correction = mean_correction.contiguous(), r = rstd.contiguous();
  OptionalTensor a = gain;
  if (a) a = a->contiguous();
  bool sums_weight = need_weight || need_gain;
  auto vector = [&](bool need) { return at::empty({need ? w.size(0) : 0}, w.options()); };
  Tensor grad_input =
      need_input ? at::empty(x.sizes(), x.options(), x.suggest_memory_format()) : vector(false);
  Tensor grad_weight = sums_weight ? at::empty(w.sizes(), w.options()) : vector(false);
  Tensor grad_bias = vector(need_bias), grad_gain = vector(need_gain);
  auto results = [&] {
    return std::make_tuple(grad_input, need_weight ? grad_weight : vector(false), grad_bias,
                           grad_gain);
  };
  if (g.numel() == 0) {
    for (auto& t : {grad_input, grad_weight, grad_bias, grad_gain}) t.zero_();
    return results();
  }
  Scratch scratch;
  auto run = [&](auto zero, auto kernel) {
    using T = decltype(zero);
    auto at_or_null = [](const Tensor& t, bool need) {
      return need ? t.mutable_data_ptr<T>() : nullptr;
    };
    nc::Backward<T> args{geometry,
                         image<const T>(x),
                         image<const T>(g),
                         w.const_data_ptr<T>(),
                         pointer<T>(a),
                         m.const_data_ptr<T>(),
                         correction.const_data_ptr<T>(),
                         r.const_data_ptr<T>(),
                         need_input ? image<T>(grad_input) : nc::Image<T>{nullptr, 0, 0, 0},
                         at_or_null(grad_weight, sums_weight),
                         at_or_null(grad_gain, need_gain),
                         at_or_null(grad_bias, need_bias),
                         center,
                         scale,
                         Scratch::allocate,
                         &scratch};
    kernel(args, parallel());
  };
  if (x.scalar_type() == at::kDouble)
    run(double{}, kernels->backward_double);
  else
    run(float{}, kernels->backward_float);
  return results();
}

TORCH_LIBRARY(nc_plugins, m) {
  m.def(
      "nc_conv_forward(Tensor input, Tensor weight, Tensor? bias, Tensor? gain, int[] stride, "
      "int[] pads, int[] dilation, int groups, float eps, bool center, bool scale) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "nc_conv_backward(Tensor grad, Tensor input, Tensor weight, Tensor? gain, Tensor mean, "
      "Tensor mean_correction, Tensor rstd, int[] stride, int[] pads, int[] dilation, int groups, "
      "bool center, bool scale, bool need_input, bool need_weight, bool need_bias, "
      "bool need_gain) -> (Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(nc_plugins, CPU, m) {
  m.impl("nc_conv_forward", forward);
  m.impl("nc_conv_backward", backward);
}

// The Python module nc_plugins.ops._C. It lists the supported instruction sets and lets tests
// choose one.

PyObject* instruction_sets(PyObject*, PyObject*) {
  PyObject* names = PyList_New(0);
  for (auto* set : supported_kernels()) {
    PyObject* name = PyUnicode_FromString(set->name);
    PyList_Append(names, name);
    Py_DECREF(name);
  }
  return names;
}

PyObject* select(PyObject*, PyObject* name) {
  const char* text = PyUnicode_AsUTF8(name);
  if (!text) return nullptr;
  for (auto* set : supported_kernels())
    if (std::string(text) == set->name) {
      kernels = set;
      Py_RETURN_NONE;
    }
  return PyErr_Format(PyExc_ValueError, "instruction set is '%s', wanted one that runs here", text);
}

PyMethodDef methods[] = {
    {"instruction_sets", instruction_sets, METH_NOARGS,
     "Names of the supported sets, fastest first."},
    {"select", select, METH_O, "Use the kernels of this instruction set from now on."},
    {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods};

}  // namespace

PyMODINIT_FUNC PyInit__C() {
  PyObject* module = PyModule_Create(&definition);
  if (module) PyModule_AddStringConstant(module, "torch_version", TORCH_VERSION);
  return module;
}
