// Masked update of a list of float32 tensors in one pass. For a weight w with gradient g, anchor a (its
// initial value), mask bit m and scalars in float32:
//
//   g <- g + pull * (w - a);  g <- g + weight_decay * w                          (SGD)
//   b <- momentum * b + (1 - dampening) * g          (b = g at the first step)
//   w <- m ? w - lr * (nesterov ? g + momentum * b : b) : +0,   b <- m ? b : +0
//   distance^2 = sum of m * (w - a)^2 over the anchored weights, after the step
//
// Every multiplication followed by an addition is one fma, except momentum * b, which is rounded: so the
// results equal torch.optim.SGD bit for bit. The distance is the sum, in list order, of one float64 per
// chunk of kChunk weights, so it does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/require.h"

namespace lth {

inline constexpr int64_t kChunk = 16384;  // weights; a multiple of the 32 weights of a mask word

struct UpdateTensor {
  float* weight;         // [numel]
  const float* grad;     // [numel]; nullptr leaves the tensor as it is, and only its distance is counted
  float* first;          // [numel] momentum buffer or first moment; nullptr for SGD without momentum
  float* second;         // [numel] second moment of AdamW, else nullptr
  const float* anchor;   // [numel] or nullptr: no pull and no distance
  const uint32_t* mask;  // [ceil(numel / 32)] one bit per weight, or nullptr: dense
  const float* step;     // AdamW, CUDA: the step's number on the device, else nullptr and
  float step_size;       //   lr / (1 - beta1^step)
  float correction;      //   sqrt(1 - beta2^step)
  bool is_first_step;    // SGD: `first` holds no value yet
  int64_t numel;
};

struct SgdOptions {
  float lr, momentum, one_minus_dampening, weight_decay, pull;
  bool nesterov;
};

struct AdamWOptions {
  float lr, weight_decay, decay;  // decay = 1 - lr * weight_decay
  float beta2, one_minus_beta1, one_minus_beta2, eps, pull;
  double exact_beta1, exact_beta2;  // for powers of them on the device
};

// The scalars as torch.optim computes them: in float64, then rounded. NaN, infinity and values below the
// minimum are refused.
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

struct UpdateChunk {
  int32_t tensor;
  int64_t begin, length;  // weights [begin, begin + length) of the tensor; begin is a multiple of kChunk
};

// The chunks of a tensor list, which threads share out by the weights that they hold.
struct UpdateSchedule {
  std::vector<UpdateChunk> chunks;
  std::vector<int64_t> middles;  // of the chunks, in weights of the whole list
  int64_t num_weights = 0;

  UpdateSchedule(const UpdateTensor* tensors, size_t count) {
    for (size_t t = 0; t < count; ++t) {
      for (int64_t begin = 0; begin < tensors[t].numel; begin += kChunk) {
        const int64_t length = std::min(kChunk, tensors[t].numel - begin);
        chunks.push_back({static_cast<int32_t>(t), begin, length});
        middles.push_back(num_weights + length / 2);
        num_weights += length;
      }
    }
  }
};

// Both return the squared distance; `partials` is scratch of schedule.chunks.size() values.
double sgd_cpu(const UpdateTensor* tensors, const UpdateSchedule& schedule, const SgdOptions& options,
               std::vector<double>& partials);
double adamw_cpu(const UpdateTensor* tensors, const UpdateSchedule& schedule, const AdamWOptions& options,
                 std::vector<double>& partials);

// The CUDA forms: `tensors` lie on the device, the list itself on the host. With `lr` (on the device) that
// value takes the place of the options'. The squared distance is written to `distance` if that is not
// nullptr; `partials` has num_partials_cuda() values of room. Both are on the device, `stream` is a
// cudaStream_t.
int64_t num_partials_cuda(const UpdateTensor* tensors, size_t count);
void sgd_cuda(const UpdateTensor* tensors, size_t count, const SgdOptions& options, const float* lr,
              double* partials, double* distance, void* stream);
void adamw_cuda(const UpdateTensor* tensors, size_t count, const AdamWOptions& options, const float* lr,
                double* partials, double* distance, void* stream);

// What each library gives to the optimizer cache, which is a library of its own, in a capsule of this name.
struct CpuUpdate {
  decltype(&sgd_cpu) sgd;
  decltype(&adamw_cpu) adamw;
};
inline constexpr const char* kCpuUpdate = "lthbench._C.masked_update";

struct CudaUpdate {
  decltype(&num_partials_cuda) num_partials;
  decltype(&sgd_cuda) sgd;
  decltype(&adamw_cuda) adamw;
};
inline constexpr const char* kCudaUpdate = "lthbench._C_cuda.masked_update";

}  // namespace lth
