// Selection by a sampled bracket (Floyd and Rivest 1975): a sample of the survivors gives two keys that
// enclose the sought one with near certainty; one pass over the weights prunes what lies below the bracket
// and keeps the few keys inside it; the exact key and the ties are then found among those. A bracket that
// missed is widened and the pass repeated, so the result never depends on the sample.
//
// There are three parallel regions: sample, classify, patch.
#include "threshold.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "common/parallel.h"
#include "cpu/scratch.h"
#include "cpu/threshold/apply.h"
#include "cpu/threshold/classify.h"
#include "cpu/threshold/narrow.h"
#include "cpu/threshold/sample.h"

namespace lth {
namespace {

constexpr int64_t kSampleStride = 256;  // one survivor in so many is sampled, within these numbers of them
constexpr int64_t kMinSample = 1024, kMaxSample = 8192;
constexpr int64_t kSamplesInFlight = 512;  // so many prefetched before the first is used
constexpr double kFirstWidth = 3.0;   // half width of the first bracket, in standard deviations of the rank
constexpr int64_t kHeavyShare = 128;  // an end shared by 1/128 of the sample is heavy
constexpr int64_t kGrain = 4;         // chunks per thread

struct Group {
  int64_t num_pruned = 0, survivors = 0;
  std::vector<int64_t> chunks;
  std::vector<uint32_t> sample;
  double width = kFirstWidth;
  Bracket bracket{};
  uint32_t threshold = 0;
  Where where = Where::kBetween;
};

// Samples of one chunk, before they are loaded.
struct Located {
  int32_t tensor;
  uint32_t* sample;
  int64_t count;
};

int64_t count_base(const uint32_t* words, int64_t count) { return count_words(words, count); }
#if LTH_X86
LTH_TARGET_V3 int64_t count_v3(const uint32_t* words, int64_t count) { return count_words(words, count); }
#endif

class Selection {
 public:
  Selection(const ScoreTensor* tensors, size_t num_tensors, const int64_t* num_pruned, size_t num_groups,
            bool magnitude)
      : tensors_(tensors), magnitude_(magnitude), groups_(num_groups) {
    for (size_t g = 0; g < num_groups; ++g) groups_[g].num_pruned = num_pruned[g];
    for (size_t t = 0; t < num_tensors; ++t) {
      Group& group = groups_[tensors[t].group];
      for (int64_t begin = 0; begin < tensors[t].numel; begin += kChunkWeights) {
        Chunk chunk{};
        chunk.tensor = static_cast<int32_t>(t);
        chunk.begin = begin;
        chunk.length = std::min(kChunkWeights, tensors[t].numel - begin);
        chunk.survivors = count_bits_cpu(tensors[t].mask + begin / 32, words32(chunk.length));
        chunk.before = group.survivors;
        group.survivors += chunk.survivors;
        group.chunks.push_back(static_cast<int64_t>(chunks_.size()));
        chunks_.push_back(chunk);
      }
    }
    const size_t words = chunks_.size() * kChunkWords, bytes = words * sizeof(uint64_t);
    bits_ = std::make_unique<Scratch>(3 * bytes, bytes);
    between_ = static_cast<uint64_t*>(bits_->data());
    at_low_ = between_ + words;
    at_high_ = at_low_ + words;
  }

  int64_t first_impossible_group() const {
    for (size_t g = 0; g < groups_.size(); ++g) {
      if (groups_[g].num_pruned > groups_[g].survivors) return static_cast<int64_t>(g);
    }
    return -1;
  }

  void run() {
    std::vector<Group*> open;
    for (Group& group : groups_) open.push_back(&group);
    while (!open.empty()) {
      sample(open);
      classify(open);
      std::vector<Group*> missed;
      for (Group* group : open) {
        if (!select(*group)) missed.push_back(group);
      }
      open = std::move(missed);
    }
    patch();
  }

  void report(size_t num_tensors, const PruneOutcome& outcome) const {
    for (size_t g = 0; g < groups_.size(); ++g) {
      const uint32_t bits = key_score(groups_[g].threshold, magnitude_);
      std::memcpy(&outcome.threshold[g], &bits, sizeof bits);
      if (groups_[g].num_pruned == 0) outcome.threshold[g] = -std::numeric_limits<float>::infinity();
    }
    std::fill_n(outcome.num_pruned, num_tensors, 0);
    std::fill_n(outcome.num_nan, num_tensors, 0);
    for (const Chunk& c : chunks_) {
      outcome.num_pruned[c.tensor] += c.survivors - c.kept;
      outcome.num_nan[c.tensor] += c.num_nan;
    }
  }

