// dsv3 prepare INPUT... --out PREFIX: texts to token files.
#include "dsv3/data/prepare.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/core/commands.h"
#include "dsv3/cli/core/text_flags.h"

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
  fmt::print("{}.bin, .idx: {} documents, {} tokens, {} bytes ({:.2f} a token); the longest {} tokens\n",
             files.prefix.string(), files.documents, files.tokens, files.bytes,
             static_cast<double>(files.bytes) / static_cast<double>(files.tokens), files.longest_document);
}

void print_summary(const PrepareSummary& summary, const BadLineWarnings& bad, bool json) {
  if (json) {
    Json out = {{"train", as_json(summary.train)},
                {"skipped_files", summary.skipped_files},
                {"empty_documents", summary.empty_documents},
                {"bad_lines", summary.bad_lines},
                {"bad_lines_shown", bad.shown()},
                {"earlier_bytes", summary.earlier_bytes},
                {"seconds", summary.seconds}};
    if (summary.valid) out["valid"] = as_json(*summary.valid);
    fmt::print("{}\n", out.dump(-1, ' ', false, Json::error_handler_t::replace));
    return;
  }
  print_files(summary.train);
  if (summary.valid) print_files(*summary.valid);
  const int64_t all = summary.train.bytes + (summary.valid ? summary.valid->bytes : 0);
  const auto read = static_cast<double>(all - summary.earlier_bytes);
  fmt::print("{:.2f} s, {:.1f} MB/s\n", summary.seconds, read / 1e6 / summary.seconds);
}

}  // namespace

int prepare_command(std::vector<std::string> args) {
  CLI::App app(
      "Texts to token files: .txt and .md, a document a file; .jsonl, a document a line. The same command "
      "again goes on where it was killed.",
      "dsv3 prepare");
  PrepareOptions options;
  TextFlags flags;
  std::string out;
  bool json = false;
  flags.add_to(app);
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

  options.inputs.assign(flags.inputs.begin(), flags.inputs.end());
  options.format = flags.format;
  options.glob = flags.glob;
  options.text_key = flags.text_key;
  options.max_bad = flags.max_bad;
  BadLineWarnings bad;
  options.on_bad_line = [&](const std::string& line) { bad.add(line); };
  options.threads = flags.threads;
  options.out = out;
  options.on_restart = [](const std::string& line) { fmt::print(stderr, "dsv3: {}\n", line); };
  const PrepareSummary summary = prepare(options);
  warn(summary.skipped_files, "empty files were skipped");
  warn(summary.empty_documents, "lines whose text is empty were skipped");
  bad.finish(summary.bad_lines);
  print_summary(summary, bad, json);
  return 0;
}

}  // namespace dsv3
