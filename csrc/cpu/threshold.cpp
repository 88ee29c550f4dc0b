// Selection by a sampled bracket (Floyd and Rivest 1975): a sample of the survivors gives two keys that
// enclose the sought one with near certainty; one pass over the weights prunes what lies below the bracket
// and keeps the few keys inside it; the exact key and the ties are then found among those. A bracket that
// missed is widened and the pass repeated, so the result never depends on the sample.
//
// There are three parallel regions: sample, classify, patch.
#include "../threshold.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "../common/parallel.h"
#include "classify.h"

namespace lth {
namespace {

constexpr int64_t kChunkWeights = 16384;
constexpr int64_t kChunkWords = kChunkWeights / 64;
constexpr int64_t kSampleStride = 256;  // one survivor in so many is sampled, within these numbers of them
constexpr int64_t kMinSample = 1024, kMaxSample = 8192;
constexpr double kFirstWidth = 3.0;   // half width of the first bracket, in standard deviations of the rank
constexpr int64_t kHeavyShare = 128;  // an end shared by 1/128 of the sample is heavy
constexpr int64_t kPrefetchBytes = 2048;
constexpr int64_t kGrain = 4;  // chunks a thread

// Keys of candidates, appended to by one thread.
class KeyList {
 public:
  KeyList() = default;
  KeyList(const KeyList&) = delete;
  KeyList& operator=(const KeyList&) = delete;
  ~KeyList() { std::free(keys_); }

  uint32_t* room_for(int64_t count) {
    const int64_t wanted = size_ + count + 96;  // the slack that classify() may write
    if (wanted > capacity_) {
      capacity_ = std::max(wanted, 2 * capacity_);
      void* grown = std::realloc(keys_, static_cast<size_t>(capacity_) * sizeof(uint32_t));
      if (!grown) throw std::bad_alloc();
      keys_ = static_cast<uint32_t*>(grown);
    }
    return keys_ + size_;
  }
  void set_end(const uint32_t* end) { size_ = end - keys_; }
  int64_t size() const { return size_; }
  const uint32_t* at(int64_t i) const { return keys_ + i; }

