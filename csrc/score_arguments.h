// Unpacks and checks the arguments of prune_lowest, for the CPU and the CUDA dispatch alike.
#pragma once

#include "check.h"
#include "threshold.h"

namespace lth {

inline ScoreType score_type(const std::string& name, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return ScoreType::kFloat32;
    case ScalarType::BFloat16:
      return ScoreType::kBFloat16;
    case ScalarType::Half:
      return ScoreType::kFloat16;
    default:
      break;
  }
  LTH_CHECK(false, name, " has dtype ", static_cast<int>(t.scalar_type()),
            ", expected float32, bfloat16 or float16");
  return ScoreType::kFloat32;
}

inline int64_t check_packed(const std::string& name, const Tensor& mask) {
  check_dtype(name, mask, ScalarType::Int, "int32 (a packed mask)");
  LTH_CHECK(mask.is_contiguous(), name, " is not contiguous; call .contiguous() on it");
  return mask.numel();
}

// The tensors without their output, and the number of mask words of all of them.
inline std::vector<ScoreTensor> score_tensors(const std::vector<Tensor>& scores,
                                              const std::vector<Tensor>& masks,
                                              const std::vector<int64_t>& groups,
                                              const std::vector<int64_t>& num_pruned, int64_t& num_words) {
  check_length("masks", masks.size(), "scores", scores.size());
  check_length("groups", groups.size(), "scores", scores.size());
  for (size_t g = 0; g < num_pruned.size(); ++g) {
    LTH_CHECK(num_pruned[g] >= 0, item("num_pruned", g), " is ", num_pruned[g], ", expected 0 or more");
  }
  std::vector<ScoreTensor> tensors(scores.size());
  num_words = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    ScoreTensor& t = tensors[i];
    t.type = score_type(item("scores", i), scores[i]);
    t.numel = scores[i].numel();
    LTH_CHECK(scores[i].is_contiguous(), item("scores", i), " is not contiguous; call .contiguous() on it");
    LTH_CHECK(same_device(scores[i], scores[0]) && same_device(masks[i], scores[0]), item("scores", i),
              " and ", item("masks", i), " must lie on the device of scores[0]");
    const int64_t words = (t.numel + 31) / 32;
    LTH_CHECK(check_packed(item("masks", i), masks[i]) == words, item("masks", i), " has ", masks[i].numel(),
              " words, expected ", words, " for ", t.numel, " scores; see pack_mask");
    LTH_CHECK(groups[i] >= 0 && groups[i] < static_cast<int64_t>(num_pruned.size()), item("groups", i),
              " is ", groups[i], ", expected 0 to ", static_cast<int64_t>(num_pruned.size()) - 1,
              ", an index of num_pruned");
    t.group = static_cast<int32_t>(groups[i]);
    t.scores = scores[i].const_data_ptr();
    t.mask = static_cast<const uint32_t*>(masks[i].const_data_ptr());
    num_words += words;
  }
  return tensors;
}

inline void set_outputs(std::vector<ScoreTensor>& tensors, const Tensor& words) {
  auto* next = static_cast<uint32_t*>(words.mutable_data_ptr());
  for (ScoreTensor& t : tensors) {
    t.pruned = next;
    next += (t.numel + 31) / 32;
  }
}

}  // namespace lth
