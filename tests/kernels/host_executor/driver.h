// What the drivers share: random inputs in buffers of exactly their size, and comparisons that end the
// program.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

#include "common/parallel.h"
#include "host_executor.h"

namespace lth {

void parallel_for(int64_t count, int64_t, void (*body)(int64_t, int64_t, void*), void* context) {
  if (count > 0) body(0, count, context);
}

}  // namespace lth

// A buffer that ends where its last element does, so that AddressSanitizer sees the first access beyond it.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : size_(size), data_(static_cast<T*>(std::malloc(size ? size * sizeof(T) : 1))) {}
  Buffer(Buffer&& other) : size_(other.size_), data_(other.data_) { other.data_ = nullptr; }
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  T* data() { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_[i]; }

 private:
  int64_t size_;
  T* data_;
};

template <class... Parts>
[[noreturn]] void wrong(const char* format, Parts... parts) {
  std::printf("wrong result: ");
  std::printf(format, parts...);
  std::printf("\n");
  std::fflush(stdout);
  std::_Exit(1);
}

template <class T>
void expect_equal(const char* what, Buffer<T>& got, Buffer<T>& expected) {
  for (int64_t i = 0; i < expected.size(); ++i)
    if (std::memcmp(&got[i], &expected[i], sizeof(T)) != 0)
      wrong("%s[%lld] is %.9g, expected %.9g", what, (long long)i, double(got[i]), double(expected[i]));
}

inline std::mt19937_64 make_random(uint64_t seed) {
  lth_host::seed(seed);
  return std::mt19937_64(seed);
}

inline Buffer<float> normal(std::mt19937_64& random, int64_t size) {
  std::normal_distribution<float> distribution;
  Buffer<float> values(size);
  for (int64_t i = 0; i < size; ++i) values[i] = distribution(random);
  return values;
}
