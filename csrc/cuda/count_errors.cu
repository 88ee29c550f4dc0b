#include "../common/interpolation.h"
#include "launch.h"

namespace lth {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kRowsPerBlock = 64;
constexpr unsigned kFullWarp = 0xffffffffu;

__device__ __forceinline__ bool ranks_higher(float z, int64_t c, float best, int64_t best_class) {
  if (isnan(z) != isnan(best)) return isnan(z);
  return z > best || (!(z < best) && c < best_class);  // ties, NaN among them, go to the lowest class
}

// Each warp takes rows one after another; each block writes its sums to partial[network, block].
__global__ void __launch_bounds__(kThreads)
    count_kernel(const LogitsBatch batch, double* __restrict__ partial_loss,
                 int64_t* __restrict__ partial_errors) {
  __shared__ double losses[kWarps];
  __shared__ int64_t errors[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t network = blockIdx.y, begin = int64_t(blockIdx.x) * kRowsPerBlock;
  const int64_t end = begin + kRowsPerBlock < batch.num_rows ? begin + kRowsPerBlock : batch.num_rows;
  double loss = 0;
  int64_t wrong = 0;
  for (int64_t row = begin + warp; row < end; row += kWarps) {
    const float* z = batch.logits + (network * batch.num_rows + row) * batch.num_classes;
    float best = z[0];
    int64_t best_class = 0;
    for (int64_t c = lane; c < batch.num_classes; c += 32)
      if (ranks_higher(z[c], c, best, best_class)) best = z[c], best_class = c;
    for (int distance = 16; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(kFullWarp, best, distance);
      const int64_t other_class = __shfl_xor_sync(kFullWarp, best_class, distance);
      if (ranks_higher(other, other_class, best, best_class)) best = other, best_class = other_class;
    }
    float sum = 0;
    for (int64_t c = lane; c < batch.num_classes; c += 32) sum += expf(z[c] - best);
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(kFullWarp, sum, distance);
    const int64_t label = batch.labels[row];
    const bool valid = label >= 0 && label < batch.num_classes;
    loss += valid ? log(double(sum)) + (double(best) - z[label]) : nan("");
    wrong += best_class != label;
  }
  if (lane == 0) {
    losses[warp] = loss;
    errors[warp] = wrong;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kWarps; ++w) {
      loss += losses[w];
      wrong += errors[w];
    }
    partial_loss[network * gridDim.x + blockIdx.x] = loss;
    partial_errors[network * gridDim.x + blockIdx.x] = wrong;
  }
}

// One block a network adds its partial sums, always in the same order.
__global__ void __launch_bounds__(kThreads)
    sum_kernel(const double* __restrict__ partial_loss, const int64_t* __restrict__ partial_errors,
               int64_t num_partials, double* __restrict__ loss_sum, int64_t* __restrict__ num_errors) {
  __shared__ double losses[kThreads];
  __shared__ int64_t errors[kThreads];
  const int64_t network = blockIdx.x;
  double loss = 0;
  int64_t wrong = 0;
  for (int64_t i = threadIdx.x; i < num_partials; i += kThreads) {
    loss += partial_loss[network * num_partials + i];
    wrong += partial_errors[network * num_partials + i];
  }
  losses[threadIdx.x] = loss;
  errors[threadIdx.x] = wrong;
  __syncthreads();
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      losses[threadIdx.x] += losses[threadIdx.x + half];
      errors[threadIdx.x] += errors[threadIdx.x + half];
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    loss_sum[network] = losses[0];
    num_errors[network] = errors[0];
  }
}

}  // namespace

int64_t count_errors_num_blocks(int64_t num_rows) { return (num_rows + kRowsPerBlock - 1) / kRowsPerBlock; }

void count_errors_cuda(const LogitsBatch& batch, double* partial_loss, int64_t* partial_errors,
                       double* loss_sum, int64_t* num_errors, void* stream) {
  if (batch.num_networks == 0) return;
  const auto s = static_cast<cudaStream_t>(stream);
  const int64_t num_blocks = count_errors_num_blocks(batch.num_rows);
  if (num_blocks > 0) {
    const dim3 grid(unsigned(num_blocks), unsigned(batch.num_networks));
    LTH_LAUNCH(count_kernel, grid, kThreads, 0, s, batch, partial_loss, partial_errors);
  }
  LTH_LAUNCH(sum_kernel, unsigned(batch.num_networks), kThreads, 0, s, partial_loss, partial_errors,
             num_blocks, loss_sum, num_errors);
}

}  // namespace lth
