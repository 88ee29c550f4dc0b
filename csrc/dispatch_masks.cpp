#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "check.h"
#include "masks.h"

namespace lth {
namespace {

Tensor pack_mask(const Tensor& mask) {
  check_dtype("mask", mask, ScalarType::Bool, "bool");
  LTH_CHECK(mask.is_contiguous(), "mask is not contiguous; call .contiguous() on it");
  Tensor words = torch::stable::new_empty(mask, {(mask.numel() + 31) / 32}, ScalarType::Int);
  pack_mask_cpu(static_cast<const bool*>(mask.const_data_ptr()), mask.numel(),
                static_cast<uint32_t*>(words.mutable_data_ptr()));
  return words;
}

Tensor unpack_mask(const Tensor& words, int64_t numel) {
  check_dtype("words", words, ScalarType::Int, "int32");
  LTH_CHECK(words.is_contiguous(), "words is not contiguous; call .contiguous() on it");
  LTH_CHECK(numel >= 0 && words.numel() == (numel + 31) / 32, "numel is ", numel, ", but words has ",
            words.numel(), " words of 32 bits");
  Tensor mask = torch::stable::new_empty(words, {numel}, ScalarType::Bool);
  unpack_mask_cpu(static_cast<const uint32_t*>(words.const_data_ptr()), numel,
                  static_cast<bool*>(mask.mutable_data_ptr()));
  return mask;
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("pack_mask", TORCH_BOX(&lth::pack_mask));
  m.impl("unpack_mask", TORCH_BOX(&lth::unpack_mask));
}
