// bin/dsv3: starts in milliseconds, runs what needs no tensors and execs the engine for the rest.
#include <cstdio>
#include <string_view>

#include "dsv3/cli/command.h"
#include "dsv3/cli/core/commands.h"
#include "dsv3/cli/core/launch.h"

namespace {

constexpr dsv3::Command kCommands[] = {
    {"prepare", "texts to token files", dsv3::prepare_command},
    {"data", "look into token files", dsv3::data_command},
    {"convert", "checkpoints between Hugging Face's format and PyTorch's DCP", dsv3::convert_command},
    {"export", "the newest valid checkpoint of a run as a Hugging Face folder", dsv3::export_command},
    {"ckpt", "look into checkpoints, verify and compare them", dsv3::ckpt_command},
    {"tokenizer", "text to token ids and back; train learns a tokenizer", dsv3::tokenizer_command},
    {"config", "a run's values and where they come from", dsv3::config_command},
    {"train", "train a model", nullptr, dsv3::launch},
    {"eval", "loss of a model on token files", nullptr, dsv3::launch},
    {"generate", "continue a text", nullptr, dsv3::launch},
    {"trace", "logits, losses, routing and gradients of a model, for comparisons", nullptr},
    {"doctor", "what this machine offers, what is wrong with it and how to mend it", nullptr, dsv3::launch},
    {"bench-steps", "", nullptr, dsv3::launch},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--version") {
    return std::puts("dsv3 " DSV3_VERSION) < 0 || std::fflush(stdout) != 0;
  }
  return dsv3::run_command(argc, argv, kCommands);
}
