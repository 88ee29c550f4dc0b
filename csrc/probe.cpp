#include "probe.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <utility>

#include "check.h"
#include "spans.h"

namespace lth {
namespace {

Tensor probe_read(const Tensor& words) {
  check_contiguous("words", words);
  LTH_CHECK(words.element_size() == 4, "words has ", words.element_size(), " bytes per element, expected 4");
  Tensor sum = torch::stable::empty({}, ScalarType::Long);
  *static_cast<int64_t*>(sum.mutable_data_ptr()) =
      probe_read_cpu(static_cast<const uint32_t*>(words.const_data_ptr()), words.numel());
  return sum;
}

void probe_update(const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d) {
  TensorSpans spans;
  for (const auto& [name, t] : {std::pair{"a", &a}, {"b", &b}, {"c", &c}, {"d", &d}}) {
    check_dtype(name, *t, ScalarType::Float, "float32");
    check_device(name, *t, "a", a);
    check_contiguous(name, *t);
    LTH_CHECK(t->numel() == a.numel(), name, " has ", t->numel(), " elements, a ", a.numel());
    spans.add(name, *t, t == &a || t == &b);
  }
  spans.check_disjoint();
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
