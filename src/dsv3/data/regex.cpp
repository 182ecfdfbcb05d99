#define PCRE2_CODE_UNIT_WIDTH 8
#include "dsv3/data/regex.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <limits>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

// A quick attempt sees this much text, and one call begins attempts in that much of it. What an attempt does
// is bounded: each repetition counts against the match limit, each alternative of a group is a step, and what
// lies between is a scan of the window or a walk through the pattern.
constexpr size_t kWindow = 512, kStarts = 64;
constexpr uint32_t kQuickLimit = 256;
constexpr int64_t kQuickSteps = 1024;
constexpr size_t kBytesPerStep = 4;
// The clock is read after so much work: a call that finds nothing may have used its whole limit in each
// attempt.
constexpr int kWorkPerLook = 64, kWorkOfMatch = 1, kWorkOfNone = 8;
constexpr std::string_view kTooLong = "takes too long";
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

// What an attempt may still do; counted where PCRE2 calls back.
struct Steps {
  int64_t left;
  size_t at;  // of the text, at the last call
};

int count_step(pcre2_callout_block* block, void* data) {
  Steps& steps = *static_cast<Steps*>(data);
  const size_t at = block->current_position;
  steps.left -= 1 + static_cast<int64_t>((at > steps.at ? at - steps.at : steps.at - at) / kBytesPerStep);
  steps.at = at;
  return steps.left < 0 ? PCRE2_ERROR_MATCHLIMIT : 0;
}

// The first place behind at, or at it, where a character begins.
size_t char_begin(std::string_view text, size_t at) {
  while (at < text.size() && (text[at] & 0xC0) == 0x80) ++at;
  return std::min(at, text.size());
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
  if (state_->stack) pcre2_jit_stack_assign(state_->context.get(), nullptr, state_->stack.get());
}
Regex::Memory::~Memory() = default;
Regex::Memory::Memory(Memory&& other) noexcept = default;

// The pattern twice: as fast as can be, and so that PCRE2 calls before each item, for one attempt at one
// place.
struct Regex::Code {
  Owned<pcre2_code, pcre2_code_free> quick, counted;
  bool jit = true;  // both are compiled to machine code
};

Regex::Regex(std::string_view pattern, bool literal, std::string_view file, std::string_view field)
    : code_(std::make_unique<Code>()), file_(file), field_(field), pattern_(printable(pattern, 100)) {
  require_known_unicode();
  const std::string translated = literal ? std::string(pattern) : to_pcre2(pattern, file, field);
  const Owned<pcre2_compile_context, pcre2_compile_context_free> context(
      pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  const auto compile = [&](uint32_t options, uint32_t jit) {
    options |= PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
    int error = 0;
    PCRE2_SIZE at = 0;
    Owned<pcre2_code, pcre2_code_free> code(
        pcre2_compile(units(translated), translated.size(), options, &error, &at, context.get()));
    if (!code) {
      throw InputError(file, field,
                       fmt::format("\"{}\" is no regular expression: {}", pattern_, message_of(error)));
    }
    code_->jit &= pcre2_jit_compile(code.get(), jit) == 0;
    return code;
  };
  code_->quick = compile(PCRE2_USE_OFFSET_LIMIT, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  code_->counted = compile(PCRE2_ANCHORED | PCRE2_NO_START_OPTIMIZE | PCRE2_AUTO_CALLOUT, PCRE2_JIT_COMPLETE);
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code_->quick.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty) {
    throw InputError(file, field, fmt::format("\"{}\" may match the empty text: not supported", pattern_));
  }
}
Regex::~Regex() = default;
Regex::Regex(Regex&& other) noexcept = default;

Regex::Budget::Budget(uint64_t bytes)
    : steps(16'000'000 + 32 * static_cast<int64_t>(bytes)),
      until(thread_seconds() + 1 + 2e-6 * static_cast<double>(bytes)) {}

void Regex::refuse(std::string_view text, std::string_view why) const {
  throw InputError(file_, field_,
                   fmt::format("the pattern \"{}\" {} on a piece of {} bytes", pattern_, why, text.size()));
}

void Regex::check_clock(Budget& budget, std::string_view text, int work) const {
  budget.work += work;
  if (budget.work < kWorkPerLook) return;
  budget.work = 0;
  if (thread_seconds() > budget.until) refuse(text, kTooLong);
}

bool Regex::find(std::string_view text, size_t at, Memory& memory, Budget& budget, size_t& begin,
                 size_t& end) const {
  pcre2_match_context* context = memory.state_->context.get();
  pcre2_match_data* data = memory.state_->data.get();
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data);
  Steps steps{};
  pcre2_set_callout(context, count_step, &steps);
  const auto run = code_->jit ? pcre2_jit_match : pcre2_match;
  const auto match = [&](const auto& code, size_t size, uint32_t options) {
    return run(code.get(), units(text), size, at, options | PCRE2_NO_UTF_CHECK, data, context);
  };
  while (at < text.size()) {
    size_t next = char_begin(text, at + kStarts);
    const size_t seen = char_begin(text, at + kWindow);
    steps = {kQuickSteps, at};
    pcre2_set_match_limit(context, kQuickLimit);
    pcre2_set_offset_limit(context, next - 1);
    int result = match(code_->quick, seen, seen < text.size() ? PCRE2_PARTIAL_HARD : 0);
    if (result == PCRE2_ERROR_PARTIAL || result == PCRE2_ERROR_MATCHLIMIT) {
      // An attempt wants to see more text, or is long; in the second case at may stand before it, which costs
      // a vain attempt or a few.
      if (result == PCRE2_ERROR_PARTIAL) at = found[0];
      next = char_begin(text, at + 1);
      steps = {budget.steps, at};
      pcre2_set_match_limit(context, std::numeric_limits<uint32_t>::max());
      pcre2_set_offset_limit(context, PCRE2_UNSET);
      result = match(code_->counted, text.size(), 0);
      budget.steps = steps.left;
      if (result == PCRE2_ERROR_MATCHLIMIT) refuse(text, kTooLong);
    }
    if (result < 0 && result != PCRE2_ERROR_NOMATCH) refuse(text, "fails: " + message_of(result));
    check_clock(budget, text, result >= 0 ? kWorkOfMatch : kWorkOfNone);
    if (result >= 0) {
      begin = found[0];
      end = found[1];
      return true;
    }
    at = next;
  }
  return false;
}

}  // namespace dsv3
