#pragma once
// Conversions of a small model between folders of the test's own.

#include <functional>
#include <string>

#include "convert/hf_case.h"
#include "dsv3/convert/checkpoint.h"
#include "dsv3/convert/convert.h"
#include "dsv3/convert/hf_writer.h"

namespace dsv3::test {

namespace fs = std::filesystem;

class ConvertCase : public testing::Test {
 protected:
  fs::path hf(const std::string& name, const ModelConfig& config = small_config(),
              DType dtype = DType::bf16) {
    write_hf_folder(dir / name, config, small_source, {.dtype = dtype});
    return dir / name;
  }
  ConvertSummary run(
      const fs::path& from, const fs::path& to, FolderFormat format,
      const std::function<void(ConvertOptions&)>& change = [](ConvertOptions&) {}) {
    ConvertOptions options;
    options.to = format;
    change(options);
    return convert(from, to, options);
  }
  void expect_equal(const fs::path& a, const fs::path& b) {
    const auto differences = diff_checkpoints(Checkpoint(a), Checkpoint(b));
    for (const auto& difference : differences) ADD_FAILURE() << difference.name << ": " << difference.what;
  }
  static std::string bytes_of(const fs::path& path) {
    std::string bytes(fs::file_size(path), '\0');
    InputFile(path).read(std::as_writable_bytes(std::span(bytes.data(), bytes.size())), 0);
    return bytes;
  }
  static void expect_same_files(const fs::path& a, const fs::path& b) {
    size_t files = 0;
    for (const auto& entry : fs::directory_iterator(a)) {
      const fs::path other = b / entry.path().filename();
      ASSERT_TRUE(fs::exists(other)) << other;
      EXPECT_EQ(bytes_of(entry.path()), bytes_of(other)) << other;
      ++files;
    }
    EXPECT_EQ(files, static_cast<size_t>(std::distance(fs::directory_iterator(b), {})));
  }
  TempDir dir;
};

}  // namespace dsv3::test
