#pragma once
// Temporary folders, and the check that bad input is refused as the command line promises it.

#include <gtest/gtest.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "dsv3/base/error.h"

namespace dsv3::test {

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "dsv3-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp " + name);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline std::filesystem::path write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

inline bool has_sanitizers() {
#ifdef __SANITIZE_ADDRESS__
  return true;
#else
  return false;
#endif
}

// A line of /proc/self/status in bytes: VmRSS (now) or VmHWM (highest since reset_peak()).
inline int64_t memory_status(std::string_view key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key)) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}
inline void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

// Processor time of this process: other processes do not disturb it.
inline double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// call() throws an Error of this code whose one line holds every part; in under a second and 64 MB.
template <class Call>
void expect_error(ExitCode code, std::initializer_list<std::string_view> parts, Call call) {
  reset_peak();
  const int64_t before = memory_status("VmRSS:");
  const double start = cpu_seconds();
  try {
    call();
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    const std::string line = error.what();
    EXPECT_EQ(error.code(), code) << line;
    EXPECT_LT(line.size(), 8192u);
    for (unsigned char c : line) EXPECT_TRUE(c >= 0x20 && c != 0x7f) << "a control character in: " << line;
    for (std::string_view part : parts)
      EXPECT_NE(line.find(part), line.npos) << part << " is not in: " << line;
  }
  if (has_sanitizers()) return;  // both cost time and memory of their own
  EXPECT_LT(cpu_seconds() - start, 1.0);
  EXPECT_LT(memory_status("VmHWM:") - before, 64 << 20);
}

template <class Call>
void expect_input_error(std::initializer_list<std::string_view> parts, Call call) {
  expect_error(ExitCode::content, parts, call);
}

}  // namespace dsv3::test
