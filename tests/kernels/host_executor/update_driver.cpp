// Runs the CUDA kernels of the masked update on the host and compares them with the CPU kernels, bit for bit.
// Arguments: seed, number of weights.
#include <vector>

#include "driver.h"
#include "masked_update.h"

namespace {

// One parameter list with all that an update may hold; two of them start from the same values.
struct Lists {
  std::vector<Buffer<float>> weights, grads, first, second, anchors;
  std::vector<Buffer<uint32_t>> masks;
  std::vector<lth::UpdateTensor> tensors;

  Lists(uint64_t seed, const std::vector<int64_t>& sizes, bool momentum, bool second_moment, bool fresh) {
    std::mt19937_64 random(seed);
    for (size_t i = 0; i < sizes.size(); ++i) {
      const int64_t n = sizes[i];
      weights.push_back(normal(random, n));
      grads.push_back(normal(random, n));
      first.push_back(normal(random, n));
      second.push_back(normal(random, n));
      anchors.push_back(normal(random, n));
      masks.emplace_back((n + 31) / 32);
      for (int64_t j = 0; j < n; ++j) second.back()[j] = std::abs(second.back()[j]);
      for (int64_t w = 0; w < masks.back().size(); ++w)
        masks.back()[w] = uint32_t(random()) & uint32_t(random());
      for (int64_t j = 0; j < n; j += 7) {
        if (!(masks.back()[j / 32] >> (j % 32) & 1)) grads.back()[j] = NAN;  // must not reach the weight
      }
      lth::UpdateTensor t{};
      t.weight = weights.back().data();
      t.grad = i % 5 == 4 ? nullptr : grads.back().data();
      t.first = momentum ? first.back().data() : nullptr;
      t.second = second_moment ? second.back().data() : nullptr;
      t.anchor = i % 3 ? anchors.back().data() : nullptr;
      t.mask = i % 4 == 3 && i > 4 ? nullptr : masks.back().data();
      if (!t.mask)
        for (int64_t j = 0; j < n; ++j)
          if (std::isnan(grads.back()[j])) grads.back()[j] = 1.0f;
      t.numel = n;
      t.is_first_step = fresh;
      lth::set_adamw_step(t, 0.01, 0.9, 0.999, 3);
      tensors.push_back(t);
    }
  }
};

void compare(Lists& got, Lists& expected, double got_distance, double expected_distance) {
  for (size_t i = 0; i < got.tensors.size(); ++i) {
    expect_equal("weight", got.weights[i], expected.weights[i]);
    expect_equal("first", got.first[i], expected.first[i]);
    expect_equal("second", got.second[i], expected.second[i]);
    const lth::UpdateTensor& t = got.tensors[i];
    for (int64_t j = 0; t.grad && t.mask && j < t.numel; ++j) {
      uint32_t bits;
      std::memcpy(&bits, t.weight + j, 4);
      if (!(t.mask[j / 32] >> (j % 32) & 1) && bits != 0) wrong("pruned weight %lld is not +0", (long long)j);
    }
  }
  if (!(std::abs(got_distance - expected_distance) <= 1e-5 * expected_distance))
    wrong("distance is %.9g, expected %.9g", got_distance, expected_distance);
}

}  // namespace

int main(int, char** arguments) {
  const uint64_t seed = std::strtoull(arguments[1], nullptr, 10);
  auto random = make_random(seed);
  const int64_t num_weights = std::atoll(arguments[2]);
  // Sizes around a word, a vector and a block, more tensors than one launch holds, one of them empty.
  std::vector<int64_t> sizes = {num_weights / 2, num_weights / 4 | 1, 0, 4096, 4097, 31, 32, 33};
  for (int64_t i = 1; i <= 50; ++i) sizes.push_back(i);
  const float lr_on_device = 0.05f, step_on_device = 3.0f;
  for (int kind = 0; kind < 6; ++kind) {
    const bool momentum = kind > 0, nesterov = kind > 2, fresh = kind % 2 == 0, adamw = kind == 5;
    Lists got(seed, sizes, momentum, adamw, fresh), expected(seed, sizes, momentum, adamw, fresh);
    const size_t count = sizes.size();
    Buffer<double> scratch(lth::num_partials_cuda(got.tensors.data(), count));
    std::vector<double> partials;
    const lth::UpdateSchedule schedule(expected.tensors.data(), count);
    const float* lr = kind % 2 ? &lr_on_device : nullptr;
    double distance = -1.0, expected_distance = 0.0;
    if (adamw) {
      const auto options = lth::adamw_options(lr_on_device, 0.9, 0.999, 1e-8, 0.1, 0.01);
      for (auto& t : expected.tensors) lth::set_adamw_step(t, 0.01, 0.9, 0.999, 3);
      lth::adamw_cuda(got.tensors.data(), count, options, nullptr, scratch.data(), &distance, nullptr);
      expected_distance = lth::adamw_cpu(expected.tensors.data(), schedule, options, partials);
    } else {
      const auto options =
          lth::sgd_options(lr ? lr_on_device : 0.1, 0.9, nesterov ? 0.0 : 0.1, 1e-3, 0.01, nesterov);
      auto given = options;
      if (lr) given.lr = -1.0f;  // the device's value must be taken
      lth::sgd_cuda(got.tensors.data(), count, given, lr, scratch.data(), &distance, nullptr);
      expected_distance = lth::sgd_cpu(expected.tensors.data(), schedule, options, partials);
    }
    compare(got, expected, distance, expected_distance);
  }
  // The step's number on the device gives the scalars that the host computes, to float accuracy.
  Lists got(seed, sizes, true, true, false), expected(seed, sizes, true, true, false);
  const auto options = lth::adamw_options(lr_on_device, 0.9, 0.999, 1e-8, 0.1, 0.01);
  for (auto& t : got.tensors) t.step = &step_on_device;
  for (auto& t : expected.tensors) lth::set_adamw_step(t, lr_on_device, 0.9, 0.999, 3);
  std::vector<double> partials;
  const lth::UpdateSchedule schedule(expected.tensors.data(), sizes.size());
  lth::adamw_cuda(got.tensors.data(), sizes.size(), options, &lr_on_device, nullptr, nullptr, nullptr);
  lth::adamw_cpu(expected.tensors.data(), schedule, options, partials);
  for (size_t i = 0; i < sizes.size(); ++i)
    for (int64_t j = 0; j < sizes[i]; ++j)
      if (!(std::abs(got.weights[i][j] - expected.weights[i][j]) <= 1e-6f))
        wrong("captured weight %lld is %.9g, expected %.9g", (long long)j, got.weights[i][j],
              expected.weights[i][j]);
  std::puts("equal");
}