 private:
  uint32_t* keys_ = nullptr;
  int64_t size_ = 0, capacity_ = 0;
};

enum class Where { kLow, kBetween, kHigh };  // the threshold is an end of a heavy bracket, or a kept key

struct Chunk {
  int32_t tensor;
  int64_t begin, length;  // weights of the tensor
  int64_t survivors;
  int64_t before;  // survivors of the group in earlier chunks
  int64_t below, at_low, between, at_high, num_nan;
  int64_t ties;         // survivors equal to the threshold, then how many of them to prune
  int64_t kept;         // survivors after
  const KeyList* list;  // its candidates' keys, in flat order, from
  int64_t first_key;
};

struct Group {
  int64_t num_pruned = 0, survivors = 0;
  std::vector<int64_t> chunks;
  std::vector<uint32_t> sample;
  double width = kFirstWidth;
  Bracket bracket{};
  uint32_t threshold = 0;
  Where where = Where::kBetween;
};

int64_t words32(int64_t weights) { return (weights + 31) / 32; }

// 64 mask bits from word32 `i` on, of which `words` exist.
LTH_INLINE uint64_t load64(const uint32_t* mask, int64_t i, int64_t words) {
  const uint64_t low = mask[i];
  return i + 1 < words ? low | static_cast<uint64_t>(mask[i + 1]) << 32 : low;
}

LTH_INLINE void store64(uint32_t* mask, int64_t i, int64_t words, uint64_t bits) {
  mask[i] = static_cast<uint32_t>(bits);
  if (i + 1 < words) mask[i + 1] = static_cast<uint32_t>(bits >> 32);
}

LTH_INLINE int64_t count_words(const uint32_t* words, int64_t count) {
  int64_t total = 0, i = 0;
  for (; i + 2 <= count; i += 2) {
    uint64_t two;
    std::memcpy(&two, words + i, sizeof two);
    total += __builtin_popcountll(two);
  }
  if (i < count) total += __builtin_popcount(words[i]);
  return total;
}

// A fixed, evenly spread number in [0, 1) for each sample: a plain stride could follow the layout of a
// weight.
double jitter(uint64_t i) {
  uint64_t x = i * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1.0p-53;
}

struct Pass {
  const ScoreTensor& tensor;
  Chunk& chunk;
  const Bracket& bracket;
  uint64_t *between, *at_low, *at_high;  // [kChunkWords]; the latter two for heavy brackets
  KeyList& list;
};

template <class Lane, bool kHeavy>
LTH_INLINE void classify_chunk(const Pass& p) {
  Chunk& c = p.chunk;
  const ScoreTensor& t = p.tensor;
  const int64_t words = words32(t.numel), first_word = c.begin / 32;
  const int64_t size = t.type == ScoreType::kFloat32 ? 4 : 2;
  const Bracket bracket = p.bracket;
  uint32_t* const keys = p.list.room_for(c.length);
  uint32_t* end = keys;
  int64_t below = 0, at_low = 0, at_high = 0, num_nan = 0;
  for (int64_t w = 0; w * 64 < c.length; ++w) {
    const int64_t i = c.begin + w * 64;
    const uint64_t mask = load64(t.mask, first_word + 2 * w, words);
    Classes found;
    if (c.length - w * 64 >= 64) {
      // Without this the loop takes a fifth longer.
      for (int64_t line = 0; line < 64 * size; line += 64) {
        __builtin_prefetch(static_cast<const char*>(t.scores) + i * size + kPrefetchBytes + line);
      }
      found = Lane::classify(t.scores, i, mask, bracket, end);
    } else {
      unsigned char last[64 * 4] = {};
      std::memcpy(last, static_cast<const char*>(t.scores) + i * size,
                  static_cast<size_t>((c.length - w * 64) * size));
      found = Lane::classify(last, 0, mask, bracket, end);
    }
    p.between[w] = found.between;
    if (kHeavy) {
      p.at_low[w] = found.at_low;
      p.at_high[w] = found.at_high;
      at_low += __builtin_popcountll(found.at_low);
      at_high += __builtin_popcountll(found.at_high);
    }
    below += __builtin_popcountll(found.below);
    num_nan += __builtin_popcountll(found.nan);
    store64(t.pruned, first_word + 2 * w, words, mask & ~found.below);
  }
  c.list = &p.list;
  c.first_key = p.list.size();
  c.between = end - keys;
  c.below = below;
  c.at_low = at_low;
  c.at_high = at_high;
  c.num_nan = num_nan;
  p.list.set_end(end);
}

using ClassifyFunction = void (*)(const Pass&);

#define LTH_CLASSIFY(name, Lane, target)                        \
  template <ScoreType kType, bool kMagnitude, bool kHeavy>      \
  target void name(const Pass& p) {                             \
    classify_chunk<Lane<kType, kMagnitude, kHeavy>, kHeavy>(p); \
  }

LTH_CLASSIFY(classify_base, BaseLane, )
#if LTH_X86
LTH_CLASSIFY(classify_v3, Avx2Lane, LTH_TARGET_V3)
LTH_CLASSIFY(classify_v4, Avx512Lane, LTH_TARGET_V4)
#endif
#undef LTH_CLASSIFY

template <ScoreType kType, bool kMagnitude, bool kHeavy>
ClassifyFunction for_this_cpu() {
#if LTH_X86
  if (detected_isa() == Isa::kV4) return classify_v4<kType, kMagnitude, kHeavy>;
  if (detected_isa() == Isa::kV3) return classify_v3<kType, kMagnitude, kHeavy>;
#endif
  return classify_base<kType, kMagnitude, kHeavy>;
}

template <ScoreType kType>
ClassifyFunction classify_function(bool magnitude, bool heavy) {
  if (magnitude) return heavy ? for_this_cpu<kType, true, true>() : for_this_cpu<kType, true, false>();
  return heavy ? for_this_cpu<kType, false, true>() : for_this_cpu<kType, false, false>();
}

ClassifyFunction classify_function(ScoreType type, bool magnitude, bool heavy) {
  if (type == ScoreType::kFloat32) return classify_function<ScoreType::kFloat32>(magnitude, heavy);
  if (type == ScoreType::kBFloat16) return classify_function<ScoreType::kBFloat16>(magnitude, heavy);
  return classify_function<ScoreType::kFloat16>(magnitude, heavy);
}

struct Patch {
  const ScoreTensor& tensor;
  Chunk& chunk;
  Where where;
  uint32_t threshold;
  const uint64_t *between, *at_low, *at_high;  // [kChunkWords]; the latter two nullptr for narrow brackets
};

struct Split {
  uint64_t less, equal;  // which of the candidates
};

// Compares the keys of a word's candidates with the threshold and steps over them.
struct BaseComparison {
  static LTH_INLINE Split split(const uint32_t*& key, uint64_t candidates, uint32_t threshold) {
    Split s{};
    for (uint64_t rest = candidates; rest != 0; rest &= rest - 1, ++key) {
      const uint64_t bit = rest & (0 - rest);
      s.less |= *key < threshold ? bit : 0;
      s.equal |= *key == threshold ? bit : 0;
    }
    return s;
  }
};

#if LTH_X86
struct Avx512Comparison {
  LTH_TARGET_V4 static inline Split split(const uint32_t*& key, uint64_t candidates, uint32_t threshold) {
    const __m512i wanted = _mm512_set1_epi32(static_cast<int>(threshold));
    const int count = __builtin_popcountll(candidates);
    Split s{};
    for (int k = 0; k < count;
         k += 16) {  // reads past the list's end stay in its slack; pdep drops those bits
      const __m512i keys = _mm512_loadu_si512(key + k);
      s.less |= static_cast<uint64_t>(_mm512_cmplt_epu32_mask(keys, wanted)) << k;
      s.equal |= static_cast<uint64_t>(_mm512_cmpeq_epu32_mask(keys, wanted)) << k;
    }
    key += count;
    return {_pdep_u64(s.less, candidates), _pdep_u64(s.equal, candidates)};
  }
};
#endif

// Prunes what comes before the threshold inside the bracket, and the chunk's share of the ties.
template <class Comparison>
LTH_INLINE void patch_chunk(const Patch& p) {
  Chunk& c = p.chunk;
  uint32_t* const mask = p.tensor.pruned;
  const int64_t words = words32(p.tensor.numel), first_word = c.begin / 32;
  const uint32_t* key = c.list->at(c.first_key);
  int64_t ties = c.ties, kept = 0;
  // The first `ties` of these bits, counted over the words of the chunk.
  const auto take = [&ties](uint64_t bits) {
    const int count = __builtin_popcountll(bits);
    if (count <= ties) {
      ties -= count;
      return bits;
    }
    uint64_t rest = bits;
    for (; ties > 0; --ties) rest &= rest - 1;
    return bits & ~rest;
  };
  for (int64_t w = 0; w * 64 < c.length; ++w) {
    uint64_t pruned = 0;
    if (p.where == Where::kLow) {
      pruned = take(p.at_low[w]);
    } else {
      if (p.at_low) pruned = p.at_low[w];
      if (p.where == Where::kHigh) {
        pruned |= p.between[w] | take(p.at_high[w]);
      } else {
        const Split split = Comparison::split(key, p.between[w], p.threshold);
        pruned |= split.less | take(split.equal);
      }
    }
    const uint64_t left = load64(mask, first_word + 2 * w, words) & ~pruned;
    store64(mask, first_word + 2 * w, words, left);
    kept += __builtin_popcountll(left);
  }
  c.kept = kept;
}

// The place of the set bit that `skip` others precede.
struct BaseSelect {
  static LTH_INLINE int nth(uint64_t bits, int skip) {
    for (; skip > 0; --skip) bits &= bits - 1;
    return __builtin_ctzll(bits);
  }
};
#if LTH_X86
struct Bmi2Select {
  LTH_TARGET_V3 static inline int nth(uint64_t bits, int skip) {
    return __builtin_ctzll(_pdep_u64(1ull << skip, bits));
  }
};
#endif

// Finds where the samples lie that fall into a chunk: sample j of a group is its survivor of a rank in
// [j, j + 1) * survivors / samples. Their weights are only prefetched, as each is a cache miss.
template <class Select>
LTH_INLINE int64_t locate_samples(const ScoreTensor& t, const Chunk& chunk, int64_t survivors, int64_t size,
                                  int64_t* first, int64_t* places) {
  const double step = static_cast<double>(survivors) / static_cast<double>(size);
  const int64_t last = chunk.before + chunk.survivors, words = words32(t.numel);
  int64_t word = chunk.begin / 32, passed = chunk.before, found = 0;
  for (int64_t j = std::max<int64_t>(0, static_cast<int64_t>(static_cast<double>(chunk.before) / step) - 1);
       j < size; ++j) {
    const double within = size < survivors ? jitter(static_cast<uint64_t>(j)) : 0.5;
    const int64_t rank =
        std::min(survivors - 1, static_cast<int64_t>((static_cast<double>(j) + within) * step));
    if (rank < chunk.before) continue;
    if (rank >= last) break;
    uint64_t bits = load64(t.mask, word, words);
    int count = __builtin_popcountll(bits);
    while (passed + count <= rank) {
      passed += count;
      word += 2;
      bits = load64(t.mask, word, words);
      count = __builtin_popcountll(bits);
    }
    if (found == 0) *first = j;
    places[found] = word * 32 + Select::nth(bits, static_cast<int>(rank - passed));
    __builtin_prefetch(static_cast<const char*>(t.scores) +
                       places[found] * (t.type == ScoreType::kFloat32 ? 4 : 2));
    ++found;
  }
  return found;
}

int64_t locate_base(const ScoreTensor& t, const Chunk& chunk, int64_t survivors, int64_t size, int64_t* first,
                    int64_t* places) {
  return locate_samples<BaseSelect>(t, chunk, survivors, size, first, places);
}
#if LTH_X86
LTH_TARGET_V3 int64_t locate_v3(const ScoreTensor& t, const Chunk& chunk, int64_t survivors, int64_t size,
                                int64_t* first, int64_t* places) {
  return locate_samples<Bmi2Select>(t, chunk, survivors, size, first, places);
}
#endif

void patch_base(const Patch& p) { patch_chunk<BaseComparison>(p); }
int64_t count_base(const uint32_t* words, int64_t count) { return count_words(words, count); }
#if LTH_X86
LTH_TARGET_V3 void patch_v3(const Patch& p) { patch_chunk<BaseComparison>(p); }
LTH_TARGET_V4 void patch_v4(const Patch& p) { patch_chunk<Avx512Comparison>(p); }
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
    auto* locate = locate_base;
#if LTH_X86
    if (detected_isa() != Isa::kBase) locate = locate_v3;
#endif
    const std::vector<int64_t> chunks = chunks_of(open);
    auto body = [&](int64_t begin, int64_t end) {
      std::vector<int64_t> places(kMaxSample);
      const auto load = [&](const Chunk& chunk, int64_t first, int64_t found) {
        const ScoreTensor& t = tensors_[chunk.tensor];
        uint32_t* sample = group_of(chunk).sample.data() + first;
        for (int64_t j = 0; j < found; ++j) {
          sample[j] = score_key(score_bits(t.scores, t.type, places[static_cast<size_t>(j)]), magnitude_);
        }
      };
      for (int64_t i = begin; i < end; ++i) {
        const Chunk& chunk = chunks_[chunks[i]];
        const Group& group = group_of(chunk);
        const auto size = static_cast<int64_t>(group.sample.size());
        if (size == 0 || chunk.survivors == 0) continue;
        int64_t first = 0;
        const int64_t found =
            locate(tensors_[chunk.tensor], chunk, group.survivors, size, &first, places.data());
        load(chunk, first, found);
      }
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
    if (!between_) between_.reset(new uint64_t[chunks_.size() * kChunkWords]);
    const bool heavy = std::any_of(open.begin(), open.end(), [](const Group* g) { return g->bracket.heavy; });
    if (heavy && !at_low_) {
      at_low_.reset(new uint64_t[chunks_.size() * kChunkWords]);
      at_high_.reset(new uint64_t[chunks_.size() * kChunkWords]);
    }
    std::mutex mutex;
    auto body = [&](int64_t begin, int64_t end) {
      auto list = std::make_unique<KeyList>();
      for (int64_t i = begin; i < end; ++i) {
        Chunk& chunk = chunks_[chunks[i]];
        const Group& group = group_of(chunk);
        const ScoreTensor& t = tensors_[chunk.tensor];
        // Where nothing is pruned the pass still copies the mask and counts NaN: nothing is below key 0.
        const Bracket bracket = group.num_pruned ? group.bracket : Bracket{0, 0, false};
        const int64_t at = chunks[i] * kChunkWords;
        classify_function(t.type, magnitude_, bracket.heavy)(
            {t, chunk, bracket, between_.get() + at, at_low_ ? at_low_.get() + at : nullptr,
             at_high_ ? at_high_.get() + at : nullptr, *list});
      }
      const std::lock_guard<std::mutex> lock(mutex);
      lists_.push_back(std::move(list));
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
      chunks_[i].ties = std::min(chunks_[i].ties, to_prune);
      to_prune -= chunks_[i].ties;
    }
    return true;
  }

