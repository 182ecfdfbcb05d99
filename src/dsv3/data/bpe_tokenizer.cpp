#include "dsv3/data/bpe_tokenizer.h"

#include <fmt/format.h>

#include <mutex>
#include <unordered_map>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/data/added_tokens.h"
#include "dsv3/data/bpe.h"
#include "dsv3/data/pretokenizer.h"
#include "dsv3/data/tokenizer_json.h"
#include "dsv3/data/unicode.h"

namespace dsv3 {
namespace {

constexpr size_t kMaxText = 1 << 30;
constexpr uint64_t kMaxConfig = 2 << 20;

// What a thread needs while it encodes.
struct Memory {
  PreTokenizer::Memory words;
  Bpe::Memory bpe;
  NfcMemory nfc;
};

}  // namespace

struct BpeTokenizer::State {
  explicit State(TokenizerSpec spec)
      : file(spec.file),
        hash(spec.hash),
        vocab_size(spec.vocab_size),
        before(spec.before),
        after(spec.after),
        added(spec.added, spec.nfc),
        words(spec.steps, spec.file),
        bpe(spec) {
    const size_t size = static_cast<size_t>(vocab_size);
    // Through the ids: bytes of all tokens in one buffer, in their order.
    std::vector<std::string_view> texts(size);
    special.assign(size, false);
    for (size_t i = 0; i < spec.vocab.size(); ++i) texts[static_cast<size_t>(spec.ids[i])] = spec.vocab[i];
    for (const AddedToken& token : spec.added) {
      texts[static_cast<size_t>(token.id)] = token.shown;
      special[static_cast<size_t>(token.id)] = token.special;
    }
    std::string one;
    for (const std::string_view text : texts) {
      token_bytes(text, one);
      bytes.add(one);
    }
    vocab_ids.reserve(size);
    for (size_t i = 0; i < spec.vocab.size(); ++i) vocab_ids.emplace(spec.vocab[i], spec.ids[i]);
    for (const AddedToken& token : spec.added) vocab_ids.emplace(token.content, token.id);
  }

  std::string file, hash;
  int64_t vocab_size;
  std::vector<int32_t> before, after;
  AddedTokens added;
  PreTokenizer words;
  Bpe bpe;
  StringTable bytes;          // of a token, by id
  std::vector<bool> special;  // by id
  std::unordered_map<std::string, int32_t> vocab_ids;

  // Memories that no thread uses now; as many are made as threads encode at once.
  std::mutex mutex;
  std::vector<std::unique_ptr<Memory>> idle;

  std::unique_ptr<Memory> take() {
    const std::lock_guard lock(mutex);
    if (idle.empty()) return std::make_unique<Memory>();
    std::unique_ptr<Memory> memory = std::move(idle.back());
    idle.pop_back();
    return memory;
  }
  void give_back(std::unique_ptr<Memory> memory) {
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(memory));
  }
};

BpeTokenizer::BpeTokenizer(const std::filesystem::path& path)
    : state_(std::make_unique<State>(read_tokenizer_json(path))) {}
BpeTokenizer::~BpeTokenizer() = default;

std::string BpeTokenizer::name() const {
  // Only of the folder: a file that is a link, as in a cache of Hugging Face, has its tokenizer_config.json
  // beside the link.
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(state_->file, error);
  const std::filesystem::path folder = std::filesystem::weakly_canonical(path.parent_path(), error);
  return error ? state_->file : (folder / path.filename()).string();
}
std::string BpeTokenizer::hash() const { return state_->hash; }
int64_t BpeTokenizer::vocab_size() const { return state_->vocab_size; }

std::optional<int32_t> BpeTokenizer::id_of(std::string_view token) const {
  const auto found = state_->vocab_ids.find(std::string(token));
  return found == state_->vocab_ids.end() ? std::nullopt : std::optional(found->second);
}

std::optional<int32_t> BpeTokenizer::eos() const {
  const std::filesystem::path path =
      std::filesystem::path(state_->file).parent_path() / "tokenizer_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  const Json config = read_json(path, kMaxConfig);
  if (!config.is_object()) throw InputError(path.string(), "", "is no JSON object");
  auto token = config.find("eos_token");
  if (token == config.end() || token->is_null()) return std::nullopt;
  // A string, or an added token written out.
  const Json& content = token->is_object() && token->contains("content") ? (*token)["content"] : *token;
  if (!content.is_string()) throw InputError(path.string(), "eos_token", "is neither a string nor a token");
  const std::string text = content.get<std::string>();
  const std::optional<int32_t> id = id_of(text);
  if (!id) {
    throw InputError(path.string(), "eos_token",
                     fmt::format("\"{}\" is no token of {}", printable(text, 64), printable(state_->file)));
  }
  return id;
}

void BpeTokenizer::encode(std::string_view text, bool add_special, std::vector<int32_t>& out,
                          std::string_view what) const {
  State& s = *state_;
  if (text.size() > kMaxText) {
    throw InputError(what, "size",
                     fmt::format("{} bytes, expected at most {} in a text", text.size(), kMaxText));
  }
  if (const size_t good = unicode::valid_utf8_prefix(text); good != text.size()) {
    throw InputError(what, fmt::format("byte {}", good), "is not UTF-8",
                     "convert it, for example with iconv");
  }
  if (add_special) out.insert(out.end(), s.before.begin(), s.before.end());
  std::unique_ptr<Memory> memory = s.take();
  // One for all pieces: the file says which tokens cut the text, so it could make as many as there are words.
  Regex::Budget budget(text.size());
  const PreTokenizer::Emit on_word = [&](std::string_view word) { s.bpe.encode(word, memory->bpe, out); };
  s.added.split(
      text, memory->nfc,
      [&](std::string_view piece) { s.words.split(piece, memory->words, budget, on_word); },
      [&](int32_t id) { out.push_back(id); });
  memory->nfc.trim();
  s.give_back(std::move(memory));
  if (add_special) out.insert(out.end(), s.after.begin(), s.after.end());
}

void BpeTokenizer::append_bytes(int32_t id, bool skip_special, std::string& out) const {
  const State& s = *state_;
  if (id < 0 || id >= s.vocab_size) return;
  if (skip_special && s.special[static_cast<size_t>(id)]) return;
  out += s.bytes[static_cast<size_t>(id)];
}

}  // namespace dsv3
