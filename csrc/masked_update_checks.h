// Unpacks and checks the tensor lists of the masked update: what the operators, on the CPU and on CUDA, and
// the optimizer cache (by check_update) demand of memory. Its scalars are those of masked_update.h.
#pragma once

#include "check.h"
#include "masked_update.h"
#include "spans.h"

namespace lth {

// The lists of an update, one entry per weight. An empty list stands for none, as does an empty tensor in
// `masks` and `anchors`, and in the states of an optimizer: a weight without a gradient has none.
struct UpdateLists {
  const std::vector<Tensor>&weights, &grads;
  const char* first_name;
  const std::vector<Tensor>& first;
  const char* second_name;
  const std::vector<Tensor>& second;
  const std::vector<Tensor>&masks, &anchors;
};

// The element of `list` that belongs to weight i, which can be walked together with it: float32, on its
// device, each element where the weight's is. nullptr where there is none.
inline const Tensor* beside_weight(const char* name, const std::vector<Tensor>& list, size_t i,
                                   const Tensor& weight, bool may_lack) {
  if (list.empty()) return nullptr;
  const Tensor& t = list[i];
  if (may_lack && t.numel() == 0) return nullptr;
  check_dtype(item(name, i), t, ScalarType::Float, "float32");
  check_device(item(name, i), t, item("weights", i), weight);
  LTH_CHECK(
      same_layout(t, weight), item(name, i),
      " has another shape or memory layout than its weight; copy it with torch.empty_like(weight).copy_()");
  LTH_CHECK(t.const_data_ptr() || t.numel() == 0, item(name, i), " has no memory");
  return &t;
}

// `for_cache` is without gradients, which the optimizer cache looks at in each step.
inline std::vector<UpdateTensor> update_tensors(const UpdateLists& lists, bool is_first_step,
                                                bool for_cache = false) {
  const std::vector<Tensor>& weights = lists.weights;
  const size_t count = weights.size();
  LTH_CHECK(count > 0, "weights is empty; give at least one tensor");
  const auto check_list = [&](const char* name, const std::vector<Tensor>& list) {
    if (!list.empty()) check_length(name, list.size(), "weights", count);
  };
  if (!for_cache) check_length("grads", lists.grads.size(), "weights", count);
  check_list(lists.first_name, lists.first);
  check_list(lists.second_name, lists.second);
  check_list("masks", lists.masks);
  check_list("anchors", lists.anchors);
  std::vector<UpdateTensor> tensors(count);
  const auto read = [](const Tensor* t) {
    return t ? static_cast<const float*>(t->const_data_ptr()) : nullptr;
  };
  const auto write = [](const Tensor* t) { return t ? static_cast<float*>(t->mutable_data_ptr()) : nullptr; };
  for (size_t i = 0; i < count; ++i) {
    const Tensor& weight = weights[i];
    UpdateTensor& t = tensors[i];
    check_dtype(item("weights", i), weight, ScalarType::Float, "float32");
    check_device(item("weights", i), weight, "weights[0]", weights[0]);
    LTH_CHECK(is_dense(weight), item("weights", i), " has gaps or overlaps in memory; make it contiguous");
    LTH_CHECK(weight.const_data_ptr() || weight.numel() == 0, item("weights", i), " has no memory");
    t.weight = write(&weight);
    t.numel = weight.numel();
    t.is_first_step = is_first_step;
    t.grad = read(beside_weight("grads", lists.grads, i, weight, false));
    t.first = write(beside_weight(lists.first_name, lists.first, i, weight, for_cache));
    t.second = write(beside_weight(lists.second_name, lists.second, i, weight, for_cache));
    t.anchor = read(beside_weight("anchors", lists.anchors, i, weight, true));
    if (!lists.masks.empty() && lists.masks[i].numel() > 0) {
      check_device(item("masks", i), lists.masks[i], item("weights", i), weight);
      t.mask = packed_mask(item("masks", i), lists.masks[i], t.numel);
    }
  }
  TensorSpans spans;
  spans.add("weights", weights, true);
  spans.add(lists.first_name, lists.first, true);
  spans.add(lists.second_name, lists.second, true);
  spans.add("grads", lists.grads, false);
  spans.add("masks", lists.masks, false);
  spans.add("anchors", lists.anchors, false);
  spans.check_disjoint();
  return tensors;
}

inline std::vector<UpdateTensor> sgd_tensors(
    const std::vector<Tensor>& weights, const std::vector<Tensor>& grads, const std::vector<Tensor>& momenta,
    const std::vector<Tensor>& masks, const std::vector<Tensor>& anchors, double momentum, bool first_step) {
  LTH_CHECK(momentum == 0.0 || !momenta.empty(),
            "momenta is empty, but momentum is not 0; give one buffer per weight");
  const std::vector<Tensor> none;
  return update_tensors({weights, grads, "momenta", momenta, "", none, masks, anchors}, first_step);
}

inline std::vector<UpdateTensor> adamw_tensors(const std::vector<Tensor>& weights,
                                               const std::vector<Tensor>& grads,
                                               const std::vector<Tensor>& exp_avgs,
                                               const std::vector<Tensor>& exp_avg_sqs,
                                               const std::vector<Tensor>& masks,
                                               const std::vector<Tensor>& anchors) {
  check_length("exp_avgs", exp_avgs.size(), "weights", weights.size());
  check_length("exp_avg_sqs", exp_avg_sqs.size(), "weights", weights.size());
  return update_tensors({weights, grads, "exp_avgs", exp_avgs, "exp_avg_sqs", exp_avg_sqs, masks, anchors},
                        false);
}

}  // namespace lth
