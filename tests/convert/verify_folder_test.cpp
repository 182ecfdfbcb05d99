#include "dsv3/convert/verify_folder.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <stdexcept>

#include "dsv3/base/atomic_file.h"
#include "dsv3/convert/manifest.h"
#include "support/files.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::write_file;

class VerifyFolderTest : public testing::Test {
 protected:
  VerifyFolderTest() {
    Manifest manifest;
    for (const auto& [name, size] : sizes_) {
      write_file(dir_ / name, std::string(size, name[0]));
      manifest.files[name] = hash_file(dir_ / name);
    }
    write_atomically(dir_ / "manifest.json", manifest.text());
  }
  void flip(const std::string& name, uint64_t at) {
    std::fstream file(dir_ / name, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at));
    file.put('!');
  }
  // "empty" lies between two files: it has no block and takes none of theirs.
  const std::map<std::string, size_t> sizes_ = {
      {"a", 10}, {"d", 5 * kManifestBlock + 1}, {"empty", 0}, {"f", kManifestBlock}};
  test::TempDir dir_;
};

TEST_F(VerifyFolderTest, AWholeFolder) {
  for (int threads : {1, 3}) {
    uint64_t last = 0, calls = 0;
    const FolderCheck check = verify_folder(
        dir_.path(),
        [&](uint64_t done, uint64_t total) {
          EXPECT_GE(done, last);
          EXPECT_EQ(total, 6 * kManifestBlock + 11);
          last = done;
          ++calls;
        },
        threads);
    EXPECT_TRUE(check.is_whole());
    EXPECT_TRUE(check.unlisted.empty());
    EXPECT_EQ(check.bytes, 6 * kManifestBlock + 11);
    EXPECT_EQ(last, check.bytes);
    EXPECT_EQ(calls, 9u);  // the start and eight blocks
  }
}

TEST_F(VerifyFolderTest, AllDamageIsListed) {
  flip("a", 9);
  for (uint64_t block : {1, 2, 5}) flip("d", block * kManifestBlock);
  fs::remove(dir_ / "empty");
  fs::resize_file(dir_ / "f", kManifestBlock - 1);
  write_file(dir_ / "z", "new");
  fs::create_directory(dir_ / "folder");
  for (int threads : {1, 2}) {
    const FolderCheck check = verify_folder(dir_.path(), {}, threads);
    EXPECT_FALSE(check.is_whole());
    EXPECT_EQ(check.damaged,
              (std::vector<Damage>{{"a", 0, 10, "differs"},
                                   {"d", kManifestBlock, 3 * kManifestBlock, "differs"},
                                   {"d", 5 * kManifestBlock, 5 * kManifestBlock + 1, "differs"},
                                   {"empty", 0, 0, "is missing"},
                                   {"f", 0, kManifestBlock, "has 8388607 bytes, expected 8388608"}}));
    EXPECT_EQ(check.unlisted, (std::vector<std::string>{"folder", "z"}));
  }
}

TEST_F(VerifyFolderTest, AFileThatIsNoneIsDamage) {
  fs::remove(dir_ / "a");
  fs::create_directory(dir_ / "a");
  const FolderCheck check = verify_folder(dir_.path());
  ASSERT_EQ(check.damaged.size(), 1u);
  EXPECT_NE(check.damaged[0].what.find("is a directory"), std::string::npos);
}

TEST_F(VerifyFolderTest, ProgressMayEndIt) {
  for (int threads : {1, 2}) {
    const auto stop = [](uint64_t done, uint64_t) {
      if (done > 0) throw std::runtime_error("enough");
    };
    EXPECT_THROW(verify_folder(dir_.path(), stop, threads), std::runtime_error);
  }
}

TEST_F(VerifyFolderTest, WithoutAManifestNothingCanBeSaid) {
  test::expect_error(ExitCode::usage, {"/none: no such file"}, [&] { verify_folder(dir_ / "none"); });
  test::expect_error(ExitCode::usage, {"/a: is no folder"}, [&] { verify_folder(dir_ / "a"); });
  flip("manifest.json", 30);
  test::expect_input_error({"/manifest.json: content: differs"}, [&] { verify_folder(dir_.path()); });
  fs::remove(dir_ / "manifest.json");
  test::expect_input_error({"/manifest.json: no such file"}, [&] { verify_folder(dir_.path()); });
}

}  // namespace
}  // namespace dsv3
