// Spans of tensors of 4 bytes per element.
#pragma once

#include <vector>

#include "check.h"
#include "common/spans.h"

namespace lth {

class TensorSpans : public Spans {
 public:
  void add(const char* name, const Tensor& t, bool written) { add(name, kAlone, t, written); }

  void add(const char* list, const std::vector<Tensor>& tensors, bool written) {
    for (size_t i = 0; i < tensors.size(); ++i) add(list, i, tensors[i], written);
  }

 private:
  void add(const char* argument, size_t index, const Tensor& t, bool written) {
    Spans::add(argument, index, t.const_data_ptr(), static_cast<size_t>(t.numel()) * 4, written);
  }
};

}  // namespace lth
