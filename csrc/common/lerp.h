// One weight on the line between two networks: exactly a at 0, b at 1, and a where a = b; the same bits on
// every device, so no product and sum may be contracted (-ffp-contract=off; on CUDA the intrinsics below
// never are).
#pragma once

namespace lth {

#ifdef __CUDACC__
__device__ __forceinline__ float line_point(float a, float b, float alpha) {
  const float difference = __fsub_rn(b, a);
  return alpha < 0.5f ? __fadd_rn(a, __fmul_rn(alpha, difference))
                      : __fsub_rn(b, __fmul_rn(__fsub_rn(1.0f, alpha), difference));
}
#else
inline float line_point(float a, float b, float alpha) {
  return alpha < 0.5f ? a + alpha * (b - a) : b - (1.0f - alpha) * (b - a);
}
#endif

}  // namespace lth
