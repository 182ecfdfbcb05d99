// dsv3 tokenizer train|encode|decode: text to ids and back, on standard input and output.
#include "dsv3/data/tokenizer.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <cstdio>

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/core/commands.h"

namespace dsv3 {
namespace {

constexpr size_t kPiece = 1 << 16;
constexpr std::string_view kInput = "standard input", kBlank = " \t\r\n";

// The next piece of standard input; empty at its end.
std::string_view next_input(std::string& buffer) {
  buffer.resize(kPiece);
  const size_t size = std::fread(buffer.data(), 1, buffer.size(), stdin);
  if (size == 0 && std::ferror(stdin)) throw RunError(kInput, "cannot be read");
  return std::string_view(buffer).substr(0, size);
}

void print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

// Calls with each line of standard input, without its newline; the last may lack one.
template <class Call>
void for_each_line(Call call) {
  std::string line, buffer;
  for (std::string_view piece = next_input(buffer); !piece.empty(); piece = next_input(buffer)) {
    for (size_t end = piece.find('\n'); end != piece.npos; end = piece.find('\n')) {
      call(line += piece.substr(0, end));
      line.clear();
      piece.remove_prefix(end + 1);
    }
    line += piece;
  }
  if (!line.empty()) call(line);
}

// Texts to lines of ids.
class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, bool special) : tokenizer_(tokenizer), special_(special) {}

  void add(std::string_view text) {
    ids_.clear();
    const auto start = std::chrono::steady_clock::now();
    tokenizer_.encode(text, special_, ids_, kInput);
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    bytes_ += text.size();
    line_.clear();
    for (const int32_t id : ids_)
      fmt::format_to(std::back_inserter(line_), "{}{}", line_.empty() ? "" : " ", id);
    print(line_ += '\n');
  }
  void print_time() const { fmt::print(stderr, "dsv3: {} bytes in {:.6f} s\n", bytes_, seconds_); }

 private:
  const Tokenizer& tokenizer_;
  bool special_;
  std::vector<int32_t> ids_;
  std::string line_;
  uint64_t bytes_ = 0;
  double seconds_ = 0;
};

void encode(const Tokenizer& tokenizer, bool special, bool json_lines, bool time) {
  Encoder encoder(tokenizer, special);
  if (json_lines) {
    for_each_line([&](const std::string& line) {
      const Json text = parse_json(line, kInput, 1);
      if (!text.is_string()) throw InputError(kInput, "", "a line is no JSON string");
      encoder.add(text.get_ref<const std::string&>());
    });
  } else {
    std::string text, buffer;
    for (std::string_view piece = next_input(buffer); !piece.empty(); piece = next_input(buffer))
      text += piece;
    encoder.add(text);
  }
  if (time) encoder.print_time();
}

// Ids between white space to text; with json_lines each line to a JSON string.
void decode(const Tokenizer& tokenizer, bool skip_special, bool json_lines) {
  DecodeStream stream(tokenizer, skip_special);
  int64_t count = 0;
  for_each_line([&](std::string_view line) {
    std::string text;
    for (size_t at = line.find_first_not_of(kBlank); at != line.npos; at = line.find_first_not_of(kBlank)) {
      line.remove_prefix(at);
      const std::string_view number = line.substr(0, line.find_first_of(kBlank));
      line.remove_prefix(number.size());
      int32_t id = 0;
      const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), id);
      if (error != std::errc() || end != number.data() + number.size() || id < 0 ||
          id >= tokenizer.vocab_size()) {
        throw InputError(
            kInput, fmt::format("id {}", count),
            fmt::format("{}, expected 0 to {}", printable(number, 32), tokenizer.vocab_size() - 1));
      }
      text += stream.add(id);
      ++count;
    }
    if (json_lines) text = Json(text + stream.finish()).dump() + "\n";
    print(text);
  });
  print(stream.finish());
}

}  // namespace

int tokenizer_command(std::vector<std::string> args) {
  // With an app of its own, so that a wrong flag is compared with those of train.
  if (!args.empty() && args[0] == "train") return tokenizer_train_command({args.begin() + 1, args.end()});
  CLI::App app("Text to ids and back: standard input to standard output.", "dsv3 tokenizer");
  std::string name;
  bool special = false, skip_special = false, json_lines = false, time = false;
  app.require_subcommand(1);
  CLI::App* to_ids = app.add_subcommand("encode", "text to ids, on one line");
  CLI::App* to_text = app.add_subcommand("decode", "ids between spaces to text");
  app.add_subcommand("train", "a tokenizer.json from text, see dsv3 tokenizer train --help");
  for (CLI::App* command : {to_ids, to_text}) {
    command->add_option("--tokenizer", name, "tokenizer.json, a folder that has one, or byte")->required();
    command->add_flag("--json-lines", json_lines, "each line is a text by itself, written as a JSON string");
  }
  to_ids->add_flag("--special", special, "with what the tokenizer puts around a text, such as a bos");
  to_ids->add_flag("--time", time, "say on standard error how long encoding took");
  to_text->add_flag("--skip-special", skip_special, "without special tokens");
  if (!parse_args(app, args)) return 0;
  const auto tokenizer = open_tokenizer(name);
  if (to_ids->parsed()) {
    encode(*tokenizer, special, json_lines, time);
  } else {
    decode(*tokenizer, skip_special, json_lines);
  }
  return 0;
}

}  // namespace dsv3
