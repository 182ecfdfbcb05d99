// convert, export and ckpt from the command line: exit codes, the one line of an error, JSON.
#include <sstream>

#include "cli/run.h"
#include "dsv3/base/json.h"

namespace dsv3::test {
namespace {

namespace fs = std::filesystem;

// The golden run's model: 2 layers, the second with experts, and an MTP module without its repeats of the
// embedding and the head, which ours writes; fp32.
const std::string kModel = DSV3_SOURCE_DIR "/tests/golden/trajectory";

class ConvertCommand : public testing::Test {
 protected:
  std::string at(std::string_view name) const { return (dir_ / name).string(); }
  // Converts, and expects it to work.
  std::string made(const std::string& source, std::string_view name, std::vector<std::string> flags = {}) {
    flags.insert(flags.begin(), {"convert", source, at(name)});
    const Result result = dsv3(flags);
    EXPECT_EQ(result.code, 0) << result.err;
    return at(name);
  }
  void refuse(std::vector<std::string> flags, ExitCode code, std::initializer_list<std::string_view> parts) {
    flags.insert(flags.begin(), {"convert", kModel, at("out")});
    expect_failure(dsv3(flags), code, parts);
    EXPECT_TRUE(fs::is_empty(dir_.path()));
  }
  static Json json(const Result& result) {
    EXPECT_EQ(result.code, 0) << result.err;
    return parse_json(result.out, "stdout");
  }
  // Flips a bit in the middle of a file.
  static void damage(const fs::path& path) {
    std::string bytes = read_file(path);
    bytes[bytes.size() / 2] ^= 4;
    write_file(path, bytes);
  }
  TempDir dir_;
};

TEST_F(ConvertCommand, GoesThereAndBack) {
  const std::string dcp = made(kModel, "dcp"), hf = made(dcp, "hf");
  EXPECT_TRUE(fs::exists(fs::path(dcp) / ".metadata"));
  const Result diff = dsv3({"ckpt", "diff", made(kModel, "direct", {"--to", "hf"}), hf});
  EXPECT_EQ(diff.code, 0) << diff.out << diff.err;
  EXPECT_EQ(diff.out, "");
  const Result ends = dsv3({"ckpt", "diff", kModel, dcp});
  EXPECT_EQ(ends.code, 0) << ends.out << ends.err;
  EXPECT_EQ(dsv3({"convert", "--input", kModel, "--output", at("named")}).code, 0);
  const Result exported = dsv3({"export", dcp, at("exported")});
  EXPECT_EQ(exported.code, 0) << exported.err;
  EXPECT_EQ(read_json(dir_ / "exported/config.json")["torch_dtype"], "bfloat16");
}

TEST_F(ConvertCommand, WhatIsNotCarriedOverIsAWarning) {
  fs::copy(kModel, at("hf"));
  write_file(dir_ / "hf/tokenizer.json", "");
  fs::resize_file(dir_ / "hf/tokenizer.json", 65 << 20);
  const Result result = dsv3({"convert", at("hf"), at("dcp")});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_TRUE(result.err.starts_with("dsv3: warning: ")) << result.err;
  EXPECT_NE(result.err.find("hf/tokenizer.json has 68157440 bytes"), std::string::npos) << result.err;
}

TEST_F(ConvertCommand, ASourceThatIsNotThere) {
  expect_failure(dsv3({"convert", at("none"), at("out")}), ExitCode::usage, {"none", "no such"});
  expect_failure(dsv3({"export", at("none"), at("out")}), ExitCode::usage, {"none", "no such"});
  expect_failure(dsv3({"ckpt", "ls", at("none")}), ExitCode::usage, {"none", "no such"});
  expect_failure(dsv3({"convert"}), ExitCode::usage, {"--input is required"});
  expect_failure(dsv3({"convert", kModel}), ExitCode::usage, {"--output is required"});
  EXPECT_TRUE(fs::is_empty(dir_.path()));
}

TEST_F(ConvertCommand, ATargetThatIsThereIsKept) {
  const std::string there = made(kModel, "there");
  const std::string before = read_file(dir_ / "there/.metadata");
  expect_failure(dsv3({"convert", kModel, there}), ExitCode::usage, {"there", "exists already"});
  expect_failure(dsv3({"export", there, there}), ExitCode::usage, {"there", "is the source"});
  EXPECT_EQ(read_file(dir_ / "there/.metadata"), before);
  EXPECT_FALSE(fs::exists(dir_ / "there.partial"));
}

// It died behind the rename: the next one takes away what it left, a dry run nothing.
TEST_F(ConvertCommand, WhatAFinishedConversionLeftGoes) {
  const std::string there = made(kModel, "there");
  const fs::path left = there + ".partial.work";
  fs::create_directory(left);
  expect_failure(dsv3({"convert", kModel, there, "--dry-run"}), ExitCode::usage, {"exists already"});
  EXPECT_TRUE(fs::exists(left));
  expect_failure(dsv3({"convert", kModel, there}), ExitCode::usage, {"exists already"});
  EXPECT_FALSE(fs::exists(left));
}

TEST_F(ConvertCommand, WrongFlags) {
  refuse({"--dtype", "bf61"}, ExitCode::usage, {"--dtype: is 'bf61'", "bf16"});
  refuse({"--to", "zip"}, ExitCode::usage, {"--to: is 'zip'", "dcp"});
  refuse({"--from", "elsewhere"}, ExitCode::usage, {"--from: is 'elsewhere'", "reference"});
  refuse({"--from", "reference"}, ExitCode::usage, {"--from", "is no DCP folder"});
  for (const char* part :
       {"3/2", "0/2", "1", "1/", "/2", "1/2/3", "-1/2", "1/0", "x/y", "99999999999999999999/2"})
    refuse({"--part", part}, ExitCode::usage, {"--part", part, "i/n with i from 1 to n"});
  refuse({"--layers", "0"}, ExitCode::usage, {"--layers: is 0"});
  refuse({"--layers", "-1"}, ExitCode::usage, {"--layers: is -1"});
  refuse({"--layers", "3"}, ExitCode::usage, {"--layers", "is 3, the model has 2"});
  for (const char* size : {"0", "-1", "nan", "1e300"})
    refuse({"--max-file-gb", size}, ExitCode::usage, {"--max-file-gb: is "});
  refuse({"--dtype", "fp8", "--to", "dcp"}, ExitCode::usage, {"--dtype", "fp8", "--to hf"});
  refuse({"--dtype", "fp8"}, ExitCode::usage, {"--dtype", "fp8", "--to hf"});  // dcp is the other one
  refuse({"--config", at("none.json")}, ExitCode::usage, {"none.json"});
  refuse({"--layer", "1"}, ExitCode::usage, {"--layer"});
}

TEST_F(ConvertCommand, ADcpFolderWithoutItsConfigNeedsTheFlag) {
  const std::string dcp = made(kModel, "dcp");
  fs::remove(dir_ / "dcp/config.json");
  fs::remove(dir_ / "dcp/manifest.json");
  expect_failure(dsv3({"convert", dcp, at("hf")}), ExitCode::usage, {"--config", "holds no config.json"});
  const std::string hf = made(dcp, "hf", {"--config", kModel + "/config.json"});
  EXPECT_EQ(dsv3({"ckpt", "diff", made(kModel, "direct", {"--to", "hf"}), hf}).code, 0);
  expect_failure(dsv3({"export", dcp, at("exported")}), ExitCode::usage,
                 {"--config", "holds no config.json"});
  const Result exported =
      dsv3({"export", dcp, at("exported"), "--dtype", "keep", "--config", kModel + "/config.json"});
  EXPECT_EQ(exported.code, 0) << exported.err;
  EXPECT_EQ(dsv3({"ckpt", "diff", hf, at("exported")}).code, 0);
}

// Before anything is read or written, whatever the command.
TEST_F(ConvertCommand, AnEmptyNameOfWhatIsWrittenIsRefused) {
  const std::string text = write_file(dir_ / "text.txt", "some text").string();
  const RunOptions here{.cwd = dir_.path()};
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"convert", kModel, ""},
        {"convert", kModel, "--output", ""},
        {"convert", kModel, "", "--dry-run"},
        {"export", kModel, ""},
        {"prepare", text, "--out", ""},
        {"tokenizer", "train", text, "--vocab-size", "300", "--out", ""}}) {
    SCOPED_TRACE(command[0]);
    expect_failure(dsv3(command, here), ExitCode::usage, {});
    EXPECT_EQ(std::distance(fs::directory_iterator(dir_.path()), {}), 1);
  }
}

