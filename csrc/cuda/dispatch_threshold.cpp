#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../score_arguments.h"
#include "stream.h"

namespace lth {
namespace {

Tensor count_survivors(const std::vector<Tensor>& masks) {
  LTH_CHECK(!masks.empty(), "masks is empty");
  const OnDeviceOf device(masks[0]);
  Tensor counts = torch::stable::new_empty(masks[0], {static_cast<int64_t>(masks.size())}, ScalarType::Long);
  auto* count = static_cast<int64_t*>(counts.mutable_data_ptr());
  for (size_t i = 0; i < masks.size(); ++i) {
    const int64_t words = check_packed(item("masks", i), masks[i]);
    LTH_CHECK(same_device(masks[i], masks[0]), item("masks", i), " lies on another device than masks[0]");
    count_bits_cuda(static_cast<const uint32_t*>(masks[i].const_data_ptr()), words, count + i,
                    device.stream());
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return counts;
}

std::tuple<Tensor, Tensor, Tensor> prune_lowest(const std::vector<Tensor>& scores,
                                                const std::vector<Tensor>& masks,
                                                const std::vector<int64_t>& groups,
                                                const std::vector<int64_t>& num_pruned, bool magnitude) {
  LTH_CHECK(!scores.empty(), "scores is empty");
  int64_t num_words = 0;
  auto tensors = score_tensors(scores, masks, groups, num_pruned, num_words);
  const OnDeviceOf device(scores[0]);
  const auto num_groups = static_cast<int64_t>(num_pruned.size());
  const Tensor& like = scores[0];
  Tensor words = torch::stable::new_empty(like, {num_words}, ScalarType::Int);
  Tensor thresholds = torch::stable::new_empty(like, {num_groups}, ScalarType::Float);
  Tensor counts = torch::stable::new_empty(like, {static_cast<int64_t>(scores.size()), 2}, ScalarType::Long);
  const Tensor impossible = torch::stable::new_empty(like, {num_groups}, ScalarType::Int);
  const size_t bytes = prune_workspace_bytes_cuda(tensors.data(), tensors.size(), num_pruned.size());
  const Tensor workspace = torch::stable::new_empty(like, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
  set_outputs(tensors, words);
  const PruneTally tally{static_cast<float*>(thresholds.mutable_data_ptr()),
                         static_cast<int64_t*>(counts.mutable_data_ptr()),
                         static_cast<int32_t*>(impossible.mutable_data_ptr())};
  prune_lowest_cuda(tensors.data(), tensors.size(), num_pruned.data(), num_pruned.size(), magnitude, tally,
                    workspace.mutable_data_ptr(), device.stream());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  std::vector<int32_t> flags(num_pruned.size());
  const auto stream = static_cast<cudaStream_t>(device.stream());
  STD_CUDA_CHECK(cudaMemcpyAsync(flags.data(), tally.impossible, flags.size() * sizeof(int32_t),
                                 cudaMemcpyDeviceToHost, stream));
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  for (size_t g = 0; g < flags.size(); ++g) {
    LTH_CHECK(flags[g] == 0, item("num_pruned", g), " is ", num_pruned[g],
              ", more than the group has survivors");
  }
  return {words, thresholds, counts};
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_IMPL(lthbench, CUDA, m) {
  m.impl("count_survivors", TORCH_BOX(&lth::count_survivors));
  m.impl("prune_lowest", TORCH_BOX(&lth::prune_lowest));
}
