// The equations are in masked_update.h. Each chunk is updated in blocks of 32 weights, one mask word each:
// shifting the word by the lane number and masking the float's bits is what compilers turn into vector code.
#include "masked_update.h"

#include <algorithm>

#include "common/isa.h"
#include "common/parallel.h"
#include "common/update_rule.h"

namespace lth {
namespace {

constexpr int kLanes = 32;
// Floats ahead of the loop that are prefetched: across page boundaries, which the hardware prefetcher does
// not cross. Worth 2 to 6 % where the weights lie in memory.
constexpr int64_t kPrefetch = 512;
constexpr int64_t kFlush = 2048;  // weights whose squared distances are summed in float32, 64 per lane

// A rule with its compile-time choices: what update_chunk() applies to each weight.
template <SgdKind kKind, bool kAnchor>
struct Sgd {
  using Options = SgdOptions;
  static constexpr bool kFirst = kKind != SgdKind::kPlain, kSecond = false, kAnchored = kAnchor;
  static LTH_INLINE void update(const UpdateTensor&, const Options& o, float& w, float g, float& b, float&,
                                float a, uint32_t kept, float& squared) {
    sgd_update(o, kKind, kAnchor, w, g, b, a, kept, squared);
  }
};

template <bool kAnchor>
struct AdamW {
  using Options = AdamWOptions;
  static constexpr bool kFirst = true, kSecond = true, kAnchored = kAnchor;
  static LTH_INLINE void update(const UpdateTensor& t, const Options& o, float& w, float g, float& m,
                                float& v, float a, uint32_t kept, float& squared) {
    adamw_update(o, t.step_size, t.correction, kAnchor, w, g, m, v, a, kept, squared);
  }
};

LTH_INLINE void prefetch(const float* block) {
  for (int line = 0; line < kLanes; line += 16) __builtin_prefetch(block + kPrefetch + line);
}

// Weights [begin, begin + length) of one tensor; returns their squared distance.
template <class Rule>
LTH_INLINE double update_chunk(const UpdateTensor& tensor, int64_t begin, int64_t length,
                               const typename Rule::Options& options) {
  constexpr bool kAnchor = Rule::kAnchored, kFirst = Rule::kFirst, kSecond = Rule::kSecond;
  const UpdateTensor t = tensor;  // copies, which no store below can alias
  const auto o = options;
  float* __restrict__ w = t.weight + begin;
  const float* __restrict__ g = t.grad + begin;
  float* __restrict__ first = kFirst ? t.first + begin : nullptr;
  float* __restrict__ second = kSecond ? t.second + begin : nullptr;
  const float* __restrict__ a = kAnchor ? t.anchor + begin : nullptr;
  const uint32_t* mask = t.mask ? t.mask + begin / kLanes : nullptr;
  double total = 0.0;
  for (int64_t flush = 0; flush < length; flush += kFlush) {
    const int64_t end = std::min(length, flush + kFlush);
    float squared[kLanes] = {};
    int64_t i = flush;
    for (; i + kLanes <= end; i += kLanes) {
      const uint32_t word = mask ? mask[i / kLanes] : ~0u;
      prefetch(w + i);
      prefetch(g + i);
      if (kFirst) prefetch(first + i);
      if (kSecond) prefetch(second + i);
      if (kAnchor) prefetch(a + i);
      for (int j = 0; j < kLanes; ++j) {
        const uint32_t kept = 0u - ((word >> j) & 1u);
        float b = kFirst ? first[i + j] : 0.0f;
        float v = kSecond ? second[i + j] : 0.0f;
        float weight = w[i + j];
        Rule::update(t, o, weight, g[i + j], b, v, kAnchor ? a[i + j] : 0.0f, kept, squared[j]);
        w[i + j] = weight;
        if (kFirst) first[i + j] = b;
        if (kSecond) second[i + j] = v;
      }
    }
    for (int j = 0; i < end; ++i, ++j) {
      const uint32_t kept = mask ? 0u - ((mask[i / kLanes] >> j) & 1u) : ~0u;
      float b = kFirst ? first[i] : 0.0f;
      float v = kSecond ? second[i] : 0.0f;
      Rule::update(t, o, w[i], g[i], b, v, kAnchor ? a[i] : 0.0f, kept, squared[j]);
      if (kFirst) first[i] = b;
      if (kSecond) second[i] = v;
    }
    if (kAnchor) {
      for (float lane : squared) total += lane;
    }
  }
  return total;
}

// The squared distance of weights that take no step.
double distance_of(const UpdateTensor& t, int64_t begin, int64_t length) {
  double total = 0.0;
  for (int64_t i = begin; t.anchor && i < begin + length; ++i) {
    const bool kept = !t.mask || ((t.mask[i / kLanes] >> (i % kLanes)) & 1u);
    const double d = kept ? t.weight[i] - t.anchor[i] : 0.0f;
    total += d * d;
  }
  return total;
}

template <class Options>
using ChunkFunction = double (*)(const UpdateTensor&, int64_t, int64_t, const Options&);

template <class Rule>
double chunk_base(const UpdateTensor& t, int64_t begin, int64_t length,
                  const typename Rule::Options& options) {
  return update_chunk<Rule>(t, begin, length, options);
}
#if LTH_X86
template <class Rule>
LTH_TARGET_V3 double chunk_v3(const UpdateTensor& t, int64_t begin, int64_t length,
                              const typename Rule::Options& options) {
  return update_chunk<Rule>(t, begin, length, options);
}
template <class Rule>
LTH_TARGET_V4 double chunk_v4(const UpdateTensor& t, int64_t begin, int64_t length,
                              const typename Rule::Options& options) {
  return update_chunk<Rule>(t, begin, length, options);
}
#endif

template <class Rule>
ChunkFunction<typename Rule::Options> for_this_cpu() {
#if LTH_X86
  if (detected_isa() == Isa::kV4) return chunk_v4<Rule>;
  if (detected_isa() == Isa::kV3) return chunk_v3<Rule>;
#endif
  return chunk_base<Rule>;
}

template <bool kAnchor>
ChunkFunction<SgdOptions> sgd_function(SgdKind kind) {
  switch (kind) {
    case SgdKind::kPlain:
      return for_this_cpu<Sgd<SgdKind::kPlain, kAnchor>>();
    case SgdKind::kFirst:
      return for_this_cpu<Sgd<SgdKind::kFirst, kAnchor>>();
    case SgdKind::kMomentum:
      return for_this_cpu<Sgd<SgdKind::kMomentum, kAnchor>>();
    case SgdKind::kFirstNesterov:
      return for_this_cpu<Sgd<SgdKind::kFirstNesterov, kAnchor>>();
    case SgdKind::kNesterov:
      break;
  }
  return for_this_cpu<Sgd<SgdKind::kNesterov, kAnchor>>();
}

template <class Options, class Choose>
double run(const UpdateTensor* tensors, const UpdateSchedule& schedule, const Options& options,
           std::vector<double>& partials, Choose choose) {
  partials.resize(schedule.chunks.size());
  const std::vector<int64_t>& middles = schedule.middles;
  const auto first_chunk = [&](int64_t weight) {
    return std::lower_bound(middles.begin(), middles.end(), weight) - middles.begin();
  };
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t c = first_chunk(begin), last = first_chunk(end); c < last; ++c) {
      const UpdateChunk& chunk = schedule.chunks[c];
      const UpdateTensor& t = tensors[chunk.tensor];
      partials[c] = t.grad ? choose(t)(t, chunk.begin, chunk.length, options)
                           : distance_of(t, chunk.begin, chunk.length);
    }
  };
  parallel_for(schedule.num_weights, 2 * kChunk, body);
  double total = 0.0;
  for (double partial : partials) total += partial;
  return total;
}

}  // namespace

double sgd_cpu(const UpdateTensor* tensors, const UpdateSchedule& schedule, const SgdOptions& options,
               std::vector<double>& partials) {
  return run(tensors, schedule, options, partials, [&](const UpdateTensor& t) {
    const SgdKind kind = sgd_kind(t, options.nesterov);
    return t.anchor ? sgd_function<true>(kind) : sgd_function<false>(kind);
  });
}

double adamw_cpu(const UpdateTensor* tensors, const UpdateSchedule& schedule, const AdamWOptions& options,
                 std::vector<double>& partials) {
  return run(tensors, schedule, options, partials, [](const UpdateTensor& t) {
    return t.anchor ? for_this_cpu<AdamW<true>>() : for_this_cpu<AdamW<false>>();
  });
}

}  // namespace lth
