// The equations stand in masked_update.h. Each chunk is updated in blocks of 32 weights, one mask word each:
// shifting the word by the lane number and masking the float's bits is what compilers turn into vector code.
#include "../masked_update.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../common/isa.h"
#include "../common/parallel.h"

namespace lth {
namespace {

constexpr int kLanes = 32;
constexpr int64_t kFlush = 2048;  // weights whose squared distances are summed in float32, 64 a lane

LTH_INLINE float keep(float value, uint32_t ones_if_kept) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits &= ones_if_kept;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

struct Sgd {
  enum Kind { kPlain, kFresh, kMomentum, kFreshNesterov, kNesterov };

  template <int kKind, bool kAnchor>
  static LTH_INLINE void update(const UpdateTensor&, const SgdOptions& o, float& w, float g, float& b, float&, float a,
                                uint32_t kept, float& squared) {
    if (kAnchor) g = o.pull != 0.0f ? __builtin_fmaf(o.pull, w - a, g) : g;
    g = o.weight_decay != 0.0f ? __builtin_fmaf(o.weight_decay, w, g) : g;
    float s = g;
    if (kKind == kMomentum || kKind == kNesterov) s = __builtin_fmaf(o.one_minus_dampening, g, o.momentum * b);
    if (kKind != kPlain) b = keep(s, kept);
    if (kKind == kFreshNesterov || kKind == kNesterov) s = __builtin_fmaf(o.momentum, s, g);
    w = keep(__builtin_fmaf(-o.lr, s, w), kept);
    if (kAnchor) {
      const float d = keep(w - a, kept);
      squared = __builtin_fmaf(d, d, squared);
    }
  }
};

struct AdamW {
  template <int, bool kAnchor>
  static LTH_INLINE void update(const UpdateTensor& t, const AdamWOptions& o, float& w, float g, float& m, float& v, float a,
                                uint32_t kept, float& squared) {
    if (kAnchor) g = o.pull != 0.0f ? __builtin_fmaf(o.pull, w - a, g) : g;
    const float decayed = w * o.decay;
    // torch.lerp's two forms, chosen by the weight so that each rounds well.
    m = keep(o.one_minus_beta1 < 0.5f ? __builtin_fmaf(o.one_minus_beta1, g - m, m)
                                      : __builtin_fmaf(o.one_minus_beta1 - 1.0f, g - m, g),
             kept);
    v = keep(__builtin_fmaf(o.one_minus_beta2 * g, g, v * o.beta2), kept);
    const float denominator = std::sqrt(v) / t.correction + o.eps;
    w = keep(decayed - t.step_size * m / denominator, kept);
    if (kAnchor) {
      const float d = keep(w - a, kept);
      squared = __builtin_fmaf(d, d, squared);
    }
  }
};

// Weights [begin, begin + length) of one tensor; returns their squared distance.
template <class Rule, int kKind, bool kAnchor, bool kFirst, bool kSecond, class Options>
LTH_INLINE double update_chunk(const UpdateTensor& tensor, int64_t begin, int64_t length,
                               const Options& options) {
  const UpdateTensor t = tensor;  // copies, which no store below can alias
  const Options o = options;
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
      for (int j = 0; j < kLanes; ++j) {
        const uint32_t kept = 0u - ((word >> j) & 1u);
        float b = kFirst ? first[i + j] : 0.0f;
        float v = kSecond ? second[i + j] : 0.0f;
        float weight = w[i + j];
        Rule::template update<kKind, kAnchor>(t, o, weight, g[i + j], b, v, kAnchor ? a[i + j] : 0.0f, kept,
                                              squared[j]);
        w[i + j] = weight;
        if (kFirst) first[i + j] = b;
        if (kSecond) second[i + j] = v;
      }
    }
    for (int j = 0; i < end; ++i, ++j) {
      const uint32_t kept = mask ? 0u - ((mask[i / kLanes] >> j) & 1u) : ~0u;
      float b = kFirst ? first[i] : 0.0f;
      float v = kSecond ? second[i] : 0.0f;
      Rule::template update<kKind, kAnchor>(t, o, w[i], g[i], b, v, kAnchor ? a[i] : 0.0f, kept, squared[j]);
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

#define LTH_CHUNK_FUNCTION(name, target)                                                             \
  template <class Rule, int kKind, bool kAnchor, bool kFirst, bool kSecond, class Options>           \
  target double name(const UpdateTensor& t, int64_t begin, int64_t length, const Options& options) { \
    return update_chunk<Rule, kKind, kAnchor, kFirst, kSecond>(t, begin, length, options);           \
  }

LTH_CHUNK_FUNCTION(chunk_base, )
#if LTH_X86
LTH_CHUNK_FUNCTION(chunk_v3, LTH_TARGET_V3)
LTH_CHUNK_FUNCTION(chunk_v4, LTH_TARGET_V4)
#endif
#undef LTH_CHUNK_FUNCTION

template <class Rule, int kKind, bool kAnchor, bool kFirst, bool kSecond, class Options>
ChunkFunction<Options> for_this_cpu() {
#if LTH_X86
  if (detected_isa() == Isa::kV4) return chunk_v4<Rule, kKind, kAnchor, kFirst, kSecond, Options>;
  if (detected_isa() == Isa::kV3) return chunk_v3<Rule, kKind, kAnchor, kFirst, kSecond, Options>;
#endif
  return chunk_base<Rule, kKind, kAnchor, kFirst, kSecond, Options>;
}

template <int kKind, bool kAnchor>
ChunkFunction<SgdOptions> sgd_function() {
  return for_this_cpu<Sgd, kKind, kAnchor, kKind != Sgd::kPlain, false, SgdOptions>();
}

template <class Options, class Choose>
double run(const UpdateTensor* tensors, const UpdateSchedule& schedule, const Options& options,
           std::vector<double>& partials, Choose choose) {
  partials.resize(schedule.chunks.size());
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t c = schedule.items[begin]; c < schedule.items[end]; ++c) {
      const UpdateChunk& chunk = schedule.chunks[c];
      const UpdateTensor& t = tensors[chunk.tensor];
      partials[c] = t.grad ? choose(t)(t, chunk.begin, chunk.length, options)
                           : distance_of(t, chunk.begin, chunk.length);
    }
  };
  parallel_for(static_cast<int64_t>(schedule.items.size()) - 1, 2, body);
  double total = 0.0;
  for (double partial : partials) total += partial;
  return total;
}

}  // namespace

