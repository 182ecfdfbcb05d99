// libexec/dsv3/dsv3-engine: the commands that need tensors. bin/dsv3 execs it.
#include <c10/util/Logging.h>

#include <cstdlib>
#include <string_view>

#include "dsv3/cli/command.h"
#include "dsv3/cli/engine/commands.h"

namespace {

constexpr dsv3::Command kCommands[] = {
    {"train", "train a model", dsv3::train_command},
    {"eval", "loss of a model on token files", dsv3::eval_command},
    {"generate", "continue a text", dsv3::generate_command},
    {"trace", "logits, losses, routing and gradients of a model, for comparisons", dsv3::trace_command},
    {"doctor", "what this machine offers, what is wrong with it and how to mend it", dsv3::doctor_command},
    {"bench-steps", "train bench-108m a step at a time, for tools/peers/bench.py", dsv3::bench_steps_command},
};

}  // namespace

int main(int argc, char** argv) {
  // libtorch's lines about sockets stand beside an error that says the same in a sentence.
  const char* level = std::getenv("DSV3_LOG_LEVEL");
  if (!level || std::string_view(level) != "debug") FLAGS_caffe2_log_level = c10::GLOG_FATAL;
  return dsv3::run_command(argc, argv, kCommands);
}
