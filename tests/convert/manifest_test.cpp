#include "dsv3/convert/manifest.h"

#include <gtest/gtest.h>

#include <fstream>
#include <stdexcept>

#include "dsv3/base/json.h"
#include "support/files.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::expect_input_error;
using test::write_file;

std::string pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 131 ^ i >> 9);
  return bytes;
}
std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
FileHashes hashes_of(std::string_view bytes) {
  BlockHasher hasher;
  hasher.update(bytes);
  return hasher.finish();
}
// The text with its own hash put right again, as a hostile writer would.
std::string sealed(std::string_view body) {
  return std::string(body) + "\"content\": \"" + to_hex(hash_bytes(bytes_of(body))) + "\"\n}\n";
}
std::string body_of(std::string_view text) { return std::string(text.substr(0, text.find("\"content\""))); }

class ManifestTest : public testing::Test {
 protected:
  Manifest small() {
    return {
        {{"a.safetensors", hashes_of("some bytes")}, {"empty", {}}, {"ünïcode \"name\"", hashes_of("x")}}};
  }
  void write(std::string_view text) { write_file(dir_ / "manifest.json", text); }
  void refuse(std::string_view text, std::initializer_list<std::string_view> parts) {
    write(text);
    expect_input_error({"/manifest.json: "}, [&] { Manifest::read(dir_.path()); });
    expect_input_error(parts, [&] { Manifest::read(dir_.path()); });
  }
  // small()'s text with `from` replaced by `to` and its hash put right.
  void refuse_edit(std::string_view from, std::string_view to,
                   std::initializer_list<std::string_view> parts) {
    SCOPED_TRACE(std::string(from) + " -> " + std::string(to));
    std::string body = body_of(small().text());
    ASSERT_NE(body.find(from), body.npos);
    body.replace(body.find(from), from.size(), to);
    refuse(sealed(body), parts);
  }
  test::TempDir dir_;
};