UpdateSchedule::UpdateSchedule(const UpdateTensor* tensors, size_t count) {
  items.push_back(0);
  int64_t held = 0;
  for (size_t t = 0; t < count; ++t) {
    for (int64_t begin = 0; begin < tensors[t].numel; begin += kChunk) {
      const int64_t length = std::min(kChunk, tensors[t].numel - begin);
      chunks.push_back({static_cast<int32_t>(t), begin, length});
      held += length;
      if (held >= kChunk) {
        items.push_back(static_cast<int64_t>(chunks.size()));
        held = 0;
      }
    }
  }
  if (held > 0) items.push_back(static_cast<int64_t>(chunks.size()));
}

double sgd_cpu(const UpdateTensor* tensors, const UpdateSchedule& schedule, const SgdOptions& options,
               std::vector<double>& partials) {
  static const ChunkFunction<SgdOptions> functions[2][5] = {
      {sgd_function<Sgd::kPlain, false>(), sgd_function<Sgd::kFresh, false>(),
       sgd_function<Sgd::kMomentum, false>(), sgd_function<Sgd::kFreshNesterov, false>(),
       sgd_function<Sgd::kNesterov, false>()},
      {sgd_function<Sgd::kPlain, true>(), sgd_function<Sgd::kFresh, true>(),
       sgd_function<Sgd::kMomentum, true>(), sgd_function<Sgd::kFreshNesterov, true>(),
       sgd_function<Sgd::kNesterov, true>()}};
  return run(tensors, schedule, options, partials, [&](const UpdateTensor& t) {
    int kind = Sgd::kPlain;
    if (t.first && options.nesterov) kind = t.fresh ? Sgd::kFreshNesterov : Sgd::kNesterov;
    if (t.first && !options.nesterov) kind = t.fresh ? Sgd::kFresh : Sgd::kMomentum;
    return functions[t.anchor != nullptr][kind];
  });
}

double adamw_cpu(const UpdateTensor* tensors, const UpdateSchedule& schedule, const AdamWOptions& options,
                 std::vector<double>& partials) {
  static const ChunkFunction<AdamWOptions> functions[2] = {
      for_this_cpu<AdamW, 0, false, true, true, AdamWOptions>(),
      for_this_cpu<AdamW, 0, true, true, true, AdamWOptions>()};
  return run(tensors, schedule, options, partials,
             [&](const UpdateTensor& t) { return functions[t.anchor != nullptr]; });
}

}  // namespace lth
