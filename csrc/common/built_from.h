// Digests of the sources that a library is compiled from (lthbench/ops/sources.py), by which one that belongs
// to another checkout, or to an older state of this one, is known. setup.py writes them; other builds have
// none.
#pragma once

#if __has_include("sources_digest.h")
#include "sources_digest.h"
#else
#define LTH_BUILT_FROM_CPU ""
#define LTH_BUILT_FROM_CUDA ""
#endif