TEST_F(ConvertCommand, ReadsTheReferencesLayout) {
  const std::string fixture = DSV3_SOURCE_DIR "/tests/convert/reference";
  const std::vector<std::string> flags{"--from", "reference", "--config", fixture + "/hf/config.json"};
  EXPECT_EQ(dsv3({"ckpt", "diff", fixture + "/hf", made(fixture + "/dcp", "hf", flags)}).code, 0);
  expect_failure(dsv3({"convert", fixture + "/dcp", at("x"), "--config", fixture + "/hf/config.json"}),
                 ExitCode::content, {".metadata", "is missing"});
  EXPECT_FALSE(fs::exists(dir_ / "x"));
}

TEST_F(ConvertCommand, WeightsThatDoNotFitAreContent) {
  Json config = read_json(fs::path(kModel) / "config.json");
  config["vocab_size"] = 260;
  const std::string other = write_file(dir_ / "config.json", config.dump()).string();
  expect_failure(dsv3({"convert", kModel, at("out"), "--config", other}), ExitCode::content,
                 {"model.embed_tokens.weight", "[259, 32]", "expected [260, 32]"});
  EXPECT_FALSE(fs::exists(dir_ / "out"));
}

TEST_F(ConvertCommand, DamageIsNamedByFileAndBytes) {
  const std::string dcp = made(kModel, "dcp");
  EXPECT_EQ(dsv3({"ckpt", "verify", dcp}).code, 0);
  damage(dir_ / "dcp/__0_0.distcp");
  // The first on stderr, in one line; all of them on stdout.
  damage(dir_ / "dcp/config.json");
  const Result result = dsv3({"ckpt", "verify", dcp});
  expect_failure(result, ExitCode::content,
                 {"dsv3: error: " + dcp + "/__0_0.distcp: bytes 0 to ", "2 damaged ranges in all"});
  for (const char* name : {"/__0_0.distcp: bytes 0 to ", "/config.json: bytes 0 to "})
    EXPECT_NE(result.out.find(dcp + name), std::string::npos) << result.out;
  damage(dir_ / "dcp/config.json");  // and back
  expect_failure(dsv3({"convert", dcp, at("hf")}), ExitCode::content, {"__0_0.distcp", "bytes 0 to"});
  EXPECT_FALSE(fs::exists(dir_ / "hf"));
  const Result as_json = dsv3({"ckpt", "verify", dcp, "--json"});
  EXPECT_EQ(as_json.code, static_cast<int>(ExitCode::content));
  const Json damaged = parse_json(as_json.out, "stdout")["damaged"];
  ASSERT_EQ(damaged.size(), 1u);
  EXPECT_EQ(damaged[0]["file"], "__0_0.distcp");
}

