// dsv3 data ls PREFIX: what token files hold, and the text of a range of documents.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/core/commands.h"
#include "dsv3/data/indexed_dataset.h"
#include "dsv3/data/tokenizer.h"

namespace dsv3 {
namespace {

constexpr int64_t kPieceTokens = 1 << 16;
constexpr uint64_t kMaxDescription = 1 << 20;

// PREFIX.json; an empty object when there is none, as beside files that Megatron wrote.
Json read_description(const std::string& prefix) {
  const std::filesystem::path path = prefix + ".json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return Json::object();
  Json json = read_json(path, kMaxDescription);
  if (!json.is_object()) throw InputError(path.string(), "", "is no JSON object");
  for (const char* key : {"tokenizer", "tokenizer_hash"}) {
    if (json.contains(key) && !json[key].is_string()) throw InputError(path.string(), key, "is no string");
  }
  for (const char* key : {"vocab_size", "eos_id"}) {
    if (json.contains(key) && !json[key].is_number_integer())
      throw InputError(path.string(), key, "is no integer");
  }
  return json;
}

struct Range {
  int64_t begin = 0, end = 0;
};

// "A:B", "A:" and ":B" as in Python, without negative numbers. what: the count things that there are.
Range parse_range(const char* flag, std::string_view text, int64_t count, const char* what) {
  const auto refuse = [&] {
    throw UsageError(
        flag, fmt::format("'{}', expected A:B with 0 <= A <= B <= {} {}", printable(text, 64), count, what));
  };
  const auto number = [&](std::string_view part, int64_t missing) {
    int64_t value = missing;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (!part.empty() && (error != std::errc() || end != part.data() + part.size())) refuse();
    return value;
  };
  const size_t colon = text.find(':');
  if (colon == text.npos) refuse();
  const Range range{number(text.substr(0, colon), 0), number(text.substr(colon + 1), count)};
  if (range.begin < 0 || range.begin > range.end || range.end > count) refuse();
  return range;
}

std::unique_ptr<const Tokenizer> open_for(const Json& description, const std::string& named,
                                          const std::string& prefix) {
  const std::string name = named.empty() ? description.value("tokenizer", "") : named;
  if (name.empty())
    throw UsageError("--tokenizer", "is missing, and " + printable(prefix) + ".json names none");
  auto tokenizer = open_tokenizer(name);
  const std::string hash = description.value("tokenizer_hash", "");
  if (!hash.empty() && hash != tokenizer->hash()) {
    throw InputError(
        prefix + ".json", "tokenizer_hash",
        fmt::format("{}, but {} has {}", printable(hash, 64), printable(name), tokenizer->hash()),
        "the tokenizer that made the data is another");
  }
  return tokenizer;
}

// Control characters, which a terminal could obey, as \xNN; lines stay lines.
void print_text(std::string_view text) {
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("\n\t"), text.size());
    fmt::print("{}{}", printable(text.substr(0, end), end), text.substr(end, 1));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

// The inside of a JSON string.
void print_quoted(const std::string& text) {
  const std::string quoted = Json(text).dump();
  fmt::print("{}", std::string_view(quoted).substr(1, quoted.size() - 2));
}

class Decoder {
 public:
  Decoder(const IndexedDataset& data, const Tokenizer& tokenizer, int64_t eos, bool json)
      : data_(data), tokenizer_(tokenizer), eos_(eos), json_(json) {}