TEST(BlockHashes, EightMegabyteBlocksInAnyPieces) {
  const std::string bytes = pattern(2 * kManifestBlock + 5);
  const FileHashes whole = hashes_of(bytes);
  EXPECT_EQ(whole.size, bytes.size());
  ASSERT_EQ(whole.blocks.size(), 3u);
  EXPECT_EQ(whole.blocks[1], hash_bytes(bytes_of(bytes).subspan(kManifestBlock, kManifestBlock)));
  EXPECT_EQ(whole.blocks[2], hash_bytes(bytes_of(bytes).subspan(2 * kManifestBlock)));
  for (size_t piece : {size_t{999'983}, size_t{kManifestBlock}, size_t{kManifestBlock + 1}}) {
    BlockHasher hasher;
    for (size_t at = 0; at < bytes.size(); at += piece)
      hasher.update(std::string_view(bytes).substr(at, piece));
    EXPECT_EQ(hasher.finish(), whole) << piece;
    EXPECT_EQ(hasher.finish(), FileHashes()) << "finish() begins anew";
  }
  test::TempDir dir;
  EXPECT_EQ(hash_file(write_file(dir / "a", bytes)), whole);
}

TEST(BlockHashes, AFullLastBlockIsNotFollowedByAnEmptyOne) {
  EXPECT_EQ(hashes_of(pattern(kManifestBlock)).blocks.size(), 1u);
  EXPECT_EQ(num_blocks(kManifestBlock), 1u);
  EXPECT_EQ(num_blocks(kManifestBlock + 1), 2u);
  EXPECT_EQ(num_blocks(0), 0u);
  EXPECT_EQ(num_blocks(UINT64_MAX), uint64_t{1} << 41);
}

TEST_F(ManifestTest, TextAndBack) {
  EXPECT_FALSE(Manifest::read(dir_.path()).has_value());
  for (const Manifest& manifest : {Manifest(), small()}) {
    write(manifest.text());
    const auto back = Manifest::read(dir_.path());
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(back->files, manifest.files);
    EXPECT_EQ(back->text(), manifest.text());
  }
  // It is JSON that other programs read too.
  const Json json = read_json(dir_ / "manifest.json");
  EXPECT_EQ(json["version"], 1);
  EXPECT_EQ(json["block_bytes"], 8 << 20);
  EXPECT_EQ(json["files"]["a.safetensors"]["size"], 10);
  EXPECT_EQ(json["files"]["a.safetensors"]["blocks"][0], to_hex(hash_bytes(bytes_of("some bytes"))));
  EXPECT_TRUE(json["files"].contains("ünïcode \"name\""));
}

TEST_F(ManifestTest, EveryBitFlipAndEveryCutIsFound) {
  const std::string text = small().text();
  write(text);
  // In place: a thousand new files would wait for the disk.
  std::fstream file(dir_ / "manifest.json", std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](size_t at, char c) {
    file.seekp(static_cast<std::streamoff>(at));
    file.put(c).flush();
  };
  for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
    put(bit / 8, static_cast<char>(text[bit / 8] ^ 1 << bit % 8));
    EXPECT_THROW(Manifest::read(dir_.path()), InputError) << bit;
    put(bit / 8, text[bit / 8]);
  }
  EXPECT_EQ(Manifest::read(dir_.path())->files, small().files);
  for (size_t size = text.size(); size-- > 0;) {
    fs::resize_file(dir_ / "manifest.json", size);
    EXPECT_THROW(Manifest::read(dir_.path()), InputError) << size;
  }
  write(text + "\n");
  EXPECT_THROW(Manifest::read(dir_.path()), InputError);
  refuse(text.substr(0, text.size() / 2), {"content: is missing"});
  refuse("", {"content: is missing: 0 bytes"});
  std::string damaged = text;
  damaged[20] ^= 1;
  refuse(damaged, {"content: differs from the hash of the file (it was changed or cut off"});
}

TEST_F(ManifestTest, NamesThatAreNoPlainFiles) {
  for (const char* name :
       {"", ".", "..", "../a", "/etc/passwd", "a/b", "a\\u0000", "a\\nb", "\\u001b[31m", "manifest.json"}) {
    refuse_edit("\"a.safetensors\"", std::string("\"") + name + "\"", {"files.", "is no plain file name"});
  }
  refuse_edit("\"a.safetensors\"", "\"" + std::string(256, 'a') + "\"", {"is no plain file name"});
  refuse_edit("a.safetensors", "a\xff", {"not valid JSON"});
}

TEST_F(ManifestTest, Duplicates) {
  refuse_edit("\"empty\"", "\"a.safetensors\"", {"files.a.safetensors: duplicate key"});
  refuse_edit("\"a.safetensors\"", "\"zz\"", {"files.empty: is out of order"});
  refuse_edit("\"version\": 1", "\"version\": 1,\n\"version\": 1", {"version: duplicate key"});
  refuse_edit("\"size\": 10", "\"size\": 10, \"size\": 10", {"files.a.safetensors.size: duplicate key"});
  refuse_edit("\n},\n", "\n},\n\"files\": {},\n", {"files: duplicate key"});
}

TEST_F(ManifestTest, KeysAndTypes) {
  refuse_edit("dsv3-manifest", "other", {"format: \"other\", expected \"dsv3-manifest\""});
  refuse_edit("\"version\": 1", "\"version\": 2", {"version: 2, this program reads 1"});
  refuse_edit("\"version\": 1", "\"version\": \"1\"", {"version: a string"});
  refuse_edit("\"version\": 1,\n", "", {"block_bytes: is unexpected, \"version\" comes here"});
  refuse_edit("8388608", "0", {"block_bytes: 0, expected 8388608"});
  refuse_edit("\"files\"", "\"other\"", {"other: is unexpected, \"files\" comes here"});
  refuse_edit("\"size\": 10, ", "", {"files.a.safetensors.blocks: is unexpected, \"size\" comes here"});
  refuse_edit("\"size\": 10", "\"size\": 10, \"more\": 1", {"files.a.safetensors.more: is unexpected"});
  refuse_edit(", \"blocks\": []", "", {"files.empty.blocks: is missing"});
  refuse_edit("\"blocks\": []", "\"blocks\": {}", {"files.empty.blocks: an object"});
  refuse_edit("\"blocks\": []", "\"blocks\": [[]]", {"files.empty.blocks.0: an array"});
  refuse_edit("{\"size\": 0, \"blocks\": []}", "7", {"files.empty: a number"});
  refuse(sealed("[\n"), {"expected a JSON object"});
  refuse(sealed("{\n"), {"content: is unexpected, \"format\" comes here"});
  refuse(sealed(body_of(small().text()) + "\"content\": \"\",\n"), {"content: duplicate key"});
  refuse(sealed(std::string("{\"format\": \0", 12)), {"NUL byte"});
  refuse(sealed("{\"format\": " + std::string(100'000, '[')), {"format: an array"});
}

TEST_F(ManifestTest, SizesAndCounts) {
  refuse_edit("\"size\": 10", "\"size\": -1", {"files.a.safetensors.size: a negative number"});
  refuse_edit("\"size\": 10", "\"size\": 1.5", {"files.a.safetensors.size: a fraction"});
  refuse_edit("\"size\": 10", "\"size\": 18446744073709551616", {"files.a.safetensors.size"});
  refuse_edit("\"size\": 10", "\"size\": 18446744073709551615",
              {"files.a.safetensors.size: 18446744073709551615 bytes have 2199023255552 blocks, more than"});
  refuse_edit("\"size\": 10", "\"size\": 8388609",
              {"files.a.safetensors.blocks: 1 hashes, 8388609 bytes have 2"});
  refuse_edit("\"size\": 10", "\"size\": 0", {"files.a.safetensors.blocks.0: one hash too many"});
  const std::string hex = to_hex(hash_bytes(bytes_of("some bytes")));
  refuse_edit(hex, hex.substr(1), {"files.a.safetensors.blocks.0: \"" + hex.substr(1), "is no hash"});
  refuse_edit(hex, "A" + hex.substr(1), {"is no hash of 32 hexadecimal digits"});
}

TEST_F(ManifestTest, LimitsHoldInMemoryAndTime) {
  std::string many = "{\"format\":\"dsv3-manifest\",\"version\":1,\"block_bytes\":8388608,\"files\":{";
  const std::string head = many;
  for (int i = 1'000'000; i < 1'500'000; ++i) {
    many += "\"" + std::to_string(i) + "\":{\"size\":0,\"blocks\":[]},";
  }
  refuse(sealed(many), {"files: more than 100000 files"});
  many = std::string(Manifest::kMaxText + 1, ' ');
  refuse(many, {"50331649 bytes, at most 50331648 expected"});
  // As many blocks as a text can hold, and one less than promised.
  const size_t count = (Manifest::kMaxText - 4096) / 35;
  many = head + "\"a\":{\"size\":" + std::to_string((count + 1) * kManifestBlock) + ",\"blocks\":[";
  for (size_t i = 0; i < count; ++i)
    many += i == 0 ? "\"" + std::string(32, '0') + "\"" : ",\"" + std::string(32, '0') + "\"";
  many = sealed(many + "]}},");
  write(many);
  many = {};
  expect_input_error({"files.a.blocks: ", " hashes, "}, [&] { Manifest::read(dir_.path()); });
}

TEST_F(ManifestTest, OnlyAPlainFileIsRead) {
  fs::create_directory(dir_ / "manifest.json");
  expect_input_error({"/manifest.json: is a directory"}, [&] { Manifest::read(dir_.path()); });
  fs::remove(dir_ / "manifest.json");
  fs::create_symlink("nowhere", dir_ / "manifest.json");
  expect_input_error({"/manifest.json: no such file"}, [&] { Manifest::read(dir_.path()); });
}

TEST_F(ManifestTest, WritersMistakes) {
  for (const char* name : {"", "a/b", "..", "manifest.json", "a\xff"}) {
    EXPECT_THROW((Manifest{{{name, {}}}}.text()), std::logic_error) << name;
  }
  EXPECT_THROW((Manifest{{{"a", {.size = 1, .blocks = {}}}}}.text()), std::logic_error);
}

}  // namespace
}  // namespace dsv3