TEST_F(ConvertCommand, DifferencesAreExitCodeOne) {
  const std::string bf16 = made(kModel, "bf16", {"--to", "hf", "--dtype", "bf16"});
  const Result result = dsv3({"ckpt", "diff", kModel, bf16});
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.err, "");
  EXPECT_NE(result.out.find("model.embed_tokens.weight: "), std::string::npos) << result.out;
  const Result shorter = dsv3({"ckpt", "diff", kModel, made(kModel, "one", {"--to", "hf", "--layers", "1"})});
  EXPECT_EQ(shorter.code, 1);
  EXPECT_NE(shorter.out.find("is missing in"), std::string::npos) << shorter.out;
}

TEST_F(ConvertCommand, JsonParses) {
  const Json dry = json(dsv3({"convert", kModel, at("dcp"), "--dry-run", "--json"}));
  EXPECT_FALSE(dry["complete"]);
  EXPECT_FALSE(fs::exists(dir_ / "dcp.partial"));
  const auto part = [&](const char* which) {
    return json(dsv3({"convert", kModel, at("dcp"), "--json", "--max-file-gb", "0.00004", "--part", which}));
  };
  const Json half = part("1/2"), whole = part("2/2");
  EXPECT_FALSE(half["complete"]);
  EXPECT_TRUE(whole["complete"]);
  EXPECT_EQ(half["tensors"], whole["tensors"]);
  EXPECT_EQ(dry["bytes"], whole["bytes"]);
  EXPECT_TRUE(json(dsv3({"export", at("dcp"), at("hf"), "--json"}))["complete"]);
  const Json shown = json(dsv3({"ckpt", "show", at("dcp"), "--json"}));
  EXPECT_EQ(shown["format"], "dcp");
  EXPECT_EQ(shown["manifest"], true);
  EXPECT_EQ(shown["tensors"], whole["tensors"]);
  EXPECT_EQ(json(dsv3({"ckpt", "verify", at("dcp"), "--json"}))["verified"], true);
  // A row a tensor.
  int64_t rows = 0;
  std::istringstream lines(dsv3({"ckpt", "ls", at("dcp"), "--json"}).out);
  for (std::string line; std::getline(lines, line); ++rows)
    EXPECT_TRUE(parse_json(line, "stdout")["shape"].is_array());
  EXPECT_EQ(rows, whole["tensors"]);
  std::istringstream differences(dsv3({"ckpt", "diff", kModel, at("hf"), "--json"}).out);
  for (std::string line; std::getline(differences, line);)
    EXPECT_TRUE(parse_json(line, "stdout")["what"].is_string());
}

}  // namespace
}  // namespace dsv3::test
