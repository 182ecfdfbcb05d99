#pragma once
// Reading ahead of a writer.

#include <cstddef>
#include <deque>
#include <future>

namespace dsv3 {

constexpr size_t kReadAhead = 3;  // pieces read while one is written

// make(i) for i < count on other threads, a few ahead; use(i, result) here and in order. The first exception
// of either ends it.
template <class Make, class Use>
void pipeline(size_t count, const Make& make, const Use& use) {
  std::deque<std::future<decltype(make(0))>> ahead;
  size_t next = 0;
  for (size_t i = 0; i < count; ++i) {
    for (; next < count && ahead.size() <= kReadAhead; ++next)
      ahead.push_back(std::async(std::launch::async, make, next));
    auto result = ahead.front().get();
    ahead.pop_front();
    use(i, std::move(result));
  }
}

}  // namespace dsv3
