// dsv3 prepare INPUT... --out PREFIX: texts to token files.
#include "dsv3/data/prepare.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <thread>

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

constexpr int64_t kMostBadLinesShown = 20;

void print_files(const PreparedFiles& files) {
  fmt::print("{}.bin, .idx: {} documents, {} tokens, {} bytes ({:.2f} a token); the longest {} tokens\n",
             files.prefix.string(), files.documents, files.tokens, files.bytes,
             static_cast<double>(files.bytes) / static_cast<double>(files.tokens), files.longest_document);
}

void print_summary(const PrepareSummary& summary, bool json) {
  if (json) {
    Json out = {{"train", as_json(summary.train)},
                {"skipped_files", summary.skipped_files},
                {"empty_documents", summary.empty_documents},
                {"bad_lines", summary.bad_lines},
                {"seconds", summary.seconds}};
    if (summary.valid) out["valid"] = as_json(*summary.valid);
    fmt::print("{}\n", out.dump(-1, ' ', false, Json::error_handler_t::replace));
    return;
  }
  print_files(summary.train);
  if (summary.valid) print_files(*summary.valid);
  const int64_t bytes = summary.train.bytes + (summary.valid ? summary.valid->bytes : 0);
  fmt::print("{:.2f} s, {:.1f} MB/s\n", summary.seconds, static_cast<double>(bytes) / 1e6 / summary.seconds);
}

void warn(int64_t count, const char* what) {
  if (count > 0) fmt::print(stderr, "dsv3: warning: {} {}\n", count, what);
}

}  // namespace

int prepare_command(std::vector<std::string> args) {
  CLI::App app("Texts to token files: .txt and .md, a document a file; .jsonl, a document a line.",
               "dsv3 prepare");
  PrepareOptions options;
  options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::string> inputs;
  std::string out;
  bool json = false;
  app.add_option(
         "INPUT", inputs,
         ".txt, .md and .jsonl files, also with .gz or .zst behind; folders of them; - for standard input")
      ->required();
  app.add_option(
         "--format", options.format,
         "how the inputs are read: auto (by name), text (a document a file), lines (a document a line) or "
         "jsonl")
      ->capture_default_str();
  app.add_option("--glob", options.glob,
                 "of folders, the files that match, such as '*.md' or 'en/*.jsonl.zst'");
  app.add_option("--text-key", options.text_key, "of .jsonl, the key of the text")->capture_default_str();
  app.add_option("--max-bad", options.max_bad, "skip so many lines that are no document")
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--threads", options.threads, "that encode")->capture_default_str();
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
  int64_t shown = 0;
  options.on_bad_line = [&](const std::string& line) {
    if (++shown <= kMostBadLinesShown) fmt::print(stderr, "dsv3: warning: skipped {}\n", line);
  };
  const PrepareSummary summary = prepare(options);
  warn(summary.skipped_files, "empty files were skipped");
  warn(summary.empty_documents, "lines whose text is empty were skipped");
  warn(summary.bad_lines, "bad lines were skipped");
  print_summary(summary, json);
  return 0;
}

}  // namespace dsv3
