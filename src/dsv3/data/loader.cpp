#include "dsv3/data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "dsv3/base/error.h"
#include "dsv3/base/philox.h"
#include "dsv3/config/shares.h"
#include "dsv3/data/permutation.h"
#include "dsv3/data/prefix_info.h"

namespace dsv3 {
namespace {

// PREFIX.json of `dsv3 prepare` knows the largest id, so a model that is too small is refused before it
// trains.
void check_vocabulary(const DataSource& source, int64_t vocab_size) {
  const std::optional<int64_t> largest = read_prefix_info(source.path).largest_id;
  if (!largest || *largest < vocab_size) return;
  throw InputError(
      source.path + ".json", "largest_id",
      "is " + std::to_string(*largest) + ", the model's vocabulary ends at " + std::to_string(vocab_size - 1),
      "raise model.vocab_size or prepare with another tokenizer");
}

}  // namespace

SampleStream::SampleStream(const std::vector<DataSource>& sources, int64_t seq_len, uint64_t seed,
                           bool shuffle, int64_t vocab_size, const Fim& fim)
    : seq_len_(seq_len), seed_(seed), shuffle_(shuffle), vocab_size_(vocab_size), fim_(fim) {
  if (seq_len < 1) throw UsageError("data.seq_len", fmt::format("{}, expected at least 1", seq_len));
  if (sources.empty())
    throw UsageError("data", "no token file is named", "give a PREFIX that dsv3 prepare has made");
  check_fim(vocab_size);
  int64_t samples = 0;
  for (const DataSource& source : sources) {
    if (const double weight = source.weight.value_or(1); !(std::isfinite(weight) && weight > 0)) {
      throw UsageError("data",
                       fmt::format("{}: weight {}, expected a number > 0", printable(source.path), weight));
    }
    const IndexedDataset& set = sets_.emplace_back(source.path);
    const int64_t fit = (set.num_tokens() - 1) / seq_len;
    if (fit < 1) {
      throw InputError(
          set.bin_path(), "size",
          fmt::format("{} tokens, a sample needs one more than seq_len = {}", set.num_tokens(), seq_len),
          "a shorter data.seq_len or more text");
    }
    ends_.push_back(samples += fit);
  }
  samples_per_epoch_ = samples;
  walks_ = first_walks_ = first_walks(sources);
  if (walks_.size() == 1) return;
  std::vector<int64_t> shares;
  for (const Walk& walk : walks_) shares.push_back(walk.share);
  blend_.emplace(shares);
  samples_per_epoch_ = std::numeric_limits<int64_t>::max();
  for (size_t s = 0; s < sets_.size(); ++s) {
    const Blend::Draw again = {.source = static_cast<int64_t>(s), .index = samples_of(s)};
    samples_per_epoch_ = std::min(samples_per_epoch_, blend_->cursor_of(again));
  }
}

SampleStream SampleStream::open(const RunConfig& run, bool valid) {
  const DataConfig& data = run.data;
  require_one_tokenizer(data);
  for (const DataSource& source : valid ? data.valid : data.train)
    check_vocabulary(source, run.model.vocab_size);
  if (valid) return {data.valid, data.seq_len, data.seed, false, run.model.vocab_size};
  return {data.train, data.seq_len, data.seed, data.shuffle, run.model.vocab_size, find_fim(data)};
}

void SampleStream::check_fim(int64_t vocab_size) const {
  if (!(fim_.rate >= 0 && fim_.rate <= 1))
    throw UsageError("data.fim_rate", fmt::format("{}, expected 0 to 1", fim_.rate));
  if (fim_.rate == 0) return;
  for (const int64_t id : {fim_.begin, fim_.hole, fim_.end}) {
    if (id >= 0 && id < vocab_size) continue;
    throw InputError(
        "data.tokenizer", "fill-in-the-middle",
        fmt::format("sentinel {}, expected 0 to {} (vocabulary {})", id, vocab_size - 1, vocab_size),
        "the model's vocab_size is too small for the tokenizer");
  }
}

int64_t SampleStream::shuffled(int64_t index, int64_t samples, uint64_t seed) const {
  const int64_t epoch = index / samples, sample = index % samples;
  return shuffle_ ? KeyedPermutation(samples, seed, static_cast<uint64_t>(epoch))(sample) : sample;
}

SampleStream::Place SampleStream::place_of(int64_t cursor) const {
  const int64_t samples = cursor - origin_;
  const Blend::Draw draw = blend_ ? (*blend_)(samples) : Blend::Draw{.source = 0, .index = samples};
  const Walk& walk = walks_[static_cast<size_t>(draw.source)];
  const int64_t index = walk.cursor + draw.index;
  // A seed each: two sources of one length must not be walked in one order.
  const uint64_t seed = walk.order == kSeedItself
                            ? seed_
                            : philox_u64(seed_, hash_name("blend"), static_cast<uint64_t>(walk.order));
  if (blend_) {
    const auto source = static_cast<size_t>(draw.source);
    return {source, shuffled(index, samples_of(source), seed)};
  }
  const int64_t sample = shuffled(index, ends_.back(), seed);
  const size_t source = std::upper_bound(ends_.begin(), ends_.end(), sample) - ends_.begin();
  return {source, sample - (source == 0 ? 0 : ends_[source - 1])};
}

std::vector<int64_t> SampleStream::drawn(int64_t samples) const {
  return blend_ ? blend_->drawn(samples) : std::vector<int64_t>{samples};
}

StreamPosition SampleStream::position(int64_t cursor) const {
  StreamPosition position{.samples = cursor - origin_, .walks = walks_};
  const std::vector<int64_t> given = drawn(position.samples);
  for (size_t i = 0; i < given.size(); ++i) position.walks[i].cursor += given[i];
  return position;
}

std::vector<std::string> SampleStream::go_on(const StreamPosition& saved, int64_t cursor) {
  walks_ = first_walks_;
  origin_ = 0;
  if (saved.walks.empty()) return {};
  std::vector<std::string> said = take_over(walks_, saved);
  origin_ = cursor;
  if (!said.empty()) return said;
  origin_ -= saved.samples;
  const std::vector<int64_t> given = drawn(saved.samples);
  for (size_t i = 0; i < given.size(); ++i)
    if ((walks_[i].cursor -= given[i]) < 0) throw std::invalid_argument("a source gave less than its share");
  return said;
}

void SampleStream::read(int64_t cursor, std::span<int64_t> tokens, std::span<int64_t> documents) const {
  const Place place = place_of(cursor);
  const IndexedDataset& set = sets_[place.source];
  const int64_t begin = place.sample * seq_len_;
  set.read(begin, tokens);
  set.check_ids(begin, tokens, vocab_size_);

  if (documents.empty() && fim_.rate == 0) return;
  const uint64_t key = philox_u64(seed_, hash_name("fim"), static_cast<uint64_t>(cursor));
  const auto length = static_cast<int64_t>(tokens.size());
  int64_t document = set.document_of(begin), end = set.document_begin(document + 1);
  for (int64_t from = 0, to = 0; from < length; from = to) {
    while (begin + from >= end) end = set.document_begin(++document + 1);
    to = std::min(length, end - begin);
    const auto part = [&](std::span<int64_t> all) { return all.subspan(from, to - from); };
    if (!documents.empty()) std::ranges::fill(part(documents), document);
    if (fim_.rate > 0) {
      const auto number = static_cast<uint64_t>(document);
      fill_in_the_middle(part(tokens), fim_, philox_u64(key, hash_name("document"), number));
    }
  }
}

}  // namespace dsv3
