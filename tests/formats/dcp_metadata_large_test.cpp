// `.metadata` of a large model: 180,000 chunks, as we write it and as Python's pickler does.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include "dsv3/base/atomic_file.h"
#include "dsv3/formats/dcp_metadata.h"
#include "dsv3/formats/dcp_names.h"
#include "formats/pickles.h"
#include "support/files.h"

namespace dsv3 {
namespace {

using namespace dcp;

constexpr int64_t kChunks = 180'000;
constexpr int64_t kRows = 16, kCols = 2048, kLength = 131'520;

std::string key_of(int64_t tensor) {
  return fmt::format("optim.state.model.layers.{}.mlp.experts.{}.down_proj.weight.exp_avg", tensor % 61,
                     tensor);
}
std::string file_of(int64_t chunk) { return fmt::format("__{}_0.distcp", chunk % 64); }

// Tensors of `per_tensor` chunks, each some rows.
DcpMetadata large(int64_t per_tensor) {
  DcpMetadata out;
  for (int64_t i = 0; i < kChunks / per_tensor; ++i) {
    DcpTensor& tensor = out.tensors.emplace_back();
    tensor.key = key_of(i);
    tensor.shape = {kRows * per_tensor, kCols};
    tensor.path = {tensor.key};
    for (int64_t c = 0; c < per_tensor; ++c) {
      const int64_t number = i * per_tensor + c;
      tensor.chunks.push_back({{c * kRows, 0},
                               {kRows, kCols},
                               file_of(number),
                               static_cast<uint64_t>(number * kLength),
                               static_cast<uint64_t>(kLength)});
    }
  }
  return out;
}

// The same, opcode by opcode as Python's pickler: every object goes into the memo, and the offsets of a chunk
// are one object with those of its MetadataIndex.
class PythonPickle {
 public:
  std::string write(int64_t per_tensor) {
    std::vector<uint32_t> offsets;
    begin(kMetadata);
    text("state_dict_metadata");
    dict();
    for (int64_t i = 0; i < kChunks / per_tensor; ++i) {
      text(key_of(i));
      begin(kTensor);
      text("properties");
      properties();
      text("size");
      size(kRows * per_tensor, kCols);
      text("chunks");
      out_ += "]\x94(";
      ++memo_;
      for (int64_t c = 0; c < per_tensor; ++c) {
        begin(kChunk);
        text("offsets");
        offsets.push_back(size(c * kRows, 0));
        text("sizes");
        size(kRows, kCols);
        end();
      }
      out_ += 'e';
      end();
    }
    out_ += 'u';
    text("planner_data");
    out_ += 'N';
    text("storage_data");
    dict();
    for (int64_t number = 0; number < kChunks; ++number) {
      begin(kIndex);
      text("fqn");
      text(key_of(number / per_tensor));
      text("offset");
      get(offsets[static_cast<size_t>(number)]);
      text("index");
      out_ += "K\x01";
      end();
      begin(kStorageInfo);
      text("relative_path");
      text(file_of(number));
      text("offset");
      out_ += "\x8a\x08" + test::little(number * kLength);
      text("length");
      out_ += "J" + test::little(static_cast<int32_t>(kLength));
      end();
    }
    out_ += 'u';
    end();
    return test::pickle_of(out_ + ".");
  }

 private:
  uint32_t put() {
    out_ += '\x94';
    return memo_++;
  }
  void get(uint32_t index) { out_ += "j" + test::little(index); }
  void text(const std::string& value) {
    if (const auto it = known_.find(value); it != known_.end()) return get(it->second);
    out_ += test::pickle_text(value);
    known_[value] = put();
  }
  void global(std::string_view name) {
    if (const auto it = known_.find(name); it != known_.end()) return get(it->second);
    out_ += test::pickle_global(std::string(name));
    known_[std::string(name)] = put();
  }
  void dict() {
    out_ += '}';
    put();
    out_ += '(';
  }
  void begin(std::string_view name) {
    global(name);
    out_ += ")\x81";
    put();
    dict();
  }
  void end() { out_ += "ub"; }
  uint32_t size(int64_t rows, int64_t cols) {
    global(kSize);
    for (const int64_t dim : {rows, cols}) out_ += "J" + test::little(static_cast<int32_t>(dim));
    out_ += '\x86';
    put();
    out_ += '\x85';
    put();
    out_ += 'R';
    return put();
  }
  void properties() {
    global(kProperties);
    out_ += ")\x81";
    put();
    out_ += '(';
    global("torch float32");
    global(kGetLayout);
    text("torch.strided");
    out_ += "\x85\x94R\x94\x89";
    memo_ += 2;
    global(kMemoryFormat);
    out_ += "K" + test::little(uint8_t{0}) + "\x85\x94R\x94\x89t\x94" + "b";
    memo_ += 3;
  }

  std::string out_;
  uint32_t memo_ = 0;
  std::map<std::string, uint32_t, std::less<>> known_;
};

class DcpMetadataLarge : public testing::TestWithParam<int64_t> {
 protected:
  // Reads it in less than 300 MB.
  void expect_read(const std::string& name) {
    ::malloc_trim(0);
    test::reset_peak();
    const int64_t before = test::memory_status("VmRSS:");
    const double start = test::cpu_seconds();
    const DcpMetadata read = read_dcp_metadata(dir_ / name);
    const int64_t peak = test::memory_status("VmHWM:") - before;
    RecordProperty("peak_mb", static_cast<int>(peak >> 20));
    RecordProperty("ms", static_cast<int>((test::cpu_seconds() - start) * 1000));
    if (!test::has_sanitizers()) {
      EXPECT_LT(peak, 300 << 20);
    }
    ASSERT_EQ(read.tensors.size(), static_cast<size_t>(kChunks / GetParam()));
    const DcpTensor& last = read.tensors.back();
    ASSERT_EQ(last.chunks.size(), static_cast<size_t>(GetParam()));
    EXPECT_EQ(last.chunks.back().sizes, (std::vector<int64_t>{kRows, kCols}));
    EXPECT_EQ(last.chunks.back().offset % kLength, 0u);
  }
  test::TempDir dir_;
};

TEST_P(DcpMetadataLarge, OursTakesLittleMemory) {
  write_atomically(dir_ / ".metadata", write_dcp_metadata(large(GetParam())));
  expect_read(".metadata");
}

TEST_P(DcpMetadataLarge, PythonsTakesLittleMemory) {
  write_atomically(dir_ / ".metadata", PythonPickle().write(GetParam()));
  expect_read(".metadata");
}

INSTANTIATE_TEST_SUITE_P(ChunksOfATensor, DcpMetadataLarge, testing::Values(1, 60));

}  // namespace
}  // namespace dsv3
