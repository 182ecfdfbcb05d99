#include "dsv3/data/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/data/nfc.h"
#include "dsv3/data/tokenizer_file.h"
#include "dsv3/data/tokenizer_parts.h"
#include "dsv3/data/unicode.h"

namespace dsv3 {
namespace {

// The byte that each letter of the byte alphabet means, by code point; -1: no letter.
constexpr auto kByteOfLetter = [] {
  std::array<int16_t, 256 + 68> table{};
  table.fill(-1);
  // Printable bytes of Latin-1 are their own letters, the 68 others get those from U+0100 on.
  uint32_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool own = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    table[own ? static_cast<uint32_t>(byte) : next++] = static_cast<int16_t>(byte);
  }
  return table;
}();

// The letters' code points, by byte.
constexpr auto kLetterOfByte = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t c = 0; c < kByteOfLetter.size(); ++c)
    if (kByteOfLetter[c] >= 0) table[static_cast<size_t>(kByteOfLetter[c])] = c;
  return table;
}();

constexpr auto kByteAtRank = [] {
  std::array<unsigned char, 256> table{};
  size_t rank = 0;
  for (const int16_t byte : kByteOfLetter)
    if (byte >= 0) table[rank++] = static_cast<unsigned char>(byte);
  return table;
}();

// Ids by a token's text in the file.
using Ids = std::unordered_map<std::string_view, int32_t>;

Ids check_vocab(const TokenizerFile& in, int64_t num_tokens, TokenizerSpec& out) {
  const auto where = [&](size_t i) { return fmt::format("model.vocab.{}", in.vocab[i]); };
  std::vector<int32_t> owner(static_cast<size_t>(num_tokens), -1);
  std::array<bool, 256> has_byte{};
  Ids ids;
  ids.reserve(in.vocab.size());
  std::string bytes;
  for (size_t i = 0; i < in.vocab.size(); ++i) {
    const int64_t id = in.ids[i];
    if (in.vocab[i].empty()) throw InputError(in.file, where(i), "an empty token");
    if (id < 0 || id >= num_tokens) {
      throw InputError(in.file, where(i), fmt::format("id {}, expected 0 to {}", id, num_tokens - 1));
    }
    if (const int32_t other = std::exchange(owner[static_cast<size_t>(id)], static_cast<int32_t>(i));
        other >= 0) {
      throw InputError(in.file, where(i),
                       fmt::format("id {} is that of \"{}\" too", id,
                                   printable(in.vocab[static_cast<size_t>(other)], 64)));
    }
    if (!ids.emplace(in.vocab[i], static_cast<int32_t>(id)).second)
      throw InputError(in.file, where(i), "duplicate key");
    if (token_bytes(in.vocab[i], bytes) && bytes.size() == 1)
      has_byte[static_cast<unsigned char>(bytes[0])] = true;
    out.ids.push_back(static_cast<int32_t>(id));
    out.vocab_size = std::max(out.vocab_size, id + 1);
  }
  for (size_t byte = 0; byte < has_byte.size(); ++byte) {
    if (has_byte[byte]) continue;
    throw InputError(in.file, "model.vocab", fmt::format("has no token for the byte 0x{:02x}", byte),
                     "only byte-level vocabularies are supported");
  }
  return ids;
}

void check_merges(const TokenizerFile& in, const Ids& ids) {
  std::string merged;
  const auto require = [&](std::string_view token, size_t merge) {
    if (ids.contains(token)) return;
    throw InputError(in.file, fmt::format("model.merges.{}", merge),
                     fmt::format("\"{}\" is not in the vocabulary", printable(token, 64)));
  };
  for (size_t i = 0; i + 1 < in.merges.size(); i += 2) {
    require(in.merges[i], i / 2);
    require(in.merges[i + 1], i / 2);
    merged.assign(in.merges[i]);
    merged += in.merges[i + 1];
    require(merged, i / 2);
  }
}

void read_model(const JsonField& model, TokenizerSpec& out) {
  model.only_keys({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                   "fuse_unk", "byte_fallback", "ignore_merges"});
  // Older files, GPT-2's own among them, have no such key: vocab and merges, of which no other model has
  // both, make them BPE.
  if (model.has("type")) {
    if (const std::string type = model["type"].string(); type != "BPE")
      model["type"].fail(fmt::format("{} is not supported, expected BPE", printable(type, 32)));
  }
  const JsonField dropout = model["dropout"];
  if (!dropout.is_null() && dropout.number() != 0)
    dropout.fail("merges left out at random are not supported");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const JsonField affix = model[key];
    if (!affix.is_null() && !affix.string().empty()) affix.fail("is not supported, expected null or \"\"");
  }
  // unk_token, fuse_unk and byte_fallback say what to do with characters outside the vocabulary: all 256
  // bytes are in it.
  out.ignore_merges = model["ignore_merges"].boolean_or(false);
}

