#include "dsv3/data/prefix_info.h"

#include "dsv3/base/error.h"
#include "dsv3/base/json.h"

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
  if (const auto hash = json.find("tokenizer_hash"); hash != json.end()) {
    if (!hash->is_string()) refuse("tokenizer_hash", "a string");
    info.tokenizer_hash = hash->get<std::string>();
  }
  return info;
}

}  // namespace dsv3
