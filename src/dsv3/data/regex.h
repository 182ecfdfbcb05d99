#pragma once
// Regular expressions of tokenizer files: Oniguruma's syntax, matched by PCRE2 in bounded time.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace dsv3 {

// pattern in PCRE2's syntax (UTF, MULTILINE, newline LF), so that both match the same text. What the two
// understand in different ways is written out: \s, \d, \p{…} by newer Unicode tables, $ at each line's end.
// What is not known to be the same throws InputError{file, field}: among it \w, \b, ^, scripts, nested
// classes, back references, and in (?i:…) all but ASCII.
std::string to_pcre2(std::string_view pattern, std::string_view file, std::string_view field);

// A compiled pattern: immutable, shared by threads; each brings a Memory.
class Regex {
 public:
  // What a thread needs while it matches; grows with use, at most 8 MB.
  class Memory {
   public:
    Memory();
    ~Memory();
    Memory(Memory&& other) noexcept;
    Memory& operator=(Memory&&) = delete;

   private:
    friend class Regex;
    struct State;
    std::unique_ptr<State> state_;
  };

  // InputError{file, field}: the pattern is no pattern, is not supported, or matches the empty text.
  Regex(std::string_view pattern, bool literal, std::string_view file, std::string_view field);
  ~Regex();
  Regex(Regex&& other) noexcept;
  Regex& operator=(Regex&&) = delete;

  // Processor time that a search may still take, so that no pattern can hold the program: see find().
  struct Budget {
    // Two seconds, and four for each megabyte: what is done with the matches meanwhile counts too.
    explicit Budget(uint64_t bytes);
    double until;  // of this thread's clock, in seconds
    int work = 0;  // since the clock was read
  };

  // The first match in text, which must be valid UTF-8, that starts at or behind at; false when there is
  // none. InputError naming the pattern: one attempt backtracks more than a million times, or the budget is
  // used up.
  bool find(std::string_view text, size_t at, Memory& memory, Budget& budget, size_t& begin,
            size_t& end) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
  std::string file_, field_, pattern_;
};

}  // namespace dsv3
