#include "dsv3/data/text_work.h"

#include <fmt/format.h>

#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/data/ordered_work.h"

namespace dsv3 {
namespace {

constexpr int kMaxThreads = 1024;
constexpr uint64_t kMaxWeight = 32 << 20;  // see weight_of

// Text in flight. A JSON parser takes 13 times a long line, so that such lines wait for each other.
uint64_t weight_of(const TextJob& job) {
  const bool long_line =
      job.kind == TextJob::Kind::json_lines && job.text.size() > 2 * ByteSource::kPieceBytes;
  return job.text.size() * (long_line ? 13 : 1);
}

}  // namespace

int64_t work_on_texts(const std::vector<TextInput>& inputs, TextPlace at, int threads, const TextWork& work) {
  if (threads < 1 || threads > kMaxThreads)
    throw UsageError("--threads", fmt::format("{}, expected 1 to {}", threads, kMaxThreads));
  OrderedWork<TextJob> jobs(threads, kMaxWeight, work.make_worker, [&](TextJob& job) { work.use(job); });
  const auto add = [&](TextJob job) {
    const bool refused_soon = job.kind == TextJob::Kind::long_line;
    const uint64_t weight = weight_of(job);
    jobs.add(std::move(job), weight);
    if (refused_soon) jobs.finish();
  };
  while (at.input < inputs.size()) {
    try {
      const bool any = work.read(inputs[at.input], at, add);
      at = {.input = at.input + 1, .empty_inputs = at.empty_inputs + (any ? 0 : 1)};
    } catch (const InputError&) {
      // What is wrong with the text before comes first, for any number of threads.
      jobs.finish();
      throw;
    }
  }
  jobs.finish();
  return at.empty_inputs;
}

BadLines::BadLines(int64_t most, std::function<void(const std::string&)> on_line, int64_t count)
    : most_(most), count_(count), on_line_(std::move(on_line)) {
  if (most >= count) return;
  throw UsageError("--max-bad", fmt::format("{}, expected at least {}", most, count),
                   count == 0 ? "" : "so many were skipped before it was interrupted");
}

void BadLines::add(const TextJob& job) {
  for (const TextJob::BadLine& line : job.bad) {
    const std::string where = fmt::format("{}:{}", *job.file, line.line);
    if (++count_ > most_) {
      throw InputError(where, "", line.why,
                       most_ == 0 ? "--max-bad N skips up to N such lines"
                                  : fmt::format("line {} of this kind, --max-bad {}", count_, most_));
    }
    if (on_line_) on_line_(printable(where, 400) + ": " + line.why);
  }
}

}  // namespace dsv3
