// The threshold works on chunks of kChunkWeights weights, 64 of them at a time.
#pragma once

#include <cstring>

#include "common/macros.h"
#include "threshold.h"

namespace lth {

inline constexpr int64_t kChunkWeights = 16384;
inline constexpr int64_t kChunkWords = kChunkWeights / 64;
// The candidates of a chunk, and the slack that classify() may write and patch() read.
inline constexpr int64_t kChunkKeys = kChunkWeights + 128;

struct Chunk {
  int32_t tensor;
  int64_t begin, length;  // weights of the tensor
  int64_t survivors;
  int64_t before;  // survivors of the group in earlier chunks
  int64_t below, at_low, between, at_high, num_nan;
  int64_t ties;          // survivors equal to the threshold, then how many of them to prune
  bool cut;              // it prunes some of its ties and not all
  int64_t kept;          // survivors after
  const uint32_t* keys;  // its candidates', [between] in flat order
};

inline int64_t words32(int64_t weights) { return (weights + 31) / 32; }

// 64 mask bits from word32 `i` on, of which `words` exist.
LTH_INLINE uint64_t load64(const uint32_t* mask, int64_t i, int64_t words) {
  if (i + 1 >= words) return mask[i];
  uint64_t bits;
  std::memcpy(&bits, mask + i, sizeof bits);
  return bits;
}

LTH_INLINE void store64(uint32_t* mask, int64_t i, int64_t words, uint64_t bits) {
  std::memcpy(mask + i, &bits, i + 1 < words ? 8 : 4);
}

LTH_INLINE int64_t count_words(const uint32_t* words, int64_t count) {
  int64_t total = 0, i = 0;
  for (; i + 2 <= count; i += 2) {
    uint64_t two;
    std::memcpy(&two, words + i, sizeof two);
    total += __builtin_popcountll(two);
  }
  if (i < count) total += __builtin_popcount(words[i]);
  return total;
}

}  // namespace lth
