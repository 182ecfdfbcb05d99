#pragma once
// The call stack of the newest Error, for --log-level debug.

#include <string>

namespace dsv3 {

// Remembers the caller's stack when the environment says DSV3_LOG_LEVEL=debug; nothing otherwise.
void record_error_trace();

// One line a frame; empty when nothing was recorded.
std::string last_error_trace();

}  // namespace dsv3
