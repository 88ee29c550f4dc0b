// The only place where a kernel launch is spelled: nvcc launches on a stream, the host executor of the
// tests (g++, no GPU) runs the same kernel as fibres. And the tables that travel as arguments of a launch:
// how many bytes there may be, and a search in them.
#pragma once

#include <cstddef>

#ifdef LTH_HOST_EXECUTOR

#include "host_executor.h"  // defines LTH_LAUNCH, the CUDA keywords and the few runtime calls used here

#else

#include <cuda_runtime.h>

#define LTH_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

#endif

namespace lth {

// Of all drivers; and of those of CUDA 12.1 and later, for kernels that such a toolkit compiled (Volta and
// later).
inline constexpr std::size_t kFewArgumentBytes = 4096;
#if CUDART_VERSION >= 12010
inline constexpr std::size_t kManyArgumentBytes = 32764;
#else
inline constexpr std::size_t kManyArgumentBytes = kFewArgumentBytes;
#endif

// Whether the driver takes kManyArgumentBytes.
inline bool takes_many_argument_bytes() {
  int version = 0;
  return kManyArgumentBytes > kFewArgumentBytes && cudaDriverGetVersion(&version) == cudaSuccess &&
         version >= 12010;
}

// The last of `count` entries, whose begins ascend, that does not begin behind `place`; the first where all
// do.
template <class Place, class Begin>
__device__ inline int last_not_behind(int count, Place place, Begin begin) {
  int found = 0;
  for (int low = 1, high = count - 1; low <= high;) {
    const int middle = (low + high) / 2;
    if (begin(middle) <= place) {
      found = middle;
      low = middle + 1;
    } else {
      high = middle - 1;
    }
  }
  return found;
}

}  // namespace lth
