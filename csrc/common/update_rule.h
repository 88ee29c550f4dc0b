// The update of one weight (equations in masked_update.h), for every device. `kind` and `anchored` are
// constants where a kernel has a copy for each.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/macros.h"
#include "masked_update.h"

namespace lth {

enum class SgdKind { kPlain, kFirst, kMomentum, kFirstNesterov, kNesterov };

inline SgdKind sgd_kind(const UpdateTensor& t, bool nesterov) {
  if (!t.first) return SgdKind::kPlain;
  if (nesterov) return t.is_first_step ? SgdKind::kFirstNesterov : SgdKind::kNesterov;
  return t.is_first_step ? SgdKind::kFirst : SgdKind::kMomentum;
}

// `value` or +0; `kept` is all ones or 0. A product would keep the NaN of a pruned weight's gradient.
LTH_HOST_DEVICE LTH_INLINE float keep(float value, uint32_t kept) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits &= kept;
  memcpy(&value, &bits, sizeof bits);
  return value;
}

LTH_HOST_DEVICE LTH_INLINE float squared_step(float w, float a, uint32_t kept, float squared) {
  const float d = keep(w - a, kept);
  return fmaf(d, d, squared);
}

LTH_HOST_DEVICE LTH_INLINE void sgd_update(const SgdOptions& o, SgdKind kind, bool anchored, float& w,
                                           float g, float& b, float a, uint32_t kept, float& squared) {
  if (anchored) g = o.pull != 0.0f ? fmaf(o.pull, w - a, g) : g;
  g = o.weight_decay != 0.0f ? fmaf(o.weight_decay, w, g) : g;
  float s = g;
  if (kind == SgdKind::kMomentum || kind == SgdKind::kNesterov) {
    s = fmaf(o.one_minus_dampening, g, o.momentum * b);
  }
  if (kind != SgdKind::kPlain) b = keep(s, kept);
  if (kind == SgdKind::kFirstNesterov || kind == SgdKind::kNesterov) s = fmaf(o.momentum, s, g);
  w = keep(fmaf(-o.lr, s, w), kept);
  if (anchored) squared = squared_step(w, a, kept, squared);
}

LTH_HOST_DEVICE LTH_INLINE void adamw_update(const AdamWOptions& o, float step_size, float correction,
                                             bool anchored, float& w, float g, float& m, float& v, float a,
                                             uint32_t kept, float& squared) {
  if (anchored) g = o.pull != 0.0f ? fmaf(o.pull, w - a, g) : g;
  const float decayed = w * o.decay;
  // torch.lerp's two forms, chosen by the weight so that each rounds well.
  m = keep(
      o.one_minus_beta1 < 0.5f ? fmaf(o.one_minus_beta1, g - m, m) : fmaf(o.one_minus_beta1 - 1.0f, g - m, g),
      kept);
  v = keep(fmaf(o.one_minus_beta2 * g, g, v * o.beta2), kept);
  const float denominator = sqrtf(v) / correction + o.eps;
  w = keep(decayed - step_size * m / denominator, kept);
  if (anchored) squared = squared_step(w, a, kept, squared);
}

}  // namespace lth
