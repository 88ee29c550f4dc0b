// All that a layer reads and writes of the memory goes through these loops: what comes is fetched ahead, and
// what goes is stored past the caches where it is large: it would be gone from them before it is read again,
// and a line of a cache has to be read before it can be written.
#include "cpu/conv/normalise.h"

#include <algorithm>
#include <cstring>

#include "cpu/conv/image_blocks.h"

#if LTH_X86
#include <immintrin.h>
#endif

// Sums over pixels round differently in every implementation anyway, so fma is allowed.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int kAtOnce = 2;           // neighbouring pixels, so that sums are independent
constexpr int64_t kAhead = 64 * 64;  // bytes
constexpr int64_t kLarge = 2 << 20;  // bytes of a tensor that no cache keeps for the next layer

template <class V>
LTH_INLINE void fetch(const V* from) {
  __builtin_prefetch(reinterpret_cast<const char*>(from) + kAhead, 0, 2);
}

// Stores past the caches, if asked.
#if LTH_X86
LTH_INLINE void put(Four* to, Four value, bool past) {
  if (past) {
    _mm_stream_ps(reinterpret_cast<float*>(to), (__m128)value);
  } else {
    *to = value;
  }
}
LTH_TARGET_V3 inline void put(Eight* to, Eight value, bool past) {
  if (past) {
    _mm256_stream_ps(reinterpret_cast<float*>(to), (__m256)value);
  } else {
    *to = value;
  }
}
LTH_TARGET_V4 inline void put(Sixteen* to, Sixteen value, bool past) {
  if (past) {
    _mm512_stream_ps(reinterpret_cast<float*>(to), (__m512)value);
  } else {
    *to = value;
  }
}
void wait_for_stores() { _mm_sfence(); }
#else
template <class V>
LTH_INLINE void put(V* to, V value, bool) {
  *to = value;
}
void wait_for_stores() {}
#endif

// The sum over the images of a block of lane sums [kAtOnce][16].
template <class V>
LTH_INLINE double sum_images(const V (&sums)[kAtOnce][kParts<V>], int64_t images) {
  const auto* lanes = reinterpret_cast<const float*>(&sums);
  double sum = 0;
  for (int64_t i = 0; i < images; ++i)
    for (int64_t k = 0; k < kAtOnce; ++k) sum += lanes[k * kBlock + i];
  return sum;
}

// Calls add(vector index, k, part) for the pixels of a row, k from 0 to kAtOnce - 1 for neighbours.
template <class V, class Add>
LTH_INLINE void for_pixels(int64_t width, Add add) {
  constexpr int64_t parts = kParts<V>;
  int64_t x = 0;
  for (; x + kAtOnce <= width; x += kAtOnce)
#pragma GCC unroll 2
    for (int64_t k = 0; k < kAtOnce; ++k)
#pragma GCC unroll 4
      for (int64_t p = 0; p < parts; ++p) add((x + k) * parts + p, k, p);
  if (x < width)
#pragma GCC unroll 4
    for (int64_t p = 0; p < parts; ++p) add(x * parts + p, 0, p);
}

// Whether a tensor that is written is stored past the caches.
template <class V>
LTH_INLINE bool goes_past(const OfPlanes& of, const float* tensor) {
  const int64_t bytes = of.num_blocks * of.shape.block() * kBlock * int64_t(sizeof(float));
  return bytes >= kLarge && reinterpret_cast<uintptr_t>(tensor) % sizeof(V) == 0;
}

template <class V>
LTH_INLINE V* to_pixel(float* base, int64_t offset) {  // in blocks of 16 images
  return reinterpret_cast<V*>(base + offset * kBlock);
}

// 1 in the lanes of images, 0 in the others.
struct Lanes {
  alignas(64) float one[kBlock];
  explicit Lanes(int64_t images) {
    for (int64_t i = 0; i < kBlock; ++i) one[i] = i < images ? 1.0f : 0.0f;
  }
};

// Clears a row of a border; returns whether it is one. Of another row the two ends.
LTH_INLINE bool clear_ends(const PlaneShape& shape, int64_t y, float* row) {
  const size_t pixel = kBlock * sizeof(float);
  if (y == 0 || y == shape.height + 1) {
    std::memset(row, 0, shape.row() * pixel);
    return true;
  }
  std::memset(row, 0, pixel);
  std::memset(row + (shape.width + 1) * kBlock, 0, pixel);
  return false;
}

