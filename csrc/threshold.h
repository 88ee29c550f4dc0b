// Exact pruning by rank over a list of tensors, without concatenating or sorting them.
//
// Every tensor belongs to a group. In each group the survivors are ordered by (key, flat index in list
// order), see common/score.h, and the first num_pruned of them lose their mask bit: exactly that many,
// ties at the lowest index first. Global pruning is one group, per-layer pruning one group per tensor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/score.h"

namespace lth {

struct ScoreTensor {
  const void* scores;    // [numel], contiguous
  const uint32_t* mask;  // [ceil(numel / 32)] survivors before, zero after the last weight
  uint32_t* pruned;      // [ceil(numel / 32)] survivors after; another buffer than `mask`
  int64_t numel;
  ScoreType type;
  int32_t group;
};

struct PruneOutcome {
  float* threshold;     // [groups] score of the last pruned weight, -inf where none was
  int64_t* num_pruned;  // [tensors]
  int64_t* num_nan;     // [tensors] survivors (before) whose score is NaN
};

// Survivors of one mask.
int64_t count_bits_cpu(const uint32_t* words, int64_t num_words);

// Returns the first group that has fewer survivors than its num_pruned, or -1 and the outcome.
int64_t prune_lowest_cpu(const ScoreTensor* tensors, size_t num_tensors, const int64_t* num_pruned,
                         size_t num_groups, bool magnitude, const PruneOutcome& outcome);

// The CUDA forms. Everything that `tally` and `tensors` point to lies on the device, the lists themselves on
// the host. Pruning by a bracket reads the weights once, by digits (radix) four times; the bracket may miss
// the threshold of a group, and selection by digits follows. `workspace` has prune_workspace_bytes_cuda()
// bytes, aligned to 16.
enum class SelectBy { kBracket, kRadix };
enum class PruneStatus : int32_t {
  kFound = 0,
  kTooMany = 1,  // the group has fewer survivors than its num_pruned
  kMissed = 2    // by the bracket: call again with kRadix
};
struct PruneTally {
  float* threshold;     // [groups]
  int64_t* counts;      // [tensors][2] pruned, NaN
  PruneStatus* status;  // [groups]; what else is written holds if all of them are kFound
};
size_t prune_workspace_bytes_cuda(const ScoreTensor* tensors, size_t num_tensors, size_t num_groups);
void prune_lowest_cuda(const ScoreTensor* tensors, size_t num_tensors, const int64_t* num_pruned,
                       size_t num_groups, bool magnitude, SelectBy by, const PruneTally& tally,
                       void* workspace, void* stream);

struct MaskWords {
  const uint32_t* words;
  int64_t num_words;
};
// counts: [masks]
void count_bits_cuda(const MaskWords* masks, size_t num_masks, int64_t* counts, void* stream);

}  // namespace lth
