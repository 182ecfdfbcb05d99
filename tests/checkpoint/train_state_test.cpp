// The text that says where a run stands.
#include "dsv3/checkpoint/train_state.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "support/files.h"
#include "support/runs.h"

namespace dsv3 {
namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

class SavedText : public testing::Test {
 protected:
  SavedText() {
    saved_.train = {.step = 5, .tokens = 640, .cursor = 45, .skipped = 2, .bad_in_a_row = 1};
    // Of 20 samples of this blend, 9 to 1, behind 25 of another.
    saved_.train.data = {.samples = 20,
                         .walks = {{.sources = {"/data/a"}, .share = 9, .order = 1, .cursor = 38},
                                   {.sources = {"/data/b"}, .share = 1, .order = 0, .cursor = 7}}};
    saved_.updates = 3;
    saved_.model = run_.model;
    saved_.run = run_.to_toml();
  }
  static SavedState parse(const Json& json) { return SavedState::parse(json.dump(), "it"); }

  RunConfig run_ = test::trajectory_run();
  SavedState saved_;
};

TEST_F(SavedText, ComesBack) {
  const SavedState back = SavedState::parse(saved_.text(), "it");
  EXPECT_EQ(back.text(), saved_.text());
  EXPECT_EQ(back.train.data.samples, 20);
  ASSERT_EQ(back.train.data.walks.size(), 2u);
  const Walk& walk = back.train.data.walks[0];
  EXPECT_EQ(walk.sources, std::vector<std::string>{"/data/a"});
  EXPECT_EQ(std::vector({walk.share, walk.order, walk.cursor}), (std::vector<int64_t>{9, 1, 38}));
  EXPECT_EQ(back.train.cursor, 45);
  EXPECT_EQ(back.run, saved_.run);
}

TEST_F(SavedText, OfVersionOneHasNoSources) {
  Json json = Json::parse(saved_.text());
  json.erase("data");
  json["version"] = 1;
  const SavedState back = parse(json);
  EXPECT_EQ(back.train.cursor, 45);
  EXPECT_TRUE(back.train.data.walks.empty());
}

TEST_F(SavedText, ImpossibleOnesAreRefused) {
  const auto refused = [&](const char* part, const std::function<void(Json&)>& change) {
    Json json = Json::parse(saved_.text());
    change(json);
    SCOPED_TRACE(json.dump());
    test::expect_input_error({"it: dsv3.state: ", part}, [&] { parse(json); });
  };
  refused("version 3, this program reads 1 to 2", [](Json& json) { json["version"] = 3; });
  refused("'step' is missing", [](Json& json) { json.erase("step"); });
  for (const Json& bad : {Json(-1), Json(1.5), Json("1"), Json(), Json(uint64_t{1} << 63)})
    refused("'cursor' is no count", [&](Json& json) { json["cursor"] = bad; });
  refused("'run' is no text", [](Json& json) { json["run"] = 1; });
  refused("'samples' is no count", [](Json& json) { json["data"]["samples"] = 46; });
  refused("'samples' is missing", [](Json& json) { json["data"] = 7; });
  for (const Json& bad : {Json::array(), Json(3)})
    refused("'sources' is no list", [&](Json& json) { json["data"]["sources"] = bad; });
  const auto source = [&](const char* part, const char* key, const Json& value) {
    refused(part, [&](Json& json) { json["data"]["sources"][0][key] = value; });
  };
  source("'share' is no count", "share", 0);
  source("'share' is no count", "share", kMost);
  source("'share' is no count", "share", int64_t{1} << 21);
  source("'order' is no count", "order", -2);
  source("'order' is no count", "order", kMost);
  source("'cursor' is no count", "cursor", 46);
  source("less than its share", "cursor", 17);
  source("'prefixes' is no list", "prefixes", "/data/a");
  source("'prefixes' holds no text", "prefixes", {7});
}

}  // namespace
}  // namespace dsv3
