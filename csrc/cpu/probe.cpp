#include "../probe.h"

#include <atomic>

#include "../common/isa.h"
#include "../common/parallel.h"

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

}  // namespace lth