  // The key of this rank among the candidates: a histogram over the bracket, then its one bin.
  void select_between(Group& group, int64_t& rank) {
    constexpr uint32_t kBins = 4096;
    int shift = 0;
    while (((group.bracket.high - group.bracket.low) >> shift) >= kBins) ++shift;
    std::vector<int64_t> bins(kBins, 0);
    for (int64_t i : group.chunks) {
      const uint32_t* keys = chunks_[i].list->at(chunks_[i].first_key);
      for (int64_t k = 0; k < chunks_[i].between; ++k) ++bins[(keys[k] - group.bracket.low) >> shift];
    }
    uint32_t bin = 0;
    while (rank >= bins[bin]) rank -= bins[bin++];
    std::vector<std::pair<uint32_t, int64_t>> inside;  // key and chunk of the bin's candidates
    inside.reserve(static_cast<size_t>(bins[bin]));
    for (int64_t i : group.chunks) {
      const uint32_t* keys = chunks_[i].list->at(chunks_[i].first_key);
      for (int64_t k = 0; k < chunks_[i].between; ++k) {
        if ((keys[k] - group.bracket.low) >> shift == bin) inside.emplace_back(keys[k], i);
      }
      chunks_[i].ties = 0;
    }
    std::nth_element(inside.begin(), inside.begin() + rank, inside.end());
    group.threshold = inside[static_cast<size_t>(rank)].first;
    for (const auto& [key, chunk] : inside) {
      if (key < group.threshold) --rank;
      if (key == group.threshold) ++chunks_[chunk].ties;
    }
  }

  void patch() {
    auto* function = patch_base;
#if LTH_X86
    if (detected_isa() == Isa::kV3) function = patch_v3;
    if (detected_isa() == Isa::kV4) function = patch_v4;
#endif
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Chunk& chunk = chunks_[i];
        const Group& group = group_of(chunk);
        if (group.num_pruned == 0) {
          chunk.kept = chunk.survivors;
          continue;
        }
        const int64_t at = i * kChunkWords;
        function({tensors_[chunk.tensor], chunk, group.where, group.threshold, between_.get() + at,
                  group.bracket.heavy ? at_low_.get() + at : nullptr,
                  group.bracket.heavy ? at_high_.get() + at : nullptr});
      }
    };
    parallel_for(static_cast<int64_t>(chunks_.size()), kGrain, body);
  }

  const ScoreTensor* tensors_;
  bool magnitude_;
  std::vector<Group> groups_;
  std::vector<Chunk> chunks_;
  std::vector<std::unique_ptr<KeyList>> lists_;
  std::unique_ptr<uint64_t[]> between_, at_low_, at_high_;  // [chunks][kChunkWords]
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
