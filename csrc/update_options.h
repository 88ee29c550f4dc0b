// The scalars of an update as torch.optim computes them: in float64, then rounded. NaN, infinity and
// values below the minimum are refused.
#pragma once

#include <cmath>

#include "common/require.h"
#include "masked_update.h"

namespace lth {

inline SgdOptions sgd_options(double lr, double momentum, double dampening, double weight_decay, double pull,
                              bool nesterov) {
  LTH_CHECK(dampening >= 0.0 && dampening <= 1.0, "dampening is ", dampening, ", expected 0 to 1");
  LTH_CHECK(!nesterov || (momentum > 0.0 && dampening == 0.0), "nesterov is set, momentum ", momentum,
            " and dampening ", dampening, "; it needs a momentum above 0 and no dampening");
  return {at_least("lr", lr, 0.0),
          at_least("momentum", momentum, 0.0),
          static_cast<float>(1.0 - dampening),
          at_least("weight_decay", weight_decay, 0.0),
          at_least("pull", pull, 0.0),
          nesterov};
}

inline AdamWOptions adamw_options(double lr, double beta1, double beta2, double eps, double weight_decay,
                                  double pull) {
  LTH_CHECK(beta1 >= 0.0 && beta1 < 1.0, "beta1 is ", beta1, ", expected 0 or more, and less than 1");
  LTH_CHECK(beta2 >= 0.0 && beta2 < 1.0, "beta2 is ", beta2, ", expected 0 or more, and less than 1");
  AdamWOptions o;
  o.lr = at_least("lr", lr, 0.0);
  o.weight_decay = at_least("weight_decay", weight_decay, 0.0);
  at_least("lr * weight_decay", lr * weight_decay, 0.0);
  o.decay = static_cast<float>(1.0 - lr * weight_decay);
  o.exact_beta1 = beta1;
  o.exact_beta2 = beta2;
  o.beta2 = static_cast<float>(beta2);
  o.one_minus_beta1 = static_cast<float>(1.0 - beta1);
  o.one_minus_beta2 = static_cast<float>(1.0 - beta2);
  o.eps = at_least("eps", eps, 0.0);
  o.pull = at_least("pull", pull, 0.0);
  return o;
}

// After adamw_options() has checked the same numbers.
inline void set_adamw_step(UpdateTensor& tensor, double lr, double beta1, double beta2, int64_t step) {
  LTH_CHECK(step >= 1, "step is ", step, ", expected 1 at the first step");
  const auto steps = static_cast<double>(step);
  tensor.step_size = at_least("lr / (1 - beta1^step)", lr / (1.0 - std::pow(beta1, steps)), 0.0);
  tensor.correction = static_cast<float>(std::sqrt(1.0 - std::pow(beta2, steps)));
}

}  // namespace lth
