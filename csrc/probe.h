// Bandwidth probes: the least work with the memory traffic of a kernel, timed beside it.
#pragma once

#include <cstdint>

namespace lth {

// One read of `words`; returns their sum modulo 2^32, so that the read cannot be optimised away.
uint32_t probe_read_cpu(const uint32_t* words, int64_t count);

// Four reads and two writes in place: a += c, b += d. The traffic of a masked SGD step with anchors.
void probe_update_cpu(float* a, float* b, const float* c, const float* d, int64_t count);

// Multiplies and adds in registers, `rounds` times on every thread's share; returns how many operations that
// were, and in `sum` something that depends on all of them.
double probe_fma_cpu(float start, int64_t rounds, double& sum);

}  // namespace lth
