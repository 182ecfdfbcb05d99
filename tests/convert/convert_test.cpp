// From one format to the other and back.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

#include "convert/convert_case.h"
#include "dsv3/base/json.h"
#include "dsv3/convert/dcp_folder.h"
#include "dsv3/convert/model_weights.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::small_config;

using Convert = test::ConvertCase;

TEST_F(Convert, ToDcpAndBackIsEqualByteForByte) {
  for (const auto& [name, config] : std::map<std::string, ModelConfig>{{"plain", small_config()},
                                                                       {"tied", small_config({.tied = true})},
                                                                       {"two", small_config({.mtp = 2})},
                                                                       {"none", small_config({.mtp = 0})}}) {
    SCOPED_TRACE(name);
    const fs::path from = hf(name, config);
    EXPECT_TRUE(run(from, dir / (name + "-dcp"), FolderFormat::dcp).complete);
    // A state_dict() of a tied model has both.
    EXPECT_NE(DcpFolder(dir / (name + "-dcp")).find("lm_head.weight"), nullptr);
    EXPECT_TRUE(run(dir / (name + "-dcp"), dir / (name + "-back"), FolderFormat::hf).complete);
    EXPECT_EQ(bytes_of(from / "model.safetensors"), bytes_of(dir / (name + "-back/model.safetensors")));
    for (const char* folder : {"-dcp", "-back"}) {
      const VerifyResult verified = verify_checkpoint(dir / (name + folder), 2);
      EXPECT_TRUE(verified.verified && verified.damaged.empty());
    }
  }
}

// Both ends of a conversion, whose formats name and cut the experts differently, and repeat the shared
// tensors or not.
TEST_F(Convert, BothEndsDiffAsOneModel) {
  for (const auto& [name, config] : std::map<std::string, ModelConfig>{{"plain", small_config()},
                                                                       {"tied", small_config({.tied = true})},
                                                                       {"two", small_config({.mtp = 2})}}) {
    SCOPED_TRACE(name);
    const fs::path from = hf(name, config), to = dir / (name + "-dcp");
    run(from, to, FolderFormat::dcp);
    expect_equal(from, to);
    expect_equal(to, from);
  }
  const auto differences = [&](const fs::path& a, const fs::path& b) {
    std::map<std::string, std::string> found;
    for (const Difference& difference : diff_checkpoints(Checkpoint(a), Checkpoint(b)))
      found[difference.name] = difference.what;
    return found;
  };
  const std::string experts = "model.layers.1.mlp.experts.gate_up_proj";
  // Another dtype is said, with what it does to the values.
  run(hf("fp8", small_config(), DType::f8_e4m3), dir / "fp8-dcp", FolderFormat::dcp,
      [](ConvertOptions& o) { o.dtype = DType::f32; });
  const auto wider = differences(dir / "fp8", dir / "fp8-dcp");
  EXPECT_EQ(wider.at(experts), "dtype F8_E4M3 and F32, equal values");
  EXPECT_EQ(wider.at("model.norm.weight"), "dtype BF16 and F32, equal values");
  const auto narrow = differences(hf("wide", small_config(), DType::f32), dir / "plain-dcp");
  EXPECT_TRUE(narrow.at(experts).starts_with("dtype F32 and BF16, ")) << narrow.at(experts);
  EXPECT_NE(narrow.at(experts).find(" of 384 elements differ, by up to "), std::string::npos);
  // One element of one expert.
  auto tensors = test::load_tensors(dir / "plain/model.safetensors");
  tensors.at("model.layers.1.mlp.experts.2.up_proj.weight").bytes[1] ^= std::byte{1};
  test::save_tensors(dir / "plain/model.safetensors", tensors);
  const auto one = differences(dir / "plain", dir / "plain-dcp");
  ASSERT_EQ(one.size(), 1u);
  EXPECT_TRUE(one.at(experts).starts_with("1 of 384 elements differ")) << one.at(experts);
  // A repeat that is none.
  tensors.at("model.layers.2.embed_tokens.weight").bytes[0] ^= std::byte{1};
  test::save_tensors(dir / "plain/model.safetensors", tensors);
  test::expect_input_error({"model.layers.2.embed_tokens.weight", "must repeat"}, [&] {
    diff_checkpoints(Checkpoint(dir / "plain"), Checkpoint(dir / "plain-dcp"));
  });
  // Of another model: name by name.
  run(hf("other", small_config({.mtp = 0})), dir / "other-dcp", FolderFormat::dcp);
  EXPECT_EQ(differences(dir / "two", dir / "other-dcp").at("model.layers.2.eh_proj.weight"),
            "is missing in " + (dir / "other-dcp").string());
}

