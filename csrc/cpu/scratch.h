// Memory of a call, which is only touched in part.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace lth {

// Of `bytes`, some `likely` are touched. Where those are many they come in huge pages: the first touch of an
// ordinary page takes as long as a thousand weights.
class Scratch {
 public:
  Scratch(size_t bytes, size_t likely) {
    constexpr size_t kHugePage = 2 << 20;
    const bool large = likely >= kHugePage / 4;
    const size_t alignment = large ? kHugePage : 64;
    memory_ = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (!memory_) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (large) madvise(memory_, bytes, MADV_HUGEPAGE);
#endif
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(memory_); }
  void* data() const { return memory_; }

 private:
  void* memory_;
};

}  // namespace lth
