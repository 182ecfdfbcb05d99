// What a step says.
#include "dsv3/train/metrics.h"

#include <gtest/gtest.h>

namespace dsv3 {
namespace {

TEST(StepLine, SaysWhatWasWaitedForFromATwentiethOfTheStepOn) {
  StepMetrics metrics;
  metrics.step = 3;
  metrics.step_s = 2;
  metrics.step_tokens = 100;
  const std::string nothing = step_line(metrics, 10, 65);
  EXPECT_TRUE(nothing.ends_with("    1:05")) << nothing;
  metrics.data_s = metrics.save_s = 0.0999;
  EXPECT_EQ(step_line(metrics, 10, 65), nothing);
  metrics.data_s = 0.1201;
  EXPECT_EQ(step_line(metrics, 10, 65), nothing + "  data 0.12s");
  metrics.save_s = 1.5;
  EXPECT_EQ(step_line(metrics, 10, 65), nothing + "  data 0.12s  save 1.50s");
  metrics.data_s = 0;
  metrics.skipped = 4;
  EXPECT_EQ(step_line(metrics, 10, 65), nothing + "  save 1.50s  skipped 4");
}

}  // namespace
}  // namespace dsv3
