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
// classes, back references, and in (?i:…) all but ASCII. Where an alternative of a group ends, (?C) calls
// Regex, which counts: PCRE2's own limit counts what is repeated.
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

  // What a search in a text may still cost, so that no pattern can hold the program: see find().
  struct Budget {
    explicit Budget(uint64_t bytes);
    // Of attempts that are long: 16 million, and 32 for each byte. One is an item of the pattern that is
    // tried, or four bytes of text. Nothing that another program does changes it.
    int64_t steps;
    // Of this thread's processor, in seconds: one, and two for each megabyte. What is done with the matches
    // meanwhile counts too.
    double until;
    int work = 0;  // since the clock was read
  };

  // The first match in text, which must be valid UTF-8, that starts at or behind at; false when there is
  // none. InputError naming the pattern: the budget is used up.
  bool find(std::string_view text, size_t at, Memory& memory, Budget& budget, size_t& begin,
            size_t& end) const;

 private:
  struct Code;
  void check_clock(Budget& budget, std::string_view text, int work) const;
  [[noreturn]] void refuse(std::string_view text, std::string_view why) const;

  std::unique_ptr<Code> code_;
  std::string file_, field_, pattern_;
};

}  // namespace dsv3
