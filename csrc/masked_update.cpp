#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "masked_update_checks.h"

namespace lth {
namespace {

Tensor scalar(double value) {
  Tensor t = torch::stable::empty({}, ScalarType::Double);
  *static_cast<double*>(t.mutable_data_ptr()) = value;
  return t;
}

Tensor masked_sgd(const std::vector<Tensor>& weights, const std::vector<Tensor>& grads,
                  const std::vector<Tensor>& momenta, const std::vector<Tensor>& masks,
                  const std::vector<Tensor>& anchors, double lr, double momentum, double dampening,
                  double weight_decay, double pull, bool nesterov, bool first_step) {
  const SgdOptions options = sgd_options(lr, momentum, dampening, weight_decay, pull, nesterov);
  const auto tensors = sgd_tensors(weights, grads, momenta, masks, anchors, momentum, first_step);
  const UpdateSchedule schedule(tensors.data(), tensors.size());
  std::vector<double> partials;
  return scalar(sgd_cpu(tensors.data(), schedule, options, partials));
}

Tensor masked_adamw(const std::vector<Tensor>& weights, const std::vector<Tensor>& grads,
                    const std::vector<Tensor>& exp_avgs, const std::vector<Tensor>& exp_avg_sqs,
                    const std::vector<Tensor>& masks, const std::vector<Tensor>& anchors, double lr,
                    double beta1, double beta2, double eps, double weight_decay, double pull, int64_t step) {
  const AdamWOptions options = adamw_options(lr, beta1, beta2, eps, weight_decay, pull);
  auto tensors = adamw_tensors(weights, grads, exp_avgs, exp_avg_sqs, masks, anchors);
  for (UpdateTensor& t : tensors) set_adamw_step(t, lr, beta1, beta2, step);
  const UpdateSchedule schedule(tensors.data(), tensors.size());
  std::vector<double> partials;
  return scalar(adamw_cpu(tensors.data(), schedule, options, partials));
}

// The tensors of an optimizer, before they are cached (optimizer_cache.cpp).
void check_update(const std::vector<Tensor>& weights, const std::vector<Tensor>& first,
                  const std::vector<Tensor>& second, const std::vector<Tensor>& masks,
                  const std::vector<Tensor>& anchors, const std::vector<Tensor>& steps,
                  bool steps_on_device) {
  const std::vector<Tensor> none;
  const char* first_name = second.empty() ? "momenta" : "exp_avgs";
  update_tensors({weights, none, first_name, first, "exp_avg_sqs", second, masks, anchors}, false, true);
  if (!second.empty()) {
    check_length("exp_avgs", first.size(), "weights", weights.size());
    check_length("steps", steps.size(), "weights", weights.size());
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    const bool has_step = steps[i].numel() > 0;
    if (!second.empty() && weights[i].numel() > 0) {
      const bool has_first = first[i].numel() > 0, has_second = second[i].numel() > 0;
      LTH_CHECK(has_first == has_second && has_first == has_step, item("exp_avgs", i), ", ",
                item("exp_avg_sqs", i), " and ", item("steps", i),
                " are not all there; a weight has the whole state of AdamW, or none");
    }
    if (!has_step) continue;
    check_dtype(item("steps", i), steps[i], ScalarType::Float, "float32");
    LTH_CHECK(steps[i].numel() == 1, item("steps", i), " has ", steps[i].numel(), " elements, expected 1");
    LTH_CHECK(steps_on_device ? steps[i].device() == weights[0].device() : steps[i].is_cpu(),
              item("steps", i),
              steps_on_device ? " lies on another device than weights[0]" : " does not lie on the host");
  }
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("masked_sgd_", TORCH_BOX(&lth::masked_sgd));
  m.impl("masked_adamw_", TORCH_BOX(&lth::masked_adamw));
}

// No kernel: it looks at the tensors alone, wherever they lie.
STABLE_TORCH_LIBRARY_IMPL(lthbench, CompositeExplicitAutograd, m) {
  m.impl("check_update", TORCH_BOX(&lth::check_update));
}
