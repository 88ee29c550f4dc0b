// The only place where a kernel launch is spelled: nvcc launches on a stream, the host executor of the
// tests (g++, no GPU) runs the same kernel as fibres.
#pragma once

#ifdef LTH_HOST_EXECUTOR

#include "host_executor.h"  // defines LTH_LAUNCH, the CUDA keywords and the few runtime calls used here

#else

#include <cuda_runtime.h>

#define LTH_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

#endif
