#pragma once

#ifdef __CUDACC__
#define LTH_HOST_DEVICE __host__ __device__
#else
#define LTH_HOST_DEVICE
#endif

#define LTH_INLINE inline __attribute__((always_inline))
