#include "probe.h"

#include <atomic>
#include <cstring>
#include <mutex>

#include "common/isa.h"
#include "common/parallel.h"

// What is measured is multiply-adds.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int64_t kGrain = 16384;

LTH_INLINE uint32_t sum(const uint32_t* words, int64_t count) {
  uint32_t total = 0;
  for (int64_t i = 0; i < count; ++i) total += words[i];
  return total;
}

LTH_INLINE void add(float* __restrict__ a, float* __restrict__ b, const float* __restrict__ c,
                    const float* __restrict__ d, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    a[i] += c[i];
    b[i] += d[i];
  }
}

// Enough independent chains of fused multiply-adds to hide their latency.
template <int kWidth>
struct Chains {
  static constexpr int kCount = 12;
  static constexpr double kOperations = 2.0 * kCount * kWidth;  // of a round
  typedef float Vector __attribute__((vector_size(4 * kWidth)));

  static LTH_INLINE double run(float start, int64_t rounds) {
    Vector chains[kCount];
#pragma GCC unroll 12
    for (int c = 0; c < kCount; ++c) chains[c] = Vector{} + (start + static_cast<float>(c));
    const Vector factor = Vector{} + 0.5f * start, term = Vector{} + start;
    for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
      for (int c = 0; c < kCount; ++c) chains[c] = chains[c] * factor + term;
    }
    float values[kCount * kWidth];
    std::memcpy(values, chains, sizeof values);
    double sum = 0.0;
    for (float value : values) sum += value;
    return sum;
  }
};

double fma_base(float start, int64_t rounds) { return Chains<4>::run(start, rounds); }
#if LTH_X86
LTH_TARGET_V3 double fma_v3(float start, int64_t rounds) { return Chains<8>::run(start, rounds); }
LTH_TARGET_V4 double fma_v4(float start, int64_t rounds) { return Chains<16>::run(start, rounds); }
#endif

uint32_t sum_base(const uint32_t* words, int64_t count) { return sum(words, count); }
void add_base(float* a, float* b, const float* c, const float* d, int64_t n) { add(a, b, c, d, n); }
#if LTH_X86
LTH_TARGET_V3 uint32_t sum_v3(const uint32_t* words, int64_t count) { return sum(words, count); }
LTH_TARGET_V4 uint32_t sum_v4(const uint32_t* words, int64_t count) { return sum(words, count); }
LTH_TARGET_V3 void add_v3(float* a, float* b, const float* c, const float* d, int64_t n) {
  add(a, b, c, d, n);
}
LTH_TARGET_V4 void add_v4(float* a, float* b, const float* c, const float* d, int64_t n) {
  add(a, b, c, d, n);
}
#endif

}  // namespace

uint32_t probe_read_cpu(const uint32_t* words, int64_t count) {
  auto* function = sum_base;
#if LTH_X86
  if (detected_isa() == Isa::kV3) function = sum_v3;
  if (detected_isa() == Isa::kV4) function = sum_v4;
#endif
  std::atomic<uint32_t> total{0};
  auto body = [&](int64_t begin, int64_t end) { total += function(words + begin, end - begin); };
  parallel_for(count, kGrain, body);
  return total;
}

void probe_update_cpu(float* a, float* b, const float* c, const float* d, int64_t count) {
  auto* function = add_base;
#if LTH_X86
  if (detected_isa() == Isa::kV3) function = add_v3;
  if (detected_isa() == Isa::kV4) function = add_v4;
#endif
  auto body = [&](int64_t begin, int64_t end) {
    function(a + begin, b + begin, c + begin, d + begin, end - begin);
  };
  parallel_for(count, kGrain, body);
}

double probe_fma_cpu(float start, int64_t rounds, double& sum) {
  constexpr int64_t kShares = 64;
  auto* function = fma_base;
  double operations = Chains<4>::kOperations;
#if LTH_X86
  if (detected_isa() == Isa::kV3) function = fma_v3, operations = Chains<8>::kOperations;
  if (detected_isa() == Isa::kV4) function = fma_v4, operations = Chains<16>::kOperations;
#endif
  std::mutex mutex;
  auto body = [&](int64_t begin, int64_t end) {
    const double part = function(start, rounds * (end - begin));
    const std::lock_guard<std::mutex> lock(mutex);
    sum += part;
  };
  sum = 0.0;
  parallel_for(kShares, 1, body);
  return operations * static_cast<double>(rounds * kShares);
}

}  // namespace lth
