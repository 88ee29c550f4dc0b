// Runs the CUDA kernels of interpolation evaluation on the host and compares them with the CPU kernels.
// Arguments: seed, number of weights.
#include <vector>

#include "driver.h"
#include "interpolation.h"

namespace {

void check_lerp(std::mt19937_64& random, int64_t num_weights) {
  const int64_t num_points = 5;
  Buffer<float> alphas(num_points);
  for (int64_t k = 0; k < num_points; ++k) alphas[k] = float(k) / (num_points - 1);
  // More tensors than one launch holds, most of them tiny, of odd and even sizes, one of them empty.
  std::vector<int64_t> sizes = {num_weights, num_weights / 3 | 1, 0, 4, 8};
  for (int64_t i = 1; i <= 70; ++i) sizes.push_back(i);
  for (bool relu : {false, true}) {
    std::vector<Buffer<float>> a, b, got, expected;
    std::vector<lth::LerpPair> got_pairs, expected_pairs;
    for (int64_t n : sizes) {
      a.push_back(normal(random, n));
      b.push_back(normal(random, n));
      got.emplace_back(n * num_points);
      expected.emplace_back(n * num_points);
      got_pairs.push_back({a.back().data(), b.back().data(), got.back().data(), n});
      expected_pairs.push_back({a.back().data(), b.back().data(), expected.back().data(), n});
    }
    const int64_t count = int64_t(sizes.size());
    lth::lerp_pairs_cuda(got_pairs.data(), count, alphas.data(), num_points, relu, nullptr);
    lth::lerp_pairs_cpu(expected_pairs.data(), count, alphas.data(), num_points, relu);
    for (size_t i = 0; i < sizes.size(); ++i) {
      expect_equal("out", got[i], expected[i]);
      for (int64_t j = 0; j < sizes[i] && !relu; ++j)
        if (got[i][j] != a[i][j] || got[i][(num_points - 1) * sizes[i] + j] != b[i][j])
          wrong("the ends differ at %lld", (long long)j);
    }
  }
}

void check_count(std::mt19937_64& random, int64_t num_networks, int64_t num_rows, int64_t num_classes) {
  Buffer<float> logits = normal(random, num_networks * num_rows * num_classes);
  Buffer<int64_t> labels(num_rows);
  for (int64_t i = 0; i < num_rows; ++i) labels[i] = int64_t(random() % num_classes);
  // Every third row has ties for the highest logit.
  for (int64_t row = 0; row < num_networks * num_rows; row += 3)
    for (int i = 0; i < 3; ++i) logits[row * num_classes + int64_t(random() % num_classes)] = 4.0f;
  const lth::LogitsBatch batch{logits.data(), labels.data(), num_networks, num_rows, num_classes};
  Buffer<double> loss(num_networks), expected_loss(num_networks);
  Buffer<int64_t> errors(num_networks), expected_errors(num_networks);
  const int64_t scratch = num_networks * lth::count_errors_num_blocks(num_rows);
  Buffer<double> partial_loss(scratch);
  Buffer<int64_t> partial_errors(scratch);
  lth::count_errors_cuda(batch, partial_loss.data(), partial_errors.data(), loss.data(), errors.data(),
                         nullptr);
  lth::count_errors_cpu(batch, expected_loss.data(), expected_errors.data());
  expect_equal("num_errors", errors, expected_errors);
  for (int64_t k = 0; k < num_networks; ++k)
    if (!(std::abs(loss[k] - expected_loss[k]) <= 1e-6 * expected_loss[k]))
      wrong("loss_sum[%lld] is %.9g, expected %.9g", (long long)k, loss[k], expected_loss[k]);
}

}  // namespace

int main(int, char** arguments) {
  auto random = make_random(std::strtoull(arguments[1], nullptr, 10));
  const int64_t num_weights = std::atoll(arguments[2]);
  check_lerp(random, num_weights);
  check_count(random, 3, num_weights / 300 + 1, 10);
  check_count(random, 2, 67, 100);
  check_count(random, 2, 9, 133);
  check_count(random, 1, 5, 1);
  check_count(random, 2, 0, 10);
  std::puts("equal");
}
