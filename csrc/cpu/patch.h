// The second pass of the threshold, over masks and candidates only: prunes the candidates that come before
// the threshold, and each chunk's share of the ties.
#pragma once

#include <algorithm>

#include "../common/isa.h"
#include "chunk.h"

#if LTH_X86
#include <immintrin.h>
#endif

namespace lth {

enum class Where { kLow, kBetween, kHigh };  // the threshold is an end of a heavy bracket, or a kept key

struct Patch {
  const ScoreTensor& tensor;
  Chunk& chunk;
  Where where;
  uint32_t threshold;
  const uint64_t *between, *at_low, *at_high;  // [kChunkWords]; the latter two nullptr for narrow brackets
};

// Bit i of `less` and of `equal` is how key i compares with the threshold; both end with a word of room.
struct BaseComparison {
  static LTH_INLINE void compare(const uint32_t* keys, int64_t count, uint32_t threshold, uint64_t* less,
                                 uint64_t* equal) {
    for (int64_t k = 0; k < count; k += 64) {
      uint64_t l = 0, e = 0;
      for (int64_t j = 0; j < std::min<int64_t>(64, count - k); ++j) {
        l |= static_cast<uint64_t>(keys[k + j] < threshold) << j;
        e |= static_cast<uint64_t>(keys[k + j] == threshold) << j;
      }
      less[k / 64] = l;
      equal[k / 64] = e;
    }
  }
  // The low bits, as many as `places` has, at the places.
  static LTH_INLINE uint64_t deposit(uint64_t bits, uint64_t places) {
    uint64_t out = 0;
    for (; places != 0; places &= places - 1, bits >>= 1) out |= bits & 1 ? places & (0 - places) : 0;
    return out;
  }
};

#if LTH_X86
struct Avx2Comparison : BaseComparison {
  LTH_TARGET_V3 static inline uint64_t deposit(uint64_t bits, uint64_t places) {
    return _pdep_u64(bits, places);
  }
};

struct Avx512Comparison {
  LTH_TARGET_V4 static inline void compare(const uint32_t* keys, int64_t count, uint32_t threshold,
                                           uint64_t* less, uint64_t* equal) {
    const __m512i wanted = _mm512_set1_epi32(static_cast<int>(threshold));
    for (int64_t k = 0; k < count; k += 64) {
      uint64_t l = 0, e = 0;
      for (int j = 0; j < 64; j += 16) {  // beyond the last key they read slack, which no place asks for
        const __m512i some = _mm512_loadu_si512(keys + k + j);
        l |= static_cast<uint64_t>(_mm512_cmplt_epu32_mask(some, wanted)) << j;
        e |= static_cast<uint64_t>(_mm512_cmpeq_epu32_mask(some, wanted)) << j;
      }
      less[k / 64] = l;
      equal[k / 64] = e;
    }
  }
  LTH_TARGET_V4 static inline uint64_t deposit(uint64_t bits, uint64_t places) {
    return _pdep_u64(bits, places);
  }
};
#endif

// 64 bits from bit `i` on.
LTH_INLINE uint64_t bits_from(const uint64_t* bits, int64_t i) {
  return bits[i / 64] >> (i % 64) | bits[i / 64 + 1] << 1 << (63 - i % 64);
}

// Prunes what comes before the threshold inside the bracket, and the chunk's share of the ties.
template <class Comparison>
LTH_INLINE void patch_chunk(const Patch& p) {
  Chunk& c = p.chunk;
  uint32_t* const mask = p.tensor.pruned;
  const int64_t words = words32(p.tensor.numel), first_word = c.begin / 32;
  uint64_t less[kChunkWords + 2], equal[kChunkWords + 2];
  if (p.where == Where::kBetween) {
    Comparison::compare(c.keys, c.between, p.threshold, less, equal);
    less[(c.between + 63) / 64] = equal[(c.between + 63) / 64] = 0;
  }
  int64_t ties = c.ties, kept = 0, key = 0;
  // The first `ties` of these bits, counted over the words of the chunk.
  const auto take = [&ties](uint64_t bits) {
    const int count = __builtin_popcountll(bits);
    if (count <= ties) {
      ties -= count;
      return bits;
    }
    uint64_t rest = bits;
    for (; ties > 0; --ties) rest &= rest - 1;
    return bits & ~rest;
  };
  const auto each_word = [&](auto pruned_of) {
    for (int64_t w = 0; w * 64 < c.length; ++w) {
      const uint64_t left = load64(mask, first_word + 2 * w, words) & ~pruned_of(w);
      store64(mask, first_word + 2 * w, words, left);
      kept += __builtin_popcountll(left);
    }
  };
  const auto inside = [&](int64_t w) {
    const uint64_t pruned = Comparison::deposit(bits_from(less, key), p.between[w]);
    const uint64_t tied = ties > 0 ? take(Comparison::deposit(bits_from(equal, key), p.between[w])) : 0;
    key += __builtin_popcountll(p.between[w]);
    return pruned | tied;
  };
  if (p.where == Where::kLow) {
    each_word([&](int64_t w) { return take(p.at_low[w]); });
  } else if (p.where == Where::kHigh) {
    each_word([&](int64_t w) { return p.at_low[w] | p.between[w] | take(p.at_high[w]); });
  } else if (p.at_low) {
    each_word([&](int64_t w) { return p.at_low[w] | inside(w); });
  } else {
    each_word(inside);
  }
  c.kept = kept;
}

inline void patch_base(const Patch& p) { patch_chunk<BaseComparison>(p); }
#if LTH_X86
LTH_TARGET_V3 inline void patch_v3(const Patch& p) { patch_chunk<Avx2Comparison>(p); }
LTH_TARGET_V4 inline void patch_v4(const Patch& p) { patch_chunk<Avx512Comparison>(p); }
#endif

inline auto patch_function() {
#if LTH_X86
  if (detected_isa() == Isa::kV4) return patch_v4;
  if (detected_isa() == Isa::kV3) return patch_v3;
#endif
  return patch_base;
}

}  // namespace lth
