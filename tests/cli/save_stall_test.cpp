// How long training stood still for a checkpoint is said with the step that follows it.
#include <gtest/gtest.h>

#include <algorithm>

#include "cli/ranks.h"

namespace dsv3::test {
namespace {

TEST(SaveStall, IsInTheMetricsOfTheNextStep) {
  TempDir dir;
  const Result result = dsv3(train(dir / "run", {"--checkpoint.every=3"}, 5));
  ASSERT_EQ(result.code, 0) << result.err;
  std::vector<double> save_s;
  std::ifstream in(dir / "run/metrics.jsonl");
  for (std::string line; std::getline(in, line);)
    save_s.push_back(parse_json(line, "metrics.jsonl").at("save_s").get<double>());
  ASSERT_EQ(save_s.size(), 5u);
  EXPECT_EQ(save_s[0], 0);
  // Looking whether there is something to do takes microseconds; a save writes and syncs seven files.
  EXPECT_GT(save_s[3], 1e-3);
  EXPECT_LT(std::min({save_s[1], save_s[2], save_s[4]}), save_s[3] / 10);
}

}  // namespace
}  // namespace dsv3::test
