// Pruning by rank on CUDA, in four launches that read the weights once:
//
//   prepare   writes the tables of the call, clears counters, takes a sample of each group's keys
//   bracket   two keys that enclose the threshold with near certainty
//   collect   clears what is below the bracket and keeps keys and places of what is inside it; the last block
//   of
//             a group settles whether the threshold is inside, and in which bin, or an end, or was missed
//   resolve   clears what is kept and lies below that bin; the last block chooses within it
//
// A bracket that missed is reported in the status; selection by digits (select_radix.cu) then takes the place
// of `bracket` and leaves one key as both of its ends. Survivors are ordered by (key, flat index), in which
// no two are equal: so ties need no order of blocks, and the result does not depend on it. All counts are
// integers.
//
// Bytes per float32 weight: a read of score and mask and a write of the mask, 4 + 1/4, and 1/4 for the 2 %
// that are kept; by digits 4 + 1/8 more for each of the three. `ci/sass.py --threshold` estimates the time of
// it.
#include "cuda/threshold/prune_plan.h"
#include "cuda/threshold/select.h"
#include "threshold.h"

namespace lth {

size_t prune_workspace_bytes_cuda(const ScoreTensor* tensors, size_t num_tensors, size_t num_groups) {
  Work work;
  return PrunePlan(tensors, num_tensors, nullptr, num_groups).place(work, nullptr);
}

void prune_lowest_cuda(const ScoreTensor* tensors, size_t num_tensors, const int64_t* num_pruned,
                       size_t num_groups, bool magnitude, SelectBy by, const PruneTally& tally,
                       void* workspace, void* stream) {
  if (num_groups == 0) return;
  const PrunePlan plan(tensors, num_tensors, num_pruned, num_groups);
  Work work;
  plan.place(work, static_cast<char*>(workspace));
  work.tally = tally;
  const bool sampled = by == SelectBy::kBracket;
  prepare(plan, tensors, num_tensors, work, sampled, magnitude, stream);
  if (work.num_chunks == 0) return;
  if (sampled) {
    select_by_bracket(work, stream);
  } else {
    select_by_radix(work, magnitude, stream);
  }
  collect(work, magnitude, stream);
  resolve(work, magnitude, stream);
}

}  // namespace lth
