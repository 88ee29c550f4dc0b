// Unpacks and checks the tensor lists of the masked update, for the CPU and the CUDA dispatch alike.
#pragma once

#include <algorithm>
#include <utility>

#include "check.h"
#include "update_options.h"

namespace lth {

// Checks that `t` can be walked together with `weight`: float32, on its device, each element where its is.
inline void check_like_weight(const std::string& name, const Tensor& t, const Tensor& weight) {
  check_dtype(name, t, ScalarType::Float, "float32");
  LTH_CHECK(same_device(t, weight), name, " lies on another device than its weight");
  LTH_CHECK(
      same_layout(t, weight), name,
      " has another shape or memory layout than its weight; copy it with torch.empty_like(weight).copy_()");
}

inline void check_disjoint(const std::vector<Tensor>& weights, const std::vector<Tensor>& states) {
  std::vector<std::pair<const char*, const char*>> spans;
  for (const auto* list : {&weights, &states}) {
    for (const Tensor& t : *list) {
      const auto* begin = static_cast<const char*>(t.const_data_ptr());
      if (t.numel() > 0) spans.emplace_back(begin, begin + t.numel() * sizeof(float));
    }
  }
  std::sort(spans.begin(), spans.end());
  for (size_t i = 1; i < spans.size(); ++i) {
    LTH_CHECK(spans[i - 1].second <= spans[i].first,
              "weights and optimizer states overlap in memory; give every tensor storage of its own");
  }
}

inline std::vector<UpdateTensor> update_tensors(const std::vector<Tensor>& weights,
                                                const std::vector<Tensor>& grads, const char* first_name,
                                                const std::vector<Tensor>& first, const char* second_name,
                                                const std::vector<Tensor>& second,
                                                const std::vector<Tensor>& masks,
                                                const std::vector<Tensor>& anchors, bool fresh) {
  const size_t count = weights.size();
  check_length("grads", grads.size(), "weights", count);
  if (!first.empty()) check_length(first_name, first.size(), "weights", count);
  if (!second.empty()) check_length(second_name, second.size(), "weights", count);
  if (!masks.empty()) check_length("masks", masks.size(), "weights", count);
  if (!anchors.empty()) check_length("anchors", anchors.size(), "weights", count);
  std::vector<UpdateTensor> tensors(count);
  for (size_t i = 0; i < count; ++i) {
    const Tensor& weight = weights[i];
    UpdateTensor& t = tensors[i];
    check_dtype(item("weights", i), weight, ScalarType::Float, "float32");
    LTH_CHECK(same_device(weight, weights[0]), item("weights", i), " lies on another device than weights[0]");
    LTH_CHECK(is_dense(weight), item("weights", i), " has gaps or overlaps in memory; make it contiguous");
    check_like_weight(item("grads", i), grads[i], weight);
    t.weight = static_cast<float*>(weight.mutable_data_ptr());
    t.grad = static_cast<const float*>(grads[i].const_data_ptr());
    t.numel = weight.numel();
    t.fresh = fresh;
    if (!first.empty()) {
      check_like_weight(item(first_name, i), first[i], weight);
      t.first = static_cast<float*>(first[i].mutable_data_ptr());
    }
    if (!second.empty()) {
      check_like_weight(item(second_name, i), second[i], weight);
      t.second = static_cast<float*>(second[i].mutable_data_ptr());
    }
    if (!masks.empty() && masks[i].numel() > 0) {
      check_dtype(item("masks", i), masks[i], ScalarType::Int, "int32 (a packed mask)");
      LTH_CHECK(same_device(masks[i], weight), item("masks", i), " lies on another device than its weight");
      LTH_CHECK(masks[i].is_contiguous(), item("masks", i), " is not contiguous");
      LTH_CHECK(masks[i].numel() == (t.numel + 31) / 32, item("masks", i), " has ", masks[i].numel(),
                " words, expected ", (t.numel + 31) / 32, " for ", t.numel, " weights; see pack_mask");
      t.mask = static_cast<const uint32_t*>(masks[i].const_data_ptr());
    }
    if (!anchors.empty() && anchors[i].numel() > 0) {
      check_like_weight(item("anchors", i), anchors[i], weight);
      t.anchor = static_cast<const float*>(anchors[i].const_data_ptr());
    }
  }
  std::vector<Tensor> states(first);
  states.insert(states.end(), second.begin(), second.end());
  check_disjoint(weights, states);
  return tensors;
}

}  // namespace lth
