#include <algorithm>
#include <vector>

#include "common/isa.h"
#include "common/lerp.h"
#include "common/parallel.h"
#include "interpolation.h"

// A matrix product rounds differently in every implementation anyway, so fma is allowed.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int64_t kRowsPerItem = 84;  // a multiple of each tile's rows

// kRows x (2 * kWidth) sums stay in registers while the hidden units go by.
template <int kRows, int kWidth>
struct Tile {
  typedef float Vector __attribute__((vector_size(4 * kWidth), aligned(4)));

  template <int kVectors>
  static LTH_INLINE void columns(const LerpLinear& layer, int64_t k, const float* hidden, int64_t row,
                                 int64_t rows, int64_t column) {
    const float* weight = layer.weight + k * layer.num_hidden * layer.num_columns + column;
    const Vector* bias = reinterpret_cast<const Vector*>(layer.bias + k * layer.num_columns + column);
    Vector sums[kRows][kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[r][v] = bias[v];
    for (int64_t h = 0; h < layer.num_hidden; ++h) {
      const Vector* w = reinterpret_cast<const Vector*>(weight + h * layer.num_columns);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sums[r][v] += hidden[r * layer.num_hidden + h] * w[v];
    }
    float* out = layer.out + (k * layer.num_rows + row) * layer.num_columns + column;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) break;
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const Vector zero = {};
        const Vector sum = layer.relu ? (sums[r][v] < zero ? zero : sums[r][v]) : sums[r][v];
        *reinterpret_cast<Vector*>(out + r * layer.num_columns + v * kWidth) = sum;
      }
    }
  }

  static LTH_INLINE void rows(const LerpLinear& layer, int64_t k, int64_t begin, int64_t end, float* hidden) {
    const float alpha = layer.alphas[k];
    for (int64_t row = begin; row < end; row += kRows) {
      const int64_t rows = std::min<int64_t>(kRows, end - row);
      for (int64_t r = 0; r < kRows; ++r) {  // beyond the last row its copy is computed and not stored
        const int64_t offset = (row + std::min(r, rows - 1)) * layer.num_hidden;
        for (int64_t h = 0; h < layer.num_hidden; ++h) {
          const float value = line_point(layer.a[offset + h], layer.b[offset + h], alpha);
          hidden[r * layer.num_hidden + h] = value < 0 ? 0 : value;
        }
      }
      int64_t column = 0;
      for (; column + 2 * kWidth <= layer.num_columns; column += 2 * kWidth)
        columns<2>(layer, k, hidden, row, rows, column);
      if (column < layer.num_columns) columns<1>(layer, k, hidden, row, rows, column);
    }
  }
};

using Rows = void (*)(const LerpLinear&, int64_t k, int64_t begin, int64_t end, float* hidden);

void rows_base(const LerpLinear& layer, int64_t k, int64_t begin, int64_t end, float* hidden) {
  Tile<6, 8>::rows(layer, k, begin, end, hidden);
}
#if LTH_X86
LTH_TARGET_V3 void rows_v3(const LerpLinear& layer, int64_t k, int64_t begin, int64_t end, float* hidden) {
  Tile<6, 8>::rows(layer, k, begin, end, hidden);
}
LTH_TARGET_V4 void rows_v4(const LerpLinear& layer, int64_t k, int64_t begin, int64_t end, float* hidden) {
  Tile<14, 16>::rows(layer, k, begin, end, hidden);
}
#endif

Rows for_this_cpu() {
#if LTH_X86
  if (detected_isa() == Isa::kV4) return rows_v4;
  if (detected_isa() == Isa::kV3) return rows_v3;
#endif
  return rows_base;
}

}  // namespace

void lerp_linear_cpu(const LerpLinear& layer) {
  const int64_t items = (layer.num_rows + kRowsPerItem - 1) / kRowsPerItem;
  const Rows rows = for_this_cpu();
  auto body = [&](int64_t begin, int64_t end) {
    std::vector<float> hidden(14 * layer.num_hidden);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % items * kRowsPerItem;
      rows(layer, i / items, first, std::min(first + kRowsPerItem, layer.num_rows), hidden.data());
    }
  };
  parallel_for(items * layer.num_points, 1, body);
}

}  // namespace lth
