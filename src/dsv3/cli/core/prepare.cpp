// dsv3 prepare INPUT... --out PREFIX: texts to token files.
#include "dsv3/data/prepare.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/core/commands.h"

namespace dsv3 {
namespace {

Json as_json(const PreparedFiles& files) {
  return {{"prefix", files.prefix.string()},
          {"documents", files.documents},
          {"tokens", files.tokens},
          {"bytes", files.bytes},
          {"longest_document", files.longest_document}};
}

void print_files(const PreparedFiles& files) {
  fmt::print("{}.bin, .idx: {} documents, {} tokens, {} bytes\n", files.prefix.string(), files.documents,
             files.tokens, files.bytes);
}

void print_summary(const PrepareSummary& summary, bool json) {
  if (json) {
    Json out = {{"train", as_json(summary.train)},
                {"skipped_files", summary.skipped_files},
                {"seconds", summary.seconds}};
    if (summary.valid) out["valid"] = as_json(*summary.valid);
    fmt::print("{}\n", out.dump(-1, ' ', false, Json::error_handler_t::replace));
    return;
  }
  print_files(summary.train);
  if (summary.valid) print_files(*summary.valid);
}

}  // namespace

int prepare_command(std::vector<std::string> args) {
  CLI::App app("Texts to token files. Each .txt file is a document; folders are walked.", "dsv3 prepare");
  PrepareOptions options;
  std::vector<std::string> inputs;
  std::string out;
  bool json = false;
  app.add_option("INPUT", inputs, ".txt files and folders of them")->required();
  app.add_option("--out", out, "PREFIX of PREFIX.bin, PREFIX.idx and PREFIX.json")->required();
  app.add_option("--tokenizer", options.tokenizer, "byte, a tokenizer.json, or a folder that has one")
      ->capture_default_str();
  app.add_option("--eos", options.eos,
                 "the token that ends a document; default: eos_token of the tokenizer_config.json beside "
                 "tokenizer.json");
  app.add_option("--valid-fraction", options.valid_fraction,
                 "hold out the last part of each document: PREFIX_train and PREFIX_valid are written");
  app.add_flag("--json", json, "print JSON");
  if (!parse_args(app, args)) return 0;

  options.inputs.assign(inputs.begin(), inputs.end());
  options.out = out;
  const PrepareSummary summary = prepare(options);
  if (summary.skipped_files > 0)
    fmt::print(stderr, "dsv3: warning: {} empty files were skipped\n", summary.skipped_files);
  print_summary(summary, json);
  return 0;
}

}  // namespace dsv3
