// dsv3 tokenizer train INPUT... --vocab-size N --out DIR: text to a tokenizer.json.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/core/commands.h"
#include "dsv3/cli/core/text_flags.h"
#include "dsv3/data/tokenizer_trainer.h"

namespace dsv3 {
namespace {

std::vector<std::string> split_at_commas(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

void show_progress(uint64_t done, uint64_t total) {
  const auto megabytes = [](uint64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  if (total == 0) {
    fmt::print(stderr, "\r{:.0f} MB \033[K\r", megabytes(done));
  } else {
    fmt::print(stderr, "\r{:.0f} of {:.0f} MB \033[K{}", megabytes(done), megabytes(total),
               done == total ? "\r\033[K" : "\r");
  }
}

void print_summary(const TrainTokenizerSummary& summary, bool json) {
  if (json) {
    fmt::print("{}\n", Json{{"file", summary.file.string()},
                            {"vocab_size", summary.vocab_size},
                            {"merges", summary.merges},
                            {"bytes", summary.bytes},
                            {"words", summary.words},
                            {"seconds", summary.seconds}}
                           .dump(-1, ' ', false, Json::error_handler_t::replace));
    return;
  }
  fmt::print("{}: {} tokens, {} merges; {} bytes of text, {} different words, {:.1f} s\n",
             summary.file.string(), summary.vocab_size, summary.merges, summary.bytes, summary.words,
             summary.seconds);
}

}  // namespace

int tokenizer_train_command(std::vector<std::string> args) {
  CLI::App app("Learns a byte-level BPE from text: a tokenizer.json for dsv3 and Hugging Face.",
               "dsv3 tokenizer train");
  TrainTokenizerOptions options;
  TextFlags flags;
  std::string out, special;
  bool json = false;
  flags.add_to(app);
  app.add_option("--vocab-size", options.vocab_size, "tokens, with 256 bytes and the special ones")
      ->required();
  app.add_option("--out", out, "folder for tokenizer.json and tokenizer_config.json")->required();
  app.add_option("--min-frequency", options.min_frequency, "pairs that occur less often become no token")
      ->capture_default_str();
  app.add_option("--pattern", options.pattern, "how text is split into words: v3 or gpt2")
      ->capture_default_str();
  app.add_option("--bos", options.bos, "special token 0; empty: none")->capture_default_str();
  app.add_option("--eos", options.eos, "special token that ends a document")->capture_default_str();
  app.add_option("--pad", options.pad, "special token for padding; empty: none")->capture_default_str();
  app.add_option("--special", special, "further special tokens, with commas between them");
  app.add_flag("--json", json, "print JSON");
  if (!parse_args(app, args)) return 0;

  options.inputs.assign(flags.inputs.begin(), flags.inputs.end());
  options.format = flags.format;
  options.glob = flags.glob;
  options.out = out;
  options.special = split_at_commas(special);
  BadLineWarnings bad;
  options.count = {.threads = flags.threads,
                   .text_key = flags.text_key,
                   .max_bad = flags.max_bad,
                   .on_bad_line = [&](const std::string& line) { bad.add(line); }};
  if (::isatty(STDERR_FILENO) != 0) options.count.progress = show_progress;
  const TrainTokenizerSummary summary = train_tokenizer(options);
  bad.finish(summary.bad_lines);
  if (summary.vocab_size < options.vocab_size) {
    fmt::print(stderr, "dsv3: warning: {} tokens of {}: no other pair occurs {} times\n", summary.vocab_size,
               options.vocab_size, options.min_frequency);
  }
  print_summary(summary, json);
  return 0;
}

}  // namespace dsv3
