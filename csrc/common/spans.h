// A kernel reads and writes ahead, so what it writes must overlap no other argument.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "common/require.h"

namespace lth {

class Spans {
 public:
  // The memory of an argument, or of element `index` of a list.
  void add(const char* argument, size_t index, const void* data, size_t bytes, bool written) {
    const auto* begin = static_cast<const char*>(data);
    if (bytes > 0) spans_.push_back({begin, begin + bytes, argument, index, written});
  }

  void check_disjoint() {
    std::sort(spans_.begin(), spans_.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
    const Span *furthest = nullptr, *furthest_written = nullptr;
    for (const Span& span : spans_) {
      const Span* before = span.written ? furthest : furthest_written;
      if (before) check(before->end <= span.begin, *before, span);
      if (!furthest || furthest->end < span.end) furthest = &span;
      if (span.written && (!furthest_written || furthest_written->end < span.end)) furthest_written = &span;
    }
  }

  // Refuses memory that is read later on and is part of what is written, where all that was added is written
  // and was found disjoint.
  void check_apart(const char* argument, size_t index, const void* data, size_t bytes) const {
    const auto* begin = static_cast<const char*>(data);
    const Span read{begin, begin + bytes, argument, index, false};
    const auto after = std::lower_bound(spans_.begin(), spans_.end(), read.end,
                                        [](const Span& span, const char* end) { return span.begin < end; });
    if (bytes > 0 && after != spans_.begin()) check((after - 1)->end <= begin, read, *(after - 1));
  }

 protected:
  static constexpr size_t kAlone = static_cast<size_t>(-1);  // the index of what is no list

 private:
  struct Span {
    const char *begin, *end;
    const char* argument;
    size_t index;
    bool written;

    std::string name() const { return index == kAlone ? argument : item(argument, index); }
  };

  static void check(bool apart, const Span& a, const Span& b) {
    LTH_CHECK(apart, a.name(), " and ", b.name(),
              " overlap in memory; give what is written storage of its own");
  }

  std::vector<Span> spans_;
};

}  // namespace lth
