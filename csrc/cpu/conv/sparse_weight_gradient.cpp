#include <algorithm>
#include <vector>

#include "cpu/conv/rows.h"
#include "cpu/conv/sum_items.h"

// Sums over pixels round differently in every implementation anyway, so fma is allowed.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int64_t kSumsAtOnce = 256;  // weights, whose sums of 64 bytes stay in the L1 cache

struct Work {
  Lattice lattice;
  Taps taps;
  int64_t outputs;
  int64_t chunk;    // output channels whose weights are summed at once
  int64_t largest;  // weights of a chunk and a group
};

// sums [kParts] of a group's weights of some output channels, over rows [begin, end) of a block.
template <class V, int kStep, int kRows, int kColumns>
LTH_INLINE void sum_pixels(const Work& w, const float* of_input, const float* of_grad, int64_t begin,
                           int64_t end, size_t group, int64_t from, int64_t to, V* all) {
  const Lattice& l = w.lattice;
  const int64_t step = kStep ? kStep : l.in_step;
  const int32_t* offsets = w.taps.offsets.data();
  for (int64_t y = 0; y < end - begin; y += kRows)
    for (int64_t x = 0; x < l.columns; x += kColumns) {
      const float* input = of_input + (y * l.in_row + x) * step * kBlock;
      const float* start = of_grad + (y * l.out_row + x) * kBlock;
      V* sums = all;
      for (int64_t o = from; o < to; ++o) {
        const int32_t first = w.taps.first[group][o], last = w.taps.first[group + 1][o];
        if (first == last) continue;
        V grad[kRows][kColumns][kParts<V>];
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
          for (int c = 0; c < kColumns; ++c)
#pragma GCC unroll 4
            for (int p = 0; p < kParts<V>; ++p)
              grad[r][c][p] = at<V>(start, o * l.out_plane + r * l.out_row + c)[p];
        for (int32_t i = first; i < last; ++i, sums += kParts<V>) {
          const float* pixels = input + offsets[i] * kBlock;
          V sum[kParts<V>];
#pragma GCC unroll 4
          for (int p = 0; p < kParts<V>; ++p) sum[p] = sums[p];
#pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
            for (int c = 0; c < kColumns; ++c)
#pragma GCC unroll 4
              for (int p = 0; p < kParts<V>; ++p)
                sum[p] += grad[r][c][p] * at<V>(pixels, (r * l.in_row + c) * step)[p];
#pragma GCC unroll 4
          for (int p = 0; p < kParts<V>; ++p) sums[p] = sum[p];
        }
      }
    }
}

template <class V, int kStep, int kRows, int kColumns>
LTH_INLINE void sum_rows(const Work& w, const float* input, const float* grad, int64_t begin, int64_t end,
                         float* result, float* room) {
  V* sums = reinterpret_cast<V*>(room);
  for (int64_t from = 0; from < w.outputs; from += w.chunk) {
    const int64_t to = std::min(w.outputs, from + w.chunk);
    for (size_t group = 0; group < w.taps.groups(); ++group) {
      std::fill(sums, sums + w.largest * kParts<V>, V{});
      sum_pixels<V, kStep, kRows, kColumns>(w, input, grad, begin, end, group, from, to, sums);
      const float* sum = room;
      for (int64_t o = from; o < to; ++o)
        for (int32_t i = w.taps.first[group][o]; i < w.taps.first[group + 1][o]; ++i, sum += kBlock)
          result[i] = sum_lanes<kBlock>(sum);
    }
  }
}

LTH_TILED(rows, sum_rows,
          (const Work& w, const float* input, const float* grad, int64_t begin, int64_t end, float* result,
           float* room),
          (w, input, grad, begin, end, result, room))

class SparseWeightGradientRows : public WeightGradientRows {
 public:
  SparseWeightGradientRows(const ConvolutionShape& shape, const Strides& strides, const Weights& weights) {
    work_.lattice = forward_lattice(shape, strides);
    const Tile tile = tile_for(positions_for_this_cpu(), work_.lattice.rows, work_.lattice.columns);
    work_.taps = forward_taps(shape, strides, tile, weights.col_indices, weights.row_ptr);
    work_.outputs = shape.num_outputs;
    const auto& first = work_.taps.first;
    const int64_t groups = int64_t(work_.taps.groups());
    const int64_t each = std::max<int64_t>(1, weights.num_weights / (groups * shape.num_outputs));
    work_.chunk = std::min(shape.num_outputs, std::max<int64_t>(1, kSumsAtOnce / each));
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t from = 0; from < shape.num_outputs; from += work_.chunk) {
        int64_t count = 0;
        for (int64_t o = from; o < std::min(shape.num_outputs, from + work_.chunk); ++o)
          count += first[g + 1][o] - first[g][o];
        work_.largest = std::max(work_.largest, count);
      }
    run_ = rows_for(tile, shape.stride);
  }

  size_t room() const override { return work_.largest * kBlock; }

  void operator()(const float* input, const float* grad, int64_t begin, int64_t end, float* sums,
                  float* room) const override {
    const int64_t first = (work_.lattice.out_row + 1) * kBlock;  // the gradient's first pixel
    run_(work_, input, grad + first, begin, std::min(end, work_.lattice.rows), sums, room);
  }

 private:
  Work work_{};
  void (*run_)(const Work&, const float*, const float*, int64_t, int64_t, float*, float*);
};

}  // namespace

std::unique_ptr<WeightGradientRows> sparse_weight_gradient_rows(const ConvolutionShape& shape,
                                                                const Strides& strides,
                                                                const Weights& weights) {
  return std::make_unique<SparseWeightGradientRows>(shape, strides, weights);
}

}  // namespace lth
