// The transforms of Winograd's filtering F(4x4, 3x3), of tiles and of filters (winograd.cpp).
#pragma once

#include <cstring>

#include "cpu/conv/image_blocks.h"

// The sums are those of a convolution, which no two implementations round alike: fma is welcome.
#include "common/contract.h"

namespace lth {

inline constexpr int64_t kPixels = 4;  // of a tile's output, in each direction
inline constexpr int64_t kSide = 6;    // of a transformed tile
inline constexpr int64_t kPositions = kSide * kSide;

// Polynomials are interpolated at 0, +-kA, +-kB and infinity, their products exact in float32. Of the points
// with four bits these make the smallest errors: a third of the root mean square that 1 and 2 make.
inline constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;

// out[i] = row i of G w.
template <class V>
LTH_INLINE void transform_filter(const V w[3], V out[kSide]) {
  constexpr float by_a = 1 / (2 * kA2 * (kA2 - kB2)), by_b = 1 / (2 * kB2 * (kB2 - kA2));
  const V even_a = by_a * w[0] + by_a * kA2 * w[2], odd_a = by_a * kA * w[1];
  const V even_b = by_b * w[0] + by_b * kB2 * w[2], odd_b = by_b * kB * w[1];
  out[0] = 1 / (kA2 * kB2) * w[0];
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = w[2];
}

// `lanes` filters [lanes][3][3] as G w G', the first position's at `transformed`, `position` apart.
template <class V, bool kWhole>
LTH_INLINE void transform_lanes(const float* weight, int64_t lanes, int64_t position,
                                float* __restrict__ transformed) {
  constexpr int64_t kLanes = kBlock / kParts<V>;
  const int64_t count = kWhole ? kLanes : lanes;
  float filter[9][kLanes] = {};
  for (int64_t lane = 0; lane < count; ++lane)
#pragma GCC unroll 9
    for (int i = 0; i < 9; ++i) filter[i][lane] = weight[9 * lane + i];
  V rows[kSide][3];
#pragma GCC unroll 3
  for (int j = 0; j < 3; ++j) {
    V column[3], result[kSide];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) std::memcpy(&column[i], filter[3 * i + j], sizeof(V));
    transform_filter(column, result);
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) rows[i][j] = result[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < kSide; ++i) {
    V result[kSide];
    transform_filter(rows[i], result);
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j)
      std::memcpy(transformed + (kSide * i + j) * position, &result[j], count * sizeof(float));
  }
}

// out[i] = row i of B' d for a row or a column d of a tile's input.
template <class V>
LTH_INLINE void transform(const V d[kSide], V out[kSide]) {
  const V even_a = d[4] - kB2 * d[2], odd_a = d[3] - kB2 * d[1];
  const V even_b = d[4] - kA2 * d[2], odd_b = d[3] - kA2 * d[1];
  out[0] = (d[4] - (kA2 + kB2) * d[2]) + kA2 * kB2 * d[0];
  out[1] = even_a + kA * odd_a;
  out[2] = even_a - kA * odd_a;
  out[3] = even_b + kB * odd_b;
  out[4] = even_b - kB * odd_b;
  out[5] = (d[5] - (kA2 + kB2) * d[3]) + kA2 * kB2 * d[1];
}

// out[i] = row i of A' m.
template <class V>
LTH_INLINE void transform_back(const V m[kSide], V out[kPixels]) {
  const V even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
  out[0] = m[0] + even_a + even_b;
  out[1] = kA * odd_a + kB * odd_b;
  out[2] = kA2 * even_a + kB2 * even_b;
  out[3] = kA * kA2 * odd_a + (kB * kB2 * odd_b + m[5]);
}

}  // namespace lth
