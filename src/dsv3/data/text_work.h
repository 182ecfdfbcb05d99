#pragma once
// All inputs of a command, read by one thread and worked on by several: what prepare and the trainer share.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "dsv3/data/text_job.h"

namespace dsv3 {

struct TextWork {
  // Hands the jobs of an input to add, as read_text() does; false when it holds no byte.
  using Add = std::function<void(TextJob)>;
  std::function<bool(const TextInput& input, const TextPlace& from, const Add& add)> read;
  // Makes, for each thread, what changes a job in place.
  std::function<std::function<void(TextJob&)>()> make_worker;
  // Gets each job afterwards, in the order of the text, on the calling thread.
  std::function<void(const TextJob&)> use;
};

// From a place of the inputs to their end; returns how many inputs held no byte. An error is the first in the
// order of the text, for any number of threads. 32 MB of text are held at once, or one job that is larger.
// UsageError naming --threads when there are not 1 to 1024.
int64_t work_on_texts(const std::vector<TextInput>& inputs, TextPlace from, int threads,
                      const TextWork& work);

// Lines that are no document: some are skipped, one more is an error.
class BadLines {
 public:
  // on_line: told each that is skipped, "FILE:LINE: WHY". count: of those that were before. UsageError naming
  // --max-bad when most is less.
  BadLines(int64_t most, std::function<void(const std::string&)> on_line, int64_t count = 0);
  // InputError{FILE:LINE} when a job has more than are left.
  void add(const TextJob& job);
  int64_t count() const { return count_; }

 private:
  int64_t most_, count_;
  std::function<void(const std::string&)> on_line_;
};

}  // namespace dsv3
