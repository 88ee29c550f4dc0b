// Checks of the arguments of pack_mask and unpack_mask, and their results, for the CPU and the CUDA dispatch
// alike.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "check.h"
#include "masks.h"

namespace lth {

inline Tensor new_words(const Tensor& mask) {
  check_dtype("mask", mask, ScalarType::Bool, "bool");
  check_contiguous("mask", mask);
  return torch::stable::new_empty(mask, {(mask.numel() + 31) / 32}, ScalarType::Int);
}

inline Tensor new_mask(const Tensor& words, int64_t numel) {
  LTH_CHECK(numel >= 0, "numel is ", numel, ", expected 0 or more");
  packed_mask("words", words, numel);
  return torch::stable::new_empty(words, {numel}, ScalarType::Bool);
}

}  // namespace lth
