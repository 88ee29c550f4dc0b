// Unpacks and checks the tensor lists of the masked update, for the CPU and the CUDA dispatch alike.
#pragma once

#include <algorithm>

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

// What a step writes must be memory of its own: the kernels read and write ahead of one another.
class Spans {
 public:
  void add(const char* list, const std::vector<Tensor>& tensors, bool written) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      const auto* begin = static_cast<const char*>(tensors[i].const_data_ptr());
      const auto bytes = static_cast<size_t>(tensors[i].numel()) * sizeof(float);  // a mask word has as many
      if (bytes > 0) spans_.push_back({begin, begin + bytes, list, i, written});
    }
  }

  void check_disjoint() {
    std::sort(spans_.begin(), spans_.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
    const Span *furthest = nullptr, *furthest_written = nullptr;
    for (const Span& span : spans_) {
      const Span* before = span.written ? furthest : furthest_written;
      LTH_CHECK(!before || before->end <= span.begin, before ? item(before->list, before->index) : "",
                " and ", item(span.list, span.index),
                " overlap in memory; give what a step writes storage of its own");
      if (!furthest || furthest->end < span.end) furthest = &span;
      if (span.written && (!furthest_written || furthest_written->end < span.end)) furthest_written = &span;
    }
  }

 private:
  struct Span {
    const char *begin, *end;
    const char* list;
    size_t index;
    bool written;
  };
  std::vector<Span> spans_;
};

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
  Spans spans;
  spans.add("weights", weights, true);
  spans.add(first_name, first, true);
  spans.add(second_name, second, true);
  spans.add("grads", grads, false);
  spans.add("masks", masks, false);
  spans.add("anchors", anchors, false);
  spans.check_disjoint();
  return tensors;
}

inline std::vector<UpdateTensor> sgd_tensors(
    const std::vector<Tensor>& weights, const std::vector<Tensor>& grads, const std::vector<Tensor>& momenta,
    const std::vector<Tensor>& masks, const std::vector<Tensor>& anchors, double momentum, bool first_step) {
  LTH_CHECK(momentum == 0.0 || !momenta.empty() || weights.empty(),
            "momenta is empty, but momentum is not 0; give one buffer a weight");
  return update_tensors(weights, grads, "momenta", momenta, "", {}, masks, anchors, first_step);
}

inline std::vector<UpdateTensor> adamw_tensors(
    const std::vector<Tensor>& weights, const std::vector<Tensor>& grads, const std::vector<Tensor>& exp_avgs,
    const std::vector<Tensor>& exp_avg_sqs, const std::vector<Tensor>& masks,
    const std::vector<Tensor>& anchors, double lr, double beta1, double beta2, int64_t step) {
  LTH_CHECK(step >= 1, "step is ", step, ", expected 1 at the first step");
  check_length("exp_avgs", exp_avgs.size(), "weights", weights.size());
  check_length("exp_avg_sqs", exp_avg_sqs.size(), "weights", weights.size());
  auto tensors =
      update_tensors(weights, grads, "exp_avgs", exp_avgs, "exp_avg_sqs", exp_avg_sqs, masks, anchors, false);
  for (UpdateTensor& t : tensors) set_adamw_step(t, lr, beta1, beta2, step);
  return tensors;
}

}  // namespace lth
