#include "common/parallel.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

namespace lth {

void parallel_for(int64_t count, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context) {
  if (count > 0) {
    TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, count, grain, body, context));
  }
}

}  // namespace lth
