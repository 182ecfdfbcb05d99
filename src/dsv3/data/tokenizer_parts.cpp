#include "dsv3/data/tokenizer_parts.h"

#include <fmt/format.h>

#include <algorithm>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr size_t kMaxSteps = 16;

// What ByteLevel(use_regex) splits by: GPT-2's.
constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

[[noreturn]] void refuse(const JsonField& field, std::string_view type, std::string_view expected) {
  field.fail(fmt::format("{} is not supported, expected {}", printable(type, 64), expected));
}

PreTokenizerStep::Behavior read_behavior(const JsonField& field) {
  using Behavior = PreTokenizerStep::Behavior;
  static constexpr std::pair<std::string_view, Behavior> kNames[] = {
      {"Isolated", Behavior::isolated},
      {"Removed", Behavior::removed},
      {"MergedWithPrevious", Behavior::merged_with_previous},
      {"MergedWithNext", Behavior::merged_with_next},
      {"Contiguous", Behavior::contiguous}};
  const std::string name = field.string();
  for (const auto& [known, behavior] : kNames)
    if (known == name) return behavior;
  refuse(field, name, "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

void add_split(const JsonField& field, std::vector<PreTokenizerStep>& steps) {
  using Kind = PreTokenizerStep::Kind;
  field.only_keys({"type", "pattern", "behavior", "invert"});
  const JsonField pattern = field["pattern"];
  const std::string key = pattern.only_key();
  if (key != "Regex" && key != "String") refuse(pattern, key, "Regex or String");
  steps.push_back({.kind = key == "Regex" ? Kind::regex : Kind::literal,
                   .pattern = pattern[key].string(),
                   .behavior = read_behavior(field["behavior"]),
                   .invert = field["invert"].boolean(),
                   .field = pattern.path()});
}

void add_byte_level(const JsonField& field, std::vector<PreTokenizerStep>& steps) {
  using Kind = PreTokenizerStep::Kind;
  field.only_keys({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  if (field["add_prefix_space"].boolean())
    steps.push_back({.kind = Kind::prefix_space, .field = field.path()});
  if (field["use_regex"].boolean_or(true)) {
    steps.push_back(
        {.kind = Kind::regex, .pattern = std::string(kGpt2), .field = field.path() + ".use_regex"});
  }
}

// One element; true when it was ByteLevel, behind which text is no longer text.
bool add_step(const JsonField& field, std::vector<PreTokenizerStep>& steps) {
  using Kind = PreTokenizerStep::Kind;
  using Behavior = PreTokenizerStep::Behavior;
  if (steps.size() >= kMaxSteps) field.fail(fmt::format("more than {} steps", kMaxSteps));
  const std::string type = field["type"].string();
  if (type == "ByteLevel") {
    add_byte_level(field, steps);
    return true;
  }
  if (type == "Split") {
    add_split(field, steps);
  } else if (type == "Digits") {
    field.only_keys({"type", "individual_digits"});
    const bool one_by_one = field["individual_digits"].boolean();
    steps.push_back({.kind = Kind::digits,
                     .behavior = one_by_one ? Behavior::isolated : Behavior::contiguous,
                     .field = field.path()});
  } else if (type == "Punctuation") {
    field.only_keys({"type", "behavior"});
    const JsonField behavior = field["behavior"];
    steps.push_back({.kind = Kind::punctuation,
                     .behavior = behavior.is_null() ? Behavior::isolated : read_behavior(behavior),
                     .field = field.path()});
  } else {
    refuse(field, type, "Split, Digits, Punctuation or ByteLevel");
  }
  return false;
}

// A template's ids before and after the text.
void read_template(const JsonField& field, TokenizerSpec& out) {
  field.only_keys({"type", "single", "pair", "special_tokens"});
  bool seen_text = false;
  field["single"].for_each([&](const JsonField& piece) {
    const std::string kind = piece.only_key();
    const JsonField body = piece[kind];
    if (kind == "Sequence") {
      if (seen_text || body["id"].string() != "A") body.fail("is not supported, expected one sequence A");
      seen_text = true;
    } else if (kind == "SpecialToken") {
      const JsonField token = field["special_tokens"][body["id"].string()];
      if (token.is_null()) token.fail("is missing");
      token["ids"].for_each([&](const JsonField& id) {
        const int64_t value = id.integer();
        if (value < 0 || value >= out.vocab_size) {
          id.fail(fmt::format("{}, expected 0 to {}", value, out.vocab_size - 1));
        }
        (seen_text ? out.after : out.before).push_back(static_cast<int32_t>(value));
      });
    } else {
      refuse(piece, kind, "Sequence or SpecialToken");
    }
  });
  if (!seen_text) field["single"].fail("has no sequence A");
}

}  // namespace

JsonField JsonField::operator[](std::string_view key) const {
  static const Json kNull;
  if (!value_.is_object()) fail("is no object");
  const auto found = value_.find(key);
  return {file_, join(key), found == value_.end() ? kNull : *found};
}

std::string JsonField::string() const {
  if (!value_.is_string()) fail("is no string");
  return value_.get<std::string>();
}
int64_t JsonField::integer() const {
  if (!value_.is_number_integer()) fail("is no integer");
  return value_.get<int64_t>();
}
double JsonField::number() const {
  if (!value_.is_number()) fail("is no number");
  return value_.get<double>();
}
bool JsonField::boolean() const {
  if (!value_.is_boolean()) fail("is neither true nor false");
  return value_.get<bool>();
}

void JsonField::only_keys(std::initializer_list<std::string_view> keys) const {
  if (!value_.is_object()) fail("is no object");
  for (const auto& [key, value] : value_.items()) {
    if (std::ranges::find(keys, key) == keys.end()) JsonField(file_, join(key), value).fail("unknown key");
  }
}

std::string JsonField::only_key() const {
  if (!value_.is_object() || value_.size() != 1) fail("is no object with one key");
  return value_.begin().key();
}

void JsonField::fail(std::string_view why, std::string_view hint) const {
  throw InputError(file_, path_, why, hint);
}

bool read_normalizer(const JsonField& field) {
  if (field.is_null()) return false;
  const std::string type = field["type"].string();
  if (type == "NFC") return true;
  if (type != "Sequence") refuse(field, type, "NFC or none");
  bool nfc = false;
  field["normalizers"].for_each([&](const JsonField& part) { nfc |= read_normalizer(part); });
  return nfc;
}

void check_decoder(const JsonField& field) {
  if (field.is_null()) field.fail("is missing, expected ByteLevel");
  const std::string type = field["type"].string();
  if (type == "ByteLevel") return;
  // Behind ByteLevel all is one string, which another decoder would change.
  const bool alone = type == "Sequence" && field["decoders"].size() == 1;
  if (!alone) refuse(field, type, "ByteLevel");
  field["decoders"].for_each(check_decoder);
}

std::vector<PreTokenizerStep> read_pre_tokenizer(const JsonField& field) {
  if (field.is_null()) field.fail("is missing, expected ByteLevel or a Sequence that ends with it");
  std::vector<PreTokenizerStep> steps;
  bool done = false;
  if (field["type"].string() != "Sequence") {
    done = add_step(field, steps);
  } else {
    field.only_keys({"type", "pretokenizers"});
    field["pretokenizers"].for_each([&](const JsonField& step) {
      if (done) step.fail("stands behind ByteLevel, which has to be the last");
      done = add_step(step, steps);
    });
  }
  if (!done) field.fail("has no ByteLevel at its end", "only byte-level files are supported");
  return steps;
}

void read_post_processor(const JsonField& field, TokenizerSpec& out) {
  if (field.is_null()) return;
  const std::string type = field["type"].string();
  if (type == "ByteLevel") return;  // moves offsets alone
  if (type == "TemplateProcessing") {
    if (!out.before.empty() || !out.after.empty()) field.fail("a second template is not supported");
    read_template(field, out);
  } else if (type == "Sequence") {
    field["processors"].for_each([&](const JsonField& part) {
      if (part["type"].string() == "Sequence") part.fail("a Sequence in a Sequence is not supported");
      read_post_processor(part, out);
    });
  } else {
    refuse(field, type, "TemplateProcessing or ByteLevel");
  }
}

}  // namespace dsv3