// Grouped experts under transformers' names, shared tensors of MTP once.
TEST_F(Convert, DcpKeysAreTransformersOwn) {
  run(hf("hf"), dir / "dcp", FolderFormat::dcp);
  const DcpFolder folder(dir / "dcp");
  ASSERT_NE(folder.find("model.layers.1.mlp.experts.gate_up_proj"), nullptr);
  EXPECT_EQ(folder.find("model.layers.1.mlp.experts.gate_up_proj")->shape, (std::vector<int64_t>{4, 12, 8}));
  EXPECT_EQ(folder.find("model.layers.1.mlp.gate.e_score_correction_bias")->dtype, DType::f32);
  EXPECT_NE(folder.find("model.layers.2.eh_proj.weight"), nullptr);
  EXPECT_EQ(folder.find("model.layers.2.embed_tokens.weight"), nullptr);
}

TEST_F(Convert, DTypesAreRoundedToNearest) {
  const fs::path wide = hf("wide", small_config(), DType::f32);
  run(wide, dir / "dcp", FolderFormat::dcp, [](ConvertOptions& o) { o.dtype = DType::bf16; });
  run(dir / "dcp", dir / "narrow", FolderFormat::hf);
  expect_equal(hf("direct"), dir / "narrow");
  run(wide, dir / "same", FolderFormat::dcp);
  run(dir / "same", dir / "wide2", FolderFormat::hf);
  expect_equal(wide, dir / "wide2");
}

TEST_F(Convert, AShorterModelKeepsItsMtpModules) {
  ModelConfig config = small_config({.mtp = 2});
  config.num_hidden_layers = 4;
  const fs::path from = hf("hf", config);
  run(from, dir / "short", FolderFormat::hf, [](ConvertOptions& o) { o.layers = 2; });
  const ModelConfig shorter = ModelConfig::load(dir / "short");
  EXPECT_EQ(shorter.num_hidden_layers, 2);
  const ModelWeights ours(dir / "short", shorter), theirs(from, config);
  const ParamTable table = param_table(shorter), full = param_table(config);
  for (const auto& [mine, its] :
       {std::pair("model.layers.1.mlp.gate.weight", "model.layers.1.mlp.gate.weight"),
        {"model.layers.2.eh_proj.weight", "model.layers.4.eh_proj.weight"},
        {"model.layers.3.mlp.experts.down_proj", "model.layers.5.mlp.experts.down_proj"}}) {
    const ParamSpec* spec = table.find(mine);
    std::vector<float> a(static_cast<size_t>(spec->numel())), b(a.size());
    ours.read(*spec, 0, a);
    theirs.read(*full.find(its), 0, b);
    EXPECT_EQ(a, b) << mine;
  }
  test::expect_error(ExitCode::usage, {"--layers", "is 5"}, [&] {
    run(from, dir / "long", FolderFormat::dcp, [](ConvertOptions& o) { o.layers = 5; });
  });
}

// Interrupted after some of its files, it goes on and ends in the same bytes; so do parts.
TEST_F(Convert, GoesOnWhereItWas) {
  const fs::path from = hf("hf");
  const auto small_files = [](ConvertOptions& o) { o.max_file_bytes = 1500; };
  for (const FolderFormat format : {FolderFormat::dcp, FolderFormat::hf}) {
    const std::string name = format == FolderFormat::dcp ? "dcp" : "out";
    const ConvertSummary whole = run(from, dir / name, format, small_files);
    EXPECT_GT(whole.files, 3);
    ConvertOptions options;
    options.to = format;
    options.max_file_bytes = 1500;
    struct Interrupted {};
    const auto stop = [](uint64_t done, uint64_t total) {
      if (done > total / 2) throw Interrupted();
    };
    EXPECT_THROW(convert(from, dir / (name + "2"), options, stop), Interrupted);
    EXPECT_FALSE(fs::exists(dir / (name + "2")));
    EXPECT_GT(convert(from, dir / (name + "2"), options).files_kept, 0);
    expect_same_files(dir / name, dir / (name + "2"));
    for (int64_t part = 3; part >= 1; --part) {
      options.part = part;
      options.parts = 3;
      EXPECT_EQ(convert(from, dir / (name + "3"), options).complete, part == 1);
    }
    expect_same_files(dir / name, dir / (name + "3"));
  }
}