  // Tokens of a document; all, or some by their places in it. In pieces: they may be larger than memory. The
  // document's eos is not shown.
  void print(int64_t document, const std::optional<Range>& tokens) const {
    const int64_t first = data_.document_begin(document), last = data_.document_begin(document + 1);
    const int64_t begin = tokens ? first + tokens->begin : first, end = tokens ? first + tokens->end : last;
    if (json_) {
      const std::string some =
          tokens ? fmt::format("\"begin\":{},\"end\":{},", tokens->begin, tokens->end) : "";
      fmt::print("{{\"document\":{},\"tokens\":{},{}\"text\":\"", document, last - first, some);
    } else {
      const std::string some = tokens ? fmt::format("{}:{} of ", tokens->begin, tokens->end) : "";
      fmt::print("--- document {}: {}{} tokens\n", document, some, last - first);
    }
    DecodeStream stream(tokenizer_, false);
    std::vector<int64_t> ids;
    for (int64_t at = begin; at < end; at += kPieceTokens) {
      ids.resize(static_cast<size_t>(std::min(kPieceTokens, end - at)));
      data_.read(at, ids);
      data_.check_ids(at, ids, tokenizer_.vocab_size());
      if (at + std::ssize(ids) == last && ids.back() == eos_) ids.pop_back();
      std::string text;
      for (const int64_t id : ids) text += stream.add(static_cast<int32_t>(id));
      show(text);
    }
    show(stream.finish());
    fmt::print("{}", json_ ? "\"}\n" : "\n");
  }

 private:
  void show(const std::string& text) const {
    if (json_) {
      print_quoted(text);
    } else {
      print_text(text);
    }
  }

  const IndexedDataset& data_;
  const Tokenizer& tokenizer_;
  int64_t eos_;
  bool json_;
};

struct ListOptions {
  std::string prefix, range, tokens, tokenizer;
  bool json = false;
};

// The tokens that --tokens names of the one document that --range names.
std::optional<Range> tokens_of(const ListOptions& options, const IndexedDataset& data, Range documents) {
  if (options.tokens.empty()) return std::nullopt;
  if (documents.end - documents.begin != 1)
    throw UsageError("--tokens", "needs the one document that they are of", "--range N:N+1");
  const int64_t count = data.document_begin(documents.end) - data.document_begin(documents.begin);
  return parse_range("--tokens", options.tokens, count, "tokens");
}

int list(const ListOptions& options) {
  const auto& [prefix, range, in_document, named, json] = options;
  const IndexedDataset data(prefix);
  const Json description = read_description(prefix);
  // Before anything is printed.
  const Range documents =
      range.empty() ? Range{} : parse_range("--range", range, data.num_documents(), "documents");
  const std::optional<Range> tokens = tokens_of(options, data, documents);
  const auto tokenizer = range.empty() ? nullptr : open_for(description, named, prefix);

  Json out = {{"prefix", prefix},
              {"documents", data.num_documents()},
              {"tokens", data.num_tokens()},
              {"dtype", data.dtype()}};
  for (const char* key : {"tokenizer", "tokenizer_hash", "vocab_size", "eos_id", "bytes", "largest_id"})
    if (description.contains(key)) out[key] = description[key];
  if (json) {
    fmt::print("{}\n", out.dump(-1, ' ', false, Json::error_handler_t::replace));
  } else {
    for (const auto& [key, value] : out.items())
      fmt::print("{:<14} {}\n", key,
                 printable(value.is_string() ? value.get<std::string>() : value.dump(), 400));
  }
  if (!tokenizer) return 0;
  const Decoder decoder(data, *tokenizer, description.value("eos_id", int64_t{-1}), json);
  for (int64_t document = documents.begin; document < documents.end; ++document)
    decoder.print(document, tokens);
  return 0;
}

}  // namespace

int data_command(std::vector<std::string> args) {
  CLI::App app("What is in token files.", "dsv3 data");
  ListOptions options;
  app.require_subcommand(1);
  CLI::App* ls = app.add_subcommand("ls", "documents, tokens, dtype, tokenizer; with --range also texts");
  ls->add_option("PREFIX", options.prefix, "of PREFIX.bin and PREFIX.idx")->required();
  ls->add_option("--range", options.range, "A:B, the text of documents A to B - 1");
  ls->add_option("--tokens", options.tokens, "A:B, of one document only tokens A to B - 1");
  ls->add_option("--tokenizer", options.tokenizer,
                 "byte, a tokenizer.json or its folder; default: what PREFIX.json says");
  ls->add_flag("--json", options.json, "print JSON, an object a line");
  if (!parse_args(app, args)) return 0;
  return list(options);
}

}  // namespace dsv3
