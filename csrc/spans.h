// What a kernel writes must be memory of its own, since it reads and writes ahead.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "check.h"

namespace lth {

class Spans {
 public:
  // Of elements of 4 bytes.
  void add(const char* name, const Tensor& t, bool written) { add(name, kAlone, t, written); }

  void add(const char* list, const std::vector<Tensor>& tensors, bool written) {
    for (size_t i = 0; i < tensors.size(); ++i) add(list, i, tensors[i], written);
  }

  void check_disjoint() {
    std::sort(spans_.begin(), spans_.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
    const Span *furthest = nullptr, *furthest_written = nullptr;
    for (const Span& span : spans_) {
      const Span* before = span.written ? furthest : furthest_written;
      LTH_CHECK(!before || before->end <= span.begin, before ? before->name() : "", " and ", span.name(),
                " overlap in memory; give what is written storage of its own");
      if (!furthest || furthest->end < span.end) furthest = &span;
      if (span.written && (!furthest_written || furthest_written->end < span.end)) furthest_written = &span;
    }
  }

 private:
  static constexpr size_t kAlone = static_cast<size_t>(-1);

  struct Span {
    const char *begin, *end;
    const char* argument;
    size_t index;
    bool written;

    std::string name() const { return index == kAlone ? argument : item(argument, index); }
  };

  void add(const char* argument, size_t index, const Tensor& t, bool written) {
    const auto* begin = static_cast<const char*>(t.const_data_ptr());
    const auto bytes = static_cast<size_t>(t.numel()) * 4;
    if (bytes > 0) spans_.push_back({begin, begin + bytes, argument, index, written});
  }

  std::vector<Span> spans_;
};

}  // namespace lth