// Started again after the others were through; alone or with other options it is told that the target exists.
TEST_F(Convert, ALatePartFindsItsConversionComplete) {
  const fs::path from = hf("hf");
  ConvertOptions options;
  options.max_file_bytes = 1500;
  options.parts = 2;
  for (options.part = 1; options.part <= 2; ++options.part) convert(from, dir / "out", options);
  const std::string before = bytes_of(dir / "out/manifest.json");
  for (options.part = 1; options.part <= 2; ++options.part) {
    const ConvertSummary late = convert(from, dir / "out/", options);
    EXPECT_TRUE(late.complete && late.was_complete);
  }
  EXPECT_EQ(bytes_of(dir / "out/manifest.json"), before);
  EXPECT_FALSE(fs::exists(dir / "out.partial"));
  EXPECT_FALSE(fs::exists(dir / "out.partial.work"));
  const auto refuse = [&](const std::function<void(ConvertOptions&)>& change) {
    ConvertOptions other = options;
    other.part = 1;
    change(other);
    test::expect_error(ExitCode::usage, {"out", "exists already"},
                       [&] { convert(from, dir / "out", other); });
  };
  refuse([](ConvertOptions& o) { o.parts = 1; });
  refuse([](ConvertOptions& o) { o.max_file_bytes = 1600; });
  refuse([](ConvertOptions& o) { o.dtype = DType::f32; });
  fs::last_write_time(from / "model.safetensors", fs::file_time_type::clock::now());
  refuse([](ConvertOptions&) {});
}

// Two that would write the same files: the second is told, and the first isn't disturbed. Parts run side by
// side.
TEST_F(Convert, AnEqualConversionAtTheSameTimeIsRefused) {
  const fs::path from = hf("hf");
  ConvertOptions options;
  options.max_file_bytes = 1500;
  const auto refuse = [&](int64_t part, int64_t parts) {
    ConvertOptions second = options;
    second.part = part;
    second.parts = parts;
    test::expect_error(ExitCode::usage, {"out: another process is writing it", "--part"},
                       [&] { convert(from, dir / "out", second); });
  };
  int inside = 0;
  const auto meanwhile = [&](uint64_t, uint64_t) {
    if (inside++ > 0) return;
    refuse(1, 1);
    refuse(1, 2);
    refuse(3, 3);
  };
  EXPECT_TRUE(convert(from, dir / "out", options, meanwhile).complete);
  EXPECT_GT(inside, 3);
  fs::remove_all(dir / "out");
  options.parts = 2;
  inside = 0;
  const auto other_part = [&](uint64_t, uint64_t) {
    if (inside++ > 0) return;
    refuse(1, 1);
    refuse(1, 2);
    ConvertOptions second = options;
    second.part = 2;
    EXPECT_FALSE(convert(from, dir / "out", second).complete);
  };
  EXPECT_TRUE(convert(from, dir / "out", options, other_part).complete);
}

TEST_F(Convert, AnotherConversionsLeftoversAreRefused) {
  const fs::path from = hf("hf");
  ConvertOptions options;
  struct Interrupted {};
  EXPECT_THROW(convert(from, dir / "out", options, [](uint64_t, uint64_t) { throw Interrupted(); }),
               Interrupted);
  options.dtype = DType::f32;
  test::expect_error(ExitCode::usage, {"out.partial", "another conversion"},
                     [&] { convert(from, dir / "out", options); });
}

