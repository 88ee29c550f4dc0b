#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "cpu/conv/sum_blocks.h"
#include "cpu/conv/taps.h"
#include "cpu/scratch.h"
#include "sparse_convolution.h"

// Sums over pixels round differently in every implementation anyway, so fma is allowed.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int64_t kSumsAtOnce = 256;  // weights, whose sums of 64 bytes stay in the L1 cache

struct Work {
  Lattice lattice;
  Taps taps;
  const float *input, *grad;  // of position (0, 0)
  int64_t outputs, num_weights;
  int64_t chunk;    // output channels of an item
  int64_t chunks;   // of a block
  int64_t largest;  // weights of a chunk and a group
  float* partial;   // [num_blocks, num_weights]
};

// sums [kParts] of a group's weights of some output channels, over all pixels of a block.
template <class V, int kStep, int kRows, int kColumns>
LTH_INLINE void sum_pixels(const Work& w, size_t group, int64_t block, int64_t from, int64_t to, V* all) {
  const Lattice& l = w.lattice;
  const int64_t step = kStep ? kStep : l.in_step;
  const int32_t* offsets = w.taps.offsets.data();
  for (int64_t y = 0; y < l.rows; y += kRows)
    for (int64_t x = 0; x < l.columns; x += kColumns) {
      const float* input = w.input + (block * l.in_block + (y * l.in_row + x) * step) * kBlock;
      const float* start = w.grad + (block * l.out_block + y * l.out_row + x) * kBlock;
      V* sums = all;
      for (int64_t o = from; o < to; ++o) {
        const int32_t begin = w.taps.first[group][o], end = w.taps.first[group + 1][o];
        if (begin == end) continue;
        V grad[kRows][kColumns][kParts<V>];
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
          for (int c = 0; c < kColumns; ++c)
#pragma GCC unroll 4
            for (int p = 0; p < kParts<V>; ++p)
              grad[r][c][p] = at<V>(start, o * l.out_plane + r * l.out_row + c)[p];
        for (int32_t i = begin; i < end; ++i, sums += kParts<V>) {
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

// Items: output channels of a block, all of whose weights are summed over the block's images.
template <class V, int kStep, int kRows, int kColumns>
LTH_INLINE void sum_items(const Work& w, int64_t begin, int64_t end) {
  const Scratch scratch(w.largest * kBlock * sizeof(float), 0);
  auto* sums = static_cast<V*>(scratch.data());
  for (int64_t item = begin; item < end; ++item) {
    const int64_t block = item / w.chunks, from = item % w.chunks * w.chunk;
    const int64_t to = std::min(w.outputs, from + w.chunk);
    for (size_t group = 0; group < w.taps.groups(); ++group) {
      std::fill(sums, sums + w.largest * kParts<V>, V{});
      sum_pixels<V, kStep, kRows, kColumns>(w, group, block, from, to, sums);
      const float* sum = reinterpret_cast<const float*>(sums);
      for (int64_t o = from; o < to; ++o)
        for (int32_t i = w.taps.first[group][o]; i < w.taps.first[group + 1][o]; ++i, sum += kBlock)
          w.partial[block * w.num_weights + i] = sum_lanes<kBlock>(sum);
    }
  }
}

LTH_TILED(items, sum_items, (const Work& w, int64_t begin, int64_t end), (w, begin, end))

}  // namespace

void sparse_weight_gradient_cpu(const SparseWeightGradient& layer) {
  Work w{};
  w.lattice = forward_lattice(layer);
  const Tile tile = tile_for(positions_for_this_cpu(), w.lattice.rows, w.lattice.columns);
  w.taps = forward_taps(layer, tile, layer.col_indices, layer.row_ptr);
  w.input = layer.input;
  w.grad = layer.grad + (w.lattice.out_row + 1) * kBlock;
  w.outputs = layer.num_outputs;
  w.num_weights = layer.num_weights;
  const int64_t groups = int64_t(w.taps.groups());
  const int64_t each = std::max<int64_t>(1, layer.num_weights / (groups * layer.num_outputs));
  w.chunk = std::min(layer.num_outputs, std::max<int64_t>(1, kSumsAtOnce / each));
  w.chunks = (layer.num_outputs + w.chunk - 1) / w.chunk;
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t from = 0; from < w.outputs; from += w.chunk) {
      int64_t count = 0;
      for (int64_t o = from; o < std::min(w.outputs, from + w.chunk); ++o)
        count += w.taps.first[g + 1][o] - w.taps.first[g][o];
      w.largest = std::max(w.largest, count);
    }
  std::vector<float> partial(layer.num_blocks * layer.num_weights);
  w.partial = partial.data();
  const auto run = items_for(tile, layer.stride);
  auto body = [&](int64_t begin, int64_t end) { run(w, begin, end); };
  parallel_for(layer.num_blocks * w.chunks, 1, body);
  sum_blocks(w.partial, layer.num_blocks, layer.num_weights, layer.output);
}

}  // namespace lth
