// Which copy of a CPU kernel runs: one source, inlined into a wrapper per instruction set. The tests run all
// of them: LTHBENCH_CPU_ISA=base or v3 caps the choice.
#pragma once

#include <cstdlib>
#include <cstring>

#include "common/macros.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define LTH_X86 1
#define LTH_TARGET_V3 __attribute__((target("arch=x86-64-v3")))
#define LTH_TARGET_V4 __attribute__((target("arch=x86-64-v4,prefer-vector-width=512")))
#else
#define LTH_X86 0
#endif

namespace lth {

enum class Isa { kBase, kV3, kV4 };  // baseline, AVX2 + FMA, AVX-512

inline Isa detected_isa() {
#if LTH_X86
  static const Isa isa = [] {
    __builtin_cpu_init();
    const char* limit = std::getenv("LTHBENCH_CPU_ISA");
    if (limit && std::strcmp(limit, "base") == 0) return Isa::kBase;
    if (!(limit && std::strcmp(limit, "v3") == 0) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      return Isa::kV4;
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")
               ? Isa::kV3
               : Isa::kBase;
  }();
  return isa;
#else
  return Isa::kBase;
#endif
}

}  // namespace lth
