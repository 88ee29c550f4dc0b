#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "threshold_checks.h"

namespace lth {
namespace {

Tensor count_survivors(const std::vector<Tensor>& masks) {
  check_counted(masks);
  Tensor counts = torch::stable::empty({static_cast<int64_t>(masks.size())}, ScalarType::Long);
  auto* count = static_cast<int64_t*>(counts.mutable_data_ptr());
  for (size_t i = 0; i < masks.size(); ++i) {
    count[i] = count_bits_cpu(static_cast<const uint32_t*>(masks[i].const_data_ptr()), masks[i].numel());
  }
  return counts;
}

std::tuple<Tensor, Tensor, Tensor> prune_lowest(const std::vector<Tensor>& scores,
                                                const std::vector<Tensor>& masks,
                                                const std::vector<int64_t>& groups,
                                                const std::vector<int64_t>& num_pruned, bool magnitude) {
  int64_t num_words = 0;
  auto tensors = score_tensors(scores, masks, groups, num_pruned, num_words);
  Tensor words = torch::stable::empty({num_words}, ScalarType::Int);
  Tensor thresholds = torch::stable::empty({static_cast<int64_t>(num_pruned.size())}, ScalarType::Float);
  Tensor counts = torch::stable::empty({static_cast<int64_t>(scores.size()), 2}, ScalarType::Long);
  set_outputs(tensors, words);
  std::vector<int64_t> pruned(scores.size()), nan(scores.size());
  const PruneOutcome outcome{static_cast<float*>(thresholds.mutable_data_ptr()), pruned.data(), nan.data()};
  const int64_t impossible = prune_lowest_cpu(tensors.data(), tensors.size(), num_pruned.data(),
                                              num_pruned.size(), magnitude, outcome);
  LTH_CHECK(impossible < 0, item("num_pruned", static_cast<size_t>(impossible)), " is ",
            num_pruned[static_cast<size_t>(impossible)], ", more than the group has survivors");
  auto* count = static_cast<int64_t*>(counts.mutable_data_ptr());
  for (size_t i = 0; i < scores.size(); ++i) {
    count[2 * i] = pruned[i];
    count[2 * i + 1] = nan[i];
  }
  return {words, thresholds, counts};
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("count_survivors", TORCH_BOX(&lth::count_survivors));
  m.impl("prune_lowest", TORCH_BOX(&lth::prune_lowest));
}
