// Where the sampled survivors lie.
#pragma once

#include <algorithm>

#include "common/isa.h"
#include "cpu/threshold/chunk.h"

#if LTH_X86
#include <immintrin.h>
#endif

namespace lth {

// A fixed, evenly spread number in [0, 1) for each sample: a plain stride could follow the layout of a
// weight.
inline double jitter(uint64_t i) {
  uint64_t x = i * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1.0p-53;
}

// The position of the set bit that `skip` others precede.
struct BaseSelect {
  static LTH_INLINE int nth(uint64_t bits, int skip) {
    for (; skip > 0; --skip) bits &= bits - 1;
    return __builtin_ctzll(bits);
  }
};
#if LTH_X86
struct Bmi2Select {
  LTH_TARGET_V3 static inline int nth(uint64_t bits, int skip) {
    return __builtin_ctzll(_pdep_u64(1ull << skip, bits));
  }
};
#endif

// Finds where the samples lie that fall into a chunk: sample j of a group is its survivor of a rank in
// [j, j + 1) * survivors / samples. Their weights are only prefetched, as each is a cache miss.
template <class Select>
LTH_INLINE int64_t locate_samples(const ScoreTensor& t, const Chunk& chunk, int64_t survivors, int64_t size,
                                  int64_t* first, int64_t* positions) {
  const double step = static_cast<double>(survivors) / static_cast<double>(size);
  const int64_t last = chunk.before + chunk.survivors, words = words32(t.numel);
  const int64_t end = (chunk.begin + chunk.length) / 32;
  int64_t word = chunk.begin / 32, passed = chunk.before, found = 0;
  for (int64_t j = std::max<int64_t>(0, static_cast<int64_t>(static_cast<double>(chunk.before) / step) - 1);
       j < size; ++j) {
    const double within = size < survivors ? jitter(static_cast<uint64_t>(j)) : 0.5;
    const int64_t rank =
        std::min(survivors - 1, static_cast<int64_t>((static_cast<double>(j) + within) * step));
    if (rank < chunk.before) continue;
    if (rank >= last) break;
    if (found == 0) *first = j;
    if (chunk.survivors == chunk.length) {
      positions[found] = chunk.begin + rank - chunk.before;
    } else {
      for (int64_t count; word + 8 <= end; passed += count, word += 8) {
        count = count_words(t.mask + word, 8);
        if (passed + count > rank) break;
      }
      uint64_t bits = load64(t.mask, word, words);
      for (int count; passed + (count = __builtin_popcountll(bits)) <= rank; passed += count) {
        word += 2;
        bits = load64(t.mask, word, words);
      }
      positions[found] = word * 32 + Select::nth(bits, static_cast<int>(rank - passed));
    }
    __builtin_prefetch(static_cast<const char*>(t.scores) +
                       positions[found] * (t.type == ScoreType::kFloat32 ? 4 : 2));
    ++found;
  }
  return found;
}

inline int64_t locate_base(const ScoreTensor& t, const Chunk& chunk, int64_t survivors, int64_t size,
                           int64_t* first, int64_t* positions) {
  return locate_samples<BaseSelect>(t, chunk, survivors, size, first, positions);
}
#if LTH_X86
LTH_TARGET_V3 inline int64_t locate_v3(const ScoreTensor& t, const Chunk& chunk, int64_t survivors,
                                       int64_t size, int64_t* first, int64_t* positions) {
  return locate_samples<Bmi2Select>(t, chunk, survivors, size, first, positions);
}
#endif

inline auto locate_function() {
#if LTH_X86
  if (detected_isa() != Isa::kBase) return locate_v3;
#endif
  return locate_base;
}

}  // namespace lth
