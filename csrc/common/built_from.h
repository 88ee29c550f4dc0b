// Digests of the sources that a library is compiled from (lthbench/ops/sources.py), which reveal a library
// of another checkout or an older version. setup.py writes them; other builds have
// none.
#pragma once

#if __has_include("sources_digest.h")
#include "sources_digest.h"
#else
#define LTH_BUILT_FROM_CPU ""
#define LTH_BUILT_FROM_CUDA ""
#endif
