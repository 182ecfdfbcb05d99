// Hostile .metadata files, a case a way: each is refused with file and key, exit code 3, in under a second
// and 64 MB.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "dsv3/base/atomic_file.h"
#include "dsv3/formats/dcp_metadata.h"
#include "dsv3/formats/dcp_names.h"
#include "dsv3/formats/pickle.h"
#include "formats/pickles.h"
#include "support/files.h"

namespace dsv3 {
namespace {

using namespace dcp;
using test::little;
using test::pickle_global;
using test::pickle_text;
using V = PickleValue;
using Fields = std::vector<std::pair<V, V>>;

V text(std::string_view value) { return V::of_text(value); }
V instance(std::string_view global, Fields fields) {
  return V::of_instance(global, V::of_dict(std::move(fields)));
}
V size(std::initializer_list<int64_t> dims) {
  std::vector<V> items;
  for (const int64_t dim : dims) items.push_back(V::of_int(dim));
  return V::of_call(kSize, {V::of_tuple(items)});
}
V chunk(std::initializer_list<int64_t> offsets, std::initializer_list<int64_t> sizes) {
  return instance(kChunk, {{text("offsets"), size(offsets)}, {text("sizes"), size(sizes)}});
}
V properties(std::string_view dtype = "torch float32", std::string_view layout = "torch.strided") {
  return V::of_instance(
      kProperties,
      V::of_tuple({V::of_global(dtype), V::of_call(kGetLayout, {text(layout)}), V::of_bool(false),
                   V::of_call(kMemoryFormat, {V::of_int(0)}), V::of_bool(false)}));
}
V tensor(V shape, std::vector<V> chunks, V with = properties()) {
  return instance(kTensor, {{text("properties"), std::move(with)},
                            {text("size"), std::move(shape)},
                            {text("chunks"), V::of_list(std::move(chunks))}});
}
V index(std::string_view key, V offset) {
  return instance(kIndex,
                  {{text("fqn"), text(key)}, {text("index"), V()}, {text("offset"), std::move(offset)}});
}
V info(V file, V offset = V::of_int(0), V length = V::of_int(9)) {
  return instance(kStorageInfo, {{text("relative_path"), std::move(file)},
                                 {text("offset"), std::move(offset)},
                                 {text("length"), std::move(length)}});
}

// The fields of a sound Metadata: a tensor w [4, 2] in two chunks, an object o.
struct Parts {
  Fields entries{{text("w"), tensor(size({4, 2}), {chunk({0, 0}, {2, 2}), chunk({2, 0}, {2, 2})})},
                 {text("o"), V::of_instance(kBytes, V())}};
  Fields paths{{text("w"), V::of_tuple({text("w")})}, {text("o"), V::of_tuple({text("o")})}};
  Fields storage{{index("w", size({0, 0})), info(text("a"))},
                 {index("w", size({2, 0})), info(text("b"))},
                 {index("o", V()), info(text("a"), V::of_int(9))}};
  Fields more{{text("version"), text("1.0.0")}};

