// What csrc/cuda/launch.h includes in place of CUDA: its keywords and the few functions that the kernels use,
// for the emulator of emulator.cpp. Apart from the tests' executor of the same name: blocks run at once, on
// threads.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static thread_local  // a thread of the emulator runs one block at a time
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
using std::isinf;
using std::isnan;

namespace emu {
extern thread_local dim3 thread_index, block_index;
extern dim3 block_size, grid_size;
void barrier();
unsigned lane();
const uint64_t* exchange(unsigned mask,
                         uint64_t value);  // every lane's value, once all lanes of the mask are here
void run(dim3 grid, dim3 block, const std::function<void()>& body);

// The kernels of a file: part of a mangled name -> a launch with the arguments as they are now
struct Kernel {
  const char *file, *name, *form;
  std::function<void()> (*bind)(dim3, dim3, void**);
};
struct Known {
  Known(std::vector<Kernel> kernels);
};

template <class T>
uint64_t bits(T v) {
  uint64_t b = 0;
  memcpy(&b, &v, sizeof v);
  return b;
}
template <class T>
T value(uint64_t b) {
  T v;
  memcpy(&v, &b, sizeof v);
  return v;
}
template <class K, class... A>
void launch(dim3 g, dim3 b, K kernel, A... a) {
  run(g, b, [=] { kernel(a...); });
}
template <class... P, size_t... I>
std::function<void()> bind_with(void (*kernel)(P...), dim3 g, dim3 b, void** a, std::index_sequence<I...>) {
  const std::tuple<P...> arguments(*static_cast<P*>(a[I])...);
  return [=] { run(g, b, [&] { std::apply(kernel, arguments); }); };
}
template <class... P>
std::function<void()> bind(void (*kernel)(P...), dim3 g, dim3 b, void** a) {
  return bind_with(kernel, g, b, a, std::index_sequence_for<P...>{});
}
}  // namespace emu

#define threadIdx emu::thread_index
#define blockIdx emu::block_index
#define blockDim emu::block_size
#define gridDim emu::grid_size
#define LTH_LAUNCH(kernel, grid, block, shared, stream, ...) \
  ((void)(stream), emu::launch(grid, block, [](auto... a) { kernel(a...); }, __VA_ARGS__))

inline void __syncthreads() { emu::barrier(); }
template <class T>
T __shfl_sync(unsigned m, T v, unsigned from) {
  return emu::value<T>(emu::exchange(m, emu::bits(v))[from & 31]);
}
template <class T>
T __shfl_xor_sync(unsigned m, T v, unsigned d) {
  return emu::value<T>(emu::exchange(m, emu::bits(v))[emu::lane() ^ d]);
}
template <class T>
T __shfl_down_sync(unsigned m, T v, unsigned d) {
  const uint64_t* all = emu::exchange(m, emu::bits(v));
  return emu::lane() + d < 32 ? emu::value<T>(all[emu::lane() + d]) : v;
}
template <class T>
T __shfl_up_sync(unsigned m, T v, unsigned d) {
  const uint64_t* all = emu::exchange(m, emu::bits(v));
  return emu::lane() >= d ? emu::value<T>(all[emu::lane() - d]) : v;
}
inline unsigned __ballot_sync(unsigned m, bool vote) {
  const uint64_t* all = emu::exchange(m, vote);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) votes |= (m >> i & 1) && all[i] ? 1u << i : 0u;
  return votes;
}
template <class T, class Combined>
T lth_reduce(unsigned m, T v, Combined combined) {
  const uint64_t* all = emu::exchange(m, emu::bits(v));
  for (unsigned i = 0; i < 32; ++i)
    if ((m >> i & 1) && i != emu::lane()) v = combined(v, emu::value<T>(all[i]));
  return v;
}
template <class T>
T __reduce_add_sync(unsigned m, T v) {
  return lth_reduce(m, v, [](T a, T b) { return T(a + b); });
}
template <class T>
T __reduce_min_sync(unsigned m, T v) {
  return lth_reduce(m, v, [](T a, T b) { return std::min(a, b); });
}
template <class T>
T __reduce_max_sync(unsigned m, T v) {
  return lth_reduce(m, v, [](T a, T b) { return std::max(a, b); });
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(x); }
inline int __clzll(unsigned long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
template <class T, class U>
T atomicAdd(T* p, U v) {
  return __atomic_fetch_add(p, (T)v, __ATOMIC_RELAXED);
}
template <class T, class U>
T atomicAnd(T* p, U v) {
  return __atomic_fetch_and(p, (T)v, __ATOMIC_RELAXED);
}
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
inline float __uint_as_float(unsigned b) { return emu::value<float>(b); }

#define CUDART_VERSION 13000
using cudaStream_t = void*;
constexpr int cudaSuccess = 0;
inline int cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
inline int cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind, void*) {
  memcpy(to, from, n);
  return 0;
}
inline int cudaMemsetAsync(void* p, int v, size_t n, void*) {
  memset(p, v, n);
  return 0;
}
