#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "update_arguments.h"

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
  const auto tensors = sgd_tensors(weights, grads, momenta, masks, anchors, momentum, first_step);
  const UpdateSchedule schedule(tensors.data(), tensors.size());
  std::vector<double> partials;
  return scalar(sgd_cpu(tensors.data(), schedule,
                        sgd_options(lr, momentum, dampening, weight_decay, pull, nesterov), partials));
}

Tensor masked_adamw(const std::vector<Tensor>& weights, const std::vector<Tensor>& grads,
                    const std::vector<Tensor>& exp_avgs, const std::vector<Tensor>& exp_avg_sqs,
                    const std::vector<Tensor>& masks, const std::vector<Tensor>& anchors, double lr,
                    double beta1, double beta2, double eps, double weight_decay, double pull, int64_t step) {
  const auto tensors =
      adamw_tensors(weights, grads, exp_avgs, exp_avg_sqs, masks, anchors, lr, beta1, beta2, step);
  const UpdateSchedule schedule(tensors.data(), tensors.size());
  std::vector<double> partials;
  return scalar(adamw_cpu(tensors.data(), schedule, adamw_options(lr, beta1, beta2, eps, weight_decay, pull),
                          partials));
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("masked_sgd_", TORCH_BOX(&lth::masked_sgd));
  m.impl("masked_adamw_", TORCH_BOX(&lth::masked_adamw));
}