TEST_F(Convert, Row82OutputThatIsTheInputAndOtherMistakes) {
  const fs::path from = hf("hf");
  test::expect_error(ExitCode::usage, {"hf", "is the source"}, [&] { run(from, from, FolderFormat::dcp); });
  test::expect_error(ExitCode::usage, {"is the source"},
                     [&] { run(from, from / "deeper", FolderFormat::dcp); });
  fs::create_directories(dir / "there");
  test::expect_error(ExitCode::usage, {"there", "exists already"},
                     [&] { run(from, dir / "there", FolderFormat::dcp); });
  test::expect_error(ExitCode::usage, {"none", "no such"},
                     [&] { run(dir / "none", dir / "x", FolderFormat::dcp); });
  EXPECT_FALSE(fs::exists(dir / "x.partial"));
  test::expect_error(ExitCode::usage, {"has no name"}, [&] { run(from, "", FolderFormat::dcp); });
}

TEST_F(Convert, DryRunWritesNothing) {
  const ConvertSummary summary =
      run(hf("hf"), dir / "out", FolderFormat::dcp, [](ConvertOptions& o) { o.dry_run = true; });
  EXPECT_GT(summary.tensors, 20);
  EXPECT_FALSE(summary.complete);
  EXPECT_FALSE(fs::exists(dir / "out.partial"));
  fs::create_directory(dir / "out");
  test::expect_error(ExitCode::usage, {"out", "exists already"}, [&] {
    run(dir / "hf", dir / "out", FolderFormat::dcp, [](ConvertOptions& o) { o.dry_run = true; });
  });
}

// A number is no silent infinity in FP16, nor NaN in FP8.
TEST_F(Convert, ValuesThatANarrowDtypeLosesAreRefused) {
  const fs::path from = hf("hf", small_config(), DType::f32);
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  const auto with = [&](float value) {
    fs::remove(from / "manifest.json");
    auto tensors = test::load_tensors(from / "model.safetensors");
    std::memcpy(tensors.at(name).bytes.data() + 4, &value, 4);
    test::save_tensors(from / "model.safetensors", tensors);
  };
  const auto to = [&](const char* target, DType dtype) {
    run(from, dir / target, FolderFormat::hf, [&](ConvertOptions& o) { o.dtype = dtype; });
  };
  with(65519);
  to("largest", DType::f16);
  with(-65520);
  test::expect_input_error({name, "element 1 is -65520", "65504"}, [&] { to("f16", DType::f16); });
  with(std::numeric_limits<float>::infinity());
  to("infinite", DType::f16);
  test::expect_input_error({name, "element 1 is inf"}, [&] { to("f8", DType::f8_e4m3); });
  with(-std::numeric_limits<float>::quiet_NaN());
  test::expect_input_error({name, "element 1 is", "nan"}, [&] { to("f8nan", DType::f8_e4m3); });
}

TEST_F(Convert, AFileIsNoFolder) {
  const fs::path from = hf("hf");
  for (const bool dry_run : {false, true})
    test::expect_error(ExitCode::usage, {"model.safetensors", "is no folder"}, [&] {
      run(from / "model.safetensors", dir / "out", FolderFormat::dcp,
          [&](ConvertOptions& o) { o.config = from / "config.json", o.dry_run = dry_run; });
    });
}

TEST_F(Convert, CompanionsTravel) {
  const fs::path from = hf("hf");
  test::write_file(from / "tokenizer.json", "{}");
  // Moonlight's: the tokenizer is code beside a file of its own.
  const auto names = {"tokenizer.json", "generation_config.json", "tokenization_moonshot.py",
                      "tiktoken.model", "o200k.tiktoken",         "LICENSE-MODEL"};
  for (const char* name : names) test::write_file(from / name, "{}");
  EXPECT_TRUE(run(from, dir / "dcp", FolderFormat::dcp).left_out.empty());
  EXPECT_TRUE(run(dir / "dcp", dir / "back", FolderFormat::hf).left_out.empty());
  for (const char* name : names) EXPECT_TRUE(fs::exists(dir / "back" / name)) << name;
}

