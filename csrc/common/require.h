// Checks of arguments, also for files without a torch header.
#pragma once

#include <cstddef>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>

// Throws std::runtime_error with the message alone, where STD_TORCH_CHECK would add this file's name.
#define LTH_CHECK(condition, ...)                                            \
  do {                                                                       \
    if (!(condition)) throw std::runtime_error(::lth::message(__VA_ARGS__)); \
  } while (0)

namespace lth {

template <class... Parts>
std::string message(const Parts&... parts) {
  std::ostringstream out;
  ((out << parts), ...);
  return out.str();
}

// The name of element i of a list argument, for messages.
inline std::string item(const char* list, size_t i) {
  return std::string(list) + "[" + std::to_string(i) + "]";
}

// The scalar in float32: a number of `low` or more, which neither NaN nor infinity is.
inline float at_least(const char* name, double value, double low) {
  LTH_CHECK(value >= low && value <= std::numeric_limits<float>::max(), name, " is ", value,
            ", expected a float32 number of ", low, " or more");
  return static_cast<float>(value);
}

}  // namespace lth
