// Shared by the kernels on the batch-blocked layout.
#pragma once

#include <cstring>

#include "common/image_blocks.h"
#include "common/isa.h"
#include "common/macros.h"

namespace lth {

// So many of a block's 16 images, as one register of the instruction set holds them: a compiler takes wider
// vectors apart through memory, at a tenth of the speed.
typedef float Four __attribute__((vector_size(16), aligned(4)));
typedef float Eight __attribute__((vector_size(32), aligned(4)));
typedef float Sixteen __attribute__((vector_size(64), aligned(4)));

template <class V>
inline constexpr int64_t kParts = kBlock * int64_t(sizeof(float)) / int64_t(sizeof(V));  // of a block

template <class V>
LTH_INLINE const V* at(const float* base, int64_t offset) {  // in blocks
  return reinterpret_cast<const V*>(base + offset * kBlock);
}

// Makes name_base, name_v3 and name_v4 of an inlined template `body`, whose first argument is the vector.
// The parameters are those of the function, in parentheses; the arguments those that it passes on.
#define LTH_FOR_EACH_ISA(name, body, parameters, arguments) \
  void name##_base parameters { body<Four> arguments; }     \
  LTH_FOR_X86(name, body, parameters, arguments)
#if LTH_X86
#define LTH_FOR_X86(name, body, parameters, arguments)               \
  LTH_TARGET_V3 void name##_v3 parameters { body<Eight> arguments; } \
  LTH_TARGET_V4 void name##_v4 parameters { body<Sixteen> arguments; }
#define LTH_OF_THIS_CPU(name) \
  (detected_isa() == Isa::kV4 ? name##_v4 : detected_isa() == Isa::kV3 ? name##_v3 : name##_base)
#else
#define LTH_FOR_X86(name, body, parameters, arguments)
#define LTH_OF_THIS_CPU(name) (name##_base)
#endif

// A rectangle of a plane's pixels, without the border.
struct Pixels {
  int64_t y, x, rows, columns;
};

// Writes the zeros of the border that lie beside these pixels: with its part of the plane, each thread writes
// its part of the border, which otherwise would travel from one core's cache to another's.
inline void clear_border(float* plane, int64_t height, int64_t width, const Pixels& pixels) {
  const size_t pixel = kBlock * sizeof(float);
  const int64_t row = width + 2;
  const bool left = pixels.x == 0, right = pixels.x + pixels.columns == width;
  for (int64_t y = pixels.y + 1; y <= pixels.y + pixels.rows; ++y) {
    if (left) std::memset(plane + y * row * kBlock, 0, pixel);
    if (right) std::memset(plane + (y * row + width + 1) * kBlock, 0, pixel);
  }
  float* start = plane + (pixels.x + 1 - left) * kBlock;
  const size_t bytes = (pixels.columns + left + right) * pixel;
  if (pixels.y == 0) std::memset(start, 0, bytes);
  if (pixels.y + pixels.rows == height) std::memset(start + (height + 1) * row * kBlock, 0, bytes);
}

// A sum as a layer hands it on: with what is added to it, and relu if asked. NaN stays NaN.
template <class V>
LTH_INLINE V finish(V sum, const V* residual, bool relu) {
  const V zero = {};
  if (residual) sum += *residual;
  if (relu) sum = zero > sum ? zero : sum;
  return sum;
}

}  // namespace lth
