// Argument checks shared by the dispatch files; they run before any pointer is read.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/require.h"

namespace lth {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_length(const char* list, size_t length, const char* of, size_t expected) {
  LTH_CHECK(length == expected, list, " has ", length, " tensors, expected one for each of the ", expected,
            " in ", of);
}

inline void check_dtype(const std::string& name, const Tensor& t, ScalarType dtype, const char* dtype_name) {
  LTH_CHECK(t.scalar_type() == dtype, name, " has dtype ", static_cast<int>(t.scalar_type()), ", expected ",
            dtype_name);
}

// `t` lies on the device of the argument `first_name`.
inline void check_device(const std::string& name, const Tensor& t, const std::string& first_name,
                         const Tensor& first) {
  LTH_CHECK(t.device() == first.device(), name, " lies on another device than ", first_name,
            "; move one to the other");
}

inline void check_contiguous(const std::string& name, const Tensor& t) {
  LTH_CHECK(t.is_contiguous(), name, " is not contiguous; call .contiguous() on it");
}

// A packed mask of `numel` weights. On a GPU its last word is not read, which would synchronise: the kernels
// there ignore the bits after the last weight.
inline const uint32_t* packed_mask(const std::string& name, const Tensor& words, int64_t numel) {
  check_dtype(name, words, ScalarType::Int, "int32 (a packed mask)");
  check_contiguous(name, words);
  const int64_t expected = numel / 32 + (numel % 32 != 0);
  LTH_CHECK(words.numel() == expected, name, " has ", words.numel(), " words, expected ", expected, " for ",
            numel, " weights; see pack_mask");
  const auto* bits = static_cast<const uint32_t*>(words.const_data_ptr());
  LTH_CHECK(!words.is_cpu() || numel % 32 == 0 || bits[numel / 32] >> (numel % 32) == 0, name,
            " has bits set after the last of its ", numel, " weights; see pack_mask");
  return bits;
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

// True if two tensors have the same shape and memory layout, so that equal offsets are equal indices.
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
