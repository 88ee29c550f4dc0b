// The one pass of the threshold over the weights: 64 scores against a bracket [low, high] of keys.
//
// A bracket is narrow when its ends are ordinary keys: everything in [low, high] is a candidate and its key
// is kept. It is heavy when an end may be shared by many weights (zeros, a quantisation grid): the ends are
// then recorded as one bit per weight and only the keys strictly between them are kept.
#pragma once

#include <cstring>

#include "common/isa.h"
#include "cpu/threshold/chunk.h"

#if LTH_X86
#include <immintrin.h>
#endif

namespace lth {

struct Bracket {
  uint32_t low, high;
  bool heavy;
};

struct Classes {
  uint64_t below;    // key < low
  uint64_t at_low;   // heavy only: key == low
  uint64_t between;  // candidates
  uint64_t at_high;  // heavy only: key == high > low
  uint64_t nan;      // key is NaN's (and in one of the other classes or above the bracket)
};

template <ScoreType kType>
LTH_INLINE uint32_t score_bits(const void* scores, int64_t i) {
  if (kType == ScoreType::kFloat32) {
    uint32_t bits;
    std::memcpy(&bits, static_cast<const char*>(scores) + 4 * i, 4);
    return bits;
  }
  uint16_t half;
  std::memcpy(&half, static_cast<const char*>(scores) + 2 * i, 2);
  return kType == ScoreType::kBFloat16 ? widen_bfloat16(half) : widen_float16(half);
}

inline uint32_t score_bits(const void* scores, ScoreType type, int64_t i) {
  if (type == ScoreType::kFloat32) return score_bits<ScoreType::kFloat32>(scores, i);
  if (type == ScoreType::kBFloat16) return score_bits<ScoreType::kBFloat16>(scores, i);
  return score_bits<ScoreType::kFloat16>(scores, i);
}

// Each Lane type classifies scores [i, i + 64) and appends the keys of the survivors (bits of `mask`) among
// its candidates to `kept`, which has room for 64 + 16 more; it returns the classes of all 64, masked.

template <ScoreType kType, bool kMagnitude, bool kHeavy>
struct BaseLane {
  static LTH_INLINE Classes classify(const void* scores, int64_t i, uint64_t mask, const Bracket& bracket,
                                     uint32_t*& kept) {
    Classes c{};
    for (int j = 0; j < 64; ++j) {
      const uint32_t key = score_key(score_bits<kType>(scores, i + j), kMagnitude);
      const uint64_t bit = mask & (1ull << j);
      const bool at_low = kHeavy && key == bracket.low;
      const bool at_high = kHeavy && key == bracket.high && !at_low;
      const bool between = key >= bracket.low && key <= bracket.high && !at_low && !at_high;
      if (key < bracket.low) c.below |= bit;
      if (at_low) c.at_low |= bit;
      if (at_high) c.at_high |= bit;
      if (between) c.between |= bit;
      *kept = key;
      kept += between && bit != 0;
      if (key == nan_key(kMagnitude)) c.nan |= bit;
    }
    return c;
  }
};

#if LTH_X86

template <ScoreType kType, bool kMagnitude, bool kHeavy>
struct Avx2Lane {
  LTH_TARGET_V3 static inline __m256i keys(const void* scores, int64_t i) {
    __m256i x;
    if (kType == ScoreType::kFloat32) {
      x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const char*>(scores) + 4 * i));
    } else {
      const __m128i half =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const char*>(scores) + 2 * i));
      x = kType == ScoreType::kBFloat16 ? _mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16)
                                        : _mm256_castps_si256(_mm256_cvtph_ps(half));
    }
    const __m256i magnitude = _mm256_and_si256(x, _mm256_set1_epi32(0x7fffffff));
    if (kMagnitude) return _mm256_min_epu32(magnitude, _mm256_set1_epi32(kNanMagnitudeKey));
    const __m256i sign = _mm256_set1_epi32(static_cast<int>(0x80000000u));
    const __m256i is_nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(kInfinityBits));
    x = _mm256_andnot_si256(_mm256_cmpeq_epi32(x, sign), x);
    return _mm256_or_si256(is_nan, _mm256_xor_si256(x, _mm256_or_si256(_mm256_srai_epi32(x, 31), sign)));
  }

  LTH_TARGET_V3 static inline uint64_t bits(__m256i lanes) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
  }

  LTH_TARGET_V3 static inline Classes classify(const void* scores, int64_t i, uint64_t mask,
                                               const Bracket& bracket, uint32_t*& kept) {
    const __m256i low = _mm256_set1_epi32(static_cast<int>(bracket.low));
    const __m256i high = _mm256_set1_epi32(static_cast<int>(bracket.high));
    const __m256i nan = _mm256_set1_epi32(static_cast<int>(nan_key(kMagnitude)));
    Classes c{};
    alignas(32) uint32_t all[64];
    for (int j = 0; j < 64; j += 8) {
      const __m256i key = keys(scores, i + j);
      _mm256_store_si256(reinterpret_cast<__m256i*>(all + j), key);
      c.nan |= bits(_mm256_cmpeq_epi32(key, nan)) << j;
      const uint64_t at_least = bits(_mm256_cmpeq_epi32(_mm256_max_epu32(key, low), key));
      const uint64_t at_most = bits(_mm256_cmpeq_epi32(_mm256_min_epu32(key, high), key));
      c.below |= (~at_least & 0xff) << j;
      c.between |= (at_least & at_most) << j;
      if (kHeavy) {
        c.at_low |= bits(_mm256_cmpeq_epi32(key, low)) << j;
        c.at_high |= bits(_mm256_cmpeq_epi32(key, high)) << j;
      }
    }
    c.nan &= mask;
    c.below &= mask;
    c.at_low &= mask;
    c.at_high &= mask & ~c.at_low;
    c.between &= mask & ~c.at_low & ~c.at_high;
    for (uint64_t rest = c.between; rest != 0; rest &= rest - 1) *kept++ = all[__builtin_ctzll(rest)];
    return c;
  }
};

