#include "dsv3/data/stream_position.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "dsv3/base/error.h"
#include "dsv3/config/shares.h"

namespace dsv3 {
namespace {

using Names = std::vector<std::string>;

Names file_names(const Walk& walk) {
  Names names;
  for (const std::string& path : walk.sources)
    names.push_back(std::filesystem::path(path).filename().string());
  return names;
}

std::string in_words(const Walk& walk) {
  if (walk.sources.size() == 1) return printable(walk.sources[0], 400);
  return fmt::format("{} and the {} sources behind it, which have one order", printable(walk.sources[0], 400),
                     walk.sources.size() - 1);
}

// For each walk the saved one that it goes on with; each saved one is taken once.
std::vector<std::optional<size_t>> match(const std::vector<Walk>& walks, const std::vector<Walk>& saved) {
  std::vector<std::optional<size_t>> found(walks.size());
  std::vector<bool> taken(saved.size(), false);
  const auto take = [&](size_t walk, size_t from) {
    found[walk] = from;
    taken[from] = true;
  };
  for (size_t i = 0; i < walks.size(); ++i)
    for (size_t j = 0; j < saved.size() && !found[i]; ++j)
      if (!taken[j] && walks[i].sources == saved[j].sources) take(i, j);
  // All that are left are counted before one is taken: two of one name leave both of them open.
  std::vector<std::pair<size_t, size_t>> moved;
  for (size_t i = 0; i < walks.size(); ++i) {
    if (found[i]) continue;
    const Names names = file_names(walks[i]);
    int64_t here = 0, there = 0;
    size_t from = 0;
    for (size_t other = 0; other < walks.size(); ++other)
      here += !found[other] && file_names(walks[other]) == names;
    for (size_t j = 0; j < saved.size(); ++j) {
      if (taken[j] || file_names(saved[j]) != names) continue;
      ++there;
      from = j;
    }
    if (here == 1 && there == 1) moved.emplace_back(i, from);
  }
  for (const auto& [walk, from] : moved) take(walk, from);
  return found;
}

}  // namespace

std::vector<Walk> first_walks(std::span<const DataSource> sources) {
  const bool blend = is_blend(sources);
  const std::vector<int64_t> shares = blend ? blend_shares(sources) : std::vector<int64_t>{1};
  if (shares.empty()) {
    throw UsageError("data",
                     fmt::format("the ratio of the weights is not that of whole numbers adding up to at most "
                                 "{}, so no blend is exact",
                                 kMaxBlendPeriod),
                     "write up to 6 digits after the point, adding up to 1");
  }
  std::vector<Walk> walks;
  for (size_t s = 0; s < shares.size(); ++s)
    walks.push_back({.share = shares[s], .order = blend ? static_cast<int64_t>(s) : kSeedItself});
  for (size_t s = 0; s < sources.size(); ++s)
    walks[blend ? s : 0].sources.push_back(
        std::filesystem::absolute(sources[s].path).lexically_normal().string());
  return walks;
}

std::vector<std::string> take_over(std::vector<Walk>& walks, const StreamPosition& saved) {
  const std::vector<std::optional<size_t>> found = match(walks, saved.walks);
  bool same = walks.size() == saved.walks.size();
  int64_t orders = 0;
  for (size_t i = 0; i < walks.size(); ++i) {
    same = same && found[i] == i && walks[i].share == saved.walks[i].share;
    if (!found[i]) continue;
    walks[i].order = saved.walks[*found[i]].order;
    walks[i].cursor = saved.walks[*found[i]].cursor;
    orders = std::max(orders, walks[i].order + 1);
  }
  std::vector<std::string> said;
  for (size_t i = 0; i < walks.size(); ++i) {
    if (found[i]) {
      said.push_back(fmt::format("{} goes on behind {} samples", in_words(walks[i]), walks[i].cursor));
      continue;
    }
    walks[i].order = orders++;
    walks[i].cursor = 0;
    said.push_back(in_words(walks[i]) + " begins at its first sample");
  }
  for (size_t j = 0; j < saved.walks.size(); ++j)
    if (std::ranges::find(found, std::optional(j)) == found.end())
      said.push_back(
          fmt::format("{} is left behind {} samples", in_words(saved.walks[j]), saved.walks[j].cursor));
  if (same) said.clear();
  return said;
}

}  // namespace dsv3