template <class V>
LTH_INLINE void finish_rows(const Finish& f, int64_t start, PlaneRows rows, RowsAt<float> to, PlaneRows own) {
  constexpr int64_t parts = kParts<V>;
  const PlaneShape& s = f.shape;
  const bool past = goes_past<V>(f, f.read.kept);
  for (int64_t c = 0; c < s.channels; ++c) {
    const float scale = f.scale ? f.scale[c] : 1, offset = f.scale ? f.offset[c] : 0;
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      float* row = to.data + (c * to.plane + (y - rows.begin) * s.row()) * kBlock;
      if (clear_ends(s, y, row)) continue;
      const int64_t first = start + c * s.plane() + s.at_row(y);
      const V* in = at<V>(f.read.values, first);
      const V* residual = f.read.residual ? at<V>(f.read.residual, first) : nullptr;
      V* out = to_pixel<V>(row, 1);
      const auto made = [&](int64_t i) __attribute__((always_inline)) {
        fetch(in + i);
        if (residual) fetch(residual + i);
        return out[i] = finish(in[i] * scale + offset, residual ? residual + i : nullptr, f.read.relu);
      };
      if (!f.scale) {
        for (int64_t i = 0; i < s.width * parts; ++i) {
          fetch(in + i);
          out[i] = in[i];
        }
      } else if (f.read.kept && y >= own.begin && y < own.end) {
        V* kept = to_pixel<V>(f.read.kept, first);
        for (int64_t i = 0; i < s.width * parts; ++i) put(kept + i, made(i), past);
      } else {
        for (int64_t i = 0; i < s.width * parts; ++i) made(i);
      }
    }
  }
  wait_for_stores();
}

template <class V>
LTH_INLINE float first_mean(const V* row, int64_t width, int64_t images) {
  V sums[kAtOnce][kParts<V>] = {};
  for_pixels<V>(
      width, [&](int64_t i, int64_t k, int64_t p) __attribute__((always_inline)) { sums[k][p] += row[i]; });
  return float(sum_images<V>(sums, images) / double(width * images));
}

// The sums are those of (y - shift): the shift is the mean of a row, so that a mean far from 0 loses no
// precision.
template <class V>
LTH_INLINE void copy_out_rows(const CopyOut& f, int64_t start, PlaneRows rows, int64_t images,
                              RowsAt<const float> from, Moments* moments) {
  const PlaneShape& s = f.shape;
  const bool past = goes_past<V>(f, f.to);
  for (int64_t c = 0; c < s.channels; ++c) {
    const float* plane = from.data + c * from.plane * kBlock;
    const float shift = first_mean<V>(at<V>(plane, 1), s.width, images);
    V sums[kAtOnce][kParts<V>] = {}, squares[kAtOnce][kParts<V>] = {};
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      const V* row = at<V>(plane, (y - rows.begin) * s.row() + 1);
      V* out = to_pixel<V>(f.to, start + c * s.plane() + s.at_row(y));
      for_pixels<V>(s.width, [&](int64_t i, int64_t k, int64_t p) __attribute__((always_inline)) {
        const V value = row[i] - shift;
        put(out + i, row[i], past);
        sums[k][p] += value;
        squares[k][p] += value * value;
      });
    }
    if (!moments) continue;
    const double count = double(images * (rows.end - rows.begin) * s.width);
    const double first = sum_images<V>(sums, images), moved = first / count;
    moments[c] = {count, shift + moved, std::max(sum_images<V>(squares, images) - first * moved, 0.0)};
  }
  wait_for_stores();
}

template <class V>
LTH_INLINE void output_gradient_rows(const OutputGradient& f, int64_t start, PlaneRows rows, int64_t images,
                                     RowsAt<float> to) {
  constexpr int64_t parts = kParts<V>;
  const PlaneShape& s = f.shape;
  const Lanes lanes(images);
  for (int64_t c = 0; c < s.channels; ++c) {
    const float mean = f.scale ? f.mean[c] : 0, scale = f.scale ? f.scale[c] : 1;
    V constant[parts], slope[parts];
    for (int64_t p = 0; p < parts; ++p) {
      constant[p] = at<V>(lanes.one, 0)[p] * (f.scale ? f.constant[c] : 0);
      slope[p] = at<V>(lanes.one, 0)[p] * (f.scale ? f.slope[c] : 0);
    }
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      float* row = to.data + (c * to.plane + (y - rows.begin) * s.row()) * kBlock;
      if (clear_ends(s, y, row)) continue;
      const int64_t first = start + c * s.plane() + s.at_row(y);
      const V* grad = at<V>(f.grad, first);
      V* out = to_pixel<V>(row, 1);
      if (!f.scale) {
        for (int64_t i = 0; i < s.width * parts; ++i) {
          fetch(grad + i);
          out[i] = grad[i];
        }
        continue;
      }
      const V* output = at<V>(f.output, first);
      for_pixels<V>(s.width, [&](int64_t i, int64_t, int64_t p) __attribute__((always_inline)) {
        fetch(grad + i);
        fetch(output + i);
        out[i] = grad[i] * scale + constant[p] + slope[p] * (output[i] - mean);
      });
    }
  }
}

