#include "dsv3/data/prefix_info.h"

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"
#include "dsv3/data/tokenizer.h"

namespace dsv3 {

PrefixInfo read_prefix_info(const std::filesystem::path& prefix) {
  const std::filesystem::path path = prefix.string() + ".json";
  PrefixInfo info;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return info;
  const Json json = read_json(path);
  if (!json.is_object()) return info;
  const auto refuse = [&](const char* key, const char* expected) {
    throw InputError(path.string(), key, printable(json.at(key).dump(), 64) + ", expected " + expected,
                     "dsv3 prepare writes it");
  };
  const auto number = [&](const char* key, std::optional<int64_t>& out) {
    const auto found = json.find(key);
    if (found == json.end()) return;
    if (!found->is_number_integer()) refuse(key, "an integer");
    out = found->get<int64_t>();
  };
  number("eos_id", info.eos_id);
  number("largest_id", info.largest_id);
  number("bytes", info.bytes);
  number("tokens", info.tokens);
  const auto text = [&](const char* key, std::optional<std::string>& out) {
    const auto found = json.find(key);
    if (found == json.end()) return;
    if (!found->is_string()) refuse(key, "a string");
    out = found->get<std::string>();
  };
  text("tokenizer", info.tokenizer);
  text("tokenizer_hash", info.tokenizer_hash);
  return info;
}

void require_one_tokenizer(const DataConfig& data) {
  std::string first, hash;  // who says it first, and what
  const auto require = [&](const std::string& path, const std::optional<std::string>& its) {
    if (!its) return;
    if (first.empty() && !data.tokenizer.empty()) {
      first = "data.tokenizer (" + printable(data.tokenizer, 400) + ")";
      hash = tokenizer_hash(data.tokenizer);
    } else if (first.empty()) {
      first = printable(path, 400);
      hash = *its;
    }
    if (*its == hash) return;
    throw InputError(
        path, "tokenizer_hash", printable(*its, 64) + ", " + first + " has " + printable(hash, 64),
        data.tokenizer.empty()
            ? "prepare the files of a run with one tokenizer"
            : "name the tokenizer that the files were prepared with, or prepare them with this one");
  };
  for (const auto& sources : {data.train, data.valid})
    for (const DataSource& source : sources)
      require(source.path + ".json", read_prefix_info(source.path).tokenizer_hash);
}

std::string hash_of_ids(const DataConfig& data) {
  if (!data.tokenizer.empty()) return tokenizer_hash(data.tokenizer);
  for (const DataSource& source : data.train)
    if (const auto hash = read_prefix_info(source.path).tokenizer_hash) return *hash;
  return "";
}

std::string unnamed_tokenizer(const DataConfig& data) {
  if (!data.tokenizer.empty()) return "";
  for (const DataSource& source : data.train) {
    const std::optional<std::string> name = read_prefix_info(source.path).tokenizer;
    if (name && *name != ByteTokenizer::kName)
      return printable(source.path, 400) + ".json names the tokenizer " + printable(*name, 400) +
             ", data.tokenizer none: neither checkpoints nor hf/ will have it";
  }
  return "";
}

}  // namespace dsv3
