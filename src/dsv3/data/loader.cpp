#include "dsv3/data/loader.h"

#include <fmt/format.h>

#include <algorithm>

#include "dsv3/base/error.h"
#include "dsv3/data/permutation.h"

namespace dsv3 {

SampleStream::SampleStream(const std::vector<DataSource>& sources, int64_t seq_len, uint64_t seed,
                           bool shuffle, int64_t vocab_size)
    : seq_len_(seq_len), seed_(seed), shuffle_(shuffle), vocab_size_(vocab_size) {
  if (seq_len < 1) throw UsageError("data.seq_len", fmt::format("{}, expected at least 1", seq_len));
  if (sources.empty())
    throw UsageError("data", "no token file is named", "give a PREFIX that dsv3 prepare has made");
  int64_t samples = 0;
  for (const DataSource& source : sources) {
    if (source.weight != 1) {
      throw UsageError("data", fmt::format("{}: weight {}: weights other than 1 are not supported yet",
                                           printable(source.path), source.weight));
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
}

void SampleStream::read(int64_t cursor, std::span<int64_t> tokens, std::span<int64_t> documents) const {
  const int64_t epoch = cursor / samples_per_epoch();
  int64_t sample = cursor % samples_per_epoch();
  if (shuffle_) sample = KeyedPermutation(samples_per_epoch(), seed_, static_cast<uint64_t>(epoch))(sample);

  const size_t source = std::upper_bound(ends_.begin(), ends_.end(), sample) - ends_.begin();
  const IndexedDataset& set = sets_[source];
  const int64_t begin = (sample - (source == 0 ? 0 : ends_[source - 1])) * seq_len_;
  set.read(begin, tokens);
  set.check_ids(begin, tokens, vocab_size_);

  if (documents.empty()) return;
  int64_t document = set.document_of(begin), end = set.document_begin(document + 1);
  for (size_t i = 0; i < documents.size(); ++i) {
    while (begin + static_cast<int64_t>(i) >= end) end = set.document_begin(++document + 1);
    documents[i] = document;
  }
}

}  // namespace dsv3