 private:
  Group& group_of(const Chunk& chunk) { return groups_[tensors_[chunk.tensor].group]; }

  std::vector<int64_t> chunks_of(const std::vector<Group*>& groups) const {
    std::vector<int64_t> chunks;
    for (const Group* group : groups) chunks.insert(chunks.end(), group->chunks.begin(), group->chunks.end());
    return chunks;
  }

  void sample(const std::vector<Group*>& open) {
    for (Group* group : open) {
      const int64_t size = std::clamp(group->survivors / kSampleStride, kMinSample, kMaxSample);
      group->sample.resize(group->num_pruned ? static_cast<size_t>(std::min(size, group->survivors)) : 0);
    }
    auto* const locate = locate_function();
    const std::vector<int64_t> chunks = chunks_of(open);
    auto body = [&](int64_t begin, int64_t end) {
      std::vector<int64_t> positions(kSamplesInFlight + kMaxSample);
      std::vector<Located> located;
      int64_t in_flight = 0;
      const auto load = [&] {
        const int64_t* place = positions.data();
        for (const Located& l : located) {
          const ScoreTensor& t = tensors_[l.tensor];
          for (int64_t j = 0; j < l.count; ++j) {
            l.sample[j] = score_key(score_bits(t.scores, t.type, *place++), magnitude_);
          }
        }
        located.clear();
        in_flight = 0;
      };
      for (int64_t i = begin; i < end; ++i) {
        const Chunk& chunk = chunks_[chunks[i]];
        Group& group = group_of(chunk);
        const auto size = static_cast<int64_t>(group.sample.size());
        if (size == 0 || chunk.survivors == 0) continue;
        int64_t first = 0;
        const int64_t found = locate(tensors_[chunk.tensor], chunk, group.survivors, size, &first,
                                     positions.data() + in_flight);
        located.push_back({chunk.tensor, group.sample.data() + first, found});
        in_flight += found;
        if (in_flight >= kSamplesInFlight) load();
      }
      load();
    };
    parallel_for(static_cast<int64_t>(chunks.size()), kGrain, body);
    for (Group* group : open) set_bracket(*group);
  }

  void set_bracket(Group& group) const {
    std::vector<uint32_t>& s = group.sample;
    if (s.empty()) return;
    const auto size = static_cast<int64_t>(s.size());
    const auto pick = [&](int64_t i) {
      std::nth_element(s.begin(), s.begin() + i, s.end());
      return s[static_cast<size_t>(i)];
    };
    if (size == group.survivors) {
      group.bracket.low = group.bracket.high = pick(group.num_pruned - 1);
    } else {
      const double p = (static_cast<double>(group.num_pruned) - 0.5) / static_cast<double>(group.survivors);
      const double half = 1.0 + group.width * std::sqrt(static_cast<double>(size) * p * (1.0 - p));
      const auto low = static_cast<int64_t>(std::floor(p * static_cast<double>(size) - half));
      const auto high = static_cast<int64_t>(std::ceil(p * static_cast<double>(size) + half));
      group.bracket.low = low < 0 ? 0 : pick(low);
      group.bracket.high = high >= size ? 0xffffffffu : pick(high);
    }
    const auto shared = [&](uint32_t key) {
      return std::count(s.begin(), s.end(), key) * kHeavyShare >= size;
    };
    group.bracket.heavy = shared(group.bracket.low) || shared(group.bracket.high);
  }

  void classify(const std::vector<Group*>& open) {
    const std::vector<int64_t> chunks = chunks_of(open);
    const size_t bytes = chunks.size() * kChunkKeys * sizeof(uint32_t);
    passes_.push_back(std::make_unique<Scratch>(bytes, bytes / 32));
    auto* const room = static_cast<uint32_t*>(passes_.back()->data());
    auto body = [&](int64_t begin, int64_t end) {
      uint32_t* keys = room + begin * kChunkKeys;  // those of [begin, end) lie one behind the other
      for (int64_t i = begin; i < end; ++i) {
        Chunk& chunk = chunks_[chunks[i]];
        const Group& group = group_of(chunk);
        const ScoreTensor& t = tensors_[chunk.tensor];
        // Where nothing is pruned the pass still copies the mask and counts NaN: nothing is below key 0.
        const Bracket bracket = group.num_pruned ? group.bracket : Bracket{0, 0, false};
        const int64_t at = chunks[i] * kChunkWords;
        classify_function(t.type, magnitude_, bracket.heavy)(
            {t, chunk, bracket, between_ + at, at_low_ + at, at_high_ + at, keys});
      }
    };
    parallel_for(static_cast<int64_t>(chunks.size()), kGrain, body);
  }