TEST_F(Convert, CompanionsThatDoNotTravelAreTold) {
  const fs::path from = hf("hf");
  test::write_file(from / "tokenizer.json", "");
  fs::resize_file(from / "tokenizer.json", (64 << 20) + 1);
  test::write_file(dir / "outside.jinja", "");
  fs::create_symlink(dir / "outside.jinja", from / "chat_template.jinja");
  fs::create_symlink("nowhere", from / "README.md");
  test::write_file(from / "notes.odt", "");
  fs::create_directory(from / "folder.json");
  std::vector<std::string> left_out = run(from, dir / "dcp", FolderFormat::dcp).left_out;
  std::ranges::sort(left_out);
  ASSERT_EQ(left_out.size(), 5u);
  EXPECT_NE(left_out[0].find("README.md is a link to no file of the folder"), std::string::npos);
  EXPECT_NE(left_out[1].find("chat_template.jinja is a link to no file"), std::string::npos);
  EXPECT_NE(left_out[2].find("folder.json is a folder"), std::string::npos) << left_out[2];
  EXPECT_NE(left_out[3].find("notes.odt is of no kind"), std::string::npos) << left_out[3];
  EXPECT_NE(left_out[4].find("tokenizer.json has 67108865 bytes"), std::string::npos) << left_out[4];
  for (const char* name : {"README.md", "chat_template.jinja", "tokenizer.json"})
    EXPECT_FALSE(fs::exists(dir / "dcp" / name)) << name;
}

TEST_F(Convert, ADcpFolderWithoutConfigNeedsOne) {
  run(hf("hf"), dir / "dcp", FolderFormat::dcp);
  fs::rename(dir / "dcp/config.json", dir / "config.json");
  fs::remove(dir / "dcp/manifest.json");
  test::expect_error(ExitCode::usage, {"--config"},
                     [&] { run(dir / "dcp", dir / "back", FolderFormat::hf); });
  run(dir / "dcp", dir / "back", FolderFormat::hf,
      [&](ConvertOptions& o) { o.config = dir / "config.json"; });
  expect_equal(dir / "hf", dir / "back");
}

// Any one bit of any file: the check of the whole folder finds it, and nothing of it loads as if it were
// right.
TEST_F(Convert, EverySingleBitFlipIsFoundByVerifyAndByLoad) {
  const auto small_files = [](ConvertOptions& o) { o.max_file_bytes = 4000; };
  run(hf("hf"), dir / "dcp", FolderFormat::dcp, small_files);
  run(dir / "dcp", dir / "out", FolderFormat::hf, small_files);
  std::vector<fs::path> files;
  for (const char* folder : {"dcp", "out"})
    for (const auto& entry : fs::directory_iterator(dir / folder)) files.push_back(entry.path());
  std::ranges::sort(files);
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 1500; ++trial) {
    const fs::path& path = files[random() % files.size()];
    const std::string before = bytes_of(path);
    std::string after = before;
    after[random() % after.size()] ^= static_cast<char>(1 << random() % 8);
    test::write_file(path, after);
    const std::string name = path.filename().string();
    SCOPED_TRACE(name);
    try {
      const VerifyResult result = verify_checkpoint(path.parent_path(), 1);
      ASSERT_EQ(result.damaged.size(), 1u);
      EXPECT_EQ(result.damaged[0].file, name);
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
    }
    test::expect_input_error({name}, [&] { run(path.parent_path(), dir / "again", FolderFormat::dcp); });
    fs::remove_all(dir / "again.partial");
    fs::remove_all(dir / "again.partial.work");
    test::write_file(path, before);
    if (testing::Test::HasFailure()) break;
  }
}

// Without a manifest the CRC of each item still guards its tensor.
TEST_F(Convert, WithoutAManifestDataIsCheckedByItsCrcAndCalledUnverified) {
  const ModelConfig config = small_config();
  run(hf("hf"), dir / "dcp", FolderFormat::dcp);
  fs::remove(dir / "dcp/manifest.json");
  const VerifyResult result = verify_checkpoint(dir / "dcp", 1);
  EXPECT_FALSE(result.verified);
  EXPECT_TRUE(result.verdict.starts_with("unverified"));
  const DcpMetadata metadata = read_dcp_metadata(dir / "dcp/.metadata");
  const DcpTensor& tensor = metadata.tensors.front();
  const fs::path path = dir / "dcp" / tensor.chunks.front().file;
  const TorchTensor item = read_torch_tensor(InputFile(path), tensor.chunks.front().offset,
                                             tensor.chunks.front().length, tensor.key);
  std::string bytes = bytes_of(path);
  bytes[item.begin] ^= 1;
  test::write_file(path, bytes);
  test::expect_input_error({path.filename().string(), tensor.key},
                           [&] { verify_checkpoint(dir / "dcp", 1); });
}

}  // namespace
}  // namespace dsv3
