#include "dsv3/data/fim.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/base/philox.h"
#include "dsv3/data/prefix_info.h"
#include "dsv3/data/tokenizer.h"

namespace dsv3 {
namespace {

constexpr const char* kKey = "data.fim_rate";
constexpr int64_t kSentinels = 3;

// In the order of Fim: before the prefix, before the suffix, before the middle.
using Names = std::array<const char*, kSentinels>;
constexpr Names kNames[] = {
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},  // DeepSeek
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},  // Qwen
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},        // StarCoder
};

// Uniform in [0, 1), 53 bits.
double unit(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

// Uniform in [0, n], n < 2^31.
int64_t up_to(int64_t n, uint64_t bits) {
  return static_cast<int64_t>((bits >> 32) * (static_cast<uint64_t>(n) + 1) >> 32);
}

bool find_sentinels(const Tokenizer& tokenizer, Fim& fim) {
  for (const Names& names : kNames) {
    const auto begin = tokenizer.id_of(names[0]), hole = tokenizer.id_of(names[1]),
               end = tokenizer.id_of(names[2]);
    if (!begin || !hole || !end) continue;
    fim.begin = *begin;
    fim.hole = *hole;
    fim.end = *end;
    return true;
  }
  return false;
}

// eos as the PREFIX.json beside the token files says, or -1.
int64_t eos_of_files(const std::vector<DataSource>& sources) {
  int64_t eos = -1;
  for (const DataSource& source : sources) {
    const PrefixInfo info = read_prefix_info(source.path);
    const std::string path = source.path + ".json";
    if (!info.eos_id) continue;
    if (eos >= 0 && *info.eos_id != eos) {
      throw InputError(path, "eos_id", fmt::format("{}, the files before it have {}", *info.eos_id, eos),
                       "prepare them with one --eos");
    }
    eos = *info.eos_id;
  }
  return eos;
}

}  // namespace

bool fill_in_the_middle(std::span<int64_t> part, const Fim& fim, uint64_t key) {
  const uint64_t purpose = hash_name("fim part");
  if (!(unit(philox_u64(key, purpose, 0)) < fim.rate)) return false;
  const int64_t tokens = static_cast<int64_t>(part.size()) - (!part.empty() && part.back() == fim.eos);
  const bool nested = std::any_of(part.begin(), part.end(), [&](int64_t id) {
    return id == fim.begin || id == fim.hole || id == fim.end;
  });
  if (tokens < kFewestFimTokens || nested) return false;

  const int64_t kept = tokens - kSentinels;
  const std::vector<int64_t> text(part.begin(), part.begin() + kept);
  const auto [first, second] =
      std::minmax({up_to(kept, philox_u64(key, purpose, 1)), up_to(kept, philox_u64(key, purpose, 2))});
  auto out = part.begin();
  *out++ = fim.begin;
  out = std::copy(text.begin(), text.begin() + first, out);
  *out++ = fim.hole;
  out = std::copy(text.begin() + second, text.end(), out);
  *out++ = fim.end;
  std::copy(text.begin() + first, text.begin() + second, out);
  return true;
}

Fim find_fim(const DataConfig& data) {
  Fim fim{.rate = data.fim_rate};
  if (!(fim.rate > 0)) return {};
  if (data.tokenizer.empty()) {
    throw UsageError(kKey, "fill-in-the-middle needs data.tokenizer, for the ids of its sentinels",
                     "name the tokenizer.json that the text was prepared with");
  }
  const auto tokenizer = open_tokenizer(data.tokenizer);
  if (!find_sentinels(*tokenizer, fim)) {
    throw UsageError(kKey,
                     fmt::format("{} has no tokens {}, {} and {}", printable(tokenizer->name()), kNames[0][0],
                                 kNames[0][1], kNames[0][2]),
                     "leave it at 0, or prepare the text with a tokenizer that has them");
  }
  fim.eos = eos_of_files(data.train);
  if (fim.eos < 0) fim.eos = tokenizer->eos().value_or(-1);
  if (fim.eos < 0) {
    throw UsageError(kKey, printable(tokenizer->name()) + " does not say which token ends a document",
                     "dsv3 prepare writes it into PREFIX.json");
  }
  return fim;
}

}  // namespace dsv3
