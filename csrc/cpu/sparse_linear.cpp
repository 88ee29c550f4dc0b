#include "sparse_linear.h"

#include <cstring>

#include "common/parallel.h"
#include "cpu/conv/image_blocks.h"

// The sums here are those of a matrix product, which no two implementations round alike: fma is welcome.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int64_t kRowsPerItem = 8;
constexpr int kAtOnce = 8;  // vectors of a row's sums, which stay in registers while its weights go by

template <class V>
inline constexpr int64_t kLanes = sizeof(V) / sizeof(float);

// Rows begin anywhere, and a template's argument has no alignment of its own.
template <class V>
LTH_INLINE V load(const float* pointer) {
  V vector;
  std::memcpy(&vector, pointer, sizeof(V));
  return vector;
}

template <class V, int kVectors>
LTH_INLINE void columns(const SparseProduct& p, int64_t row, int64_t column) {
  V sums[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) sums[v] = V{} + (p.bias ? p.bias[row] : 0.0f);
  for (int32_t i = p.ptr[row]; i < p.ptr[row + 1]; ++i) {
    const float weight = p.values[p.order ? p.order[i] : i];
    const float* x = p.input + p.index[i] * p.num_images + column;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[v] += weight * load<V>(x + v * kLanes<V>);
  }
  float* out = p.output + row * p.num_images + column;
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) std::memcpy(out + v * kLanes<V>, &sums[v], sizeof(V));
}

template <class V>
LTH_INLINE void product(const SparseProduct& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    int64_t column = 0;
    for (; column + kAtOnce * kLanes<V> <= p.num_images; column += kAtOnce * kLanes<V>)
      columns<V, kAtOnce>(p, row, column);
    for (; column + kLanes<V> <= p.num_images; column += kLanes<V>) columns<V, 1>(p, row, column);
    for (; column < p.num_images; ++column) columns<float, 1>(p, row, column);
  }
}

template <class V>
LTH_INLINE void gradient(const SparseProductGradient& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* grad = p.grad + row * p.num_images;
    for (int32_t i = p.ptr[row]; i < p.ptr[row + 1]; ++i) {
      const float* x = p.input + p.index[i] * p.num_images;
      V first{}, second{};
      int64_t column = 0;
      for (; column + 2 * kLanes<V> <= p.num_images; column += 2 * kLanes<V>) {
        first += load<V>(x + column) * load<V>(grad + column);
        second += load<V>(x + column + kLanes<V>) * load<V>(grad + column + kLanes<V>);
      }
      for (; column + kLanes<V> <= p.num_images; column += kLanes<V>)
        first += load<V>(x + column) * load<V>(grad + column);
      first += second;
      float sum = 0;
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes<V>; ++lane) sum += first[lane];
      for (; column < p.num_images; ++column) sum += x[column] * grad[column];
      p.output[i] = sum;
    }
  }
}

LTH_FOR_EACH_ISA(product_rows, product, (const SparseProduct& p, int64_t begin, int64_t end), (p, begin, end))
LTH_FOR_EACH_ISA(gradient_rows, gradient, (const SparseProductGradient& p, int64_t begin, int64_t end),
                 (p, begin, end))

}  // namespace

void sparse_product_cpu(const SparseProduct& product) {
  const auto run = LTH_OF_THIS_CPU(product_rows);
  auto body = [&](int64_t begin, int64_t end) { run(product, begin, end); };
  parallel_for(product.num_rows, kRowsPerItem, body);
}

void sparse_product_gradient_cpu(const SparseProductGradient& gradient) {
  const auto run = LTH_OF_THIS_CPU(gradient_rows);
  auto body = [&](int64_t begin, int64_t end) { run(gradient, begin, end); };
  parallel_for(gradient.num_rows, kRowsPerItem, body);
}

}  // namespace lth
