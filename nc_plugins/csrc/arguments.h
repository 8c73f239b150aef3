// Checks of the operators' arguments. They raise RuntimeError in Python before a kernel reads or
// writes any memory, so that a direct call of torch.ops.nc_plugins is as safe as one of nc_conv2d.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include "nc_conv.h"

namespace nc {

using at::IntArrayRef;
using at::Tensor;

// PyTorch passes None for a Tensor argument as a tensor that is not defined.
inline void check_defined(const char* name, const Tensor& tensor) {
  TORCH_CHECK(tensor.defined(), "nc_conv: ", name, " is None, wanted a Tensor");
}

// Checks that `tensor` has the dtype and the device of `input`.
inline void check_alike(const char* name, const Tensor& tensor, const Tensor& input) {
  check_defined(name, tensor);
  TORCH_CHECK(tensor.scalar_type() == input.scalar_type(), "nc_conv: ", name, " has dtype ",
              tensor.scalar_type(), ", wanted ", input.scalar_type(), " as input has");
  TORCH_CHECK(tensor.device() == input.device(), "nc_conv: ", name, " is on ", tensor.device(),
              ", wanted ", input.device(), " as input is");
}

// Checks shape, dtype and device.
inline void check_shape(const char* name, const Tensor& tensor, IntArrayRef shape,
                        const Tensor& input) {
  check_alike(name, tensor, input);
  TORCH_CHECK(tensor.sizes() == shape, "nc_conv: ", name, " has shape ", tensor.sizes(),
              ", wanted ", shape);
}

// Checks a bias or gain: [O], or absent.
inline void check_vector(const char* name, const std::optional<Tensor>& vector,
                         const Tensor& weight, const Tensor& input) {
  if (vector) check_shape(name, *vector, {weight.size(0)}, input);
}

// Checks that `values` has `count` entries from `minimum` to 2^31 - 1. The upper bound keeps sums
// and products of two entries within 64 bits.
inline void check_entries(const char* name, IntArrayRef values, int64_t count, int64_t minimum) {
  constexpr int64_t maximum = std::numeric_limits<int32_t>::max();
  TORCH_CHECK(static_cast<int64_t>(values.size()) == count, "nc_conv: ", name, " is ", values,
              ", wanted ", count, " integers");
  TORCH_CHECK(std::all_of(values.begin(), values.end(),
                          [&](int64_t value) { return value >= minimum && value <= maximum; }),
              "nc_conv: ", name, " is ", values, ", wanted integers from ", minimum, " to ",
              maximum);
}

// Checks input [N, C, *size], weight [O, C / groups, *kernel] and the integers of a convolution
// over 1 to 3 spatial axes, and computes the size of the output. `pads` holds the zeros to the left
// and right of each axis: [left0, right0, left1, right1, ...].
inline Geometry check_geometry(const Tensor& input, const Tensor& weight, IntArrayRef stride,
                               IntArrayRef pads, IntArrayRef dilation, int64_t groups) {
  check_defined("input", input);
  check_defined("weight", weight);
  TORCH_CHECK(input.dim() >= 3 && input.dim() <= 5, "nc_conv: input has shape ", input.sizes(),
              ", wanted [N, C, *size] with 1 to 3 spatial axes");
  TORCH_CHECK(input.device().is_cpu(), "nc_conv: input is on ", input.device(), ", wanted cpu");
  TORCH_CHECK(input.scalar_type() == at::kFloat || input.scalar_type() == at::kDouble,
              "nc_conv: input has dtype ", input.scalar_type(), ", wanted Float or Double");
  TORCH_CHECK(weight.dim() == input.dim(), "nc_conv: weight has shape ", weight.sizes(),
              ", wanted ", input.dim(), " axes as input has");
  check_alike("weight", weight, input);
  TORCH_CHECK(groups >= 1, "nc_conv: groups is ", groups, ", wanted at least 1");
  int64_t channels = input.size(1), outputs = weight.size(0);
  TORCH_CHECK(channels >= groups && channels % groups == 0, "nc_conv: groups is ", groups,
              ", wanted a divisor of the ", channels, " channels of input");
  TORCH_CHECK(outputs % groups == 0, "nc_conv: groups is ", groups, ", wanted a divisor of the ",
              outputs, " output channels of weight");
  TORCH_CHECK(weight.size(1) == channels / groups, "nc_conv: weight has ", weight.size(1),
              " input channels, wanted ", channels / groups, " (input has ", channels,
              " channels, groups is ", groups, ")");

  int64_t axes = input.dim() - 2;
  IntArrayRef size = input.sizes().slice(2), kernel = weight.sizes().slice(2);
  check_entries("the spatial size of input", size, axes, 0);
  check_entries("the kernel size of weight", kernel, axes, 1);
  check_entries("stride", stride, axes, 1);
  check_entries("pads", pads, 2 * axes, 0);
  check_entries("dilation", dilation, axes, 1);

  Geometry g{input.size(0), groups, channels / groups, outputs / groups};
  std::fill_n(g.in, 3, 1);
  std::fill_n(g.out, 3, 1);
  std::fill_n(g.kernel, 3, 1);
  std::fill_n(g.stride, 3, 1);
  std::fill_n(g.pad, 3, 0);
  std::fill_n(g.dilation, 3, 1);
  double padded_size = 1, windows_size = 1;
  for (int64_t i = 0; i < axes; i++) {
    int64_t a = i + 3 - axes;  // a line is an image of height 1, an image a volume of depth 1
    int64_t padded = size[i] + pads[2 * i] + pads[2 * i + 1];
    int64_t window = dilation[i] * (kernel[i] - 1) + 1;
    TORCH_CHECK(padded >= window, "nc_conv: the output would be empty along spatial axis ", i,
                ": the kernel covers ", window, " pixels, the padded input has ", padded);
    g.in[a] = size[i];
    g.out[a] = (padded - window) / stride[i] + 1;
    g.kernel[a] = kernel[i];
    g.stride[a] = stride[i];
    g.pad[a] = pads[2 * i];
    g.dilation[a] = dilation[i];
    padded_size *= static_cast<double>(padded);
    windows_size *= static_cast<double>(g.out[a]) * static_cast<double>(kernel[i]);
  }
  // Every buffer of a kernel is at most a few times as large as one of these two.
  double values = static_cast<double>(std::max<int64_t>(g.batch, 1)) *
                  static_cast<double>(channels) * std::max(padded_size, windows_size);
  TORCH_CHECK(values < 0x1p56, "nc_conv: the padded input or its im2col matrix would have ", values,
              " values, wanted fewer than 2^56");
  return g;
}

}  // namespace nc