  // Finds the group's threshold and how many ties each chunk prunes; false when the bracket missed it.
  bool select(Group& group) {
    if (group.num_pruned == 0) return true;
    int64_t below = 0, at_low = 0, between = 0, at_high = 0;
    for (int64_t i : group.chunks) {
      below += chunks_[i].below;
      at_low += chunks_[i].at_low;
      between += chunks_[i].between;
      at_high += chunks_[i].at_high;
    }
    int64_t rank = group.num_pruned - 1 - below;  // of the threshold among what is not below the bracket
    if (rank < 0 || rank >= at_low + between + at_high) {
      group.width *= 4.0;
      return false;
    }
    if (rank < at_low) {
      group.where = Where::kLow;
      group.threshold = group.bracket.low;
      for (int64_t i : group.chunks) chunks_[i].ties = chunks_[i].at_low;
    } else if (rank < at_low + between) {
      rank -= at_low;
      group.where = Where::kBetween;
      select_between(group, rank);  // leaves `rank` the number of ties that come before it
    } else {
      rank -= at_low + between;
      group.where = Where::kHigh;
      group.threshold = group.bracket.high;
      for (int64_t i : group.chunks) chunks_[i].ties = chunks_[i].at_high;
    }
    int64_t to_prune = rank + 1;
    for (int64_t i : group.chunks) {
      Chunk& chunk = chunks_[i];
      chunk.cut = 0 < to_prune && to_prune < chunk.ties;
      chunk.ties = std::min(chunk.ties, to_prune);
      to_prune -= chunk.ties;
    }
    return true;
  }

  // The key of this rank among the candidates.
  void select_between(Group& group, int64_t& rank) {
    std::vector<Run> runs;
    runs.reserve(group.chunks.size());
    for (int64_t i : group.chunks) runs.push_back({chunks_[i].keys, chunks_[i].between});
    group.threshold = select_key(runs, {group.bracket.low, group.bracket.high}, rank);
    for (size_t i = 0; i < runs.size(); ++i) chunks_[group.chunks[i]].ties = runs[i].count;
  }

  void patch() {
    auto* const patch_chunk = patch_function();
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Chunk& chunk = chunks_[i];
        const Group& group = group_of(chunk);
        if (group.num_pruned == 0) {
          chunk.kept = chunk.survivors;
          continue;
        }
        const int64_t at = i * kChunkWords;
        patch_chunk({tensors_[chunk.tensor], chunk, group.where, group.threshold, between_ + at,
                     group.bracket.heavy ? at_low_ + at : nullptr,
                     group.bracket.heavy ? at_high_ + at : nullptr});
      }
    };
    parallel_for(static_cast<int64_t>(chunks_.size()), kGrain, body);
  }

  const ScoreTensor* tensors_;
  bool magnitude_;
  std::vector<Group> groups_;
  std::vector<Chunk> chunks_;
  std::unique_ptr<Scratch> bits_;
  uint64_t *between_, *at_low_, *at_high_;        // [chunks][kChunkWords]
  std::vector<std::unique_ptr<Scratch>> passes_;  // the keys that each pass kept
};

}  // namespace

int64_t count_bits_cpu(const uint32_t* words, int64_t num_words) {
#if LTH_X86
  if (detected_isa() != Isa::kBase) return count_v3(words, num_words);
#endif
  return count_base(words, num_words);
}

int64_t prune_lowest_cpu(const ScoreTensor* tensors, size_t num_tensors, const int64_t* num_pruned,
                         size_t num_groups, bool magnitude, const PruneOutcome& outcome) {
  Selection selection(tensors, num_tensors, num_pruned, num_groups, magnitude);
  const int64_t impossible = selection.first_impossible_group();
  if (impossible >= 0) return impossible;
  selection.run();
  selection.report(num_tensors, outcome);
  return -1;
}

}  // namespace lth
