// Masked update on CUDA. A block takes kSpan weights of one tensor, four at a time where the addresses allow;
// the table of tensors travels as a kernel argument, so a step needs no upload and can be captured in a
// graph: one launch for up to 370 tensors, or for 46 each on a driver before CUDA 12.1. Each block writes one
// partial of the squared distance; a second kernel sums them in a fixed order.
//
// Bytes per weight, calculated: 20 + 1/8 for SGD with momentum, 28 + 1/8 for AdamW, and 4 more with an
// anchor. At 3.35 TB/s (calculated, not measured) a step of ResNet-50 with anchors is 0.18 ms.
#include "common/update_rule.h"
#include "cuda/launch.h"
#include "masked_update.h"

namespace lth {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPerThread = 16;
constexpr int64_t kSpan = kThreads * kPerThread;
constexpr unsigned kFullWarp = 0xffffffffu;

template <int kRoom>
struct Table {
  UpdateTensor tensors[kRoom];
  unsigned first_block[kRoom];
  int num_tensors;
};
constexpr int kFew = 46, kMany = kManyArgumentBytes > kFewArgumentBytes ? 370 : kFew;
constexpr size_t kOtherArgumentBytes = sizeof(AdamWOptions) + 2 * sizeof(void*);
static_assert(sizeof(Table<kFew>) + kOtherArgumentBytes <= kFewArgumentBytes);
static_assert(sizeof(Table<kMany>) + kOtherArgumentBytes <= kManyArgumentBytes);

struct SgdRule {
  using Options = SgdOptions;
  static constexpr bool kSecond = false;

  // Only the anchor stays a constant of the kernel's copies: what else differs is the same for a whole block.
  template <bool kAnchor>
  static __device__ __forceinline__ void update(const Options& o, const UpdateTensor& t, float, float,
                                                float& w, float g, float& b, float&, float a, uint32_t kept,
                                                float& squared) {
    if (!t.first) {
      sgd_update(o, SgdKind::kPlain, kAnchor, w, g, b, a, kept, squared);
    } else if (t.is_first_step) {
      sgd_update(o, o.nesterov ? SgdKind::kFirstNesterov : SgdKind::kFirst, kAnchor, w, g, b, a, kept,
                 squared);
    } else {
      sgd_update(o, o.nesterov ? SgdKind::kNesterov : SgdKind::kMomentum, kAnchor, w, g, b, a, kept, squared);
    }
  }
};

struct AdamWRule {
  using Options = AdamWOptions;
  static constexpr bool kSecond = true;

  template <bool kAnchor>
  static __device__ __forceinline__ void update(const Options& o, const UpdateTensor&, float step_size,
                                                float correction, float& w, float g, float& m, float& v,
                                                float a, uint32_t kept, float& squared) {
    adamw_update(o, step_size, correction, kAnchor, w, g, m, v, a, kept, squared);
  }
};

__device__ inline double power(double base, long long exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent >>= 1, base *= base) {
    if (exponent & 1) result *= base;
  }
  return result;
}

// With the learning rate or the step's number on the device, the scalars that depend on them.
__device__ inline void read_scalars(SgdOptions& o, const UpdateTensor&, const float* lr, float&, float&) {
  if (lr) o.lr = *lr;
}
__device__ inline void read_scalars(AdamWOptions& o, const UpdateTensor& t, const float* lr, float& step_size,
                                    float& correction) {
  if (lr) {
    o.lr = *lr;
    o.decay = 1.0f - o.lr * o.weight_decay;
  }
  if (t.step) {
    const auto step = static_cast<long long>(*t.step);
    step_size = static_cast<float>(o.lr / (1.0 - power(o.exact_beta1, step)));
    correction = static_cast<float>(sqrt(1.0 - power(o.exact_beta2, step)));
  }
}

__device__ inline bool aligned(const void* pointer) {
  return reinterpret_cast<uint64_t>(pointer) % sizeof(float4) == 0;
}

__device__ inline float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ inline void store4(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }

