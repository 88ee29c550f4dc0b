// Threads of the CPU kernels: the caller's pool (at::parallel_for), reached without a torch header.
#pragma once

#include <cstdint>

namespace lth {

// Calls body(begin, end, context) on disjoint ranges that cover [0, count); each holds `grain` items or more.
void parallel_for(int64_t count, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context);

template <class Body>
void parallel_for(int64_t count, int64_t grain, Body& body) {
  parallel_for(
      count, grain,
      [](int64_t begin, int64_t end, void* context) { (*static_cast<Body*>(context))(begin, end); }, &body);
}

}  // namespace lth
