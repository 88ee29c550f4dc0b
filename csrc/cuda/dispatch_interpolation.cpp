#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "cuda/stream.h"
#include "interpolation_checks.h"

namespace lth {
namespace {

void lerp_stacked(const std::vector<Tensor>& out, const std::vector<Tensor>& a, const std::vector<Tensor>& b,
                  const Tensor& alphas, bool relu) {
  const auto pairs = lerp_arguments(out, a, b, alphas);
  const OnDeviceOf device(alphas);
  lerp_pairs_cuda(pairs.data(), int64_t(pairs.size()), static_cast<const float*>(alphas.const_data_ptr()),
                  alphas.numel(), relu, device.stream());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor> count_errors(const Tensor& logits, const Tensor& labels) {
  const LogitsBatch batch = logits_arguments(logits, labels);
  LTH_CHECK(batch.num_networks < 65536, "logits holds ", batch.num_networks,
            " networks, expected less than 65536");
  const OnDeviceOf device(logits);
  const int64_t scratch = batch.num_networks * count_errors_num_blocks(batch.num_rows);
  Tensor partial_loss = torch::stable::new_empty(logits, {scratch}, ScalarType::Double);
  Tensor partial_errors = torch::stable::new_empty(logits, {scratch}, ScalarType::Long);
  Tensor loss_sum = torch::stable::new_empty(logits, {batch.num_networks}, ScalarType::Double);
  Tensor num_errors = torch::stable::new_empty(logits, {batch.num_networks}, ScalarType::Long);
  count_errors_cuda(batch, static_cast<double*>(partial_loss.mutable_data_ptr()),
                    static_cast<int64_t*>(partial_errors.mutable_data_ptr()),
                    static_cast<double*>(loss_sum.mutable_data_ptr()),
                    static_cast<int64_t*>(num_errors.mutable_data_ptr()), device.stream());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {loss_sum, num_errors};
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_IMPL(lthbench, CUDA, m) {
  m.impl("lerp_stacked_", TORCH_BOX(&lth::lerp_stacked));
  m.impl("count_errors", TORCH_BOX(&lth::count_errors));
}
