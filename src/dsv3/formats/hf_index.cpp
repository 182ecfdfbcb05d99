#include "dsv3/formats/hf_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"
#include "dsv3/base/json.h"
#include "dsv3/formats/safetensors_header.h"

namespace dsv3 {
namespace {

constexpr uint64_t kMaxBytes = 32u << 20;  // the released 671B index has 9 MB
constexpr size_t kMaxShards = 10'000;      // it has 163 of them
constexpr size_t kMaxDepth = 64;

// {"metadata": {"total_size": integer, …}, "weight_map": {tensor: shard}}; values elsewhere are skipped.
class IndexParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit IndexParser(const std::string& file) : file_(file) {}

  HfIndex take() {
    if (!seen_map_) throw InputError(file_, "weight_map", "is missing, or the file is no JSON object");
    auto& entries = index_.entries;
    std::ranges::sort(entries, {}, &HfIndex::Entry::tensor);
    const auto twin = std::ranges::adjacent_find(entries, {}, &HfIndex::Entry::tensor);
    if (twin != entries.end()) {
      throw InputError(file_, "weight_map." + twin->tensor,
                       twin->shard == std::next(twin)->shard
                           ? std::string("duplicate key")
                           : fmt::format("is in two shards, {} and {}", index_.shards[twin->shard],
                                         index_.shards[std::next(twin)->shard]));
    }
    return std::move(index_);
  }

  bool start_object(size_t) override {
    if (depth_ == 1 && top_key_ == "weight_map") seen_map_ = true;
    return open();
  }
  bool start_array(size_t) override {
    if (depth_ == 0) fail("", "is no JSON object");
    return open();
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    if (depth_ == 1) {
      if ((name == "weight_map" && seen_map_) ||
          (name == "metadata" && std::exchange(seen_metadata_, true))) {
        fail(name, "duplicate key");
      }
      top_key_ = name;
    }
    key_ = std::move(name);
    return true;
  }

  bool string(std::string& value) override {
    if (in_map()) return add(value);
    return scalar("a string");
  }
  bool number_unsigned(uint64_t value) override {
    if (!at_total_size()) return scalar("a number");
    if (index_.total_size) fail("metadata.total_size", "duplicate key");
    index_.total_size = value;
    return true;
  }
  bool number_integer(int64_t value) override {
    if (at_total_size()) fail("metadata.total_size", fmt::format("{} is negative", value));
    return scalar("a number");
  }
  bool number_float(double value, const std::string& text) override {
    if (!at_total_size()) return scalar("a number");
    // Some writers divide bits by 8 and leave 16060522496.0.
    if (!(value >= 0 && value < 0x1p53 && value == std::floor(value))) {
      fail("metadata.total_size", printable(text, 32) + " is no number of bytes");
    }
    return number_unsigned(static_cast<uint64_t>(value));
  }
  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool binary(nlohmann::json::binary_t&) override { return scalar("binary data"); }
  bool parse_error(size_t byte, const std::string&, const nlohmann::detail::exception& error) override {
    throw json_error(file_, byte, error.what());
  }

 private:
  [[noreturn]] void fail(std::string_view field, std::string_view why, std::string_view hint = {}) const {
    throw InputError(file_, field, why, hint);
  }
  bool in_map() const { return depth_ == 2 && top_key_ == "weight_map"; }
  bool at_total_size() const { return depth_ == 2 && top_key_ == "metadata" && key_ == "total_size"; }

  bool open() {
    if (in_map()) fail("weight_map." + key_, "expected the name of a shard");
    if (at_total_size()) fail("metadata.total_size", "expected a number of bytes");
    if (++depth_ > kMaxDepth) fail(top_key_, fmt::format("nested deeper than {} levels", kMaxDepth));
    return true;
  }
  bool close() {
    --depth_;
    return true;
  }

  bool scalar(std::string_view what) const {
    if (depth_ == 0) fail("", "is no JSON object");
    if (in_map()) fail("weight_map." + key_, fmt::format("{}, expected the name of a shard", what));
    if (at_total_size()) fail("metadata.total_size", fmt::format("{}, expected a number of bytes", what));
    if (depth_ == 1 && top_key_ == "weight_map")
      fail("weight_map", fmt::format("{}, expected an object", what));
    return true;
  }

  bool add(const std::string& shard) {
    const std::string field = "weight_map." + key_;
    if (!is_plain_name(key_)) fail(field, "tensor name is empty or holds control characters");
    if (!is_plain_name(shard) || shard == "." || shard == ".." || shard.find('/') != shard.npos) {
      fail(field, fmt::format("shard \"{}\" is no plain file name", printable(shard, 100)),
           "shards stand beside the index");
    }
    const auto [it, is_new] = numbers_.try_emplace(shard, static_cast<uint32_t>(index_.shards.size()));
    if (is_new) {
      if (index_.shards.size() == kMaxShards) fail(field, fmt::format("more than {} shards", kMaxShards));
      index_.shards.push_back(shard);
    }
    index_.entries.push_back({std::move(key_), it->second});
    return true;
  }

  const std::string& file_;
  HfIndex index_;
  std::map<std::string, uint32_t> numbers_;
  size_t depth_ = 0;
  std::string top_key_, key_;
  bool seen_map_ = false, seen_metadata_ = false;
};

}  // namespace

HfIndex read_hf_index(const std::filesystem::path& path) {
  const std::string file = path.string();
  const std::string text = read_text(path, kMaxBytes);
  if (const size_t nul = text.find('\0'); nul != text.npos) {
    throw InputError(file, fmt::format("byte {}", nul), "not valid JSON: NUL byte");
  }
  IndexParser parser(file);
  nlohmann::json::sax_parse(text.begin(), text.end(), &parser);
  return parser.take();
}

}  // namespace dsv3
