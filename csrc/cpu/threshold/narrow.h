// The key of a rank among many: a sample of them gives a bracket inside theirs, one pass counts what is
// below it and keeps what is inside, and so on until few are left.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "common/isa.h"

#if LTH_X86
#include <immintrin.h>
#endif

namespace lth {

struct Run {
  const uint32_t* keys;  // [count], and kRunSlack more that may be read
  int64_t count;
};

inline constexpr int64_t kRunSlack = 16;

struct KeyRange {
  uint32_t low, high;
};

// Appends the keys within the range to `kept`, which has kRunSlack more room, and counts those below it.
using KeepInside = int64_t (*)(const Run& run, KeyRange range, uint32_t*& kept);

inline int64_t keep_inside_base(const Run& run, KeyRange range, uint32_t*& kept) {
  int64_t below = 0;
  uint32_t* end = kept;
  for (int64_t k = 0; k < run.count; ++k) {
    const uint32_t key = run.keys[k];
    below += key < range.low;
    *end = key;
    end += key - range.low <= range.high - range.low;
  }
  kept = end;
  return below;
}
#if LTH_X86
LTH_TARGET_V4 inline int64_t keep_inside_v4(const Run& run, KeyRange range, uint32_t*& kept) {
  const __m512i low = _mm512_set1_epi32(static_cast<int>(range.low));
  const __m512i width = _mm512_set1_epi32(static_cast<int>(range.high - range.low));
  int64_t below = 0;
  uint32_t* end = kept;
  for (int64_t k = 0; k < run.count; k += 16) {
    const __mmask16 some = static_cast<__mmask16>(run.count - k < 16 ? (1 << (run.count - k)) - 1 : 0xffff);
    const __m512i key = _mm512_loadu_si512(run.keys + k);
    const __mmask16 inside = _mm512_mask_cmple_epu32_mask(some, _mm512_sub_epi32(key, low), width);
    below += __builtin_popcount(_mm512_mask_cmplt_epu32_mask(some, key, low));
    _mm512_storeu_si512(end, _mm512_maskz_compress_epi32(inside, key));
    end += __builtin_popcount(inside);
  }
  kept = end;
  return below;
}
#endif

inline KeepInside keep_inside_function() {
#if LTH_X86
  if (detected_isa() == Isa::kV4) return keep_inside_v4;
#endif
  return keep_inside_base;
}

// A range that has the key of this rank with near certainty, from an even sample of the `total` keys.
inline KeyRange guess_range(const std::vector<Run>& runs, int64_t total, int64_t rank) {
  constexpr int64_t kSample = 1024, kHalf = 48;  // three standard deviations of the rank at the median
  uint32_t sample[kSample];
  int64_t size = 0, skip = 0;
  const int64_t stride = (total + kSample - 1) / kSample;
  for (const Run& run : runs) {
    for (; skip < run.count; skip += stride) sample[size++] = run.keys[skip];
    skip -= run.count;
  }
  const int64_t middle = rank / stride;
  const auto pick = [&](int64_t i) {
    uint32_t* const at = sample + std::clamp<int64_t>(i, 0, size - 1);
    std::nth_element(sample, at, sample + size);
    return *at;
  };
  return {pick(middle - kHalf), pick(middle + kHalf)};
}

// The key of this rank among those of the runs, all of which are within `range`. Leaves in the runs how many
// of each equal it, and in `rank` how many of these come before.
inline uint32_t select_key(std::vector<Run>& runs, KeyRange range, int64_t& rank) {
  constexpr int64_t kFew = 2048;
  auto* const keep_inside = keep_inside_function();
  std::unique_ptr<uint32_t[]> memory;  // of the keys that are left
  int64_t total = 0;
  for (const Run& run : runs) total += run.count;
  // Leaves what is inside; false, and `inside` is where the rank is, when that missed it.
  const auto keep = [&](KeyRange& inside) {
    std::unique_ptr<uint32_t[]> kept(new uint32_t[static_cast<size_t>(total + kRunSlack)]);
    std::vector<Run> left;
    left.reserve(runs.size());
    uint32_t* end = kept.get();
    int64_t below = 0;
    for (const Run& run : runs) {
      const uint32_t* const begin = end;
      below += keep_inside(run, inside, end);
      left.push_back({begin, end - begin});
    }
    if (rank < below) {
      inside = {range.low, inside.low - 1};
      return false;
    }
    if (rank - below >= end - kept.get()) {
      inside = {inside.high + 1, range.high};
      return false;
    }
    rank -= below;
    range = inside;
    total = end - kept.get();
    runs = std::move(left);
    memory = std::move(kept);
    return true;
  };
  while (range.low != range.high) {
    KeyRange inside;
    if (total > kFew) {
      inside = guess_range(runs, total, rank);
      // Where the sample has nothing to say, for keys that many share, the range is halved.
      if (inside.low == range.low && inside.high == range.high) {
        inside.high = range.low + (range.high - range.low) / 2;
      }
    } else {
      std::vector<uint32_t> few;
      for (const Run& run : runs) few.insert(few.end(), run.keys, run.keys + run.count);
      std::nth_element(few.begin(), few.begin() + rank, few.end());
      inside.low = inside.high = few[static_cast<size_t>(rank)];
    }
    while (!keep(inside)) continue;
  }
  return range.low;
}

}  // namespace lth
