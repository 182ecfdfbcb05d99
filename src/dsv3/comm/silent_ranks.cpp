#include "dsv3/comm/silent_ranks.h"

#include <future>
#include <memory>
#include <thread>

namespace dsv3 {

std::string absent_ranks(const c10::intrusive_ptr<c10d::Store>& store, const std::string& key, int world) {
  std::string names;
  for (int rank = 0; rank < world; ++rank)
    if (!store->check({key + std::to_string(rank)}))
      names += (names.empty() ? "rank " : ", rank ") + std::to_string(rank);
  return names;
}

// On a thread of its own: a cut link to the store, or a rank that serves it and is stopped, is waited for
// without end.
std::string silent_ranks(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world,
                         const std::string& server) {
  const auto blamed = [&](const char* why) { return server.empty() ? "" : server + why; };
  const auto answer = std::make_shared<std::promise<std::string>>();
  std::future<std::string> names = answer->get_future();
  std::thread([store, rank, world, answer] {
    try {
      store->set("late " + std::to_string(rank), std::vector<uint8_t>{1});
      std::this_thread::sleep_for(std::chrono::seconds(2));
      answer->set_value(absent_ranks(store, "late ", world));
    } catch (const std::exception&) {
      answer->set_exception(std::current_exception());  // the store went with the rank that served it
    }
  }).detach();
  if (names.wait_for(std::chrono::seconds(4)) != std::future_status::ready)
    return blamed(" (the store that it serves does not answer)");
  try {
    return names.get();
  } catch (const std::exception&) {
    return blamed(" (the store that it served is gone)");
  }
}

}  // namespace dsv3
