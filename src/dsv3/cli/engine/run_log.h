#pragma once
// What train says to a person: on the terminal, and in RUN/log.txt without the terminal's colours.

#include <filesystem>
#include <optional>
#include <string>

#include "dsv3/base/atomic_file.h"

namespace dsv3 {

class RunLog {
 public:
  // speaks = false: everything is dropped (ranks other than 0).
  explicit RunLog(bool speaks) : speaks_(speaks) {}
  // Before it is called lines go to the terminal and are held for the file. RunError when it cannot be
  // written.
  void open(const std::filesystem::path& path);
  void say(const std::string& line);   // stdout
  void warn(const std::string& line);  // stderr, as "dsv3: line"
  // RunError when lines still wait to be written (LineFile).
  void settle();

 private:
  void keep(const std::string& lines);

  bool speaks_;
  std::string held_;
  std::optional<LineFile> file_;
};

}  // namespace dsv3
