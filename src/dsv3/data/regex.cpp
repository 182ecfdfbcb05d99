#define PCRE2_CODE_UNIT_WIDTH 8
#include "dsv3/data/regex.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

constexpr uint32_t kMatchLimit = 1'000'000;  // backtracks of one attempt
constexpr size_t kWindow = 64;               // bytes of text in which a call may begin attempts
// The clock is read after so much work: a call that finds nothing may have used its whole limit in each
// attempt.
constexpr int kWorkPerLook = 64, kWorkOfMatch = 1, kWorkOfNone = 8;
constexpr size_t kStackStart = 32 << 10, kStackMost = 8 << 20;

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
template <class T, auto Free>
using Owned = std::unique_ptr<T, Deleter<Free>>;

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

double thread_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::string message_of(int error) {
  char text[256];
  return pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof text) < 0 ? "error"
                                                                                               : text;
}

// A newer PCRE2 would know characters that the tables of unicode_tables.inc do not subtract.
void require_known_unicode() {
  char version[64] = {};
  pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
  int major = 0;
  std::from_chars(version, version + sizeof version, major);
  if (major >= 14 && major <= 16) return;
  throw RunError("PCRE2", fmt::format("has the tables of Unicode {}, expected 14 to 16", version));
}

}  // namespace

struct Regex::Memory::State {
  Owned<pcre2_match_data, pcre2_match_data_free> data{pcre2_match_data_create(1, nullptr)};
  Owned<pcre2_match_context, pcre2_match_context_free> context{pcre2_match_context_create(nullptr)};
  Owned<pcre2_jit_stack, pcre2_jit_stack_free> stack;
};

Regex::Memory::Memory() : state_(std::make_unique<State>()) {
  // Without the just-in-time compiler (forbidden on some systems) there is no such stack, and nobody asks for
  // one.
  state_->stack.reset(pcre2_jit_stack_create(kStackStart, kStackMost, nullptr));
  if (!state_->data || !state_->context) throw std::bad_alloc();
  pcre2_set_match_limit(state_->context.get(), kMatchLimit);
  if (state_->stack) pcre2_jit_stack_assign(state_->context.get(), nullptr, state_->stack.get());
}
Regex::Memory::~Memory() = default;
Regex::Memory::Memory(Memory&& other) noexcept = default;

struct Regex::Code {
  Owned<pcre2_code, pcre2_code_free> code;
  bool jit = false;
};

Regex::Regex(std::string_view pattern, bool literal, std::string_view file, std::string_view field)
    : code_(std::make_unique<Code>()), file_(file), field_(field), pattern_(printable(pattern, 100)) {
  require_known_unicode();
  const std::string translated = literal ? std::string(pattern) : to_pcre2(pattern, file, field);
  const Owned<pcre2_compile_context, pcre2_compile_context_free> context(
      pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  uint32_t options = PCRE2_UTF | PCRE2_USE_OFFSET_LIMIT;
  options |= literal ? PCRE2_LITERAL : PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  int error = 0;
  PCRE2_SIZE at = 0;
  code_->code.reset(pcre2_compile(units(translated), translated.size(), options, &error, &at, context.get()));
  if (!code_->code) {
    throw InputError(file, field,
                     fmt::format("\"{}\" is no regular expression: {}", pattern_, message_of(error)));
  }
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code_->code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty) {
    throw InputError(file, field, fmt::format("\"{}\" may match the empty text: not supported", pattern_));
  }
  code_->jit = pcre2_jit_compile(code_->code.get(), PCRE2_JIT_COMPLETE) == 0;
}
Regex::~Regex() = default;
Regex::Regex(Regex&& other) noexcept = default;

Regex::Budget::Budget(uint64_t bytes) : until(thread_seconds() + 2 + 4e-6 * static_cast<double>(bytes)) {}

bool Regex::find(std::string_view text, size_t at, Memory& memory, Budget& budget, size_t& begin,
                 size_t& end) const {
  pcre2_match_context* context = memory.state_->context.get();
  pcre2_match_data* data = memory.state_->data.get();
  const auto is_inside = [&](size_t i) { return i < text.size() && (text[i] & 0xC0) == 0x80; };
  while (at < text.size()) {
    // A window of starts; the match may reach behind it.
    size_t window_end = std::min(at + kWindow, text.size());
    while (is_inside(window_end)) ++window_end;
    pcre2_set_offset_limit(context, window_end - 1);
    const int result = code_->jit ? pcre2_jit_match(code_->code.get(), units(text), text.size(), at,
                                                    PCRE2_NO_UTF_CHECK, data, context)
                                  : pcre2_match(code_->code.get(), units(text), text.size(), at,
                                                PCRE2_NO_UTF_CHECK, data, context);
    if (result >= 0) {
      const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data);
      begin = found[0];
      end = found[1];
    } else if (result != PCRE2_ERROR_NOMATCH) {
      const bool limit = result == PCRE2_ERROR_MATCHLIMIT || result == PCRE2_ERROR_JIT_STACKLIMIT ||
                         result == PCRE2_ERROR_HEAPLIMIT;
      const std::string why = limit ? fmt::format("backtracks more than {} times at byte {}", kMatchLimit, at)
                                    : message_of(result);
      throw InputError(
          file_, field_,
          fmt::format("the pattern \"{}\" {} of a piece of {} bytes", pattern_, why, text.size()));
    }
    budget.work += result >= 0 ? kWorkOfMatch : kWorkOfNone;
    if (budget.work >= kWorkPerLook) {
      budget.work = 0;
      if (thread_seconds() > budget.until) {
        throw InputError(
            file_, field_,
            fmt::format("the pattern \"{}\" takes too long on a piece of {} bytes", pattern_, text.size()));
      }
    }
    if (result >= 0) return true;
    at = window_end;
  }
  return false;
}

}  // namespace dsv3
