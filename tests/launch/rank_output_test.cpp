#include "dsv3/cli/core/rank_output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

namespace dsv3 {
namespace {

// What the outlet writes to a pipe that is always read.
std::string flushed(Outlet& outlet, int read_end) {
  std::string out;
  char bytes[8192];
  while (outlet.waiting()) {
    outlet.flush_some();
    const ssize_t n = ::read(read_end, bytes, sizeof(bytes));
    if (n > 0) out.append(bytes, static_cast<size_t>(n));
  }
  return out;
}

class RankLinesTest : public testing::Test {
 protected:
  RankLinesTest() : outlet_(::pipe2(ends_, O_NONBLOCK) == 0 ? ends_[1] : -1) {}
  ~RankLinesTest() override { ::close(ends_[0]), ::close(ends_[1]); }
  std::string out() { return flushed(outlet_, ends_[0]); }
  int ends_[2];
  Outlet outlet_;
};

TEST_F(RankLinesTest, PrefixesWholeLines) {
  RankLines lines(3, true, outlet_);
  lines.take("one\ntw");
  EXPECT_EQ(out(), "[rank 3] one\n");
  lines.take("o\n\n");
  EXPECT_EQ(out(), "[rank 3] two\n[rank 3] \n");
  lines.take("unfinished");
  EXPECT_EQ(out(), "");
  lines.finish();
  lines.finish();
  EXPECT_EQ(out(), "[rank 3] unfinished\n");
}

TEST_F(RankLinesTest, CutsALineThatNeverEnds) {
  RankLines lines(0, true, outlet_);
  constexpr size_t kLongest = RankLines::kLongest;
  for (size_t i = 0; i < 4 * kLongest; i += kLongest / 4) lines.take(std::string(kLongest / 4, 'x'));
  std::string expected;
  for (int i = 0; i < 4; ++i) expected += "[rank 0] " + std::string(kLongest, 'x') + "\n";
  EXPECT_EQ(out(), expected);
  lines.take("rest\n");
  EXPECT_EQ(out(), "[rank 0] rest\n");
}

TEST_F(RankLinesTest, KeepsBackTheNewestError) {
  RankLines lines(1, true, outlet_);
  lines.take("dsv3: error: a: b\nafter\n");
  EXPECT_EQ(out(), "[rank 1] after\n");
  EXPECT_EQ(lines.error(), "dsv3: error: a: b");
  lines.take("dsv3: error: c: d");
  lines.finish();
  EXPECT_EQ(out(), "[rank 1] dsv3: error: a: b\n");
  EXPECT_EQ(lines.error(), "dsv3: error: c: d");

  RankLines from_stdout(1, false, outlet_);
  from_stdout.take("dsv3: error: a: b\n");
  EXPECT_EQ(out(), "[rank 1] dsv3: error: a: b\n");
  EXPECT_EQ(from_stdout.error(), "");
}

TEST_F(RankLinesTest, RemembersTheLastLines) {
  RankLines lines(1, true, outlet_);
  for (int i = 0; i < 30; ++i) lines.take(std::to_string(i) + "\n");
  lines.take("\n" + std::string(1000, 'y') + "\n\n");
  EXPECT_EQ(lines.last_lines().size(), 20u);
  EXPECT_EQ(lines.last_lines().front(), "11");
  EXPECT_EQ(lines.last_lines().back(), std::string(400, 'y'));
}

TEST_F(RankLinesTest, AnOutletKeepsAllThatWaits) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += std::to_string(i) + ",";
  outlet_.write(text);
  EXPECT_TRUE(outlet_.full());
  EXPECT_TRUE(out() == text);
  EXPECT_FALSE(outlet_.full());
}

TEST(Outlet, RemembersAFailureAndDropsTheRest) {
  const int full = ::open("/dev/full", O_WRONLY);
  Outlet outlet(full);
  outlet.write("text");
  outlet.flush_some();
  EXPECT_EQ(outlet.error(), ENOSPC);
  EXPECT_FALSE(outlet.waiting());
  outlet.write("more");
  EXPECT_FALSE(outlet.waiting());
  ::close(full);
}

}  // namespace
}  // namespace dsv3
