#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "common/parallel.h"
#include "interpolation.h"

namespace lth {
namespace {

constexpr int kLanes = 16;  // rows handled together, one per vector lane
constexpr int64_t kRowsPerItem =
    64;  // a multiple of kLanes; fixed, so that sums do not depend on the threads

// e^x for x <= 0 to 2 ulp (Cephes); 1.6e-38 instead of less. NaN stays NaN.
inline float exp_nonpositive(float x) {
  x = x < -87.0f ? -87.0f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are round(x / ln 2)
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + 127) << 23;  // 2^n
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return p * scale;
}

// tile is [num_classes, kLanes]; for each lane the maximum, its lowest class, and sum_c exp(z_c - maximum).
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"))) void reduce_tile(
    const float* __restrict__ tile, int64_t num_classes, float* __restrict__ maximum,
    int32_t* __restrict__ best, float* __restrict__ sum) {
  for (int j = 0; j < kLanes; ++j) {
    maximum[j] = tile[j];
    best[j] = 0;
    sum[j] = 0;
  }
  for (int64_t c = 1; c < num_classes; ++c)
    for (int j = 0; j < kLanes; ++j) {
      const float z = tile[c * kLanes + j];
      best[j] = z > maximum[j] ? int32_t(c) : best[j];
      maximum[j] = z > maximum[j] ? z : maximum[j];
    }
  for (int64_t c = 0; c < num_classes; ++c)
    for (int j = 0; j < kLanes; ++j) sum[j] += exp_nonpositive(tile[c * kLanes + j] - maximum[j]);
}

int32_t argmax_with_nan(const float* row, int64_t num_classes) {
  int32_t best = 0;
  for (int64_t c = 1; c < num_classes && !std::isnan(row[best]); ++c)
    if (row[c] > row[best] || std::isnan(row[c])) best = int32_t(c);
  return best;
}

struct Partial {
  double loss;
  int64_t errors;
};

Partial count_rows(const LogitsBatch& batch, int64_t network, int64_t begin, int64_t end, float* tile) {
  const int64_t num_classes = batch.num_classes;
  const float* rows = batch.logits + network * batch.num_rows * num_classes;
  float maximum[kLanes], sum[kLanes];
  int32_t best[kLanes];
  Partial total{0, 0};
  double product = 1;  // of the rows' sums: its logarithm is taken once, not once per row
  for (int64_t first = begin; first < end; first += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, end - first);
    for (int64_t j = 0; j < kLanes; ++j) {
      const float* row = rows + (first + std::min(j, count - 1)) * num_classes;
      for (int64_t c = 0; c < num_classes; ++c) tile[c * kLanes + j] = row[c];
    }
    reduce_tile(tile, num_classes, maximum, best, sum);
    for (int64_t j = 0; j < count; ++j) {
      const float* row = rows + (first + j) * num_classes;
      const int64_t label = batch.labels[first + j];
      const bool valid = label >= 0 && label < num_classes;
      if (std::isnan(sum[j])) best[j] = argmax_with_nan(row, num_classes);
      total.errors += best[j] != label;
      total.loss += valid ? double(maximum[j]) - row[label] : std::nan("");
      product *= sum[j];
      if (product > 1e290) {  // a sum is at most num_classes < 2^31
        total.loss += std::log(product);
        product = 1;
      }
    }
  }
  total.loss += std::log(product);
  return total;
}

}  // namespace

void count_errors_cpu(const LogitsBatch& batch, double* loss_sum, int64_t* num_errors) {
  const int64_t items = (batch.num_rows + kRowsPerItem - 1) / kRowsPerItem;
  std::vector<Partial> partials(batch.num_networks * items);
  auto body = [&](int64_t begin, int64_t end) {
    std::vector<float> tile(batch.num_classes * kLanes);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % items * kRowsPerItem;
      const int64_t last = std::min(first + kRowsPerItem, batch.num_rows);
      partials[i] = count_rows(batch, i / items, first, last, tile.data());
    }
  };
  parallel_for(int64_t(partials.size()), 8, body);
  for (int64_t k = 0; k < batch.num_networks; ++k) {
    Partial total{0, 0};
    for (int64_t i = k * items; i < (k + 1) * items; ++i) {
      total.loss += partials[i].loss;
      total.errors += partials[i].errors;
    }
    loss_sum[k] = total.loss;
    num_errors[k] = total.errors;
  }
}

}  // namespace lth
