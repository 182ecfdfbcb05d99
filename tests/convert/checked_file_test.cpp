#include "dsv3/convert/checked_file.h"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <thread>
#include <vector>

#include "support/files.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::expect_input_error;

class CheckedFileTest : public testing::Test {
 protected:
  CheckedFileTest() : bytes_(2 * kManifestBlock + 1000, '\0') {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(i * 7 ^ i >> 13);
    test::write_file(path_, bytes_);
    hashes_ = hash_file(path_);
  }
  void flip(uint64_t at) {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(bytes_[at] ^ 4));
  }
  std::string read(const CheckedFile& file, uint64_t offset, size_t size) {
    std::string out(size, '?');
    file.read(std::as_writable_bytes(std::span(out.data(), out.size())), offset);
    return out;
  }
  test::TempDir dir_;
  fs::path path_ = dir_ / "a";
  std::string bytes_;
  FileHashes hashes_;
};

TEST_F(CheckedFileTest, ReadsAnyRange) {
  for (const FileHashes* hashes :
       {static_cast<const FileHashes*>(&hashes_), static_cast<const FileHashes*>(nullptr)}) {
    const CheckedFile file(path_, hashes);
    const uint64_t edges[] = {
        0, 1, kManifestBlock - 1, kManifestBlock, kManifestBlock + 1, 2 * kManifestBlock, bytes_.size()};
    for (uint64_t begin : edges) {
      for (uint64_t end : edges) {
        if (begin > end) continue;
        EXPECT_TRUE(read(file, begin, end - begin) == bytes_.substr(begin, end - begin));
      }
    }
    expect_input_error({"/a: byte 16778210: 7 bytes wanted"}, [&] { read(file, bytes_.size() - 6, 7); });
    expect_input_error({"/a: byte 18446744073709551615"}, [&] { read(file, UINT64_MAX, 2); });
  }
}

TEST_F(CheckedFileTest, DamageIsFoundByEveryReadOfItsBlockAndByNoOther) {
  flip(kManifestBlock + 77);
  const CheckedFile file(path_, &hashes_);
  const auto refuse = [&](uint64_t offset, size_t size) {
    expect_input_error({"/a: bytes 8388608 to 16777216: differ from manifest.json"},
                       [&] { read(file, offset, size); });
  };
  for (int twice = 0; twice < 2; ++twice) {
    refuse(kManifestBlock, 1);
    refuse(2 * kManifestBlock - 1, 2);
    refuse(kManifestBlock, kManifestBlock);
    refuse(0, bytes_.size());
    EXPECT_EQ(read(file, kManifestBlock - 10, 10), bytes_.substr(kManifestBlock - 10, 10));
    EXPECT_EQ(read(file, 2 * kManifestBlock, 1000), bytes_.substr(2 * kManifestBlock));
  }
  const CheckedFile unchecked(path_, nullptr);
  EXPECT_EQ(read(unchecked, kManifestBlock + 77, 1)[0], bytes_[kManifestBlock + 77] ^ 4);
}

// A block is read and hashed once: the file's change shows that later reads don't hash it again.
TEST_F(CheckedFileTest, EachBlockIsHashedOnce) {
  const CheckedFile file(path_, &hashes_);
  read(file, 5, 1);
  read(file, kManifestBlock, kManifestBlock);
  flip(5);
  flip(kManifestBlock + 5);
  EXPECT_EQ(read(file, 5, 1)[0], bytes_[5]) << "out of the block that was kept";
  EXPECT_EQ(read(file, kManifestBlock + 5, 1)[0], bytes_[kManifestBlock + 5] ^ 4);
  EXPECT_EQ(read(file, 0, kManifestBlock)[5], bytes_[5] ^ 4);
  expect_input_error({"differ"}, [&] { read(CheckedFile(path_, &hashes_), 0, 1); });
}

TEST_F(CheckedFileTest, SizeIsComparedFirst) {
  fs::resize_file(path_, bytes_.size() - 1);
  expect_input_error({"/a: 16778215 bytes, manifest.json has 16778216"},
                     [&] { CheckedFile(path_, &hashes_); });
  fs::resize_file(path_, bytes_.size());
  const CheckedFile file(path_, &hashes_);
  fs::resize_file(path_, 100);
  expect_input_error({"/a: byte 100: the file shrank"}, [&] { read(file, 0, 1); });
  EXPECT_THROW(CheckedFile(path_, nullptr).read({}, 101), InputError);
}

// A large model has hundreds of files, each read in part by who opens it.
TEST_F(CheckedFileTest, ManyFilesTakeTheMemoryOfAFew) {
  std::vector<std::unique_ptr<CheckedFile>> files;
  const int64_t before = test::memory_status("VmRSS:");
  for (int i = 0; i < 60; ++i) {
    files.push_back(std::make_unique<CheckedFile>(path_, &hashes_));
    EXPECT_EQ(read(*files.back(), 8, 8), bytes_.substr(8, 8));
  }
  EXPECT_EQ(read(*files.front(), 100, 8), bytes_.substr(100, 8));
  EXPECT_LT(test::memory_status("VmRSS:") - before, 12 * static_cast<int64_t>(kManifestBlock));
  files.clear();
  EXPECT_LT(test::memory_status("VmRSS:") - before, 2 * static_cast<int64_t>(kManifestBlock));
}

TEST_F(CheckedFileTest, ManyThreads) {
  const CheckedFile file(path_, &hashes_);
  std::atomic<int> wrong = 0;
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (size_t i = 0; i < 200; ++i) {
          const size_t size = i % 50 == 0 ? kManifestBlock + 3 : 100 + i;
          const size_t offset = (i * 83'777 + t * 7'777'777) % (bytes_.size() - size);
          if (read(file, offset, size) != std::string_view(bytes_).substr(offset, size)) ++wrong;
        }
      });
    }
  }
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace dsv3
