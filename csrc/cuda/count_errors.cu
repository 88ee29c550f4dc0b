#include "cuda/launch.h"
#include "interpolation.h"

namespace lth {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kRowsPerBlock = 64;
constexpr int kFewClasses = 16;
constexpr unsigned kFullWarp = 0xffffffffu;

__device__ __forceinline__ bool ranks_higher(float z, int64_t c, float best, int64_t best_class) {
  if (isnan(z) != isnan(best)) return isnan(z);
  return z > best || (!(z < best) && c < best_class);  // ties, NaN among them, go to the lowest class
}

// Adds this thread's loss and errors over the block, and writes them to partial[network, block].
template <int kWarpsOfBlock>
__device__ __forceinline__ void write_partial(double loss, int64_t wrong, double* partial_loss,
                                              int64_t* partial_errors) {
  __shared__ double losses[kWarpsOfBlock];
  __shared__ int64_t errors[kWarpsOfBlock];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) {
    losses[warp] = loss;
    errors[warp] = wrong;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kWarpsOfBlock; ++w) {
      loss += losses[w];
      wrong += errors[w];
    }
    const int64_t place = int64_t(blockIdx.y) * gridDim.x + blockIdx.x;
    partial_loss[place] = loss;
    partial_errors[place] = wrong;
  }
}

__device__ __forceinline__ double row_loss(float sum, float best, const float* z, int64_t label,
                                           int64_t num_classes) {
  const bool valid = label >= 0 && label < num_classes;
  return valid ? log(double(sum)) + (double(best) - z[label]) : nan("");
}

// Rows of at most kFewClasses classes, one thread each; a block's rows lie together and are read 16 bytes at
// a time.
__global__ void __launch_bounds__(kRowsPerBlock)
    count_short_rows_kernel(const LogitsBatch batch, double* __restrict__ partial_loss,
                            int64_t* __restrict__ partial_errors) {
  __shared__ float rows[kRowsPerBlock * kFewClasses];
  const int64_t network = blockIdx.y, begin = int64_t(blockIdx.x) * kRowsPerBlock;
  const int num_rows = int(batch.num_rows - begin < kRowsPerBlock ? batch.num_rows - begin : kRowsPerBlock);
  const int num_classes = int(batch.num_classes), count = num_rows * num_classes;
  const float* from = batch.logits + (network * batch.num_rows + begin) * batch.num_classes;
  const int wide = reinterpret_cast<uint64_t>(from) % sizeof(float4) == 0 ? count / 4 * 4 : 0;
  for (int i = 4 * int(threadIdx.x); i < wide; i += 4 * kRowsPerBlock) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    rows[i] = four.x;
    rows[i + 1] = four.y;
    rows[i + 2] = four.z;
    rows[i + 3] = four.w;
  }
  for (int i = wide + int(threadIdx.x); i < count; i += kRowsPerBlock) rows[i] = from[i];
  __syncthreads();
  double loss = 0;
  int64_t wrong = 0;
  if (int(threadIdx.x) < num_rows) {
    const float* z = rows + int(threadIdx.x) * num_classes;
    float best = z[0], sum = 0;
    int64_t best_class = 0;
    for (int c = 1; c < num_classes; ++c)
      if (ranks_higher(z[c], c, best, best_class)) best = z[c], best_class = c;
    for (int c = 0; c < num_classes; ++c) sum += expf(z[c] - best);
    const int64_t label = batch.labels[begin + threadIdx.x];
    loss = row_loss(sum, best, z, label, num_classes);
    wrong = best_class != label;
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    loss += __shfl_down_sync(kFullWarp, loss, distance);
    wrong += __shfl_down_sync(kFullWarp, wrong, distance);
  }
  write_partial<kRowsPerBlock / 32>(loss, wrong, partial_loss, partial_errors);
}

// Calls visit(logit, class) for this lane's share of a row.
template <class Visit>
__device__ __forceinline__ void visit_row(const float* z, int64_t num_classes, bool wide, Visit visit) {
  const int lane = threadIdx.x % 32;
  if (wide) {
    for (int64_t c = 4 * lane; c < num_classes; c += 128) {
      const float4 four = *reinterpret_cast<const float4*>(z + c);
      visit(four.x, c);
      visit(four.y, c + 1);
      visit(four.z, c + 2);
      visit(four.w, c + 3);
    }
  } else {
    for (int64_t c = lane; c < num_classes; c += 32) visit(z[c], c);
  }
}

// Each warp takes rows one after another.
__global__ void __launch_bounds__(kThreads)
    count_kernel(const LogitsBatch batch, double* __restrict__ partial_loss,
                 int64_t* __restrict__ partial_errors) {
  const int warp = threadIdx.x / 32;
  const int64_t network = blockIdx.y, begin = int64_t(blockIdx.x) * kRowsPerBlock;
  const int64_t end = begin + kRowsPerBlock < batch.num_rows ? begin + kRowsPerBlock : batch.num_rows;
  const bool wide =
      reinterpret_cast<uint64_t>(batch.logits) % sizeof(float4) == 0 && batch.num_classes % 4 == 0;
  double loss = 0;
  int64_t wrong = 0;
  for (int64_t row = begin + warp; row < end; row += kWarps) {
    const float* z = batch.logits + (network * batch.num_rows + row) * batch.num_classes;
    float best = z[0];
    int64_t best_class = 0;
    visit_row(z, batch.num_classes, wide, [&](float logit, int64_t c) {
      if (ranks_higher(logit, c, best, best_class)) best = logit, best_class = c;
    });
    for (int distance = 16; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(kFullWarp, best, distance);
      const int64_t other_class = __shfl_xor_sync(kFullWarp, best_class, distance);
      if (ranks_higher(other, other_class, best, best_class)) best = other, best_class = other_class;
    }
    float sum = 0;
    visit_row(z, batch.num_classes, wide, [&](float logit, int64_t) { sum += expf(logit - best); });
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(kFullWarp, sum, distance);
    const int64_t label = batch.labels[row];
    loss += row_loss(sum, best, z, label, batch.num_classes);
    wrong += best_class != label;
  }
  write_partial<kWarps>(loss, wrong, partial_loss, partial_errors);
}

// One block per network adds its partial sums, always in the same order.
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
    if (batch.num_classes <= kFewClasses) {
      LTH_LAUNCH(count_short_rows_kernel, grid, kRowsPerBlock, 0, s, batch, partial_loss, partial_errors);
    } else {
      LTH_LAUNCH(count_kernel, grid, kThreads, 0, s, batch, partial_loss, partial_errors);
    }
  }
  LTH_LAUNCH(sum_kernel, unsigned(batch.num_networks), kThreads, 0, s, partial_loss, partial_errors,
             num_blocks, loss_sum, num_errors);
}

}  // namespace lth
