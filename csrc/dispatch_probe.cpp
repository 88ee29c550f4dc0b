#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "check.h"
#include "probe.h"

namespace lth {
namespace {

Tensor probe_read(const Tensor& words) {
  LTH_CHECK(words.is_contiguous() && words.element_size() == 4,
            "words must be contiguous, 4 bytes an element");
  Tensor sum = torch::stable::empty({}, ScalarType::Long);
  *static_cast<int64_t*>(sum.mutable_data_ptr()) =
      probe_read_cpu(static_cast<const uint32_t*>(words.const_data_ptr()), words.numel());
  return sum;
}

void probe_update(const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d) {
  for (const Tensor* t : {&a, &b, &c, &d}) {
    check_dtype("each argument", *t, ScalarType::Float, "float32");
    LTH_CHECK(t->is_contiguous() && t->numel() == a.numel(),
              "a, b, c, d must be contiguous and of one length");
  }
  probe_update_cpu(static_cast<float*>(a.mutable_data_ptr()), static_cast<float*>(b.mutable_data_ptr()),
                   static_cast<const float*>(c.const_data_ptr()),
                   static_cast<const float*>(d.const_data_ptr()), a.numel());
}

Tensor probe_fma(const Tensor& start, int64_t rounds) {
  check_dtype("start", start, ScalarType::Float, "float32");
  LTH_CHECK(start.numel() == 1, "start has ", start.numel(), " elements, expected 1");
  LTH_CHECK(rounds >= 0, "rounds is ", rounds, ", expected 0 or more");
  Tensor result = torch::stable::empty({2}, ScalarType::Double);
  auto* value = static_cast<double*>(result.mutable_data_ptr());
  value[0] = probe_fma_cpu(*static_cast<const float*>(start.const_data_ptr()), rounds, value[1]);
  return result;
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("probe_read", TORCH_BOX(&lth::probe_read));
  m.impl("probe_update_", TORCH_BOX(&lth::probe_update));
  m.impl("probe_fma", TORCH_BOX(&lth::probe_fma));
}
