// DCP folders that a model is read from: whose keys have prefixes, whose files are others or lead elsewhere.
#include "dsv3/convert/dcp_folder.h"

#include "convert/convert_case.h"
#include "dsv3/convert/dcp_writer.h"
#include "dsv3/convert/model_weights.h"

namespace dsv3 {
namespace {

namespace fs = std::filesystem;
using test::small_config;
using DcpSource = test::ConvertCase;

// The model's keys in a DCP folder begin with what Python's caller put before them.
TEST_F(DcpSource, OneOfSeveralModelsIsTakenByItsNameOrNone) {
  const fs::path from = hf("hf");
  const ModelConfig config = small_config();
  const ModelWeights weights(from, config);
  const auto save = [&](const std::string& name, const std::vector<std::string>& prefixes) {
    fs::create_directory(dir / name);
    DcpFileWriter writer(dir / name / "__0_0.distcp");
    for (const std::string& prefix : prefixes) {
      for (const ParamSpec& spec : param_table(config).params) {
        std::vector<float> values(static_cast<size_t>(spec.numel()), 1.0f);
        if (&prefix == &prefixes.back()) weights.read(spec, 0, values);
        const std::vector<int64_t> begin(spec.shape.size());
        writer.tensor(prefix + spec.name, {prefix + spec.name}, DType::f32, spec.shape, begin, spec.shape,
                      std::as_bytes(std::span(values)));
      }
    }
    finish_dcp_folder(dir / name, writer.finish());
    fs::copy_file(from / "config.json", dir / name / "config.json");
    return dir / name;
  };
  // The last one has the weights.
  for (const std::vector<std::string>& prefixes :
       {std::vector<std::string>{"some.deeper."}, {"ema.", "model."}, {"other.", ""}, {"a.", "b.", ""}}) {
    const std::string name = std::to_string(prefixes.size()) + prefixes.front();
    run(save(name, prefixes), dir / (name + "hf"), FolderFormat::hf,
        [](ConvertOptions& o) { o.dtype = DType::bf16; });
    expect_equal(from, dir / (name + "hf"));
  }
  const fs::path two = save("two", {"ema.", "student."});
  test::expect_input_error(
      {"two/.metadata: ema.model.embed_tokens.weight", "student.model.embed_tokens.weight", "'model'"},
      [&] { run(two, dir / "two-hf", FolderFormat::hf); });
}

// As a shard of Hugging Face's format: tests/convert/hf_weights_test.cpp, row 31.
TEST_F(DcpSource, LinksOutOfADcpFolderAreRefused) {
  run(hf("hf"), dir / "dcp", FolderFormat::dcp);
  for (const bool manifest : {true, false}) {
    if (!manifest) fs::remove(dir / "dcp/manifest.json");
    for (const char* name : {"__0_0.distcp", ".metadata"}) {
      fs::rename(dir / "dcp" / name, dir / "outside");
      fs::create_symlink(dir / "outside", dir / "dcp" / name);
      test::expect_input_error({name, "is a link out of the folder"}, [&] { DcpFolder(dir / "dcp"); });
      fs::rename(dir / "outside", dir / "dcp" / name);
    }
  }
  fs::rename(dir / "dcp/__0_0.distcp", dir / "dcp/real");
  fs::create_symlink("real", dir / "dcp/__0_0.distcp");
  EXPECT_NO_THROW(DcpFolder(dir / "dcp"));
}

// Python puts objects of any class beside the tensors. They are not made here, and their bytes are checked.
TEST_F(DcpSource, ObjectsOfOtherClassesAreVerifiedByTheirCrc) {
  const fs::path folder = dir / "dcp";
  fs::create_directory(folder);
  DcpFileWriter writer(folder / "__0_0.distcp");
  const float value = 1;
  writer.tensor("w", {"w"}, DType::f32, {1}, {0}, {1}, std::as_bytes(std::span(&value, 1)));
  writer.object("device", {"device"},
                PickleValue::of_call("torch device", {PickleValue::of_text("a device of this name")}));
  finish_dcp_folder(folder, writer.finish());
  EXPECT_TRUE(verify_checkpoint(folder, 1).verified);
  fs::remove(folder / "manifest.json");
  const VerifyResult result = verify_checkpoint(folder, 1);
  EXPECT_FALSE(result.verified);
  EXPECT_NE(result.verdict.find("unverified"), std::string::npos) << result.verdict;
  test::expect_input_error({"__0_0.distcp: device", "torch device"},
                           [&] { DcpFolder(folder).object("device"); });

  std::string bytes = bytes_of(folder / "__0_0.distcp");
  bytes[bytes.find("of this name")] ^= 1;
  test::write_file(folder / "__0_0.distcp", bytes);
  test::expect_input_error({"__0_0.distcp: device", "CRC"}, [&] { verify_checkpoint(folder, 1); });
}

// A state that another program wrote again is the same; where the run stood is told apart, its folders are
// not.
TEST_F(DcpSource, ObjectsAreComparedByValue) {
  const auto write = [&](const char* name, const PickleValue& extra, const std::string& state) {
    fs::create_directory(dir / name);
    DcpFileWriter writer(dir / name / "__0_0.distcp");
    const float value = 1;
    writer.tensor("w", {"w"}, DType::f32, {1}, {0}, {1}, std::as_bytes(std::span(&value, 1)));
    writer.object("extra", {"extra"}, extra);
    writer.object("dsv3.state", {"dsv3.state"}, PickleValue::of_text(state));
    finish_dcp_folder(dir / name, writer.finish());
    return Checkpoint(dir / name);
  };
  const auto told = [](const Checkpoint& a, const Checkpoint& b) {
    std::string text;
    for (const Difference& difference : diff_checkpoints(a, b))
      text += difference.name + ": " + difference.what + "\n";
    return text;
  };
  const auto list = [](double last) {
    return PickleValue::of_list(
        {PickleValue::of_int(3), PickleValue::of_text("x"), PickleValue::of_real(last)});
  };
  const Checkpoint a = write("a", list(0.5), R"({"step": 4, "cursor": 8, "run": "here"})");
  EXPECT_EQ(told(a, write("again", list(0.5), R"({"cursor": 8, "step": 4, "run": "there"})")), "");
  EXPECT_EQ(told(a, write("later", list(0.5), R"({"step": 5, "cursor": 9, "run": "here"})")),
            "dsv3.state: step 4 and 5\ndsv3.state: cursor 8 and 9\n");
  EXPECT_EQ(told(a, write("other", list(0.25), R"({"step": 4, "cursor": 8})")), "extra: is another object\n");
  // An OrderedDict is a dict: other bytes, the same value.
  EXPECT_EQ(told(write("dict", PickleValue::of_dict({}), "{}"),
                 write("ordered", PickleValue::of_call("collections OrderedDict", {}), "{}")),
            "");
  const PickleValue device = PickleValue::of_call("torch device", {PickleValue::of_text("cpu")});
  const Checkpoint b = write("class", device, "{}");
  EXPECT_EQ(told(b, write("same", device, "{}")), "");
  EXPECT_EQ(told(b, write("none", list(0.5), "{}")), "extra: is another object\n");
  // Damage is not another object.
  fs::remove(dir / "class/manifest.json");
  fs::remove(dir / "none/manifest.json");
  std::string bytes = bytes_of(dir / "class/__0_0.distcp");
  bytes[bytes.rfind("cpu")] ^= 1;
  test::write_file(dir / "class/__0_0.distcp", bytes);
  test::expect_input_error({"class/__0_0.distcp: extra", "CRC"},
                           [&] { told(Checkpoint(dir / "class"), Checkpoint(dir / "none")); });
}

TEST_F(DcpSource, Row71And72AShardOfAnotherRunAndAMissingOne) {
  run(hf("hf"), dir / "dcp", FolderFormat::dcp, [](ConvertOptions& o) { o.max_file_bytes = 2000; });
  const std::string own = bytes_of(dir / "dcp/__0_1.distcp");
  const auto load = [&] {
    const ModelWeights weights(dir / "dcp", small_config());
    std::vector<float> values;
    for (const ParamSpec& spec : param_table(small_config()).params) {
      values.resize(static_cast<size_t>(spec.numel()));
      weights.read(spec, 0, values);
    }
  };
  test::write_file(dir / "dcp/__0_1.distcp", bytes_of(dir / "dcp/__0_2.distcp"));
  test::expect_input_error({"__0_1.distcp"}, load);
  fs::remove(dir / "dcp/__0_1.distcp");
  test::expect_input_error({"__0_1.distcp", "no such file"}, load);
  // The same without a manifest.
  fs::remove(dir / "dcp/manifest.json");
  test::expect_input_error({"__0_1.distcp", "no such file"}, load);
  test::write_file(dir / "dcp/__0_1.distcp", bytes_of(dir / "dcp/__0_2.distcp"));
  test::expect_input_error({"__0_1.distcp"}, load);
}

TEST_F(DcpSource, MissingAndUnexpectedTensorsOfADcpFolderAreListed) {
  run(hf("hf"), dir / "dcp", FolderFormat::dcp);
  ModelConfig other = small_config();
  other.num_hidden_layers = 4;
  other.num_nextn_predict_layers = 0;
  test::expect_input_error({".metadata", "is missing"}, [&] { ModelWeights(dir / "dcp", other); });
  other = small_config();
  other.vocab_size = 25;
  test::expect_input_error({".metadata", "has shape [24, 8], expected [25, 8]"},
                           [&] { ModelWeights(dir / "dcp", other); });
}

}  // namespace
}  // namespace dsv3