  std::string bytes() const {
    Fields all = more;
    all.emplace_back(text("state_dict_metadata"), V::of_dict(entries));
    all.emplace_back(text("planner_data"), V::of_dict(paths));
    all.emplace_back(text("storage_data"), V::of_dict(storage));
    return write_pickle(instance(kMetadata, all));
  }
};

class DcpMetadataHostile : public testing::Test {
 protected:
  DcpMetadata read(std::string_view bytes) {
    return read_dcp_metadata(test::write_file(dir_ / ".metadata", bytes));
  }
  void refuse_bytes(std::string_view bytes, std::string_view part) {
    test::write_file(dir_ / ".metadata", bytes);
    test::expect_input_error({"/.metadata: ", part}, [&] { read_dcp_metadata(dir_ / ".metadata"); });
  }
  void refuse(const Parts& parts, std::string_view part) { refuse_bytes(parts.bytes(), part); }
  // Refused with this as the chunks of w.
  void refuse_chunks(V shape, const std::vector<V>& chunks, std::string_view part) {
    Parts parts;
    parts.entries[0].second = tensor(std::move(shape), chunks);
    refuse(parts, part);
  }
  test::TempDir dir_;
};

TEST_F(DcpMetadataHostile, TheSoundOneIsRead) {
  EXPECT_EQ(read(Parts().bytes()).tensors[0].chunks[1].file, "b");
  Parts old;
  old.more.clear();
  EXPECT_EQ(read(old.bytes()).objects[0].offset, 9u);
  // planner_data of an object that another rank had and nobody saved.
  old.paths.emplace_back(text("other"), V::of_tuple({text("other")}));
  read(old.bytes());
}

TEST_F(DcpMetadataHostile, Row51To58ThePickleItself) {
  refuse_bytes("\x80\x04" + pickle_global("os system") + "(" + pickle_text("true") + "tR.",
               "byte 2: global os system is not allowed");
  refuse_bytes("\x80\x04)Q.", "byte 3: a reference to a storage, where none belongs");
  refuse_bytes("\x80\x02N.", "is no metadata of a distributed checkpoint");
  refuse_bytes("", "byte 0: the pickle ends before STOP");
}

TEST_F(DcpMetadataHostile, Row57SharedPartsAreNotWalkedAgainAndAgain) {
  // Tensors that share a list of chunks, which stands where paths belong: 10,000 times 10,000.
  constexpr int kMany = 10'000;
  const std::string put = "r" + little(0u), get = "j" + little(0u);
  std::string shared = "\x80\x02" + pickle_global(std::string(kMetadata)) + ")\x81}(" +
                       pickle_text("planner_data") + "]" + put + "(";
  const std::string chunk = pickle_global(std::string(kChunk)) + ")\x81";
  for (int i = 0; i < kMany; ++i) shared += chunk;
  shared += "e" + pickle_text("state_dict_metadata") + "}(";
  const std::string with = pickle_text("properties") + pickle_global(std::string(kProperties)) + ")\x81(" +
                           pickle_global("torch int8") + pickle_global(std::string(kGetLayout)) +
                           pickle_text("torch.strided") + "\x85R\x89N\x89tb" + pickle_text("size") + ")" +
                           pickle_text("chunks") + get;
  for (int i = 0; i < kMany; ++i) {
    shared +=
        pickle_text(fmt::format("{:06}", i)) + pickle_global(std::string(kTensor)) + ")\x81}(" + with + "ub";
  }
  refuse_bytes(shared + "u" + pickle_text("storage_data") + "}ub.", "000000: more chunks than storage_data");

  Parts parts;
  const std::string key(4096, 'k');
  const V twin = text(key);
  for (int i = 0; i < 20'000; ++i) parts.entries.emplace_back(twin, parts.entries[1].second);
  refuse(parts, "duplicate key");
  parts = Parts();
  parts.paths[0].second = V::of_tuple(std::vector<V>(100'000, text("w")));
  refuse(parts, "w: planner_data: a path that does not spell the key");
}

TEST_F(DcpMetadataHostile, Row59RelativePath) {
  for (const char* name : {"../a", "/etc/passwd", "a/b", "..", ".", "", "a\nb", "\x1b[31m", "a/"}) {
    Parts parts;
    parts.storage[1].second = info(text(name));
    refuse(parts, "w: relative_path \"");
  }
  Parts parts;
  parts.storage[1].second = info(text(std::string(256, 'a')));
  refuse(parts, "is no plain file name");
  parts.storage[1].second = info(V::of_int(1));
  refuse(parts, "w: storage_data without relative_path");
}

TEST_F(DcpMetadataHostile, Row60Chunks) {
  const V first = chunk({0, 0}, {2, 2});
  refuse_chunks(size({4, 2}), {first, chunk({1, 0}, {2, 2})}, "w: chunks at [0, 0] and [1, 0] overlap");
  refuse_chunks(size({4, 2}), {first, chunk({3, 0}, {1, 2})}, "w: chunks hold 6 elements of the 8");
  refuse_chunks(size({4, 2}), {first, chunk({2, 0}, {3, 2})}, "w: chunk of [3, 2] at [2, 0] lies outside");
  refuse_chunks(size({4, 2}), {first, chunk({INT64_MAX, 0}, {2, 2})},
                "w: chunk of [2, 2] at [9223372036854775807");
  refuse_chunks(size({4, 2}), {first, chunk({2}, {2})}, "w: chunk of [2] at [2] lies outside");
  refuse_chunks(size({4, 2}), {first, chunk({-2, 0}, {2, 2})}, "w: a chunk without offsets or sizes");
  refuse_chunks(size({4, 2}), {first, V()}, "w: a chunk that is none");
  refuse_chunks(size({4, 2}), {}, "w: has no chunks");
  refuse_chunks(size({4, 2}), std::vector<V>(4, first), "w: more chunks than storage_data");
  refuse_chunks(size({4, 2}), {first, chunk({2, 0}, {1, 2}), chunk({3, 0}, {1, 2})},
                "w: no storage_data for the chunk at [3, 0]");
  refuse_chunks(size({2, 2}), {first}, "w: storage_data of a chunk that the tensor does not have");
  refuse_chunks(size({1ll << 62, 4}), {first}, "w: a size that is none, or overflows");
  refuse_chunks(size({1ll << 61, 2}), {first}, "w: a size that is none, or overflows");
  refuse_chunks(size({0, 1ll << 62, 4}), {first}, "w: a size that is none, or overflows");
  refuse_chunks(V::of_tuple(std::vector<V>(65, V::of_int(1))), {first}, "w: a size that is none");
  Parts parts;
  parts.entries[0].second = tensor(size({0, 2}), {chunk({0, 0}, {0, 2}), chunk({0, 0}, {0, 2})});
  refuse(parts, "w: two chunks at [0, 0]");
}

TEST_F(DcpMetadataHostile, Row61Ranges) {
  for (const auto& [offset, length] :
       std::vector<std::pair<int64_t, int64_t>>{{-1, 9}, {0, -1}, {0, 0}, {INT64_MAX, 1}, {1, INT64_MAX}}) {
    Parts parts;
    parts.storage[1].second = info(text("b"), V::of_int(offset), V::of_int(length));
    refuse(parts, fmt::format("w: storage_data: bytes {} + {} of b", offset, length));
  }
  Parts parts;
  parts.storage[1].second = info(text("a"), V::of_int(8));
  refuse(parts, "bytes 8 + 9 of a are also those of w");
  parts.storage[1].second = info(text("b"), V::of_real(1));
  refuse(parts, "w: storage_data: bytes -1 + 9");
}

TEST_F(DcpMetadataHostile, Row62TruncatedOrBytesAfterTheEnd) {
  const std::string whole = Parts().bytes();
  for (size_t length = 0; length < whole.size(); length += 7) refuse_bytes(whole.substr(0, length), "byte ");
  refuse_bytes(whole + "x", "1 bytes after STOP");
}

TEST_F(DcpMetadataHostile, OtherFields) {
  Parts parts;
  parts.more[0].second = text("2.0.0");
  refuse(parts, "version: expected 1.0.0");
  parts = Parts();
  parts.more.emplace_back(text("extra"), V());
  refuse(parts, "an object with an unknown field");
  parts = Parts();
  parts.more.push_back(parts.more[0]);
  refuse(parts, "version twice");
  parts = Parts();
  parts.storage[0].second =
      instance(kStorageInfo, {{text("relative_path"), text("a")},
                              {text("offset"), V::of_int(0)},
                              {text("length"), V::of_int(9)},
                              {text("transform_descriptors"), V::of_list({text("zstd")})}});
  refuse(parts, "w: is stored transformed");
  parts = Parts();
  parts.storage.push_back({index("w", size({0, 0})), info(text("c"))});
  refuse(parts, "w: storage_data: one chunk twice");
  parts = Parts();
  parts.storage.push_back({index("x", V()), info(text("c"))});
  refuse(parts, "x: storage_data of a chunk that the tensor does not have");
  parts = Parts();
  parts.storage.pop_back();
  refuse(parts, "o: no storage_data");
  for (const char* key : {"", "a\x1b[31m", "a\nb"}) {
    parts = Parts();
    parts.entries[1].first = text(key);
    refuse(parts, "a key that is empty");
  }
  parts = Parts();
  parts.entries[1].second = V::of_int(1);
  refuse(parts, "o: is neither a tensor nor an object");
  for (const char* dtype : {"torch complex64", "torch float8_e5m2", "torch Size"}) {
    parts = Parts();
    parts.entries[0].second = tensor(size({2}), {}, properties(dtype));
    refuse(parts, fmt::format("w: dtype {} is not supported", dtype));
  }
  parts.entries[0].second = tensor(size({2}), {}, properties("torch int8", "torch.sparse_coo"));
  refuse(parts, "w: a layout that is not torch.strided");
  parts.entries[0].second = tensor(size({2}), {}, V());
  refuse(parts, "w: has no TensorProperties");
}

TEST_F(DcpMetadataHostile, Paths) {
  for (const V& path : {V::of_tuple({}), V::of_tuple({text("v")}), V::of_tuple({text("w"), text("w")}),
                        V::of_tuple({V::of_int(3)}), V::of_tuple({text("w"), text("")}), V(), text("w"),
                        V::of_tuple({V()})}) {
    Parts parts;
    parts.paths[0].second = path;
    refuse(parts, "w: planner_data: a path that does not spell the key");
  }
  Parts parts;
  parts.paths.push_back(parts.paths[0]);
  refuse(parts, "w: planner_data: duplicate key");
  parts = Parts();
  parts.paths.pop_back();
  refuse(parts, "o: no planner_data");
}

// As large as a checkpoint of 671B parameters gets: 90,000 tensors, cut in rows for 8 ranks.
TEST_F(DcpMetadataHostile, ManyTensorsAreReadFast) {
  DcpMetadata metadata;
  for (int i = 0; i < 90'000; ++i) {
    DcpTensor tensor;
    tensor.key = fmt::format("model.layers.{}.mlp.experts.weight", i);
    tensor.dtype = DType::bf16;
    tensor.shape = {16, 8};
    tensor.path = {tensor.key};
    for (int64_t rank = 0; rank < 2; ++rank) {
      tensor.chunks.push_back(
          {{8 * rank, 0}, {8, 8}, fmt::format("__{}_0.distcp", rank), static_cast<uint64_t>(i) * 640, 640});
    }
    metadata.tensors.push_back(std::move(tensor));
  }
  write_atomically(dir_ / ".metadata", write_dcp_metadata(metadata));
  metadata = {};
  const double begin = test::cpu_seconds();
  EXPECT_EQ(read_dcp_metadata(dir_ / ".metadata").tensors.size(), 90'000u);
  if (!test::has_sanitizers()) {
    EXPECT_LT(test::cpu_seconds() - begin, 5.0);
  }
}

}  // namespace
}  // namespace dsv3
