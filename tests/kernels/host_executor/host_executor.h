// CUDA kernels on the host, for tests: blocks one after another in random order, each thread a fibre.
//
// A .cu file whose launches go through LTH_LAUNCH compiles with g++ against this header. Barriers that
// diverge, warp collectives whose mask is not who arrives, and deadlocks end the program with a message.
// Built with -fsanitize=thread, threads of a block that touch the same memory without a barrier or an atomic
// between them are reported by file and line; with -fsanitize=address,undefined so is every access out of
// bounds or misaligned, and what the language leaves undefined. Not modelled: races between blocks, memory
// ordering of atomics, launch limits, speed.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#define CUDART_VERSION 13000
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static  // one block runs at a time; a block finds what the one before left, as on a device
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define LTH_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)        \
  ((void)(stream), lth_host::launch(grid, block, [&](auto... arguments) { \
     kernel(arguments...);                                                \
   } __VA_OPT__(, ) __VA_ARGS__))
#define threadIdx (lth_host::current_thread())

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern dim3 blockIdx, blockDim, gridDim;

using std::max, std::min, std::isnan, std::isinf;

template <class T>
struct alignas(2 * sizeof(T)) LthVector2 {
  T x, y;
};
template <class T>
struct alignas(4 * sizeof(T)) LthVector4 {
  T x, y, z, w;
};
using float2 = LthVector2<float>;
using int2 = LthVector2<int>;
using uint2 = LthVector2<unsigned>;
using float4 = LthVector4<float>;
using int4 = LthVector4<int>;
using uint4 = LthVector4<unsigned>;
inline float2 make_float2(float x, float y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace lth_host {

using Where = std::source_location;  // a default argument of it is the line of the call in the kernel
enum class Combine { kNone, kOr, kAnd, kCount };

// Defined in host_executor.cpp, which is never built with a sanitizer.
void seed(std::uint64_t value);  // of the order of blocks and threads in the launches that follow
const dim3& current_thread();
unsigned lane();
void run(dim3 grid, dim3 block, void (*kernel)(void*), void* arguments);
int barrier(int value, Combine combine, Where where);
// Waits until all lanes in `mask` arrive with the same mask at the same line; then values[i] is lane i's
// value.
void gather(unsigned mask, std::uint64_t value, std::uint64_t values[32], bool fence, Where where);
[[noreturn]] void fail(const char* what, Where where);

template <class Kernel, class... Arguments>
void launch(dim3 grid, dim3 block, Kernel kernel, Arguments... arguments) {
  auto thread = [&] { kernel(arguments...); };
  run(grid, block, [](void* t) { (*static_cast<decltype(thread)*>(t))(); }, &thread);
}

template <class T>
T shuffle(unsigned mask, T value, unsigned source, bool in_range, Where where) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0, values[32];
  std::memcpy(&bits, &value, sizeof(T));
  gather(mask, bits, values, false, where);
  if (!in_range) return value;
  if (!(mask >> source & 1)) fail("a shuffle reads a lane that its mask does not name", where);
  std::memcpy(&value, &values[source], sizeof(T));
  return value;
}

template <class T, class Combined>
T reduce(unsigned mask, T value, Combined combined, Where where) {
  static_assert(sizeof(T) == 4, "a device reduces 32 bits");
  std::uint64_t values[32];
  gather(mask, std::uint64_t(value), values, false, where);
  const unsigned self = lane();
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1 && i != self) value = combined(value, T(values[i]));
  return value;
}

inline int driver_version = 13000;  // of CUDA; a test may set an older one

}  // namespace lth_host

inline void __syncthreads(lth_host::Where where = lth_host::Where::current()) {
  lth_host::barrier(0, lth_host::Combine::kNone, where);
}
inline int __syncthreads_or(int p, lth_host::Where where = lth_host::Where::current()) {
  return lth_host::barrier(p, lth_host::Combine::kOr, where);
}
inline int __syncthreads_and(int p, lth_host::Where where = lth_host::Where::current()) {
  return lth_host::barrier(p, lth_host::Combine::kAnd, where);
}
inline int __syncthreads_count(int p, lth_host::Where where = lth_host::Where::current()) {
  return lth_host::barrier(p, lth_host::Combine::kCount, where);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   lth_host::Where where = lth_host::Where::current()) {
  const unsigned lane = lth_host::lane();
  return lth_host::shuffle(mask, value, lane + delta, lane % width + delta < unsigned(width), where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 lth_host::Where where = lth_host::Where::current()) {
  const unsigned lane = lth_host::lane();
  return lth_host::shuffle(mask, value, lane - delta, lane % width >= delta, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                  lth_host::Where where = lth_host::Where::current()) {
  const unsigned lane = lth_host::lane(), source = lane ^ lanes;
  return lth_host::shuffle(mask, value, source, source / width <= lane / width, where);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              lth_host::Where where = lth_host::Where::current()) {
  const unsigned lane = lth_host::lane();
  return lth_host::shuffle(mask, value, lane / width * width + source % width, true, where);
}
inline unsigned __ballot_sync(unsigned mask, int p, lth_host::Where where = lth_host::Where::current()) {
  std::uint64_t values[32];
  unsigned result = 0;
  lth_host::gather(mask, p != 0, values, false, where);
  for (int i = 0; i < 32; ++i) result |= (mask >> i & 1 && values[i]) ? 1u << i : 0;
  return result;
}
inline int __any_sync(unsigned mask, int p, lth_host::Where where = lth_host::Where::current()) {
  return __ballot_sync(mask, p, where) != 0;
}
inline int __all_sync(unsigned mask, int p, lth_host::Where where = lth_host::Where::current()) {
  return __ballot_sync(mask, p, where) == mask;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, lth_host::Where where = lth_host::Where::current()) {
  std::uint64_t values[32];
  lth_host::gather(mask, 0, values, true, where);
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, lth_host::Where where = lth_host::Where::current()) {
  return lth_host::reduce(mask, value, [](T a, T b) { return T(a + b); }, where);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, lth_host::Where where = lth_host::Where::current()) {
  return lth_host::reduce(mask, value, [](T a, T b) { return a < b ? a : b; }, where);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, lth_host::Where where = lth_host::Where::current()) {
  return lth_host::reduce(mask, value, [](T a, T b) { return a < b ? b : a; }, where);
}
inline void __threadfence() {}

template <class T, class Update>
T lth_atomic(T* p, Update update) {
  T seen, next;
  __atomic_load(p, &seen, __ATOMIC_RELAXED);
  do next = update(seen);
  while (!__atomic_compare_exchange(p, &seen, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return seen;
}
// The second argument's type is not deduced, as CUDA's overloads convert it too.
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return lth_atomic(p, [=](T x) { return T(x + v); });
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  return lth_atomic(p, [=](T x) { return x < v ? x : v; });
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  return lth_atomic(p, [=](T x) { return x < v ? v : x; });
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  return lth_atomic(p, [=](T x) { return T(x | v); });
}
template <class T>
T atomicAnd(T* p, std::type_identity_t<T> v) {
  return lth_atomic(p, [=](T x) { return T(x & v); });
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return lth_atomic(p, [=](T) { return v; });
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> compare, std::type_identity_t<T> v) {
  return lth_atomic(p, [=](T x) { return x == compare ? v : x; });
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __ffs(unsigned x) { return x ? std::countr_zero(x) + 1 : 0; }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __clz(unsigned x) { return std::countl_zero(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// Files that use these are compiled with -ffp-contract=off.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T v) {
  *p = v;
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0 };
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = lth_host::driver_version;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t = nullptr) {
  std::memset(p, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t = nullptr) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
