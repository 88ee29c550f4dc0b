// The first launch of pruning by rank: tables, cleared counters, and samples.
#include "cuda/launch.h"
#include "cuda/threshold/prune_plan.h"

namespace lth {
namespace {

struct TensorEntry {
  const void* scores;
  const uint32_t* mask;
  uint32_t* pruned;
  int64_t start, numel;  // start: in the weights of all groups, one group after the other
  uint32_t first_chunk;
  int32_t tensor, group;
  ScoreType type;
};

// The tables travel as a kernel argument: no upload, and nothing that the host must keep. Where they do not
// fit, in several of these; a group may then be in two of them.
template <int kRoom>
struct Slice {
  TensorEntry tensors[kRoom];
  GroupEntry groups[kRoom];
  int num_tensors = 0, num_groups = 0, first_group = 0;
  uint32_t end_chunk = 0;
  int num_tensors_of_call = 0;  // in the first slice, which clears what is theirs
};
constexpr int kFew = 40, kMany = kManyArgumentBytes > kFewArgumentBytes ? 335 : kFew;
using FewTensors = Slice<kFew>;
using ManyTensors = Slice<kMany>;
static_assert(sizeof(FewTensors) + sizeof(Work) <= kFewArgumentBytes);
static_assert(sizeof(ManyTensors) + sizeof(Work) <= kManyArgumentBytes);

template <int kRoom>
__device__ inline void write_tables(const Slice<kRoom>& slice, const Work& work, int64_t thread,
                                    int64_t stride) {
  for (int64_t i = thread; i < slice.num_groups; i += stride) {
    const GroupEntry& entry = slice.groups[i];
    GroupState group{};
    group.rank = group.left = entry.rank;
    group.start = entry.start;
    group.num_weights = entry.num_weights;
    group.first_chunk = entry.first_chunk;
    group.num_chunks = entry.num_chunks;
    group.first_sample = entry.first_sample;
    group.last = 0xffffffffu;
    const int64_t g = slice.first_group + i;
    work.groups[g] = group;
    // What holds for a group without weights.
    work.tally.threshold[g] = __uint_as_float(kInfinityBits | 0x80000000u);
    work.tally.status[g] = entry.rank > 0 ? PruneStatus::kTooMany : PruneStatus::kFound;
  }
  if (slice.num_tensors == 0) return;
  for (int64_t c = slice.tensors[0].first_chunk + thread; c < slice.end_chunk; c += stride) {
    const int i = last_not_behind(slice.num_tensors, c, [&](int t) { return slice.tensors[t].first_chunk; });
    const TensorEntry& entry = slice.tensors[i];
    const int64_t begin = (c - entry.first_chunk) * kSpan, left = entry.numel - begin;
    Chunk chunk{};
    chunk.tensor = entry.tensor;
    chunk.group = entry.group;
    chunk.type = entry.type;
    if (left > 0) {
      chunk.scores =
          static_cast<const char*>(entry.scores) + begin * (entry.type == ScoreType::kFloat32 ? 4 : 2);
      chunk.mask = entry.mask + begin / 32;
      chunk.pruned = entry.pruned + begin / 32;
      chunk.length = static_cast<int32_t>(left < kSpan ? left : kSpan);
    }
    work.chunks[c] = chunk;
  }
}

template <int kRoom>
__device__ inline void take_samples(const Slice<kRoom>& slice, const Work& work, bool magnitude,
                                    int64_t thread, int64_t stride) {
  if (slice.num_tensors == 0) return;
  const TensorEntry& last = slice.tensors[slice.num_tensors - 1];
  const GroupEntry& last_group = slice.groups[slice.num_groups - 1];
  const int64_t end = last_group.first_sample + num_samples(last_group.num_weights);
  for (int64_t s = slice.groups[0].first_sample + thread; s < end; s += stride) {
    const int g = last_not_behind(slice.num_groups, s, [&](int i) { return slice.groups[i].first_sample; });
    const GroupEntry& group = slice.groups[g];
    const int64_t place =
        group.start + sample_place(s - group.first_sample, num_samples(group.num_weights), group.num_weights);
    if (place < slice.tensors[0].start || place >= last.start + last.numel) continue;  // in another slice
    const int t = last_not_behind(slice.num_tensors, place, [&](int i) { return slice.tensors[i].start; });
    const TensorEntry& entry = slice.tensors[t];
    const int64_t i = place - entry.start;
    const bool survives = entry.mask[i / 32] >> (i % 32) & 1u;
    work.samples[s] = survives ? score_key(widen(entry.scores, i, entry.type), magnitude) : kAboveAll;
  }
}

template <int kRoom>
__device__ inline void prepare_slice(const Slice<kRoom>& slice, const Work& work, bool sampled,
                                     bool magnitude) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  if (slice.num_tensors_of_call > 0) {
    for (int64_t i = thread; i < 2 * slice.num_tensors_of_call; i += stride) work.tally.counts[i] = 0;
    const int64_t num_bins = static_cast<int64_t>(work.num_groups) * kBins;
    for (int64_t i = thread; i < num_bins; i += stride) work.bins[i] = 0;
  }
  write_tables(slice, work, thread, stride);
  if (sampled) take_samples(slice, work, magnitude, thread, stride);
}

__global__ void __launch_bounds__(kThreads)
    prepare_few_kernel(const __grid_constant__ FewTensors slice, Work work, bool sampled, bool magnitude) {
  prepare_slice(slice, work, sampled, magnitude);
}

__global__ void __launch_bounds__(kThreads)
    prepare_many_kernel(const __grid_constant__ ManyTensors slice, Work work, bool sampled, bool magnitude) {
  prepare_slice(slice, work, sampled, magnitude);
}

constexpr int64_t kMaxBlocks = 1024;  // their threads take several items each

// Calls launch(slice) with each slice of the tables.
template <int kRoom, class Launch>
void slice_tables(const PrunePlan& plan, const ScoreTensor* tensors, size_t num_tensors, Launch launch) {
  Slice<kRoom> slice{};
  slice.num_tensors_of_call = static_cast<int>(num_tensors);
  const auto begin_anew = [&] {
    launch(slice);
    slice.num_tensors = slice.num_groups = slice.num_tensors_of_call = 0;
  };
  size_t next = 0;
  for (size_t g = 0; g < plan.groups.size(); ++g) {
    if (slice.num_groups == kRoom) begin_anew();
    uint32_t chunk = plan.groups[g].first_chunk;
    int64_t start = plan.groups[g].start;
    const auto add_group = [&] {
      if (slice.num_groups == 0) slice.first_group = static_cast<int>(g);
      slice.groups[slice.num_groups++] = plan.groups[g];
    };
    add_group();
    for (; next < plan.order.size() && tensors[plan.order[next]].group == static_cast<int32_t>(g); ++next) {
      if (slice.num_tensors == kRoom) {
        begin_anew();
        add_group();
      }
      const auto i = static_cast<int32_t>(plan.order[next]);
      const ScoreTensor& t = tensors[i];
      slice.tensors[slice.num_tensors++] = {t.scores, t.mask, t.pruned, start, t.numel,
                                            chunk,    i,      t.group,  t.type};
      start += t.numel;
      chunk += num_chunks(t);
      slice.end_chunk = chunk;
    }
    slice.end_chunk = plan.groups[g].first_chunk + plan.groups[g].num_chunks;
  }
  launch(slice);
}

}  // namespace

void prepare(const PrunePlan& plan, const ScoreTensor* tensors, size_t num_tensors, const Work& work,
             bool sampled, bool magnitude, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  const size_t num_groups = plan.groups.size();
  const int64_t items =
      std::max<int64_t>({plan.chunks, plan.samples, static_cast<int64_t>(num_groups) * kBins});
  const auto blocks = static_cast<unsigned>(std::min(kMaxBlocks, (items + kThreads - 1) / kThreads));
  if (takes_many_argument_bytes() && std::max(plan.order.size(), num_groups) > kFew) {
    slice_tables<kMany>(plan, tensors, num_tensors, [&](const ManyTensors& slice) {
      LTH_LAUNCH(prepare_many_kernel, blocks, kThreads, 0, s, slice, work, sampled, magnitude);
    });
  } else {
    slice_tables<kFew>(plan, tensors, num_tensors, [&](const FewTensors& slice) {
      LTH_LAUNCH(prepare_few_kernel, blocks, kThreads, 0, s, slice, work, sampled, magnitude);
    });
  }
}

}  // namespace lth
