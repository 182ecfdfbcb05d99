// The line of a step that a person reads.
#include "dsv3/train/metrics.h"

#include <gtest/gtest.h>

namespace dsv3 {
namespace {

TEST(StepLine, SaysWhatTheStepWaitedFor) {
  StepMetrics metrics;
  metrics.step = 7;
  metrics.step_s = 1;
  const auto line = [&] { return step_line(metrics, 10, 5); };
  EXPECT_EQ(line().find("save"), std::string::npos) << line();
  EXPECT_EQ(line().find("data"), std::string::npos) << line();
  metrics.save_s = 0.25;
  EXPECT_NE(line().find("  save 0.25s"), std::string::npos) << line();
  EXPECT_EQ(line().find("data"), std::string::npos) << line();
  metrics.save_s = 0.04;  // less than a twentieth of the step
  metrics.data_s = 0.5;
  EXPECT_EQ(line().find("save"), std::string::npos) << line();
  EXPECT_NE(line().find("  data 0.50s"), std::string::npos) << line();
}

}  // namespace
}  // namespace dsv3
