#pragma once
// Reading ahead of a writer.

#include <cstddef>
#include <deque>
#include <future>

namespace dsv3 {

constexpr size_t kReadAhead = 3;  // pieces read while one is written

// make(i) for i < count on other threads, `ahead` of them while one is used, or on this one when ahead is 0;
// use(i, result) here and in order. The first exception of either ends it.
template <class Make, class Use>
void pipeline(size_t count, size_t ahead, const Make& make, const Use& use) {
  const auto policy = ahead > 0 ? std::launch::async : std::launch::deferred;
  std::deque<std::future<decltype(make(0))>> made;
  size_t next = 0;
  for (size_t i = 0; i < count; ++i) {
    for (; next < count && made.size() <= ahead; ++next) made.push_back(std::async(policy, make, next));
    auto result = made.front().get();
    made.pop_front();
    use(i, std::move(result));
  }
}

}  // namespace dsv3
