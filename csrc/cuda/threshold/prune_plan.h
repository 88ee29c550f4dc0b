// What one call of pruning by rank needs, as the host lays it out.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "cuda/threshold/select.h"

namespace lth {

struct GroupEntry {
  Count rank;
  int64_t start, num_weights;
  uint32_t first_chunk, num_chunks, first_sample;
};

inline size_t padded(size_t bytes) { return (bytes + 15) / 16 * 16; }

inline uint32_t num_chunks(const ScoreTensor& t) {
  return static_cast<uint32_t>((t.numel + kSpan - 1) / kSpan);
}

// The groups of a call, and how many of what it needs.
struct PrunePlan {
  std::vector<GroupEntry> groups;
  std::vector<size_t> order;  // of the tensors that have weights: by group, then by their place in the list
  int64_t weights = 0;
  uint32_t chunks = 0, samples = 0;

  PrunePlan(const ScoreTensor* tensors, size_t num_tensors, const int64_t* num_pruned, size_t num_groups)
      : groups(num_groups) {
    for (size_t i = 0; i < num_tensors; ++i) {
      GroupEntry& group = groups[static_cast<size_t>(tensors[i].group)];
      group.num_weights += tensors[i].numel;
      group.num_chunks += num_chunks(tensors[i]);
      if (tensors[i].numel > 0) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return tensors[a].group < tensors[b].group; });
    for (size_t g = 0; g < num_groups; ++g) {
      GroupEntry& group = groups[g];
      group.rank = num_pruned ? static_cast<Count>(num_pruned[g]) : 0;
      group.start = weights;
      group.num_chunks = (group.num_chunks + kWarps - 1) / kWarps * kWarps;
      group.first_chunk = chunks;
      group.first_sample = samples;
      weights += group.num_weights;
      chunks += group.num_chunks;
      samples += static_cast<uint32_t>(num_samples(group.num_weights));
    }
  }

  // Sets where everything lies from `memory` on, and returns the bytes of it.
  size_t place(Work& work, char* memory) const {
    size_t used = 0;
    const auto take = [&](auto*& pointer, int64_t count) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(memory + used);
      used += padded(static_cast<size_t>(count) * sizeof(*pointer));
    };
    const auto num_groups = static_cast<int64_t>(groups.size());
    take(work.chunks, chunks);
    take(work.counts, chunks);
    take(work.ties, chunks);
    take(work.groups, num_groups);
    take(work.bins, num_groups * kBins);
    take(work.samples, samples);
    take(work.keys, key_place(weights));
    take(work.positions, key_place(weights));
    take(work.finalists, finalist_place(weights));
    work.num_chunks = chunks;
    work.num_groups = static_cast<unsigned>(num_groups);
    return used;
  }
};

// Writes the tables of a call to the workspace, clears its counters, and takes a sample of each group's keys
// if `sampled`. `stream` is a cudaStream_t.
void prepare(const PrunePlan& plan, const ScoreTensor* tensors, size_t num_tensors, const Work& work,
             bool sampled, bool magnitude, void* stream);

}  // namespace lth
