#include "dsv3/base/trace.h"

#include <execinfo.h>

#include <cstdlib>
#include <mutex>
#include <string_view>
#include <vector>

namespace dsv3 {
namespace {

std::mutex mutex;
std::vector<void*> frames;

}  // namespace

void record_error_trace() {
  const char* level = std::getenv("DSV3_LOG_LEVEL");
  if (!level || std::string_view(level) != "debug") return;
  const std::lock_guard lock(mutex);
  frames.resize(64);
  frames.resize(static_cast<size_t>(::backtrace(frames.data(), static_cast<int>(frames.size()))));
}

std::string last_error_trace() {
  const std::lock_guard lock(mutex);
  std::string text;
  char** symbols = ::backtrace_symbols(frames.data(), static_cast<int>(frames.size()));
  for (size_t i = 0; symbols && i < frames.size(); ++i) text.append("  ").append(symbols[i]).append("\n");
  std::free(symbols);
  return text;
}

}  // namespace dsv3
