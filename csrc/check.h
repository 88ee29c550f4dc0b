// Argument checks shared by the dispatch files; they run before any pointer is read.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

// Throws std::runtime_error with the message alone, where STD_TORCH_CHECK would add this file's name.
#define LTH_CHECK(condition, ...)                                            \
  do {                                                                       \
    if (!(condition)) throw std::runtime_error(::lth::message(__VA_ARGS__)); \
  } while (0)

namespace lth {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts>
std::string message(const Parts&... parts) {
  std::ostringstream out;
  ((out << parts), ...);
  return out.str();
}

// The name of element i of a list argument, for messages.
inline std::string item(const char* list, size_t i) { return message(list, "[", i, "]"); }

inline void check_length(const char* list, size_t length, const char* of, size_t expected) {
  LTH_CHECK(length == expected, list, " has ", length, " tensors, expected one for each of the ", expected,
            " in ", of);
}

inline void check_dtype(const std::string& name, const Tensor& t, ScalarType dtype, const char* dtype_name) {
  LTH_CHECK(t.scalar_type() == dtype, name, " has dtype ", static_cast<int>(t.scalar_type()), ", expected ",
            dtype_name);
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cpu() == b.is_cpu() && a.get_device_index() == b.get_device_index();
}

// True when the elements fill [data, data + numel) without gaps or overlap, in whatever order.
inline bool is_dense(const Tensor& t) {
  if (t.is_contiguous()) return true;
  const auto sizes = t.sizes();
  const auto strides = t.strides();
  std::vector<bool> used(sizes.size(), false);
  int64_t expected = 1;
  for (size_t found = 0; found < sizes.size(); ++found) {
    size_t d = 0;
    while (d < sizes.size() && (used[d] || (sizes[d] != 1 && strides[d] != expected))) ++d;
    if (d == sizes.size()) return false;
    used[d] = true;
    expected *= sizes[d];
  }
  return true;
}

// True when element i of the one lies in memory where element i of the other does, for tensors of one shape.
inline bool same_layout(const Tensor& a, const Tensor& b) {
  const auto sizes = a.sizes(), other = b.sizes();
  if (sizes.size() != other.size()) return false;
  const auto strides = a.strides(), other_strides = b.strides();
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != other[d] || (sizes[d] > 1 && strides[d] != other_strides[d])) return false;
  }
  return true;
}

}  // namespace lth