template <class V, bool kRelu, bool kNormalised>
LTH_INLINE void input_gradient_rows_as(const InputGradient& f, int64_t start, PlaneRows rows, int64_t images,
                                       RowsAt<const float> from, RowsAt<const float> x, GradientSums* sums) {
  constexpr int64_t parts = kParts<V>;
  const PlaneShape& s = f.shape;
  const bool past = goes_past<V>(f, f.to);
  for (int64_t c = 0; c < s.channels; ++c) {
    const float mean = kNormalised ? f.mean[c] : 0;
    V of_grad[kAtOnce][parts] = {}, products[kAtOnce][parts] = {};
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      const int64_t first = start + c * s.plane() + s.at_row(y), row = (y - rows.begin) * s.row() + 1;
      const V *value = at<V>(f.read.values, first), *grads = at<V>(from.data, c * from.plane + row);
      const V* passed = kRelu ? at<V>(x.data, c * x.plane + row) : nullptr;
      const V* other = f.other ? at<V>(f.other, first) : nullptr;
      V* out = to_pixel<V>(f.to, first);
      for_pixels<V>(s.width, [&](int64_t i, int64_t k, int64_t p) __attribute__((always_inline)) {
        const V zero = {};
        if (other) fetch(other + i);
        V g = other ? grads[i] + other[i] : grads[i];
        if (kRelu) g = passed[i] <= zero ? zero : g;
        if (kNormalised) {
          fetch(value + i);
          of_grad[k][p] += g;
          products[k][p] += g * (value[i] - mean);
        }
        put(out + i, g, past);
      });
    }
    if (kNormalised) sums[c] = {sum_images<V>(of_grad, images), sum_images<V>(products, images)};
  }
  wait_for_stores();
}

template <class V>
LTH_INLINE void input_gradient_rows(const InputGradient& f, int64_t start, PlaneRows rows, int64_t images,
                                    RowsAt<const float> from, RowsAt<const float> x, GradientSums* sums) {
  if (!f.mean) return input_gradient_rows_as<V, false, false>(f, start, rows, images, from, x, sums);
  if (f.read.relu) return input_gradient_rows_as<V, true, true>(f, start, rows, images, from, x, sums);
  input_gradient_rows_as<V, false, true>(f, start, rows, images, from, x, sums);
}

LTH_FOR_EACH_ISA(finish, finish_rows,
                 (const Finish& f, int64_t start, PlaneRows rows, RowsAt<float> to, PlaneRows own),
                 (f, start, rows, to, own))
LTH_FOR_EACH_ISA(copy_out, copy_out_rows,
                 (const CopyOut& f, int64_t start, PlaneRows rows, int64_t images, RowsAt<const float> from,
                  Moments* moments),
                 (f, start, rows, images, from, moments))
LTH_FOR_EACH_ISA(output_gradient, output_gradient_rows,
                 (const OutputGradient& f, int64_t start, PlaneRows rows, int64_t images, RowsAt<float> to),
                 (f, start, rows, images, to))
LTH_FOR_EACH_ISA(input_gradient, input_gradient_rows,
                 (const InputGradient& f, int64_t start, PlaneRows rows, int64_t images,
                  RowsAt<const float> from, RowsAt<const float> x, GradientSums* sums),
                 (f, start, rows, images, from, x, sums))

}  // namespace

void Finish::operator()(int64_t start, PlaneRows rows, RowsAt<float> to, PlaneRows own) const {
  LTH_OF_THIS_CPU(finish)(*this, start, rows, to, own);
}

void CopyOut::operator()(int64_t start, PlaneRows rows, int64_t images, RowsAt<const float> from,
                         Moments* moments) const {
  LTH_OF_THIS_CPU(copy_out)(*this, start, rows, images, from, moments);
}

void OutputGradient::operator()(int64_t start, PlaneRows rows, int64_t images, RowsAt<float> to) const {
  LTH_OF_THIS_CPU(output_gradient)(*this, start, rows, images, to);
}

void InputGradient::operator()(int64_t start, PlaneRows rows, int64_t images, RowsAt<const float> from,
                               RowsAt<const float> x, GradientSums* sums) const {
  LTH_OF_THIS_CPU(input_gradient)(*this, start, rows, images, from, x, sums);
}

}  // namespace lth
