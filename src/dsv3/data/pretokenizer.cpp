#include "dsv3/data/pretokenizer.h"

#include <optional>
#include <utility>

#include "dsv3/data/unicode.h"

namespace dsv3 {
namespace {

using Kind = PreTokenizerStep::Kind;
using Behavior = PreTokenizerStep::Behavior;

// Joins what matched and what did not as the step's behavior says. Ranges come in order, without gaps and
// never empty.
template <class Out>
class Joiner {
 public:
  Joiner(Behavior behavior, bool invert, Out out)
      : behavior_(behavior), invert_(invert), out_(std::move(out)) {}

  void add(size_t begin, size_t end, bool matched) {
    matched ^= invert_;
    if (behavior_ == Behavior::isolated || behavior_ == Behavior::removed) {
      if (!matched || behavior_ == Behavior::isolated) out_(begin, end);
      return;
    }
    if (open_ && joins(matched)) {
      end_ = end;
    } else {
      finish();
      begin_ = begin;
      end_ = end;
      open_ = true;
    }
    matched_ = matched;
  }
  void finish() {
    if (std::exchange(open_, false)) out_(begin_, end_);
  }

 private:
  // Whether a range belongs to the one before: a delimiter takes one neighbour, never another delimiter.
  bool joins(bool matched) const {
    switch (behavior_) {
      case Behavior::merged_with_previous:
        return matched && !matched_;
      case Behavior::merged_with_next:
        return !matched && matched_;
      default:
        return matched == matched_;
    }
  }

  Behavior behavior_;
  bool invert_;
  Out out_;
  bool open_ = false, matched_ = false;
  size_t begin_ = 0, end_ = 0;
};

}  // namespace

struct PreTokenizer::Run {
  Memory& memory;
  Regex::Budget& budget;
  const Emit& emit;
};

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> steps, std::string_view file)
    : steps_(std::move(steps)) {
  for (const PreTokenizerStep& step : steps_) {
    regex_of_.push_back(regexes_.size());
    if (step.kind == Kind::regex || step.kind == Kind::literal) {
      regexes_.emplace_back(step.pattern, step.kind == Kind::literal, file, step.field);
    }
  }
}

void PreTokenizer::split(std::string_view text, Memory& memory, Regex::Budget& budget,
                         const Emit& emit) const {
  if (text.empty()) return;
  memory.prefixed.resize(steps_.size());
  Run run{memory, budget, emit};
  step(0, text, run);
}

template <class Matches>
void PreTokenizer::cut(size_t index, std::string_view piece, Run& run, Matches matches) const {
  const auto out = [&](size_t begin, size_t end) { step(index + 1, piece.substr(begin, end - begin), run); };
  Joiner joiner(steps_[index].behavior, steps_[index].invert, out);
  size_t done = 0, begin = 0, end = 0;
  while (matches(done, begin, end)) {
    if (done != begin) joiner.add(done, begin, false);
    joiner.add(begin, end, true);
    done = end;
  }
  if (done != piece.size()) joiner.add(done, piece.size(), false);
  joiner.finish();
}

void PreTokenizer::step(size_t index, std::string_view piece, Run& run) const {
  if (index == steps_.size()) return run.emit(piece);
  const PreTokenizerStep& step_now = steps_[index];
  if (step_now.kind == Kind::prefix_space) {
    if (piece.starts_with(' ')) return step(index + 1, piece, run);
    std::string& prefixed = run.memory.prefixed[index];
    prefixed.assign(1, ' ');
    prefixed += piece;
    return step(index + 1, prefixed, run);
  }
  if (step_now.kind == Kind::regex || step_now.kind == Kind::literal) {
    const Regex& regex = regexes_[regex_of_[index]];
    return cut(index, piece, run, [&](size_t at, size_t& begin, size_t& end) {
      return regex.find(piece, at, run.memory.regex, run.budget, begin, end);
    });
  }
  const auto is_match = step_now.kind == Kind::digits ? unicode::is_numeric : unicode::is_punctuation;
  cut(index, piece, run, [&](size_t at, size_t& begin, size_t& end) {
    while (at < piece.size()) {
      begin = at;
      const uint32_t c = unicode::next_char(piece, at);
      if (!is_match(c)) continue;
      end = at;
      return true;
    }
    return false;
  });
}

}  // namespace dsv3
