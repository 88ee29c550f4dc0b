#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "cuda/stream.h"
#include "masked_update_checks.h"

namespace lth {
namespace {

struct Distance {
  Tensor partials, total;
  double* scratch() const { return static_cast<double*>(partials.mutable_data_ptr()); }
  double* result() const { return static_cast<double*>(total.mutable_data_ptr()); }
};

Distance make_distance(const Tensor& weight, const std::vector<UpdateTensor>& tensors) {
  return {torch::stable::new_empty(weight, {num_partials_cuda(tensors.data(), tensors.size())},
                                   ScalarType::Double),
          torch::stable::new_empty(weight, {}, ScalarType::Double)};
}

Tensor masked_sgd(const std::vector<Tensor>& weights, const std::vector<Tensor>& grads,
                  const std::vector<Tensor>& momenta, const std::vector<Tensor>& masks,
                  const std::vector<Tensor>& anchors, double lr, double momentum, double dampening,
                  double weight_decay, double pull, bool nesterov, bool first_step) {
  const SgdOptions options = sgd_options(lr, momentum, dampening, weight_decay, pull, nesterov);
  const auto tensors = sgd_tensors(weights, grads, momenta, masks, anchors, momentum, first_step);
  const OnDeviceOf device(weights[0]);
  const Distance distance = make_distance(weights[0], tensors);
  sgd_cuda(tensors.data(), tensors.size(), options, nullptr, distance.scratch(), distance.result(),
           device.stream());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return distance.total;
}

Tensor masked_adamw(const std::vector<Tensor>& weights, const std::vector<Tensor>& grads,
                    const std::vector<Tensor>& exp_avgs, const std::vector<Tensor>& exp_avg_sqs,
                    const std::vector<Tensor>& masks, const std::vector<Tensor>& anchors, double lr,
                    double beta1, double beta2, double eps, double weight_decay, double pull, int64_t step) {
  const AdamWOptions options = adamw_options(lr, beta1, beta2, eps, weight_decay, pull);
  auto tensors = adamw_tensors(weights, grads, exp_avgs, exp_avg_sqs, masks, anchors);
  for (UpdateTensor& t : tensors) set_adamw_step(t, lr, beta1, beta2, step);
  const OnDeviceOf device(weights[0]);
  const Distance distance = make_distance(weights[0], tensors);
  adamw_cuda(tensors.data(), tensors.size(), options, nullptr, distance.scratch(), distance.result(),
             device.stream());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return distance.total;
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_IMPL(lthbench, CUDA, m) {
  m.impl("masked_sgd_", TORCH_BOX(&lth::masked_sgd));
  m.impl("masked_adamw_", TORCH_BOX(&lth::masked_adamw));
}
