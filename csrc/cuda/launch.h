// How every CUDA kernel is launched, so that tests can run the same source on the host.
#pragma once

#ifdef LTH_HOST_EXECUTOR
#include "host_executor.h"
#else
#include <cuda_runtime.h>

#define LTH_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#endif
