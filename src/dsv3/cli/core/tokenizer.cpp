// dsv3 tokenizer train|encode|decode: text to ids and back, on standard input and output.
#include "dsv3/data/tokenizer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <thread>

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/core/commands.h"
#include "dsv3/data/ordered_work.h"

namespace dsv3 {
namespace {

constexpr size_t kPiece = 1 << 16;
constexpr int kMostThreads = 1024;
constexpr uint64_t kMaxHeld = 64 << 20;  // bytes of text that wait for threads
constexpr std::string_view kInput = "standard input", kBlank = " \t\r\n";

// What has arrived of standard input, at most kPiece bytes; empty at its end.
std::string_view next_input(std::string& buffer) {
  buffer.resize(kPiece);
  ssize_t size = 0;
  do size = ::read(STDIN_FILENO, buffer.data(), buffer.size());
  while (size < 0 && errno == EINTR);
  if (size < 0) throw RunError(kInput, fmt::format("cannot be read: {}", std::strerror(errno)));
  return std::string_view(buffer).substr(0, static_cast<size_t>(size));
}

void print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

// Calls part with what stands before each of these characters in standard input, and with what is left at
// its end; calls arrived behind the parts that came in together.
template <class Part, class Arrived>
void for_each_part(std::string_view ends, Part part, Arrived arrived) {
  std::string open, buffer;
  for (std::string_view piece = next_input(buffer); !piece.empty(); piece = next_input(buffer)) {
    for (size_t end = piece.find_first_of(ends); end != piece.npos; end = piece.find_first_of(ends)) {
      part(open += piece.substr(0, end));
      open.clear();
      piece.remove_prefix(end + 1);
    }
    open += piece;
    arrived();
  }
  if (!open.empty()) part(open);
  arrived();
}

// Texts of standard input, and their ids as they are printed.
struct EncodeJob {
  std::vector<std::string> texts = {};
  int64_t first_line = 0;  // of the first text; 0: all of the input is one text
  uint64_t bytes = 0;
  std::string ids = {};
  std::exception_ptr error = {};  // of the text behind those whose ids are there
};

void encode_job(const Tokenizer& tokenizer, bool special, EncodeJob& job) {
  std::vector<int32_t> ids;
  int64_t line = job.first_line;
  try {
    for (std::string& text : job.texts) {
      std::string where(kInput);
      if (line > 0) {
        where += fmt::format(": line {}", line++);
        Json json = parse_json(text, where, 1);
        if (!json.is_string()) throw InputError(where, "", "is no JSON string");
        text = std::move(json.get_ref<std::string&>());
      }
      ids.clear();
      tokenizer.encode(text, special, ids, where);
      for (const int32_t id : ids) {
        job.ids += fmt::format_int(id).c_str();
        job.ids += ' ';
      }
      if (!ids.empty()) job.ids.pop_back();
      job.ids += '\n';
    }
  } catch (...) {
    job.error = std::current_exception();
  }
}

void print_job(const EncodeJob& job) {
  print(job.ids);
  if (job.error) std::rethrow_exception(job.error);
}

struct EncodeOptions {
  bool special = false, json_lines = false, time = false;
  int threads = 1;
};

void encode(const Tokenizer& tokenizer, const EncodeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const auto work = [&](EncodeJob& job) { encode_job(tokenizer, options.special, job); };
  std::optional<OrderedWork<EncodeJob>> threads;
  if (options.threads > 1)
    threads.emplace(
        options.threads, kMaxHeld, [&] { return work; }, print_job);
  uint64_t bytes = 0;
  EncodeJob job;
  const auto finish_job = [&] {
    if (job.texts.empty()) return;
    const uint64_t weight = job.bytes;
    bytes += weight;
    EncodeJob next = {.first_line = job.first_line + static_cast<int64_t>(job.texts.size())};
    if (threads) {
      threads->add(std::move(job), weight);
    } else {
      work(job);
      print_job(job);
    }
    job = std::move(next);
  };
  if (options.json_lines) {
    job.first_line = 1;
    for_each_part(
        "\n",
        [&](const std::string& line) {
          job.texts.push_back(line);
          job.bytes += line.size();
        },
        finish_job);
  } else {
    job.texts.emplace_back();
    std::string buffer;
    for (std::string_view piece = next_input(buffer); !piece.empty(); piece = next_input(buffer))
      job.texts[0] += piece;
    job.bytes = job.texts[0].size();
    finish_job();
  }
  if (threads) threads->finish();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (options.time) fmt::print(stderr, "dsv3: {} bytes in {:.6f} s\n", bytes, seconds.count());
}

// Ids between white space to text.
class Decoder {
 public:
  Decoder(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), stream_(tokenizer, skip_special) {}

