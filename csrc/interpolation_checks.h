// Checks of the interpolation operators' arguments, the same on every device.
#pragma once

#include <cmath>

#include "check.h"
#include "interpolation.h"
#include "spans.h"

namespace lth {

inline std::string shape(const Tensor& t) {
  std::string text = "[";
  for (int64_t size : t.sizes()) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

inline void check_weights(const std::string& name, const Tensor& t, const Tensor& alphas) {
  check_dtype(name, t, ScalarType::Float, "float32");
  check_device(name, t, "alphas", alphas);
  check_contiguous(name, t);
}

// On a GPU nothing waits for the points' values: a point that is no number makes networks of NaN there.
inline void check_points(const Tensor& alphas) {
  check_dtype("alphas", alphas, ScalarType::Float, "float32");
  LTH_CHECK(alphas.dim() == 1 && alphas.numel() > 0 && alphas.is_contiguous(),
            "alphas is not a contiguous vector of at least one point");
  if (!alphas.is_cpu()) return;
  const auto* values = static_cast<const float*>(alphas.const_data_ptr());
  for (int64_t k = 0; k < alphas.numel(); ++k)
    LTH_CHECK(std::isfinite(values[k]), "alphas[", k, "] is ", values[k], ", expected a number");
}

inline std::vector<LerpPair> lerp_arguments(const std::vector<Tensor>& out, const std::vector<Tensor>& a,
                                            const std::vector<Tensor>& b, const Tensor& alphas) {
  check_length("b", b.size(), "a", a.size());
  check_length("out", out.size(), "a", a.size());
  check_points(alphas);
  std::vector<LerpPair> pairs;
  pairs.reserve(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    check_weights(item("a", i), a[i], alphas);
    check_weights(item("b", i), b[i], alphas);
    check_weights(item("out", i), out[i], alphas);
    const auto sizes = a[i].sizes(), other = b[i].sizes(), stacked = out[i].sizes();
    bool same =
        sizes.size() == other.size() && stacked.size() == sizes.size() + 1 && stacked[0] == alphas.numel();
    for (size_t d = 0; same && d < sizes.size(); ++d)
      same = sizes[d] == other[d] && sizes[d] == stacked[d + 1];
    LTH_CHECK(same, item("a", i), ", ", item("b", i), " and ", item("out", i), " have shapes ", shape(a[i]),
              ", ", shape(b[i]), " and ", shape(out[i]), ", expected S, S and [", alphas.numel(), ", *S]");
    pairs.push_back({static_cast<const float*>(a[i].const_data_ptr()),
                     static_cast<const float*>(b[i].const_data_ptr()),
                     static_cast<float*>(out[i].mutable_data_ptr()), a[i].numel()});
  }
  TensorSpans spans;
  spans.add("out", out, true);
  spans.add("a", a, false);
  spans.add("b", b, false);
  spans.add("alphas", alphas, false);
  spans.check_disjoint();
  return pairs;
}

// The layer without its output.
inline LerpLinear linear_arguments(const Tensor& a, const Tensor& b, const Tensor& alphas,
                                   const Tensor& weight, const Tensor& bias, bool relu) {
  check_points(alphas);
  check_weights("a", a, alphas);
  check_weights("b", b, alphas);
  check_weights("weight", weight, alphas);
  check_weights("bias", bias, alphas);
  LTH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(0) == b.size(0) && a.size(1) == b.size(1),
            "a and b have shapes ", shape(a), " and ", shape(b), ", expected [B, H] both");
  const int64_t num_points = alphas.numel(), num_hidden = a.size(1);
  LTH_CHECK(weight.dim() == 3 && weight.size(0) == num_points && weight.size(1) == num_hidden &&
                weight.size(2) > 0 && weight.size(2) % 16 == 0,
            "weight has shape ", shape(weight), ", expected [", num_points, ", ", num_hidden,
            ", N] with N a multiple of 16");
  LTH_CHECK(bias.dim() == 2 && bias.size(0) == num_points && bias.size(1) == weight.size(2),
            "bias has shape ", shape(bias), ", expected [", num_points, ", ", weight.size(2), "]");
  const auto data = [](const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); };
  return {data(a),    data(b),   data(alphas), data(weight),   data(bias), nullptr,
          num_points, a.size(0), num_hidden,   weight.size(2), relu};
}

inline LogitsBatch logits_arguments(const Tensor& logits, const Tensor& labels) {
  check_dtype("logits", logits, ScalarType::Float, "float32");
  check_dtype("labels", labels, ScalarType::Long, "int64");
  LTH_CHECK(logits.dim() == 3 && logits.size(2) > 0, "logits has shape ", shape(logits),
            ", expected [K, B, C >= 1]");
  LTH_CHECK(labels.dim() == 1 && labels.size(0) == logits.size(1), "labels has shape ", shape(labels),
            ", expected [B] with B = ", logits.size(1));
  LTH_CHECK(logits.size(2) < (int64_t(1) << 31), "logits has ", logits.size(2),
            " classes, expected less than 2^31");
  check_device("labels", labels, "logits", logits);
  check_contiguous("logits", logits);
  check_contiguous("labels", labels);
  return {static_cast<const float*>(logits.const_data_ptr()),
          static_cast<const int64_t*>(labels.const_data_ptr()), logits.size(0), logits.size(1),
          logits.size(2)};
}

}  // namespace lth
