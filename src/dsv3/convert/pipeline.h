#pragma once
// Reading ahead of a writer.

#include <cstddef>
#include <deque>
#include <future>
#include <vector>

namespace dsv3 {

constexpr size_t kReadAhead = 3;  // pieces read while one is written

// make(i, piece) for i < count on other threads, `ahead` of them while one is used, or on this one when ahead
// is 0; use(i, piece) here and in order. The first exception of either ends it. A piece comes with what it
// held before: memory that was touched is used again, since new memory costs as much as what is put into it.
template <class Piece, class Make, class Use>
void pipeline(size_t count, size_t ahead, const Make& make, const Use& use) {
  const auto policy = ahead > 0 ? std::launch::async : std::launch::deferred;
  std::vector<Piece> pieces(ahead + 1);
  const auto piece_of = [&](size_t i) -> Piece& { return pieces[i % pieces.size()]; };
  std::deque<std::future<void>> made;  // the last, so destroyed first: its threads have ended then
  size_t next = 0;
  for (size_t i = 0; i < count; ++i) {
    for (; next < count && next < i + pieces.size(); ++next)
      made.push_back(std::async(policy, [&make, &piece_of, next] { make(next, piece_of(next)); }));
    made.front().get();
    made.pop_front();
    use(i, piece_of(i));
  }
}

}  // namespace dsv3
