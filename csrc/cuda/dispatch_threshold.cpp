#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "cuda/stream.h"
#include "threshold_checks.h"

namespace lth {
namespace {

Tensor count_survivors(const std::vector<Tensor>& masks) {
  check_counted(masks);
  const OnDeviceOf device(masks[0]);
  Tensor counts = torch::stable::new_empty(masks[0], {static_cast<int64_t>(masks.size())}, ScalarType::Long);
  std::vector<MaskWords> words;
  for (size_t i = 0; i < masks.size(); ++i) {
    words.push_back({static_cast<const uint32_t*>(masks[i].const_data_ptr()), masks[i].numel()});
  }
  count_bits_cuda(words.data(), words.size(), static_cast<int64_t*>(counts.mutable_data_ptr()),
                  device.stream());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return counts;
}

std::tuple<Tensor, Tensor, Tensor> prune_lowest(const std::vector<Tensor>& scores,
                                                const std::vector<Tensor>& masks,
                                                const std::vector<int64_t>& groups,
                                                const std::vector<int64_t>& num_pruned, bool magnitude) {
  int64_t num_words = 0;
  auto tensors = score_tensors(scores, masks, groups, num_pruned, num_words);
  const OnDeviceOf device(scores[0]);
  const auto num_groups = static_cast<int64_t>(num_pruned.size());
  const Tensor& like = scores[0];
  Tensor words = torch::stable::new_empty(like, {num_words}, ScalarType::Int);
  Tensor thresholds = torch::stable::new_empty(like, {num_groups}, ScalarType::Float);
  Tensor counts = torch::stable::new_empty(like, {static_cast<int64_t>(scores.size()), 2}, ScalarType::Long);
  const Tensor status = torch::stable::new_empty(like, {num_groups}, ScalarType::Int);
  const size_t bytes = prune_workspace_bytes_cuda(tensors.data(), tensors.size(), num_pruned.size());
  const Tensor workspace = torch::stable::new_empty(like, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
  set_outputs(tensors, words);
  const PruneTally tally{static_cast<float*>(thresholds.mutable_data_ptr()),
                         static_cast<int64_t*>(counts.mutable_data_ptr()),
                         static_cast<PruneStatus*>(status.mutable_data_ptr())};
  const auto stream = static_cast<cudaStream_t>(device.stream());
  std::vector<PruneStatus> found(num_pruned.size());
  for (SelectBy by : {SelectBy::kBracket, SelectBy::kRadix}) {
    prune_lowest_cuda(tensors.data(), tensors.size(), num_pruned.data(), num_pruned.size(), magnitude, by,
                      tally, workspace.mutable_data_ptr(), stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    STD_CUDA_CHECK(cudaMemcpyAsync(found.data(), tally.status, found.size() * sizeof(PruneStatus),
                                   cudaMemcpyDeviceToHost, stream));
    STD_CUDA_CHECK(cudaStreamSynchronize(stream));
    for (size_t g = 0; g < found.size(); ++g) {
      LTH_CHECK(found[g] != PruneStatus::kTooMany, item("num_pruned", g), " is ", num_pruned[g],
                ", more than the group has survivors");
    }
    if (std::find(found.begin(), found.end(), PruneStatus::kMissed) == found.end()) break;
  }
  return {words, thresholds, counts};
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_IMPL(lthbench, CUDA, m) {
  m.impl("count_survivors", TORCH_BOX(&lth::count_survivors));
  m.impl("prune_lowest", TORCH_BOX(&lth::prune_lowest));
}
