#include "dsv3/data/ngram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "dsv3/base/checked.h"
#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 30;

// visit(position, id) for every token of the file.
template <typename Visit>
void for_each_token(const IndexedDataset& set, int64_t vocab_size, Visit visit) {
  std::vector<int64_t> ids(1 << 16);
  for (int64_t begin = 0; begin < set.num_tokens(); begin += static_cast<int64_t>(ids.size())) {
    ids.resize(std::min<int64_t>(static_cast<int64_t>(ids.size()), set.num_tokens() - begin));
    set.read(begin, ids);
    set.check_ids(begin, ids, vocab_size);
    for (size_t i = 0; i < ids.size(); ++i) visit(begin + static_cast<int64_t>(i), ids[i]);
  }
}

// Counts of one order. A context is its tokens as digits to the base vocab_size, the newest last.
struct Counts {
  std::vector<uint32_t> seen;             // [contexts * vocab_size]
  std::vector<uint32_t> total, distinct;  // [contexts]
};

class NgramModel {
 public:
  NgramModel(const IndexedDataset& train, int64_t vocab_size, int order)
      : vocab_(vocab_size), orders_(order) {
    if (train.num_tokens() > std::numeric_limits<uint32_t>::max()) {
      throw InputError(train.bin_path(), "size",
                       fmt::format("{} tokens are too many to count", train.num_tokens()));
    }
    int64_t contexts = 1;
    for (Counts& counts : orders_) {
      auto cells = checked_mul(contexts, vocab_);
      if (!cells || *cells > kMaxBytes / 4) {
        throw UsageError("n-gram",
                         fmt::format("order {} of a vocabulary of {} needs more than 1 GiB", order, vocab_));
      }
      counts = {std::vector<uint32_t>(*cells), std::vector<uint32_t>(contexts),
                std::vector<uint32_t>(contexts)};
      contexts = *cells;
    }
    int64_t history = 0;
    for_each_token(train, vocab_, [&](int64_t position, int64_t id) {
      for (size_t k = 0; k < orders_.size() && static_cast<int64_t>(k) <= position; ++k)
        count(orders_[k], history, id);
      history = extend(history, id);
    });
  }

  // The tokens that the longest order looks back on, after one more.
  int64_t extend(int64_t history, int64_t id) const {
    return (history * vocab_ + id) % static_cast<int64_t>(orders_.back().total.size());
  }

  // p(id | the newest `known` tokens of history, at most order - 1 of them).
  double probability(int64_t history, int64_t known, int64_t id) const {
    double p = 1.0 / static_cast<double>(vocab_);
    for (size_t k = 0; k < orders_.size() && static_cast<int64_t>(k) <= known; ++k) {
      const Counts& counts = orders_[k];
      const int64_t context = history % static_cast<int64_t>(counts.total.size());
      const double distinct = counts.distinct[context], total = counts.total[context];
      if (total > 0) p = (counts.seen[context * vocab_ + id] + distinct * p) / (total + distinct);
    }
    return p;
  }

 private:
  void count(Counts& counts, int64_t history, int64_t id) const {
    const int64_t context = history % static_cast<int64_t>(counts.total.size());
    ++counts.total[context];
    if (counts.seen[context * vocab_ + id]++ == 0) ++counts.distinct[context];
  }

  int64_t vocab_;
  std::vector<Counts> orders_;  // of 0, 1, … tokens of context
};

double ngram_loss(const IndexedDataset& train, const IndexedDataset& valid, int64_t vocab_size, int order) {
  if (valid.num_tokens() < 2) {
    throw InputError(valid.bin_path(), "size",
                     fmt::format("{} tokens, expected at least 2", valid.num_tokens()));
  }
  const NgramModel model(train, vocab_size, order);
  double sum = 0;
  int64_t history = 0;
  for_each_token(valid, vocab_size, [&](int64_t position, int64_t id) {
    if (position > 0) sum -= std::log(model.probability(history, position, id));
    history = model.extend(history, id);
  });
  return sum / static_cast<double>(valid.num_tokens() - 1);
}

}  // namespace

double bigram_loss(const IndexedDataset& train, const IndexedDataset& valid, int64_t vocab_size) {
  return ngram_loss(train, valid, vocab_size, 2);
}

double trigram_loss(const IndexedDataset& train, const IndexedDataset& valid, int64_t vocab_size) {
  return ngram_loss(train, valid, vocab_size, 3);
}

}  // namespace dsv3
