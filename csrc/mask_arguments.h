// Checks of the arguments of pack_mask and unpack_mask, and their results, for the CPU and the CUDA dispatch
// alike.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "check.h"
#include "masks.h"

namespace lth {

inline Tensor new_words(const Tensor& mask) {
  check_dtype("mask", mask, ScalarType::Bool, "bool");
  LTH_CHECK(mask.is_contiguous(), "mask is not contiguous; call .contiguous() on it");
  return torch::stable::new_empty(mask, {(mask.numel() + 31) / 32}, ScalarType::Int);
}

inline Tensor new_mask(const Tensor& words, int64_t numel) {
  check_dtype("words", words, ScalarType::Int, "int32");
  LTH_CHECK(words.is_contiguous(), "words is not contiguous; call .contiguous() on it");
  LTH_CHECK(numel >= 0 && words.numel() == (numel + 31) / 32, "numel is ", numel, ", but words has ",
            words.numel(), " words of 32 bits");
  return torch::stable::new_empty(words, {numel}, ScalarType::Bool);
}

}  // namespace lth
