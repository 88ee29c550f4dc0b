// Packs and unpacks masks with the CUDA kernels on the host and compares them with the CPU kernels.
// Arguments: seed, number of weights.
#include "driver.h"
#include "masks.h"

int main(int, char** arguments) {
  auto random = make_random(std::strtoull(arguments[1], nullptr, 10));
  for (int64_t size :
       {int64_t(std::atoll(arguments[2])), int64_t(1), int64_t(31), int64_t(32), int64_t(777)}) {
    Buffer<bool> mask(size), unpacked(size);
    for (int64_t i = 0; i < size; ++i) mask[i] = random() % 3 == 0;
    Buffer<uint32_t> words((size + 31) / 32), expected((size + 31) / 32);
    lth::pack_mask_cuda(mask.data(), size, words.data(), nullptr);
    lth::pack_mask_cpu(mask.data(), size, expected.data());
    expect_equal("words", words, expected);
    lth::unpack_mask_cuda(words.data(), size, unpacked.data(), nullptr);
    expect_equal("mask", unpacked, mask);
  }
  std::puts("equal");
}
