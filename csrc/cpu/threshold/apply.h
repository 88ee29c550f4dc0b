// The second pass of the threshold, over masks and candidates only: prunes the candidates that come before
// the threshold, and each chunk's share of the ties.
#pragma once

#include <algorithm>

#include "common/isa.h"
#include "cpu/threshold/chunk.h"

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

// Bit i of the result: key i comes before the threshold or, with `or_equal`, equals it.
struct BaseComparison {
  static LTH_INLINE void compare(const uint32_t* keys, int64_t count, uint32_t threshold, bool or_equal,
                                 uint64_t* before) {
    for (int64_t k = 0; k < count; k += 64) {
      uint64_t b = 0;
      for (int64_t j = 0; j < std::min<int64_t>(64, count - k); ++j) {
        b |= static_cast<uint64_t>(keys[k + j] < threshold || (or_equal && keys[k + j] == threshold)) << j;
      }
      before[k / 64] = b;
    }
  }
  // Deposits the low bits of `bits` at the set bits of `positions`.
  static LTH_INLINE uint64_t deposit(uint64_t bits, uint64_t positions) {
    uint64_t out = 0;
    for (; positions != 0; positions &= positions - 1, bits >>= 1)
      out |= bits & 1 ? positions & (0 - positions) : 0;
    return out;
  }
};

#if LTH_X86
struct Avx2Comparison : BaseComparison {
  LTH_TARGET_V3 static inline uint64_t deposit(uint64_t bits, uint64_t positions) {
    return _pdep_u64(bits, positions);
  }
};

struct Avx512Comparison {
  LTH_TARGET_V4 static inline void compare(const uint32_t* keys, int64_t count, uint32_t threshold,
                                           bool or_equal, uint64_t* before) {
    const __m512i wanted = _mm512_set1_epi32(static_cast<int>(threshold));
    for (int64_t k = 0; k < count; k += 64) {
      uint64_t b = 0;
      for (int j = 0; j < 64; j += 16) {  // beyond the last key they read slack
        const __m512i some = _mm512_loadu_si512(keys + k + j);
        b |= static_cast<uint64_t>(or_equal ? _mm512_cmple_epu32_mask(some, wanted)
                                            : _mm512_cmplt_epu32_mask(some, wanted))
             << j;
      }
      before[k / 64] = b;
    }
  }
  LTH_TARGET_V4 static inline uint64_t deposit(uint64_t bits, uint64_t positions) {
    return _pdep_u64(bits, positions);
  }
};
#endif

// 64 bits from bit `i` on.
LTH_INLINE uint64_t bits_from(const uint64_t* bits, int64_t i) {
  return bits[i / 64] >> (i % 64) | bits[i / 64 + 1] << 1 << (63 - i % 64);
}

// The first `ties` of these bits, and takes them off `ties`.
LTH_INLINE uint64_t take(uint64_t bits, int64_t& ties) {
  const int count = __builtin_popcountll(bits);
  if (count <= ties) {
    ties -= count;
    return bits;
  }
  uint64_t rest = bits;
  for (; ties > 0; --ties) rest &= rest - 1;
  return bits & ~rest;
}

// The comparison of a chunk's keys, followed by a word of room, and how many come before.
template <class Comparison>
LTH_INLINE int64_t compare_keys(const Patch& p, bool or_equal, uint64_t* before) {
  const int64_t count = p.chunk.between, last = count / 64;
  Comparison::compare(p.chunk.keys, count, p.threshold, or_equal, before);
  before[last] = count % 64 ? before[last] & ((1ull << count % 64) - 1) : 0;
  before[last + 1] = 0;
  int64_t total = 0;
  for (int64_t w = 0; w <= last; ++w) total += __builtin_popcountll(before[w]);
  return total;
}

// Prunes what comes before the threshold inside the bracket, and the chunk's share of the ties.
template <class Comparison>
LTH_INLINE void patch_chunk(const Patch& p) {
  Chunk& c = p.chunk;
  uint32_t* const mask = p.tensor.pruned;
  const int64_t words = words32(p.tensor.numel), first_word = c.begin / 32, num_words = (c.length + 63) / 64;
  const auto prune = [&](int64_t w, uint64_t pruned) {
    const int64_t i = first_word + 2 * w;
    store64(mask, i, words, load64(mask, i, words) & ~pruned);
  };
  int64_t ties = c.ties;
  c.kept = c.survivors - c.below;
  if (p.where == Where::kLow) {
    c.kept -= ties;
    for (int64_t w = 0; w < num_words; ++w) prune(w, take(p.at_low[w], ties));
    return;
  }
  if (p.where == Where::kHigh) {
    c.kept -= c.at_low + c.between + ties;
    for (int64_t w = 0; w < num_words; ++w) {
      prune(w, p.at_low[w] | p.between[w] | take(p.at_high[w], ties));
    }
    return;
  }
  uint64_t before[kChunkWords + 2], tied[kChunkWords + 2];
  c.kept -= c.at_low + compare_keys<Comparison>(p, !c.cut && ties > 0, before);
  if (c.cut) {
    compare_keys<Comparison>(p, true, tied);
    for (int64_t w = 0; w <= c.between / 64; ++w) before[w] |= take(tied[w] & ~before[w], ties);
    c.kept -= c.ties;
  }
  int64_t key = 0;
  for (int64_t w = 0; w < num_words; ++w) {
    const uint64_t between = p.between[w];
    const uint64_t pruned = Comparison::deposit(bits_from(before, key), between);
    prune(w, p.at_low ? pruned | p.at_low[w] : pruned);
    key += __builtin_popcountll(between);
  }
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
