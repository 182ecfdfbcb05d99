#include "dsv3/data/blend.h"

#include <algorithm>
#include <limits>
#include <queue>

#include "dsv3/base/checked.h"

namespace dsv3 {
namespace {

// The next sample that a source will give: at `due` the first place (from 1) of the period where it may stand
// while it waits for that, else the last one.
struct Waiting {
  int64_t due = 0;
  int64_t source = 0;
  bool operator>(const Waiting& other) const {
    return due != other.due ? due > other.due : source > other.source;
  }
};
using Earliest = std::priority_queue<Waiting, std::vector<Waiting>, std::greater<>>;

}  // namespace

Blend::Blend(std::span<const int64_t> shares) : begins_(1, 0) {
  for (const int64_t share : shares) begins_.push_back(begins_.back() + share);
  const int64_t period = begins_.back(), scale = 2 * num_sources() - 2;
  source_.resize(period);
  places_.resize(period);

  // With d samples given, a source may give another at place n once n * share / period - d >= 1 / scale, and
  // must before that passes 1 - 1 / scale. All products stay below 2^62: period <= 2^20, scale <= 2^21.
  std::vector<int64_t> given(shares.size(), 0);
  auto first_place = [&](int64_t s) {
    return (period * (given[s] * scale + 1) + shares[s] * scale - 1) / (shares[s] * scale);
  };
  auto last_place = [&](int64_t s) {
    return period * ((given[s] + 1) * scale - 1) / (shares[s] * scale) + 1;
  };
  Earliest not_yet, ready;
  for (int64_t s = 0; s < num_sources(); ++s) not_yet.push({first_place(s), s});
  for (int64_t place = 1; place <= period; ++place) {
    for (; !not_yet.empty() && not_yet.top().due <= place; not_yet.pop())
      ready.push({last_place(not_yet.top().source), not_yet.top().source});
    const int64_t s = ready.top().source;  // there is one: Tijdeman's theorem
    ready.pop();
    source_[place - 1] = static_cast<int32_t>(s);
    places_[begins_[s] + given[s]++] = static_cast<int32_t>(place - 1);
    not_yet.push({first_place(s), s});
  }
}

int64_t Blend::drawn_of(int64_t source, int64_t cursor) const {
  const auto begin = places_.begin() + begins_[source], end = places_.begin() + begins_[source + 1];
  return cursor / period() * share(source) + (std::lower_bound(begin, end, cursor % period()) - begin);
}

Blend::Draw Blend::operator()(int64_t cursor) const {
  const int64_t source = source_[cursor % period()];
  return {source, drawn_of(source, cursor)};
}

int64_t Blend::cursor_of(Draw draw) const {
  const int64_t turn = draw.index / share(draw.source), rest = draw.index % share(draw.source);
  const auto before = checked_mul(turn, period());
  const auto cursor =
      before ? checked_add<int64_t>(*before, places_[begins_[draw.source] + rest]) : std::nullopt;
  return cursor.value_or(std::numeric_limits<int64_t>::max());
}

std::vector<int64_t> Blend::drawn(int64_t cursor) const {
  std::vector<int64_t> counts(num_sources());
  for (int64_t s = 0; s < num_sources(); ++s) counts[s] = drawn_of(s, cursor);
  return counts;
}

}  // namespace dsv3
