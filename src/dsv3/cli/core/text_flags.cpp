#include "dsv3/cli/core/text_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <thread>

#include "dsv3/cli/command.h"

namespace dsv3 {
namespace {

constexpr size_t kMostBadLinesShown = 20;

}  // namespace

void TextFlags::add_to(CLI::App& app) {
  threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  app.add_option(
         "INPUT", inputs,
         ".txt, .md and .jsonl files, also with .gz or .zst behind; folders of them; - for standard input")
      ->required();
  app.add_option(
         "--format", format,
         "how the inputs are read: auto (by name), text (a document a file), lines (a document a line) or "
         "jsonl")
      ->capture_default_str();
  app.add_option("--glob", glob, "of folders, the files that match, such as '*.md' or 'en/*.jsonl.zst'");
  app.add_option("--text-key", text_key, "of .jsonl, the key of the text")->capture_default_str();
  app.add_option("--max-bad", max_bad, "skip so many lines that are no document")
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--threads", threads, "changes the time alone; default: all processors");
}

void BadLineWarnings::add(const std::string& line) {
  if (shown_.size() == kMostBadLinesShown) {
    ++not_shown_;
    return;
  }
  shown_.push_back(line);
  fmt::print(stderr, "dsv3: warning: skipped {}\n", line);
}

void BadLineWarnings::finish(int64_t skipped) const {
  if (not_shown_ > 0) fmt::print(stderr, "dsv3: warning: and {} more, not shown\n", not_shown_);
  warn(skipped, "bad lines were skipped");
}

void warn(int64_t count, const char* what) {
  if (count > 0) fmt::print(stderr, "dsv3: warning: {} {}\n", count, what);
}

}  // namespace dsv3