// The ids that `tokenizers` gives to added tokens: the model's own, else the next ones behind the vocabulary.
void read_added_tokens(const JsonField& list, const Ids& ids, TokenizerSpec& out) {
  std::unordered_map<std::string, bool> seen;
  std::unordered_map<std::string, bool> seen_nfc;  // as text is searched for them
  NfcMemory memory;
  int64_t next = static_cast<int64_t>(ids.size());
  list.for_each([&](const JsonField& field) {
    field.only_keys({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken token;
    token.content = field["content"].string();
    if (token.content.empty()) field["content"].fail("an empty token");
    if (token.content.size() > kMaxAddedBytes)
      field["content"].fail(fmt::format("more than {} bytes", kMaxAddedBytes));
    if (!seen.emplace(token.content, true).second) {
      field["content"].fail(fmt::format("\"{}\" is there twice", printable(token.content, 64)));
    }
    const auto found = ids.find(token.content);
    const int64_t expected = found != ids.end() ? found->second : next++;
    const int64_t id = field["id"].integer();
    if (id != expected) {
      field["id"].fail(fmt::format(
          "{}, expected {}, {}", id, expected,
          found != ids.end() ? "the token's id in the vocabulary" : "the next one behind the vocabulary"));
    }
    token.id = static_cast<int32_t>(id);
    token.special = field["special"].boolean();
    token.normalized = field["normalized"].boolean();
    const bool by_nfc = out.nfc && token.normalized;
    token.shown = by_nfc ? std::string(to_nfc(token.content, memory)) : token.content;
    if (by_nfc && !seen_nfc.emplace(token.shown, true).second) {
      field["content"].fail(
          fmt::format("\"{}\" is that of another token in NFC", printable(token.content, 64)));
    }
    token.lstrip = field["lstrip"].boolean();
    token.rstrip = field["rstrip"].boolean();
    token.single_word = field["single_word"].boolean();
    out.vocab_size = std::max(out.vocab_size, id + 1);
    out.added.push_back(std::move(token));
  });
}

}  // namespace

bool token_bytes(std::string_view token, std::string& out) {
  out.clear();
  for (size_t at = 0; at < token.size();) {
    const uint32_t c = unicode::next_char(token, at);
    if (c >= kByteOfLetter.size() || kByteOfLetter[c] < 0) {
      out.assign(token);
      return false;
    }
    out += static_cast<char>(kByteOfLetter[c]);
  }
  return true;
}

std::string token_letters(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    const uint32_t c = kLetterOfByte[static_cast<unsigned char>(byte)];
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else {
      out += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
    }
  }
  return out;
}

unsigned char byte_at_rank(int32_t rank) { return kByteAtRank.at(static_cast<size_t>(rank)); }

TokenizerSpec read_tokenizer_json(const std::filesystem::path& path) {
  TokenizerFile in = read_tokenizer_file(path);
  TokenizerSpec out;
  out.file = in.file;
  const JsonField root(in.file, "", in.rest);
  root.only_keys({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                  "post_processor", "decoder", "model"});
  if (const JsonField version = root["version"]; !version.is_null() && version.string() != "1.0") {
    version.fail("is not supported, expected 1.0");
  }
  for (const char* key : {"truncation", "padding"}) {
    if (!root[key].is_null()) root[key].fail("is not supported, expected null");
  }
  const JsonField model = root["model"];
  if (model.is_null()) model.fail("is missing");
  read_model(model, out);
  if (!in.has_vocab) model["vocab"].fail("is missing, or no object");
  if (!in.has_merges) model["merges"].fail("is missing, or no array");

  const JsonField added = root["added_tokens"];
  const int64_t num_tokens = static_cast<int64_t>(in.vocab.size() + added.size());
  const Ids ids = check_vocab(in, num_tokens, out);
  check_merges(in, ids);
  out.nfc = read_normalizer(root["normalizer"]);
  read_added_tokens(added, ids, out);
  check_decoder(root["decoder"]);
  out.steps = read_pre_tokenizer(root["pre_tokenizer"]);
  read_post_processor(root["post_processor"], out);
  out.hash = std::move(in.hash);
  out.vocab = std::move(in.vocab);
  out.merges = std::move(in.merges);
  return out;
}

}  // namespace dsv3