// This thread's share of weights [begin, end); returns its squared distance.
template <class Rule, bool kAnchor>
__device__ __forceinline__ float update_span(const typename Rule::Options& o, const UpdateTensor& t,
                                             float step_size, float correction, int64_t begin, int64_t end) {
  float squared = 0.0f;
  const bool wide =
      aligned(t.weight) && aligned(t.grad) && aligned(t.first) && aligned(t.second) && aligned(t.anchor);
  const int64_t wide_end = wide ? begin + (end - begin) / 4 * 4 : begin;
  for (int64_t i = begin + 4 * static_cast<int64_t>(threadIdx.x); i < wide_end; i += 4 * kThreads) {
    const uint32_t bits = t.mask ? t.mask[i / 32] >> (i % 32) : 0xfu;
    const float4 g = load4(t.grad + i);
    float4 w = load4(t.weight + i), b{}, v{}, a{};
    if (t.first) b = load4(t.first + i);
    if (Rule::kSecond) v = load4(t.second + i);
    if (kAnchor) a = load4(t.anchor + i);
    Rule::template update<kAnchor>(o, t, step_size, correction, w.x, g.x, b.x, v.x, a.x, 0u - (bits & 1u),
                                   squared);
    Rule::template update<kAnchor>(o, t, step_size, correction, w.y, g.y, b.y, v.y, a.y,
                                   0u - (bits >> 1 & 1u), squared);
    Rule::template update<kAnchor>(o, t, step_size, correction, w.z, g.z, b.z, v.z, a.z,
                                   0u - (bits >> 2 & 1u), squared);
    Rule::template update<kAnchor>(o, t, step_size, correction, w.w, g.w, b.w, v.w, a.w,
                                   0u - (bits >> 3 & 1u), squared);
    store4(t.weight + i, w);
    if (t.first) store4(t.first + i, b);
    if (Rule::kSecond) store4(t.second + i, v);
  }
  for (int64_t i = wide_end + threadIdx.x; i < end; i += kThreads) {
    const uint32_t bits = t.mask ? t.mask[i / 32] >> (i % 32) : 1u;
    float w = t.weight[i], b = t.first ? t.first[i] : 0.0f, v = Rule::kSecond ? t.second[i] : 0.0f;
    Rule::template update<kAnchor>(o, t, step_size, correction, w, t.grad[i], b, v,
                                   kAnchor ? t.anchor[i] : 0.0f, 0u - (bits & 1u), squared);
    t.weight[i] = w;
    if (t.first) t.first[i] = b;
    if (Rule::kSecond) t.second[i] = v;
  }
  return squared;
}

// The squared distance of weights that take no step.
__device__ inline float distance_span(const UpdateTensor& t, int64_t begin, int64_t end) {
  float squared = 0.0f;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const uint32_t bit = t.mask ? t.mask[i / 32] >> (i % 32) & 1u : 1u;
    squared = squared_step(t.weight[i], t.anchor[i], 0u - bit, squared);
  }
  return squared;
}

