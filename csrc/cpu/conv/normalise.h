// What a layer does with some rows of a block beside its sums (convolution_layer.h): between tensors without
// a border, and rows of planes with one that lie in the cache. Rows are counted with the border, which is 0
// and height + 1.
#pragma once

#include <cstdint>

#include "convolution_layer.h"

namespace lth {

struct PlaneShape {
  int64_t channels, height, width;
  // Of tensors, in blocks of 16 images.
  int64_t plane() const { return height * width; }
  int64_t block() const { return channels * plane(); }
  int64_t at_row(int64_t y) const { return (y - 1) * width; }
  // Of planes with a border.
  int64_t row() const { return width + 2; }
};

struct PlaneRows {
  int64_t begin, end;
};

// Rows of planes in the cache: of the first plane the first one, and from one plane to the next in blocks of
// 16 images.
template <class Float>
struct RowsAt {
  Float* data;
  int64_t plane;
};

// Of the pixels of some rows of a channel: how many, their mean, and the squares of what is left without it.
struct Moments {
  double count, mean, squares;
};

struct GradientSums {
  double sum, product;  // of g, of g (y - mean)
};

// Operands of all of these are those of `num_blocks` blocks; the block at work is their part from `start` on.
struct OfPlanes {
  PlaneShape shape;
  int64_t num_blocks;
};

// x of rows, at `to`; and of rows `own` at read.kept.
struct Finish : OfPlanes {
  Read read;
  const float *scale, *offset;  // [channels], of y: offset = bias - scale mean; nullptr where y is finished
  void operator()(int64_t start, PlaneRows rows, RowsAt<float> to, PlaneRows own) const;
};

// Copies rows to a tensor; and finds their moments over so many images, [channels], or not (nullptr).
struct CopyOut : OfPlanes {
  float* to;
  void operator()(int64_t start, PlaneRows rows, int64_t images, RowsAt<const float> from,
                  Moments* moments) const;
};

// The gradient of an output, at `to`: scale grad + constant + slope (y - mean) of the images, [channels]
// each, or grad itself (scale is nullptr).
struct OutputGradient : OfPlanes {
  const float *grad, *output;
  const float *scale, *mean, *constant, *slope;
  void operator()(int64_t start, PlaneRows rows, int64_t images, RowsAt<float> to) const;
};

// From the gradient of x, `from` and what `other` adds, that which is handed back for y, and the sums of
// rows, [channels]. Where a relu is passed, x is at `x`. Without mean y is finished, and there are no sums.
struct InputGradient : OfPlanes {
  Read read;
  const float* mean;
  const float* other;  // or nullptr
  float* to;
  void operator()(int64_t start, PlaneRows rows, int64_t images, RowsAt<const float> from,
                  RowsAt<const float> x, GradientSums* sums) const;
};

}  // namespace lth
