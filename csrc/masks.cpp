#include <torch/csrc/stable/library.h>

#include "masks_checks.h"

namespace lth {
namespace {

Tensor pack_mask(const Tensor& mask) {
  Tensor words = new_words(mask);
  pack_mask_cpu(static_cast<const bool*>(mask.const_data_ptr()), mask.numel(),
                static_cast<uint32_t*>(words.mutable_data_ptr()));
  return words;
}

Tensor unpack_mask(const Tensor& words, int64_t numel) {
  Tensor mask = new_mask(words, numel);
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