  // The text of one id; of none when number is empty.
  std::string add(std::string_view number) {
    if (number.empty()) return {};
    int32_t id = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), id);
    if (error != std::errc() || end != number.data() + number.size() || id < 0 ||
        id >= tokenizer_.vocab_size()) {
      throw InputError(
          kInput, fmt::format("id {}", count_),
          fmt::format("{}, expected 0 to {}", printable(number, 32), tokenizer_.vocab_size() - 1));
    }
    ++count_;
    return stream_.add(id);
  }
  std::string finish() { return stream_.finish(); }

 private:
  const Tokenizer& tokenizer_;
  DecodeStream stream_;
  int64_t count_ = 0;
};

// Prints what is known as soon as ids arrive; with json_lines each line as a JSON string.
void decode(const Tokenizer& tokenizer, bool skip_special, bool json_lines) {
  Decoder decoder(tokenizer, skip_special);
  const auto flush = [] { std::fflush(stdout); };
  if (!json_lines) {
    for_each_part(
        kBlank, [&](std::string_view number) { print(decoder.add(number)); }, flush);
    return print(decoder.finish());
  }
  for_each_part(
      "\n",
      [&](std::string_view line) {
        std::string text;
        while (!line.empty()) {
          const size_t end = std::min(line.find_first_of(kBlank), line.size());
          text += decoder.add(line.substr(0, end));
          line.remove_prefix(std::min(end + 1, line.size()));
        }
        print(Json(text + decoder.finish()).dump() + "\n");
      },
      flush);
}

}  // namespace

int tokenizer_command(std::vector<std::string> args) {
  // With an app of its own, so that a wrong flag is compared with those of train.
  if (!args.empty() && args[0] == "train") return tokenizer_train_command({args.begin() + 1, args.end()});
  CLI::App app("Text to ids and back: standard input to standard output.", "dsv3 tokenizer");
  std::string name;
  EncodeOptions options;
  options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  bool skip_special = false;
  app.require_subcommand(1);
  CLI::App* to_ids = app.add_subcommand("encode", "text to ids, on one line");
  CLI::App* to_text = app.add_subcommand("decode", "ids between spaces to text");
  app.add_subcommand("train", "a tokenizer.json from text, see dsv3 tokenizer train --help");
  for (CLI::App* command : {to_ids, to_text}) {
    command->add_option("--tokenizer", name, "tokenizer.json, a folder that has one, or byte")->required();
    command->add_flag("--json-lines", options.json_lines,
                      "each line is a text by itself, written as a JSON string");
  }
  to_ids->add_flag("--special", options.special, "with what the tokenizer puts around a text, such as a bos");
  to_ids
      ->add_option("--threads", options.threads,
                   "that encode lines; changes the time alone; default: all processors")
      ->check(CLI::Range(1, kMostThreads));
  to_ids->add_flag("--time", options.time,
                   "say on standard error how long it took, reading and printing included");
  to_text->add_flag("--skip-special", skip_special, "without special tokens");
  if (!parse_args(app, args)) return 0;
  const auto tokenizer = open_tokenizer(name);
  if (to_ids->parsed()) {
    encode(*tokenizer, options);
  } else {
    decode(*tokenizer, skip_special, options.json_lines);
  }
  return 0;
}

}  // namespace dsv3
