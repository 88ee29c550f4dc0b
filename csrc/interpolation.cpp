#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "interpolation_checks.h"

namespace lth {
namespace {

void lerp_stacked(const std::vector<Tensor>& out, const std::vector<Tensor>& a, const std::vector<Tensor>& b,
                  const Tensor& alphas, bool relu) {
  const auto pairs = lerp_arguments(out, a, b, alphas);
  lerp_pairs_cpu(pairs.data(), int64_t(pairs.size()), static_cast<const float*>(alphas.const_data_ptr()),
                 alphas.numel(), relu);
}

Tensor lerp_linear(const Tensor& a, const Tensor& b, const Tensor& alphas, const Tensor& weight,
                   const Tensor& bias, bool relu) {
  LerpLinear layer = linear_arguments(a, b, alphas, weight, bias, relu);
  Tensor out = torch::stable::new_empty(a, {layer.num_points, layer.num_rows, layer.num_columns});
  layer.out = static_cast<float*>(out.mutable_data_ptr());
  lerp_linear_cpu(layer);
  return out;
}

std::tuple<Tensor, Tensor> count_errors(const Tensor& logits, const Tensor& labels) {
  const LogitsBatch batch = logits_arguments(logits, labels);
  Tensor loss_sum = torch::stable::new_empty(logits, {batch.num_networks}, ScalarType::Double);
  Tensor num_errors = torch::stable::new_empty(logits, {batch.num_networks}, ScalarType::Long);
  count_errors_cpu(batch, static_cast<double*>(loss_sum.mutable_data_ptr()),
                   static_cast<int64_t*>(num_errors.mutable_data_ptr()));
  return {loss_sum, num_errors};
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // out[i][k] = the point alphas[k] between a[i] and b[i], its negative entries set to 0 if `relu`.
  m.def("lerp_stacked_(Tensor(a!)[] out, Tensor[] a, Tensor[] b, Tensor alphas, bool relu) -> ()");
  // out[k] = relu(the point alphas[k] between a and b) @ weight[k] + bias[k], relu again if asked. CPU
  // only.
  m.def("lerp_linear(Tensor a, Tensor b, Tensor alphas, Tensor weight, Tensor bias, bool relu) -> Tensor");
  // Summed cross entropy (float64) and wrong labels (int64) of K networks on one batch.
  m.def("count_errors(Tensor logits, Tensor labels) -> (Tensor loss_sum, Tensor num_errors)");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("lerp_stacked_", TORCH_BOX(&lth::lerp_stacked));
  m.impl("lerp_linear", TORCH_BOX(&lth::lerp_linear));
  m.impl("count_errors", TORCH_BOX(&lth::count_errors));
}
