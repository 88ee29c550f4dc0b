// The surviving weights of a convolution as lists: for each channel that is written the weights of its sums,
// and of each the place of what it multiplies.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/conv/image_blocks.h"
#include "sparse_convolution.h"

namespace lth {

constexpr int64_t kL1Bytes = 32 * 1024;  // of a core's first cache, for the input of a tile

// Positions (row, column) of planes that are read and written in blocks of 16 images, to which all strides
// and offsets are. Where one of them steps over every `step`-th pixel of its plane, the other has step 1.
struct Lattice {
  int64_t rows, columns;
  int64_t in_step, in_row;
  int64_t out_step, out_row, out_plane;
};

struct Taps {
  std::vector<int32_t> offsets;  // from the input of position (0, 0)
  // Weights [first[g][o], first[g + 1][o]) of written channel o read group g of the channels that are read.
  std::vector<std::vector<int32_t>> first;

  size_t groups() const { return first.size() - 1; }
};

// Positions that are summed at once: what registers hold, and enough sums to hide the latency of an fma.
struct Tile {
  int64_t rows, columns;
};

// The largest tile of so many positions that divides a plane.
inline Tile tile_for(int64_t positions, int64_t rows, int64_t columns) {
  if (positions == 16 && columns % 16 == 0) return {1, 16};
  if (positions == 16 && columns % 8 == 0 && rows % 2 == 0) return {2, 8};
  if (positions == 16 && columns % 4 == 0 && rows % 4 == 0) return {4, 4};
  if (columns % 4 == 0) return {1, 4};
  if (columns % 2 == 0 && rows % 2 == 0) return {2, 2};
  return {1, 1};
}

inline int64_t positions_for_this_cpu() { return LTH_X86 && detected_isa() == Isa::kV4 ? 16 : 4; }

// Into how many groups the channels that are read are divided: the input of a tile then stays in the L1 cache
// for all channels that are written. A group of few weights costs more in reading and writing its sums than
// it saves.
inline int64_t count_groups(const Lattice& l, const Tile& tile, int64_t kernel, int64_t inputs,
                            int64_t outputs, int64_t weights) {
  const auto reach = [&](int64_t positions) { return (positions - 1) * l.in_step + kernel; };
  const int64_t bytes = reach(tile.rows) * reach(tile.columns) * kBlock * int64_t(sizeof(float));
  const int64_t fit = std::max<int64_t>(1, kL1Bytes / bytes);
  const int64_t worth = std::max<int64_t>(1, weights / (16 * outputs));
  return std::min((inputs + fit - 1) / fit, worth);
}

// Of lists whose entries, each (channel * area + place in the kernel), ascend: where their groups begin.
inline std::vector<std::vector<int32_t>> divide(const int32_t* ptr, const int32_t* entries, int64_t outputs,
                                                int64_t inputs, int64_t area, int64_t groups) {
  std::vector<std::vector<int32_t>> first(groups + 1, std::vector<int32_t>(outputs));
  for (int64_t o = 0; o < outputs; ++o) {
    int32_t i = ptr[o];
    for (int64_t g = 0; g <= groups; ++g) {
      const int64_t before = inputs * g / groups * area;  // entries of the groups before g
      while (i < ptr[o + 1] && entries[i] < before) ++i;
      first[g][o] = i;
    }
  }
  return first;
}

// In blocks of 16 images: rows and planes of both sides of a layer.
struct Strides {
  int64_t in_row, in_plane, in_block, out_row, out_plane, out_block;
};

inline Strides strides_of(const ConvolutionShape& s) {
  const int64_t in_row = s.width + 2, in_plane = (s.height + 2) * in_row;
  const int64_t out_row = s.out_width + 2, out_plane = (s.out_height + 2) * out_row;
  return {in_row, in_plane, s.num_inputs * in_plane, out_row, out_plane, s.num_outputs * out_plane};
}

// The positions of a layer's output.
inline Lattice forward_lattice(const ConvolutionShape& s, const Strides& t) {
  return {s.out_height, s.out_width, s.stride, t.in_row, 1, t.out_row, t.out_plane};
}

// Of a layer's weights, those of output channel o at [row_ptr[o], row_ptr[o + 1]); from the start of a block.
inline Taps forward_taps(const ConvolutionShape& s, const Strides& t, const Tile& tile,
                         const int32_t* col_indices, const int32_t* row_ptr) {
  const int64_t area = s.kernel * s.kernel, border = 1 - s.padding, count = row_ptr[s.num_outputs];
  Taps taps;
  taps.offsets.resize(count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t place = col_indices[i] % area;
    taps.offsets[i] = int32_t(col_indices[i] / area * t.in_plane + (place / s.kernel + border) * t.in_row +
                              place % s.kernel + border);
  }
  const int64_t groups =
      count_groups(forward_lattice(s, t), tile, s.kernel, s.num_inputs, s.num_outputs, count);
  taps.first = divide(row_ptr, col_indices, s.num_outputs, s.num_inputs, area, groups);
  return taps;
}

// Defines name_for(tile, step): of a template body<vector, step, rows, columns>, which is inlined, the
// function for this processor and this tile; the step is a constant of it where it is 1 or 2, and 0 where it
// is larger.
#define LTH_TILED(name, body, parameters, arguments)                             \
  LTH_TILED_FOR(name##_base, , Four, body, parameters, arguments)                \
  LTH_TILED_X86(name, body, parameters, arguments)                               \
  inline auto name##_for(const Tile& tile, int64_t step) -> void(*) parameters { \
    LTH_TILED_WIDE(name)                                                         \
    return tile.columns == 4   ? name##_few<1, 4>(step)                          \
           : tile.columns == 2 ? name##_few<2, 2>(step)                          \
                               : name##_few<1, 1>(step);                         \
  }
#define LTH_TILED_FOR(name, target, V, body, parameters, arguments) \
  template <int kStep, int kRows, int kColumns>                     \
  target void name parameters {                                     \
    body<V, kStep, kRows, kColumns> arguments;                      \
  }
#define LTH_OF_STEP(name, step) \
  ((step) == 1 ? name<1, kRows, kColumns> : (step) == 2 ? name<2, kRows, kColumns> : name<0, kRows, kColumns>)
#if LTH_X86
#define LTH_TILED_X86(name, body, parameters, arguments)                        \
  LTH_TILED_FOR(name##_v3, LTH_TARGET_V3, Eight, body, parameters, arguments)   \
  LTH_TILED_FOR(name##_v4, LTH_TARGET_V4, Sixteen, body, parameters, arguments) \
  template <int kRows, int kColumns>                                            \
  auto name##_many(int64_t step) -> void(*) parameters {                        \
    return LTH_OF_STEP(name##_v4, step);                                        \
  }                                                                             \
  template <int kRows, int kColumns>                                            \
  auto name##_few(int64_t step) -> void(*) parameters {                         \
    if (detected_isa() == Isa::kV4) return LTH_OF_STEP(name##_v4, step);        \
    if (detected_isa() == Isa::kV3) return LTH_OF_STEP(name##_v3, step);        \
    return LTH_OF_STEP(name##_base, step);                                      \
  }
#define LTH_TILED_WIDE(name)                               \
  if (tile.columns == 16) return name##_many<1, 16>(step); \
  if (tile.columns == 8) return name##_many<2, 8>(step);   \
  if (tile.rows == 4) return name##_many<4, 4>(step);
#else
#define LTH_TILED_X86(name, body, parameters, arguments) \
  template <int kRows, int kColumns>                     \
  auto name##_few(int64_t step) -> void(*) parameters {  \
    return LTH_OF_STEP(name##_base, step);               \
  }
#define LTH_TILED_WIDE(name)
#endif

}  // namespace lth
