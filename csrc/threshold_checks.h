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

// Masks that are only counted: their number of weights is unknown.
inline void check_counted(const std::vector<Tensor>& masks) {
  LTH_CHECK(!masks.empty(), "masks is empty; give at least one tensor");
  for (size_t i = 0; i < masks.size(); ++i) {
    check_dtype(item("masks", i), masks[i], ScalarType::Int, "int32 (a packed mask)");
    check_contiguous(item("masks", i), masks[i]);
    check_device(item("masks", i), masks[i], "masks[0]", masks[0]);
  }
}

// The tensors without their output, and the number of mask words of all of them.
inline std::vector<ScoreTensor> score_tensors(const std::vector<Tensor>& scores,
                                              const std::vector<Tensor>& masks,
                                              const std::vector<int64_t>& groups,
                                              const std::vector<int64_t>& num_pruned, int64_t& num_words) {
  LTH_CHECK(!scores.empty(), "scores is empty; give at least one tensor");
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
    check_contiguous(item("scores", i), scores[i]);
    check_device(item("scores", i), scores[i], "scores[0]", scores[0]);
    check_device(item("masks", i), masks[i], "scores[0]", scores[0]);
    t.mask = packed_mask(item("masks", i), masks[i], t.numel);
    LTH_CHECK(groups[i] >= 0 && groups[i] < static_cast<int64_t>(num_pruned.size()), item("groups", i),
              " is ", groups[i], ", expected 0 to ", static_cast<int64_t>(num_pruned.size()) - 1,
              ", an index of num_pruned");
    t.group = static_cast<int32_t>(groups[i]);
    t.scores = scores[i].const_data_ptr();
    num_words += masks[i].numel();
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
