#include "sparse_linear.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "convolution_checks.h"

namespace lth {
namespace {

// Sets the weights of each of the rows of `output_rows`, which multiply `num_inputs` features of `input`.
void set_rows(SparseRows& rows, const char* ptr_name, const Tensor& ptr, const char* name,
              const Tensor& index, int64_t num_inputs, const Tensor& input) {
  check_array(ptr_name, ptr, ScalarType::Int, "int32", 1, input);
  rows.num_rows = ptr.numel() - 1;
  LTH_CHECK(rows.num_rows > 0, ptr_name, " has no row");
  check_lists(ptr_name, ptr, name, index, rows.num_rows, num_inputs, input);
  rows.index = static_cast<const int32_t*>(index.const_data_ptr());
  rows.ptr = static_cast<const int32_t*>(ptr.const_data_ptr());
}

void set_values(SparseProduct& product, const Tensor& values, const Tensor& index, const Tensor& input) {
  check_array("values", values, 1, input);
  LTH_CHECK(values.numel() == index.numel(), "values has ", values.numel(), " entries, the weights' places ",
            index.numel());
  product.values = static_cast<const float*>(values.const_data_ptr());
}

Tensor output_of(SparseProduct& product, const Tensor& input) {
  product.input = static_cast<const float*>(input.const_data_ptr());
  product.num_images = input.size(1);
  Tensor output = torch::stable::new_empty(input, {product.num_rows, product.num_images});
  product.output = static_cast<float*>(output.mutable_data_ptr());
  sparse_product_cpu(product);
  return output;
}

Tensor sparse_linear(const Tensor& input, const Tensor& values, const Tensor& col_indices,
                     const Tensor& row_ptr, const std::optional<Tensor>& bias) {
  SparseProduct product{};
  check_array("input", input, 2, input);
  set_rows(product, "row_ptr", row_ptr, "col_indices", col_indices, input.size(0), input);
  set_values(product, values, col_indices, input);
  if (bias) {
    check_array("bias", *bias, 1, input);
    LTH_CHECK(bias->numel() == product.num_rows, "bias has ", bias->numel(), " entries, expected ",
              product.num_rows);
    product.bias = static_cast<const float*>(bias->const_data_ptr());
  }
  return output_of(product, input);
}

Tensor sparse_linear_input_gradient(const Tensor& grad, const Tensor& values, const Tensor& row_indices,
                                    const Tensor& col_ptr, const Tensor& order) {
  SparseProduct product{};
  check_array("grad", grad, 2, grad);
  set_rows(product, "col_ptr", col_ptr, "row_indices", row_indices, grad.size(0), grad);
  set_values(product, values, row_indices, grad);
  product.order = checked_order(order, values.numel(), grad);
  return output_of(product, grad);
}

Tensor sparse_linear_weight_gradient(const Tensor& input, const Tensor& grad, const Tensor& col_indices,
                                     const Tensor& row_ptr) {
  SparseProductGradient gradient{};
  check_array("input", input, 2, input);
  check_array("grad", grad, 2, input);
  LTH_CHECK(input.size(1) == grad.size(1), "grad has ", grad.size(1), " images, input ", input.size(1));
  set_rows(gradient, "row_ptr", row_ptr, "col_indices", col_indices, input.size(0), input);
  LTH_CHECK(grad.size(0) == gradient.num_rows, "grad has ", grad.size(0), " outputs, row_ptr ",
            gradient.num_rows);
  gradient.input = static_cast<const float*>(input.const_data_ptr());
  gradient.grad = static_cast<const float*>(grad.const_data_ptr());
  gradient.num_images = input.size(1);
  Tensor output = torch::stable::new_empty(input, {col_indices.numel()});
  gradient.output = static_cast<float*>(output.mutable_data_ptr());
  sparse_product_gradient_cpu(gradient);
  return output;
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // A linear layer over the surviving weights, and its gradients, for activations [features, images]
  // (sparse_linear.h). CPU only.
  m.def(
      "sparse_linear(Tensor input, Tensor values, Tensor col_indices, Tensor row_ptr, Tensor? bias) -> "
      "Tensor");
  m.def(
      "sparse_linear_input_gradient(Tensor grad, Tensor values, Tensor row_indices, Tensor col_ptr, Tensor "
      "order) -> Tensor");
  m.def(
      "sparse_linear_weight_gradient(Tensor input, Tensor grad, Tensor col_indices, Tensor row_ptr) -> "
      "Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("sparse_linear", TORCH_BOX(&lth::sparse_linear));
  m.impl("sparse_linear_input_gradient", TORCH_BOX(&lth::sparse_linear_input_gradient));
  m.impl("sparse_linear_weight_gradient", TORCH_BOX(&lth::sparse_linear_weight_gradient));
}
