// Runs the CUDA kernels of pruning by rank and of packed masks on the host and compares them with the CPU
// kernels. Arguments: seed, number of weights.
#include <vector>

#include "cuda/threshold/select.h"
#include "driver.h"
#include "masks.h"
#include "threshold.h"

namespace {

enum Kind { kNormal, kMostlyZero, kAllEqual, kGrid, kNan, kSubnormal, kLeadingBits, kNumKinds };

float score(std::mt19937_64& random, Kind kind) {
  const float x = std::normal_distribution<float>()(random);
  switch (kind) {
    case kMostlyZero:
      return random() % 10 ? (random() % 2 ? 0.0f : -0.0f) : x;
    case kAllEqual:
      return random() % 2 ? 0.5f : -0.5f;
    case kGrid:
      return std::round(x * 4) / 4;
    case kNan:
      return random() % 10 == 0 ? NAN : random() % 10 == 0 ? INFINITY : x;
    case kSubnormal:
      return x * 1e-40f;
    case kLeadingBits:
      return 1.0f + std::abs(x) * 1e-6f;
    default:
      return x;
  }
}

struct Case {
  std::vector<Buffer<uint32_t>> scores;  // the 16-bit types use half of the room
  std::vector<Buffer<uint32_t>> masks, got, expected;
  std::vector<lth::ScoreTensor> tensors;
  std::vector<int64_t> survivors;  // of each group
};

// The tensors take turns in groups, as the numbers of `turns` have it.
Case make_case(std::mt19937_64& random, const std::vector<int64_t>& sizes, Kind kind,
               const std::vector<int32_t>& turns = {0, 1, 0, 0}) {
  Case c;
  c.survivors.assign(1 + size_t(*std::max_element(turns.begin(), turns.end())), 0);
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t n = sizes[i];
    const auto type = static_cast<lth::ScoreType>(i % 3);
    c.scores.emplace_back(type == lth::ScoreType::kFloat32 ? n : (n + 1) / 2);
    auto* halves = reinterpret_cast<uint16_t*>(c.scores.back().data());
    for (int64_t j = 0; j < n; ++j) {
      const float x = score(random, kind);
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      if (type == lth::ScoreType::kFloat32) c.scores.back()[j] = bits;
      if (type == lth::ScoreType::kBFloat16) halves[j] = uint16_t(bits >> 16);
      if (type == lth::ScoreType::kFloat16)
        halves[j] = kind == kNormal ? uint16_t(random()) : uint16_t(bits >> 16);
    }
    c.masks.emplace_back((n + 31) / 32);
    c.got.emplace_back((n + 31) / 32);
    c.expected.emplace_back((n + 31) / 32);
    for (int64_t w = 0; w < c.masks.back().size(); ++w)
      c.masks.back()[w] = uint32_t(random()) | uint32_t(random());
    if (n % 32) c.masks.back()[n / 32] &= (1u << (n % 32)) - 1;
    const int32_t group = turns[i % turns.size()];
    c.survivors[size_t(group)] += lth::count_bits_cpu(c.masks.back().data(), c.masks.back().size());
    c.tensors.push_back({c.scores.back().data(), c.masks.back().data(), nullptr, n, type, group});
  }
  return c;
}

// The survivors of a list of masks in one go.
void check_counts(Case& c) {
  std::vector<lth::MaskWords> masks;
  for (auto& mask : c.masks) masks.push_back({mask.data(), mask.size()});
  Buffer<int64_t> counts(int64_t(masks.size()));
  lth::count_bits_cuda(masks.data(), masks.size(), counts.data(), nullptr);
  for (size_t i = 0; i < masks.size(); ++i)
    if (counts[int64_t(i)] != lth::count_bits_cpu(masks[i].words, masks[i].num_words))
      wrong("count %d is %lld", int(i), (long long)counts[int64_t(i)]);
}

int num_selections, num_missed;

// One way to the threshold, or both, against the CPU kernel.
void check(Case& c, double fraction, bool magnitude, bool both) {
  const size_t count = c.tensors.size(), num_groups = c.survivors.size();
  std::vector<int64_t> num_pruned(num_groups);
  for (size_t g = 0; g < num_groups; ++g)
    num_pruned[g] = int64_t((g % 2 ? 1 - fraction : fraction) * double(c.survivors[g]));
  Buffer<float> threshold((int64_t(num_groups))), expected_threshold((int64_t(num_groups)));
  Buffer<int64_t> tally(2 * int64_t(count));
  Buffer<lth::PruneStatus> status((int64_t(num_groups)));
  std::vector<int64_t> pruned(count), nan(count);
  std::vector<lth::ScoreTensor> on_cuda = c.tensors, on_cpu = c.tensors;
  for (size_t i = 0; i < count; ++i) {
    on_cuda[i].pruned = c.got[i].data();
    on_cpu[i].pruned = c.expected[i].data();
  }
  lth::prune_lowest_cpu(on_cpu.data(), count, num_pruned.data(), num_groups, magnitude,
                        {expected_threshold.data(), pruned.data(), nan.data()});
  const size_t bytes = lth::prune_workspace_bytes_cuda(on_cuda.data(), count, num_groups);
  Buffer<uint64_t> workspace(int64_t(bytes / 8));
  for (int64_t i = 0; i < workspace.size(); ++i) workspace[i] = 0xa5a5a5a5a5a5a5a5u;  // what was there before
  for (lth::SelectBy by : {lth::SelectBy::kBracket, lth::SelectBy::kRadix}) {
    if (by == lth::SelectBy::kRadix && !both) break;
    lth::prune_lowest_cuda(on_cuda.data(), count, num_pruned.data(), num_groups, magnitude, by,
                           {threshold.data(), tally.data(), status.data()}, workspace.data(), nullptr);
    bool missed = false;
    for (size_t g = 0; g < num_groups; ++g) {
      if (status[int64_t(g)] == lth::PruneStatus::kTooMany) wrong("a possible group is called impossible");
      missed |= status[int64_t(g)] == lth::PruneStatus::kMissed;
    }
    ++num_selections;
    if (missed && by == lth::SelectBy::kRadix) wrong("the digits missed a threshold");
    num_missed += missed;
    if (missed) continue;
    expect_equal("threshold", threshold, expected_threshold);
    for (size_t i = 0; i < count; ++i) {
      expect_equal("mask", c.got[i], c.expected[i]);
      if (tally[2 * int64_t(i)] != pruned[i] || tally[2 * int64_t(i) + 1] != nan[i])
        wrong("the counts of tensor %d differ", int(i));
    }
  }
}

