// LineTexts: lines become texts.
#include <fmt/format.h>
#include <simdjson.h>

#include <new>
#include <optional>

#include "dsv3/base/error.h"
#include "dsv3/data/text_job.h"

namespace dsv3 {
namespace {

constexpr std::string_view kBlank = " \t\r", kBom = "\xEF\xBB\xBF";
constexpr size_t kKeptParserBytes = 1 << 20;

// A JSON line without a usable text.
struct NoText {
  std::string why;
};

// The line with at most 15 digits in a row outside of strings: what was JSON still is, what was none is none.
// Integers of 20 digits, as ids and hashes are, are JSON, but simdjson refuses them.
std::string with_short_numbers(std::string_view line) {
  std::string out;
  out.reserve(line.size() + simdjson::SIMDJSON_PADDING);
  bool in_string = false, escaped = false;
  int digits = 0;
  for (const char c : line) {
    if (c == '"' && !escaped) in_string = !in_string;
    escaped = in_string && c == '\\' && !escaped;
    digits = !in_string && c >= '0' && c <= '9' ? digits + 1 : 0;
    if (digits <= 15) out += c;
  }
  return out;
}

std::string long_line() { return fmt::format("a line of more than {} bytes", kMaxLineBytes); }

const char* type_name(simdjson::dom::element_type type) {
  using enum simdjson::dom::element_type;
  switch (type) {
    case ARRAY:
      return "an array";
    case OBJECT:
      return "an object";
    case STRING:
      return "a string";
    case BOOL:
      return "a bool";
    case NULL_VALUE:
      return "null";
    default:
      return "a number";
  }
}

}  // namespace

struct LineTexts::State {
  explicit State(std::string text_key) : text_key(std::move(text_key)) {}

  const std::string text_key;
  std::optional<simdjson::dom::parser> parser{std::in_place};

  simdjson::dom::element parse(std::string_view line) {
    simdjson::dom::element root;
    auto error = parser->parse(line.data(), line.size(), false).get(root);
    if (error == simdjson::NUMBER_ERROR) error = parser->parse(with_short_numbers(line)).get(root);
    if (error == simdjson::MEMALLOC) throw std::bad_alloc();
    if (error) throw NoText{fmt::format("no JSON: {}", simdjson::error_message(error))};
    return root;
  }

  // The text of a JSON object. line has simdjson::SIMDJSON_PADDING readable bytes behind it.
  std::string_view text_of(std::string_view line) {
    const simdjson::dom::element root = parse(line);
    simdjson::dom::object object;
    if (root.get(object)) throw NoText{fmt::format("{}, expected an object", type_name(root.type()))};
    std::optional<simdjson::dom::element> found;
    for (const auto field : object) {
      if (field.key != text_key) continue;
      if (found) throw NoText{fmt::format("two keys '{}'", printable(text_key, 64))};
      found = field.value;
    }
    if (!found) throw NoText{fmt::format("no key '{}'", printable(text_key, 64))};
    std::string_view text;
    if (found->get(text)) {
      throw NoText{
          fmt::format("'{}' is {}, expected a string", printable(text_key, 64), type_name(found->type()))};
    }
    return text;
  }

  void use_line(TextJob& job, std::string_view line, const Use& use) {
    if (line.size() > kMaxLineBytes) throw NoText{long_line()};
    std::string_view text = line;
    if (job.kind == TextJob::Kind::json_lines) {
      text = text_of(line);
      if (text.empty()) ++job.empty;
    } else if (line.ends_with('\r')) {
      text.remove_suffix(1);
    }
    try {
      use(text);
    } catch (const InputError& error) {
      throw NoText{error.what()};
    }
  }
};

LineTexts::LineTexts(std::string text_key) : state_(std::make_unique<State>(std::move(text_key))) {}
LineTexts::~LineTexts() = default;
LineTexts::LineTexts(LineTexts&&) noexcept = default;

void LineTexts::for_each(TextJob& job, const Use& use) {
  if (job.kind == TextJob::Kind::long_line) {
    job.bad.push_back({.line = job.begin->line, .why = long_line()});
    return;
  }
  std::optional<simdjson::dom::parser>& parser = state_->parser;
  const size_t size = job.text.size();
  job.text.resize(size + simdjson::SIMDJSON_PADDING);
  std::string_view rest = std::string_view(job.text).substr(0, size);
  for (int64_t number = job.begin->line; !rest.empty(); ++number) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    // A byte order mark, which RFC 8259 lets a parser ignore.
    if (number == 1 && job.kind == TextJob::Kind::json_lines && line.starts_with(kBom))
      line.remove_prefix(kBom.size());
    if (line.find_first_not_of(kBlank) == line.npos) continue;
    try {
      state_->use_line(job, line, use);
    } catch (const NoText& none) {
      job.bad.push_back({.line = number, .why = none.why});
    }
    // What a long line took is not kept for the next.
    if (parser->capacity() > kKeptParserBytes) parser.emplace();
  }
}

}  // namespace dsv3
