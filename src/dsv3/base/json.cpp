#include "dsv3/base/json.h"

#include <fmt/format.h>

#include <unordered_set>
#include <utility>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/base/file.h"

namespace dsv3 {
namespace {

// Builds a Json from the parser's events, which come without recursion: depth costs a frame here, not stack.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view file, int max_depth) : file_(file), max_depth_(max_depth) {}
  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(int64_t value) override { return put(value); }
  bool number_unsigned(uint64_t value) override { return put(value); }
  bool number_float(double value, const std::string&) override { return put(value); }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(Json::binary_t&) override { return false; }  // no such thing in text

  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& name) override {
    frames_.back().key = name;
    if (!frames_.back().seen.insert(name).second) throw InputError(file_, where(), "duplicate key");
    return true;
  }
  bool parse_error(size_t byte, const std::string&, const nlohmann::detail::exception& error) override {
    throw json_error(file_, byte, error.what());
  }

 private:
  struct Frame {
    Json value;
    std::string key = {};
    std::unordered_set<std::string> seen = {};
  };

  std::string where() const {
    std::string path;
    for (const Frame& frame : frames_) {
      if (!path.empty()) path += '.';
      path += frame.value.is_array() ? std::to_string(frame.value.size()) : frame.key;
    }
    return path;
  }

  bool open(Json empty) {
    if (frames_.size() >= static_cast<size_t>(max_depth_)) {
      throw InputError(file_, where(), fmt::format("nested deeper than {} levels", max_depth_));
    }
    frames_.push_back({std::move(empty)});
    return true;
  }

  bool close() {
    Json done = std::move(frames_.back().value);
    frames_.pop_back();
    return put(std::move(done));
  }

  bool put(Json value) {
    if (frames_.empty()) {
      root_ = std::move(value);
    } else if (frames_.back().value.is_array()) {
      frames_.back().value.push_back(std::move(value));
    } else {
      // The vector's emplace_back: ordered_map's own would search all keys again.
      auto& object = frames_.back().value.get_ref<Json::object_t&>();
      object.emplace_back(frames_.back().key, std::move(value));
    }
    return true;
  }

  std::string_view file_;
  int max_depth_;
  Json root_;
  std::vector<Frame> frames_;
};

}  // namespace

InputError json_error(std::string_view file, uint64_t byte, std::string_view what) {
  // "[json.exception…] parse error at line 1, column 2: syntax error while … - WHY; last read: '…'"; the last
  // part repeats bytes from outside at any length.
  if (const size_t dash = what.find(" - "); dash != what.npos) what.remove_prefix(dash + 3);
  if (const size_t bracket = what.find("] "); bracket != what.npos) what.remove_prefix(bracket + 2);
  what = what.substr(0, what.find("; last read"));
  return InputError(file, fmt::format("byte {}", byte), "not valid JSON: " + printable(what));
}

Json parse_json(std::string_view text, std::string_view file, int max_depth) {
  // The lexer takes a NUL for the end of the text.
  if (const size_t nul = text.find('\0'); nul != text.npos) {
    throw InputError(file, fmt::format("byte {}", nul), "not valid JSON: NUL byte");
  }
  Builder builder(file, max_depth);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

Json read_json(const std::filesystem::path& path, uint64_t max_bytes) {
  return parse_json(read_text(path, max_bytes), path.string());
}

}  // namespace dsv3
