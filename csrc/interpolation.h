// The operators of batched interpolation evaluation (equations in lthbench/ops/interpolation.py). Pointers
// are to contiguous memory of the device in the function's name; `stream` is a cudaStream_t. The caller has
// checked them.
#pragma once

#include <cstdint>

namespace lth {

struct LerpPair {
  const float* a;  // [count]
  const float* b;  // [count]
  float* out;      // [num_points, count]
  int64_t count;
};

// out[k] = line_point(a, b, alphas[k]) of each pair; relu: max(that, 0). alphas is on the device of the
// pairs.
void lerp_pairs_cpu(const LerpPair* pairs, int64_t num_pairs, const float* alphas, int64_t num_points,
                    bool relu);
void lerp_pairs_cuda(const LerpPair* pairs, int64_t num_pairs, const float* alphas, int64_t num_points,
                     bool relu, void* stream);

// The second layer of K networks whose first layer sees the same input: for network k, row i, column n
//   out = bias[k, n] + sum_h max(line_point(a[i, h], b[i, h], alphas[k]), 0) * weight[k, h, n]
struct LerpLinear {
  const float* a;       // [num_rows, num_hidden]
  const float* b;       // [num_rows, num_hidden]
  const float* alphas;  // [num_points]
  const float* weight;  // [num_points, num_hidden, num_columns]
  const float* bias;    // [num_points, num_columns]
  float* out;           // [num_points, num_rows, num_columns]
  int64_t num_points, num_rows, num_hidden;
  int64_t num_columns;  // a multiple of 16
  bool relu;            // max(out, 0)
};

void lerp_linear_cpu(const LerpLinear& layer);

struct LogitsBatch {
  const float* logits;    // [num_networks, num_rows, num_classes]
  const int64_t* labels;  // [num_rows]
  int64_t num_networks, num_rows, num_classes;
};

// loss_sum, num_errors: [num_networks].
void count_errors_cpu(const LogitsBatch& batch, double* loss_sum, int64_t* num_errors);

// partial_loss and partial_errors are scratch of count_errors_num_blocks(num_rows) * num_networks entries.
int64_t count_errors_num_blocks(int64_t num_rows);
void count_errors_cuda(const LogitsBatch& batch, double* partial_loss, int64_t* partial_errors,
                       double* loss_sum, int64_t* num_errors, void* stream);

}  // namespace lth
