#include "dsv3/data/tokenizer_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "dsv3/base/atomic_file.h"
#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/json.h"
#include "dsv3/data/bpe_trainer.h"
#include "dsv3/data/tokenizer_json.h"
#include "dsv3/data/tokenizer_parts.h"
#include "dsv3/data/unicode.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;

// As in DeepSeek-V3's file: https://huggingface.co/deepseek-ai/DeepSeek-V3, tokenizer.json.
constexpr std::string_view kV3[] = {
    R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"};

Json byte_level(bool add_prefix_space, bool trim_offsets, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", use_regex}};
}

Json pre_tokenizer(std::string_view pattern) {
  if (pattern == "gpt2") return byte_level(false, true, true);
  if (pattern != "v3") throw UsageError("--pattern", printable(pattern), "v3 or gpt2");
  Json steps = Json::array();
  for (const std::string_view regex : kV3) {
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back(byte_level(false, true, false));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

fs::path output_file(const fs::path& out) {
  if (out.empty()) throw UsageError("--out", "is missing", "name the folder to write");
  if (out.extension() != ".json") return out / "tokenizer.json";
  if (out.filename() == "tokenizer.json") return out;
  // The end of a document is looked up in tokenizer_config.json beside it, which can tell that of one file.
  throw UsageError("--out", printable(out.string()) + ": expected a folder, or tokenizer.json in one");
}

// All special tokens, in the order of their ids.
std::vector<std::string> check_special(const TrainTokenizerOptions& options) {
  if (options.eos.empty()) throw UsageError("--eos", "is empty", "name the token that ends a document");
  std::vector<std::string> special;
  const auto add = [&](const char* flag, const std::string& token) {
    const auto refuse = [&](std::string_view why) {
      throw UsageError(flag, fmt::format("\"{}\" {}", printable(token, 64), why));
    };
    std::string bytes;
    if (unicode::valid_utf8_prefix(token) != token.size()) refuse("is not UTF-8");
    if (token.size() > kMaxAddedBytes) refuse(fmt::format("has more than {} bytes", kMaxAddedBytes));
    if (token_bytes(token, bytes) && bytes.size() == 1) refuse("is how a single byte is spelled");
    if (std::ranges::find(special, token) != special.end()) refuse("is a special token already");
    special.push_back(token);
  };
  if (!options.bos.empty()) add("--bos", options.bos);
  add("--eos", options.eos);
  if (!options.pad.empty()) add("--pad", options.pad);
  for (const std::string& token : options.special) {
    if (token.empty()) throw UsageError("--special", "an empty token");
    add("--special", token);
  }
  return special;
}

Json added_tokens(const std::vector<std::string>& special) {
  Json out = Json::array();
  for (size_t id = 0; id < special.size(); ++id) {
    out.push_back({{"id", id},
                   {"content", special[id]},
                   {"single_word", false},
                   {"lstrip", false},
                   {"rstrip", false},
                   {"normalized", false},
                   {"special", true}});
  }
  return out;
}

// The parts of a tokenizer.json, in its order; the model's tables are written by hand, since a Json of
// 500,000 entries takes many times the memory of its text.
std::string file_text(const std::vector<std::string>& special, const Json& steps, const LearnedBpe& bpe) {
  const auto quoted = [](std::string_view text) { return Json(text).dump(); };
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n";
  out += "  \"added_tokens\": " + added_tokens(special).dump() + ",\n  \"normalizer\": null,\n";
  out += "  \"pre_tokenizer\": " + steps.dump() + ",\n";
  out += "  \"post_processor\": " + byte_level(true, false, true).dump() + ",\n";
  out += "  \"decoder\": " + byte_level(true, true, true).dump() + ",\n";
  out += "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n";
  out += "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n";
  out += "    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n";
  out += "    \"vocab\": {";
  int64_t id = 0;
  const auto add_token = [&](std::string_view spelled) {
    fmt::format_to(std::back_inserter(out), "{}\n      {}: {}", id == 0 ? "" : ",", quoted(spelled), id);
    ++id;
  };
  for (const std::string& token : special) add_token(token);
  for (const std::string& token : bpe.tokens) add_token(token_letters(token));
  out += "\n    },\n    \"merges\": [";
  const auto letters = [&](int32_t token) { return token_letters(bpe.tokens[static_cast<size_t>(token)]); };
  for (size_t i = 0; i < bpe.merges.size(); ++i) {
    const auto [left, right] = bpe.merges[i];
    fmt::format_to(std::back_inserter(out), "{}\n      {}", i == 0 ? "" : ",",
                   quoted(letters(left) + " " + letters(right)));
  }
  out += bpe.merges.empty() ? "]\n  }\n}\n" : "\n    ]\n  }\n}\n";
  return out;
}

std::string config_text(const TrainTokenizerOptions& options) {
  Json out = {{"add_bos_token", false}, {"add_eos_token", false}};
  if (!options.bos.empty()) out["bos_token"] = options.bos;
  out["clean_up_tokenization_spaces"] = false;
  out["eos_token"] = options.eos;
  if (!options.pad.empty()) out["pad_token"] = options.pad;
  out["tokenizer_class"] = "PreTrainedTokenizerFast";
  return out.dump(2) + "\n";
}

}  // namespace

TrainTokenizerSummary train_tokenizer(const TrainTokenizerOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const Json steps = pre_tokenizer(options.pattern);
  const fs::path file = output_file(options.out);
  const std::vector<std::string> special = check_special(options);
  const auto least = static_cast<int64_t>(special.size()) + 256;
  if (options.vocab_size < least || options.vocab_size > static_cast<int64_t>(kMaxTokens)) {
    throw UsageError("--vocab-size", fmt::format("{}, expected {} (256 bytes and {} special tokens) to {}",
                                                 options.vocab_size, least, special.size(), kMaxTokens));
  }
  if (options.min_frequency < 1)
    throw UsageError("--min-frequency", fmt::format("{}, expected at least 1", options.min_frequency));
  const std::vector<TextInput> inputs = list_text_inputs(options.inputs, options.format, options.glob);
  std::vector<fs::path> read;
  for (const TextInput& input : inputs) read.push_back(input.path);
  const fs::path config = file.parent_path() / "tokenizer_config.json";
  require_no_input("--out", {file, config}, read);

  const PreTokenizer splitter(read_pre_tokenizer(JsonField(file.string(), "pre_tokenizer", steps)),
                              file.string());
  BpeTrainerOptions learn{.num_tokens = options.vocab_size - static_cast<int64_t>(special.size()),
                          .min_frequency = options.min_frequency};
  for (const std::string& token : special) {
    std::string bytes;
    if (token_bytes(token, bytes)) learn.forbidden.insert(std::move(bytes));
  }
  const CountedText text = count_words(inputs, splitter, options.count);
  if (text.bytes == 0) {
    throw InputError(options.inputs.front().string(), "", fmt::format("no text in {} files", inputs.size()));
  }
  TrainTokenizerSummary summary{.file = file,
                                .bytes = text.bytes,
                                .bad_lines = text.bad_lines,
                                .words = static_cast<int64_t>(text.words.size())};
  const LearnedBpe bpe = learn_bpe(text.words, learn);
  summary.vocab_size = static_cast<int64_t>(special.size() + bpe.tokens.size());
  summary.merges = static_cast<int64_t>(bpe.merges.size());

  const std::string json = file_text(special, steps, bpe);
  if (json.size() > kMaxTokenizerFile) {
    throw UsageError("--vocab-size", fmt::format("{}: a file of {} bytes, at most {} can be read",
                                                 options.vocab_size, json.size(), kMaxTokenizerFile));
  }
  create_folders(file.parent_path());
  // Away before the tokens change: no end of a document is better than that of other tokens.
  std::error_code ignored;
  fs::remove(config, ignored);
  write_atomically(file, json);
  write_atomically(config, config_text(options));
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

}  // namespace dsv3