// The sum of a value over the block, in thread 0: by shuffles in each warp, then over the warps in order.
__device__ inline double block_sum(double value) {
  __shared__ double warps[kWarps];
  for (unsigned delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(kFullWarp, value, delta);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0.0;
  for (int w = 0; threadIdx.x == 0 && w < kWarps; ++w) total += warps[w];
  return total;
}

template <class Rule, int kRoom>
__device__ __forceinline__ void update_block(const Table<kRoom>& table, const typename Rule::Options& options,
                                             const float* lr, double* partials) {
  const int found =
      last_not_behind(table.num_tensors, blockIdx.x, [&](int i) { return table.first_block[i]; });
  const UpdateTensor t = table.tensors[found];
  typename Rule::Options o = options;
  float step_size = t.step_size, correction = t.correction;
  read_scalars(o, t, lr, step_size, correction);
  const int64_t begin = static_cast<int64_t>(blockIdx.x - table.first_block[found]) * kSpan;
  const int64_t end = begin + kSpan < t.numel ? begin + kSpan : t.numel;
  float squared = 0.0f;
  if (t.grad) {
    squared = t.anchor ? update_span<Rule, true>(o, t, step_size, correction, begin, end)
                       : update_span<Rule, false>(o, t, step_size, correction, begin, end);
  } else if (t.anchor) {
    squared = distance_span(t, begin, end);
  }
  if (partials) {
    const double total = block_sum(squared);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
  }
}

template <class Rule>
__global__ void __launch_bounds__(kThreads)
    update_few_kernel(const __grid_constant__ Table<kFew> table, const typename Rule::Options options,
                      const float* lr, double* partials) {
  update_block<Rule>(table, options, lr, partials);
}

template <class Rule>
__global__ void __launch_bounds__(kThreads)
    update_many_kernel(const __grid_constant__ Table<kMany> table, const typename Rule::Options options,
                       const float* lr, double* partials) {
  update_block<Rule>(table, options, lr, partials);
}

// Thread i sums every kThreads-th partial from i on, then the threads' sums are added as in every block.
__global__ void __launch_bounds__(kThreads)
    sum_kernel(const double* partials, int64_t count, double* distance) {
  double sum = 0.0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += partials[i];
  const double total = block_sum(sum);
  if (threadIdx.x == 0) *distance = total;
}

int64_t num_blocks(const UpdateTensor& t) { return (t.numel + kSpan - 1) / kSpan; }

// Calls launch(table, number of its blocks, number of the blocks before them) until all tensors with
// something to do had their turn; returns the number of all blocks.
template <int kRoom, class Launch>
int64_t launch_tables(const UpdateTensor* tensors, size_t count, Launch launch) {
  Table<kRoom> table;
  table.num_tensors = 0;
  int64_t blocks = 0, before = 0;
  const auto flush = [&] {
    if (table.num_tensors == 0) return;
    launch(table, static_cast<unsigned>(blocks), before);
    before += blocks;
    table.num_tensors = 0;
    blocks = 0;
  };
  for (size_t i = 0; i < count; ++i) {
    if (tensors[i].numel == 0 || (!tensors[i].grad && !tensors[i].anchor)) continue;
    table.tensors[table.num_tensors] = tensors[i];
    table.first_block[table.num_tensors++] = static_cast<unsigned>(blocks);
    blocks += num_blocks(tensors[i]);
    if (table.num_tensors == kRoom) flush();
  }
  flush();
  return before;
}

template <class Rule>
void launch(const UpdateTensor* tensors, size_t count, const typename Rule::Options& options, const float* lr,
            double* partials, double* distance, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  int64_t written;
  if (count > kFew && takes_many_argument_bytes()) {
    written = launch_tables<kMany>(tensors, count, [&](const auto& table, unsigned blocks, int64_t before) {
      LTH_LAUNCH(update_many_kernel<Rule>, blocks, kThreads, 0, s, table, options, lr,
                 distance ? partials + before : nullptr);
    });
  } else {
    written = launch_tables<kFew>(tensors, count, [&](const auto& table, unsigned blocks, int64_t before) {
      LTH_LAUNCH(update_few_kernel<Rule>, blocks, kThreads, 0, s, table, options, lr,
                 distance ? partials + before : nullptr);
    });
  }
  if (distance) LTH_LAUNCH(sum_kernel, 1, kThreads, 0, s, partials, written, distance);
}

}  // namespace

int64_t num_partials_cuda(const UpdateTensor* tensors, size_t count) {
  int64_t total = 0;
  for (size_t i = 0; i < count; ++i) total += num_blocks(tensors[i]);
  return total;
}

void sgd_cuda(const UpdateTensor* tensors, size_t count, const SgdOptions& options, const float* lr,
              double* partials, double* distance, void* stream) {
  launch<SgdRule>(tensors, count, options, lr, partials, distance, stream);
}

void adamw_cuda(const UpdateTensor* tensors, size_t count, const AdamWOptions& options, const float* lr,
                double* partials, double* distance, void* stream) {
  launch<AdamWRule>(tensors, count, options, lr, partials, distance, stream);
}

}  // namespace lth