// More than there are, by either way; and a sample that misleads, as every place that it looks at is small.
void check_statuses(int64_t n) {
  Buffer<float> scores(n), threshold(1);
  Buffer<uint32_t> mask((n + 31) / 32), pruned((n + 31) / 32);
  for (int64_t i = 0; i < n; ++i) scores[i] = 1.0f + float(i);
  const int64_t samples = n < lth::kMaxSamples ? n : lth::kMaxSamples;
  for (int64_t j = 0; j < samples; ++j) scores[lth::sample_place(j, samples, n)] = 1e-3f * float(j);
  for (int64_t w = 0; w < mask.size(); ++w) mask[w] = ~0u;
  if (n % 32) mask[n / 32] = (1u << (n % 32)) - 1;
  const lth::ScoreTensor tensor = {scores.data(), mask.data(), pruned.data(), n, lth::ScoreType::kFloat32, 0};
  Buffer<uint64_t> workspace(int64_t(lth::prune_workspace_bytes_cuda(&tensor, 1, 1) / 8));
  Buffer<int64_t> tally(2);
  Buffer<lth::PruneStatus> status(1);
  const auto run = [&](int64_t num_pruned, lth::SelectBy by) {
    lth::prune_lowest_cuda(&tensor, 1, &num_pruned, 1, true, by,
                           {threshold.data(), tally.data(), status.data()}, workspace.data(), nullptr);
    return status[0];
  };
  for (lth::SelectBy by : {lth::SelectBy::kBracket, lth::SelectBy::kRadix}) {
    if (run(n + 1, by) != lth::PruneStatus::kTooMany) wrong("too many are not noticed");
  }
  if (run(n, lth::SelectBy::kRadix) != lth::PruneStatus::kFound || tally[0] != n) wrong("not all are pruned");
  if (n >= 2 * lth::kMaxSamples && run(n / 2, lth::SelectBy::kBracket) != lth::PruneStatus::kMissed)
    wrong("a bracket that missed is not noticed");
}

void check_packing(std::mt19937_64& random, int64_t n) {
  Buffer<bool> mask(n), back(n);
  for (int64_t i = 0; i < n; ++i) mask[i] = random() % 3 == 0;
  Buffer<uint32_t> got((n + 31) / 32), expected((n + 31) / 32);
  lth::pack_mask_cuda(mask.data(), n, got.data(), nullptr);
  lth::pack_mask_cpu(mask.data(), n, expected.data());
  expect_equal("words", got, expected);
  lth::unpack_mask_cuda(got.data(), n, back.data(), nullptr);
  expect_equal("mask", back, mask);
}

}  // namespace

int main(int, char** arguments) {
  auto random = make_random(std::strtoull(arguments[1], nullptr, 10));
  const int64_t num_weights = std::atoll(arguments[2]);
  for (int64_t n : {int64_t(0), int64_t(1), int64_t(31), int64_t(33), int64_t(1000), num_weights / 10})
    check_packing(random, n);
  const std::vector<int64_t> sizes = {num_weights / 10, 0, 5, num_weights / 20 | 1, 4096, 33};
  for (int kind = 0; kind < kNumKinds; ++kind) {
    Case c = make_case(random, sizes, static_cast<Kind>(kind));
    check_counts(c);
    for (double fraction : {0.2, 0.0, 0.9})
      check(c, fraction, kind % 2 == 0 || fraction == 0.2, fraction == 0.2);
  }
  Case large = make_case(random, {num_weights}, kNormal, {0});
  check(large, 0.2, true, false);
  // More tensors, or more groups, than fit the tables of one launch on an older driver.
  std::vector<int64_t> many(45), layers(45, 1);
  std::vector<int32_t> each(layers.size());
  for (size_t i = 0; i < many.size(); ++i) many[i] = int64_t(i % 40 + 1), each[i] = int32_t(i);
  layers[20] = layers[43] = 700;
  Case listed = make_case(random, many, kGrid, {0}), apart = make_case(random, layers, kGrid, each);
  check_counts(listed);
  for (int version : {13000, 12000}) {
    lth_host::driver_version = version;
    check(listed, 0.3, true, false);
    check(apart, 0.3, true, false);
  }
  check_statuses(num_weights);
  check_statuses(100);
  if (10 * num_missed > num_selections) wrong("%d of %d brackets missed", num_missed, num_selections);
  std::puts("equal");
}
