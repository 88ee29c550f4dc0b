#include "masks.h"

#include <algorithm>
#include <cstring>

#include "common/parallel.h"

namespace lth {
namespace {

constexpr int64_t kGrain = 4096;  // words per thread

// Eight bytes to 1 where they are not 0: bytes seen as bool may hold any number.
inline uint64_t ones(uint64_t eight) {
  return (((eight & 0x7f7f7f7f7f7f7f7full) + 0x7f7f7f7f7f7f7f7full) | eight) >> 7 & 0x0101010101010101ull;
}

// Eight bytes to eight bits: the product moves byte k's low bit to bit 56 + k.
inline uint32_t pack_eight(const unsigned char* bytes) {
  uint64_t eight;
  std::memcpy(&eight, bytes, sizeof eight);
  return static_cast<uint32_t>((ones(eight) * 0x0102040810204080ull) >> 56);
}

// The eight low bits to eight bytes of 0 or 1.
inline uint64_t unpack_eight(uint32_t bits) {
  return ones(((bits & 0xffull) * 0x0101010101010101ull) & 0x8040201008040201ull);
}

}  // namespace

void pack_mask_cpu(const bool* mask, int64_t numel, uint32_t* words) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(mask);
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; ++w) {
      const unsigned char* from = bytes + w * 32;
      uint32_t word = 0;
      if (w * 32 + 32 <= numel) {
        for (int part = 0; part < 4; ++part) word |= pack_eight(from + 8 * part) << (8 * part);
      } else {
        for (int64_t j = 0; w * 32 + j < numel; ++j) word |= static_cast<uint32_t>(from[j] != 0) << j;
      }
      words[w] = word;
    }
  };
  parallel_for((numel + 31) / 32, kGrain, body);
}

void unpack_mask_cpu(const uint32_t* words, int64_t numel, bool* mask) {
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; ++w) {
      unsigned char bytes[32];
      for (int part = 0; part < 4; ++part) {
        const uint64_t eight = unpack_eight(words[w] >> (8 * part));
        std::memcpy(bytes + 8 * part, &eight, sizeof eight);
      }
      std::memcpy(mask + w * 32, bytes, static_cast<size_t>(std::min<int64_t>(32, numel - w * 32)));
    }
  };
  parallel_for((numel + 31) / 32, kGrain, body);
}

}  // namespace lth
