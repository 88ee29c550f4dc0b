// The scalars of an update as torch.optim computes them: in float64, then rounded.
#pragma once

#include <cmath>

#include "masked_update.h"

namespace lth {

inline SgdOptions sgd_options(double lr, double momentum, double dampening, double weight_decay, double pull,
                              bool nesterov) {
  return {static_cast<float>(lr),           static_cast<float>(momentum), static_cast<float>(1.0 - dampening),
          static_cast<float>(weight_decay), static_cast<float>(pull),     nesterov};
}

inline AdamWOptions adamw_options(double lr, double beta1, double beta2, double eps, double weight_decay,
                                  double pull) {
  AdamWOptions o;
  o.lr = static_cast<float>(lr);
  o.weight_decay = static_cast<float>(weight_decay);
  o.decay = static_cast<float>(1.0 - lr * weight_decay);
  o.exact_beta1 = beta1;
  o.exact_beta2 = beta2;
  o.beta2 = static_cast<float>(beta2);
  o.one_minus_beta1 = static_cast<float>(1.0 - beta1);
  o.one_minus_beta2 = static_cast<float>(1.0 - beta2);
  o.eps = static_cast<float>(eps);
  o.pull = static_cast<float>(pull);
  return o;
}

inline void set_adamw_step(UpdateTensor& tensor, double lr, double beta1, double beta2, int64_t step) {
  const auto steps = static_cast<double>(step);
  tensor.step_size = static_cast<float>(lr / (1.0 - std::pow(beta1, steps)));
  tensor.correction = static_cast<float>(std::sqrt(1.0 - std::pow(beta2, steps)));
}

}  // namespace lth
