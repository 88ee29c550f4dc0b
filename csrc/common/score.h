// Scores as unsigned keys whose order is the order of pruning. A score of any supported type is first
// widened to float32 bits, which is exact; then
//
//   magnitude: key = bits without the sign          signed: key = bits, mapped to ascending order, -0 = +0
//
// and every NaN becomes one key above all numbers. So ties are equal keys, and NaN is pruned last.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace lth {

enum class ScoreType : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

inline constexpr uint32_t kInfinityBits = 0x7f800000u;
inline constexpr uint32_t kNanMagnitudeKey = 0x7f800001u;
inline constexpr uint32_t kNanSignedKey = 0xffffffffu;

LTH_HOST_DEVICE inline uint32_t widen_bfloat16(uint16_t half) { return static_cast<uint32_t>(half) << 16; }

// IEEE binary16 to the bits of the equal float32, subnormals and NaN payloads included.
LTH_HOST_DEVICE inline uint32_t widen_float16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  uint32_t exponent = (half >> 10) & 0x1fu;
  uint32_t fraction = half & 0x3ffu;
  if (exponent == 0x1fu) return sign | kInfinityBits | (fraction << 13);
  if (exponent == 0) {
    if (fraction == 0) return sign;
    exponent = 1;
    while ((fraction & 0x400u) == 0) {
      fraction <<= 1;
      --exponent;
    }
    fraction &= 0x3ffu;
  }
  return sign | ((exponent + 112u) << 23) | (fraction << 13);
}

LTH_HOST_DEVICE inline uint32_t magnitude_key(uint32_t bits) {
  const uint32_t key = bits & 0x7fffffffu;
  return key < kNanMagnitudeKey ? key : kNanMagnitudeKey;
}

LTH_HOST_DEVICE inline uint32_t signed_key(uint32_t bits) {
  if ((bits & 0x7fffffffu) > kInfinityBits) return kNanSignedKey;
  if (bits == 0x80000000u) bits = 0;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

LTH_HOST_DEVICE inline uint32_t score_key(uint32_t bits, bool magnitude) {
  return magnitude ? magnitude_key(bits) : signed_key(bits);
}

LTH_HOST_DEVICE inline uint32_t nan_key(bool magnitude) {
  return magnitude ? kNanMagnitudeKey : kNanSignedKey;
}

// The float32 bits of the score (its magnitude, where that is the order) that a key stands for.
LTH_HOST_DEVICE inline uint32_t key_score(uint32_t key, bool magnitude) {
  if (key == nan_key(magnitude)) return 0x7fc00000u;
  if (magnitude) return key;
  return key & 0x80000000u ? key & 0x7fffffffu : ~key;
}

}  // namespace lth