template <ScoreType kType, bool kMagnitude, bool kHeavy>
struct Avx512Lane {
  LTH_TARGET_V4 static inline __m512i keys(const void* scores, int64_t i) {
    __m512i x;
    if (kType == ScoreType::kFloat32) {
      x = _mm512_loadu_si512(static_cast<const char*>(scores) + 4 * i);
    } else {
      const __m256i half =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const char*>(scores) + 2 * i));
      x = kType == ScoreType::kBFloat16 ? _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)
                                        : _mm512_castps_si512(_mm512_cvtph_ps(half));
    }
    const __m512i magnitude = _mm512_and_si512(x, _mm512_set1_epi32(0x7fffffff));
    if (kMagnitude) return _mm512_min_epu32(magnitude, _mm512_set1_epi32(kNanMagnitudeKey));
    const __m512i sign = _mm512_set1_epi32(static_cast<int>(0x80000000u));
    const __mmask16 is_nan = _mm512_cmpgt_epu32_mask(magnitude, _mm512_set1_epi32(kInfinityBits));
    x = _mm512_maskz_mov_epi32(_mm512_cmpneq_epi32_mask(x, sign), x);
    x = _mm512_xor_si512(x, _mm512_or_si512(_mm512_srai_epi32(x, 31), sign));
    return _mm512_mask_mov_epi32(x, is_nan, _mm512_set1_epi32(-1));
  }

  LTH_TARGET_V4 static inline Classes classify(const void* scores, int64_t i, uint64_t mask,
                                               const Bracket& bracket, uint32_t*& kept) {
    const __m512i low = _mm512_set1_epi32(static_cast<int>(bracket.low));
    const __m512i high = _mm512_set1_epi32(static_cast<int>(bracket.high));
    const __m512i width = _mm512_sub_epi32(high, low);
    const __m512i nan = _mm512_set1_epi32(static_cast<int>(nan_key(kMagnitude)));
    Classes c{};
    __m512i largest = _mm512_setzero_si512();
    for (int j = 0; j < 64; j += 16) {
      const __m512i key = keys(scores, i + j);
      const __mmask16 survivors = static_cast<__mmask16>(mask >> j);
      largest = _mm512_max_epu32(largest, key);
      c.below |= static_cast<uint64_t>(_mm512_cmplt_epu32_mask(key, low)) << j;
      __mmask16 between;
      if (kHeavy) {
        between = _mm512_mask_cmplt_epu32_mask(_mm512_mask_cmpgt_epu32_mask(survivors, key, low), key, high);
        c.at_low |= static_cast<uint64_t>(_mm512_cmpeq_epu32_mask(key, low)) << j;
        c.at_high |= static_cast<uint64_t>(_mm512_cmpeq_epu32_mask(key, high)) << j;
      } else {
        between = _mm512_mask_cmple_epu32_mask(survivors, _mm512_sub_epi32(key, low), width);
      }
      c.between |= static_cast<uint64_t>(between) << j;
      _mm512_storeu_si512(kept, _mm512_maskz_compress_epi32(between, key));
      kept += __builtin_popcount(between);
    }
    c.below &= mask;
    c.at_low &= mask;
    c.at_high &= mask & ~c.at_low;
    if (_mm512_cmpeq_epu32_mask(largest, nan) != 0) {
      for (int j = 0; j < 64; j += 16) {
        c.nan |= static_cast<uint64_t>(_mm512_cmpeq_epu32_mask(keys(scores, i + j), nan)) << j;
      }
      c.nan &= mask;
    }
    return c;
  }
};

#endif

// Without the prefetch the pass takes a quarter longer, at 2 KiB an eighth.
inline constexpr int64_t kPrefetchBytes = 8192;

// One chunk and what the pass writes of it.
struct ClassifyPass {
  const ScoreTensor& tensor;
  Chunk& chunk;
  const Bracket& bracket;
  uint64_t *between, *at_low, *at_high;  // [kChunkWords]; the latter two for heavy brackets
  uint32_t*& keys;                       // where the candidates' go; moved to behind them
};

template <class Lane, ScoreType kType, bool kHeavy>
LTH_INLINE void classify_chunk(const ClassifyPass& p) {
  // Copies: the stores below could change what they are copies of, for all the compiler knows.
  Chunk& c = p.chunk;
  const ScoreTensor t = p.tensor;
  const Bracket bracket = p.bracket;
  const int64_t begin = c.begin, length = c.length;
  uint64_t *const between = p.between, *const at_low_bits = p.at_low, *const at_high_bits = p.at_high;
  const int64_t words = words32(t.numel), first_word = begin / 32;
  constexpr int64_t size = kType == ScoreType::kFloat32 ? 4 : 2;
  uint32_t* end = p.keys;
  int64_t below = 0, at_low = 0, at_high = 0, num_nan = 0;
  for (int64_t w = 0; w * 64 < length; ++w) {
    const int64_t i = begin + w * 64;
    const uint64_t mask = load64(t.mask, first_word + 2 * w, words);
    Classes found;
    if (length - w * 64 >= 64) {
      const char* const ahead = static_cast<const char*>(t.scores) + i * size + kPrefetchBytes;
#pragma GCC unroll 4
      for (int64_t line = 0; line < 64 * size; line += 64) __builtin_prefetch(ahead + line);
      found = Lane::classify(t.scores, i, mask, bracket, end);
    } else {
      unsigned char last[64 * 4] = {};
      std::memcpy(last, static_cast<const char*>(t.scores) + i * size,
                  static_cast<size_t>((length - w * 64) * size));
      found = Lane::classify(last, 0, mask, bracket, end);
    }
    between[w] = found.between;
    if (kHeavy) {
      at_low_bits[w] = found.at_low;
      at_high_bits[w] = found.at_high;
      at_low += __builtin_popcountll(found.at_low);
      at_high += __builtin_popcountll(found.at_high);
    }
    below += __builtin_popcountll(found.below);
    num_nan += __builtin_popcountll(found.nan);
    store64(t.pruned, first_word + 2 * w, words, mask & ~found.below);
  }
  c.keys = p.keys;
  c.between = end - p.keys;
  p.keys = end;
  c.below = below;
  c.at_low = at_low;
  c.at_high = at_high;
  c.num_nan = num_nan;
}

using ClassifyFunction = void (*)(const ClassifyPass&);

#define LTH_CLASSIFY(name, Lane, target)                               \
  template <ScoreType kType, bool kMagnitude, bool kHeavy>             \
  target void name(const ClassifyPass& p) {                            \
    classify_chunk<Lane<kType, kMagnitude, kHeavy>, kType, kHeavy>(p); \
  }

LTH_CLASSIFY(classify_base, BaseLane, )
#if LTH_X86
LTH_CLASSIFY(classify_v3, Avx2Lane, LTH_TARGET_V3)
LTH_CLASSIFY(classify_v4, Avx512Lane, LTH_TARGET_V4)
#endif
#undef LTH_CLASSIFY

template <ScoreType kType, bool kMagnitude, bool kHeavy>
ClassifyFunction for_this_cpu() {
#if LTH_X86
  if (detected_isa() == Isa::kV4) return classify_v4<kType, kMagnitude, kHeavy>;
  if (detected_isa() == Isa::kV3) return classify_v3<kType, kMagnitude, kHeavy>;
#endif
  return classify_base<kType, kMagnitude, kHeavy>;
}

template <ScoreType kType>
ClassifyFunction classify_function(bool magnitude, bool heavy) {
  if (magnitude) return heavy ? for_this_cpu<kType, true, true>() : for_this_cpu<kType, true, false>();
  return heavy ? for_this_cpu<kType, false, true>() : for_this_cpu<kType, false, false>();
}

inline ClassifyFunction classify_function(ScoreType type, bool magnitude, bool heavy) {
  if (type == ScoreType::kFloat32) return classify_function<ScoreType::kFloat32>(magnitude, heavy);
  if (type == ScoreType::kBFloat16) return classify_function<ScoreType::kBFloat16>(magnitude, heavy);
  return classify_function<ScoreType::kFloat16>(magnitude, heavy);
}

}  // namespace lth
