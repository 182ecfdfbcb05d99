// Hostile items of a distributed checkpoint, a case a way: each is refused with file and record, exit code 3,
// in under a second and 64 MB.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "dsv3/formats/torch_item.h"
#include "dsv3/formats/zip.h"
#include "formats/archives.h"
#include "support/files.h"

namespace dsv3 {
namespace {

using test::Archive;
using test::raw;
using V = PickleValue;
using Records = std::vector<test::ArchiveRecord>;

class TorchItemHostile : public testing::Test {
 protected:
  static std::span<const std::byte> bytes(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
  }
  // A sound archive of a tensor [2] of f32 in the ZIP records of the test's own writer.
  static std::string pickle_of(std::vector<V> args,
                               std::string_view callable = "torch._utils _rebuild_tensor_v2") {
    return write_pickle(V::of_call(callable, std::move(args)));
  }
  static V storage(int64_t numel, std::string_view type = "torch FloatStorage") {
    return V::of_persistent(V::of_tuple(
        {V::of_text("storage"), V::of_global(type), V::of_text("0"), V::of_text("cpu"), V::of_int(numel)}));
  }
  static V tuple(std::initializer_list<int64_t> values) {
    std::vector<V> items;
    for (const int64_t value : values) items.push_back(V::of_int(value));
    return V::of_tuple(items);
  }
  static std::vector<V> arguments(V from, int64_t offset, V shape, V strides) {
    return {std::move(from),    V::of_int(offset), std::move(shape),
            std::move(strides), V::of_bool(false), V::of_dict({})};
  }
  static Archive archive(const std::string& pickle, const std::string& data = "12345678") {
    return Archive(
        {{"a/data.pkl", pickle}, {"a/byteorder", "little"}, {"a/data/0", data}, {"a/version", "3\n"}});
  }
  static Archive sound() { return archive(pickle_of(arguments(storage(2), 0, tuple({2}), tuple({1})))); }

  TorchTensor read(std::string_view archive) {
    test::write_file(dir_ / "x.distcp", archive);
    const InputFile file(dir_ / "x.distcp");
    const TorchTensor tensor = read_torch_tensor(file, 0, file.size(), "w");
    check_torch_tensor(file, tensor, "w");
    return tensor;
  }
  void refuse(std::string_view archive, std::string_view part) {
    test::expect_input_error({"x.distcp: w", part}, [&] { read(archive); });
  }
  void refuse(const Archive& archive, std::string_view part) { refuse(archive.bytes(), part); }
  void refuse_pickle(const std::string& pickle, std::string_view part, const std::string& data = "12345678") {
    refuse(archive(pickle, data), part);
  }
  test::TempDir dir_;
};

TEST_F(TorchItemHostile, TheSoundOneIsRead) {
  EXPECT_EQ(read(sound().bytes()).shape, (std::vector<int64_t>{2}));
}

TEST_F(TorchItemHostile, Row61RangeOutsideOfTheFile) {
  const std::string archive = sound().bytes();
  test::write_file(dir_ / "x.distcp", archive);
  const InputFile file(dir_ / "x.distcp");
  for (const auto& [offset, length] : std::vector<std::pair<uint64_t, uint64_t>>{
           {0, archive.size() + 1}, {1, archive.size()}, {~0ull, 2}, {2, ~0ull}, {1ull << 62, 5}}) {
    test::expect_input_error({"x.distcp: w zip: bytes "},
                             [&] { read_torch_tensor(file, offset, length, "w"); });
  }
  for (uint64_t length = 0; length < archive.size(); ++length) {
    EXPECT_THROW(read_torch_tensor(file, 0, length, "w"), InputError) << length;
  }
}

TEST_F(TorchItemHostile, Row63CrcMismatch) {
  const std::string sane = sound().bytes();
  for (size_t i = 0; i < sane.size(); ++i) {
    std::string damaged = sane;
    damaged[i] = static_cast<char>(damaged[i] ^ 1 << i % 8);
    test::write_file(dir_ / "x.distcp", damaged);
    const InputFile file(dir_ / "x.distcp");
    try {
      const TorchTensor tensor = read_torch_tensor(file, 0, file.size(), "w");
      check_torch_tensor(file, tensor, "w");
      // The times, versions and attributes of a record mean nothing here.
      std::string data(tensor.size, '\0');
      file.read(std::as_writable_bytes(std::span(data)), tensor.begin);
      EXPECT_EQ(data, "12345678") << i;
      EXPECT_EQ(tensor.dtype, DType::f32) << i;
    } catch (const InputError&) {
    }
  }
  std::string damaged = sane;
  damaged[damaged.find("12345678")] = '0';
  refuse(damaged, "w: CRC 0x");
  damaged = sane;
  damaged[damaged.find("little")] = 'L';
  refuse(damaged, "w a/byteorder: CRC 0x");
  damaged = sane;
  damaged[damaged.find("3\n")] = '4';
  refuse(damaged, "w a/version: CRC 0x");
  damaged = sane;
  damaged[damaged.find("FloatStorage") + 11] = 'E';
  refuse(damaged, "w a/data.pkl: CRC 0x");
}

TEST_F(TorchItemHostile, Row64LocalHeaderDiffersFromTheCentralOne) {
  const auto changed = [&](auto change) {
    Archive archive = sound();
    change(archive.parts[2].local);
    return archive.bytes();
  };
  using Local = zip::LocalHeader;
  refuse(changed([](Local& h) { h.signature ^= 1; }), "w a/data/0: its local header differs");
  refuse(changed([](Local& h) { h.crc ^= 1; }), "a/data/0: its local header differs");
  refuse(changed([](Local& h) { h.size ^= 1; }), "a/data/0: its local header differs");
  refuse(changed([](Local& h) { h.stored_size ^= 1; }), "a/data/0: its local header differs");
  refuse(changed([](Local& h) { h.method = 8; }), "a/data/0: its local header differs");
  refuse(changed([](Local& h) { h.flags = zip::kFlagDescriptor; }), "a/data/0: its local header differs");
  refuse(changed([](Local& h) { h.name_size -= 1; }), "a/data/0: its local header differs");
  refuse(changed([](Local& h) { h.extra_size = 1; }), "w a/version: begins at");
  refuse(changed([](Local& h) { h.crc = h.size = h.stored_size = 0; }), "a/data/0: its local header differs");
  std::string renamed = sound().bytes();
  renamed[renamed.find("a/data/0") + 7] = '1';
  refuse(renamed, "a/data/0: its local header has another name");
  // A descriptor after the data, as torch.save writes it, of either width.
  for (const bool wide : {false, true}) {
    for (const bool wrong : {false, true}) {
      Archive archive = sound();
      auto& part = archive.parts[3];
      part.local.flags = part.central.flags = zip::kFlagDescriptor;
      const uint32_t crc = part.local.crc ^ static_cast<uint32_t>(wrong);
      part.local.crc = part.local.size = part.local.stored_size = 0;
      part.descriptor = wide ? raw(zip::Descriptor<uint64_t>{.crc = crc, .stored_size = 2, .size = 2})
                             : raw(zip::Descriptor<uint32_t>{.crc = crc, .stored_size = 2, .size = 2});
      if (wrong) {
        refuse(archive, "w a/version: its data descriptor differs");
      } else {
        read(archive.bytes());
      }
    }
  }
}

TEST_F(TorchItemHostile, Row65GigabytesClaimed) {
  for (const uint32_t size : {2'200'000'000u, 0xffffffffu, 9u}) {
    Archive archive = sound();
    for (auto* field : {&archive.parts[2].local.size, &archive.parts[2].local.stored_size,
                        &archive.parts[2].central.size, &archive.parts[2].central.stored_size}) {
      *field = size;
    }
    refuse(archive, size == 9 ? "w a/version: begins at" : "w a/data/0: ");
  }
  Archive storage_claim =
      archive(pickle_of(arguments(storage(550'000'000), 0, tuple({550'000'000}), tuple({1}))));
  refuse(storage_claim, "w data.pkl: a storage of 550000000 elements, its record has 8 bytes");
}

TEST_F(TorchItemHostile, Row66Deflate) {
  Archive archive = sound();
  archive.parts[2].central.method = archive.parts[2].local.method = 8;
  refuse(archive, "w a/data/0: compressed by method 8, expected stored");
  archive = sound();
  archive.parts[2].central.size = 1 << 30;
  refuse(archive, "w a/data/0: stored as 8 bytes, but of 1073741824 bytes");
  archive = sound();
  archive.parts[2].central.flags = 1;
  refuse(archive, "w a/data/0: is encrypted");
  archive = sound();
  archive.parts[2].central.flags = 1 << 13;
  refuse(archive, "w a/data/0: flags 0x2000");
}

TEST_F(TorchItemHostile, Row67NumelDiffersFromTheRecord) {
  const auto of = [&](int64_t numel) {
    return pickle_of(arguments(storage(numel), 0, tuple({2}), tuple({1})));
  };
  for (const int64_t numel : {int64_t{1}, int64_t{3}, int64_t{0}, int64_t{1} << 62}) {
    refuse_pickle(of(numel), fmt::format("w data.pkl: a storage of {} elements", numel));
  }
  refuse_pickle(of(-1), "w data.pkl: a tensor of no storage");
  refuse_pickle(of(2), "w data.pkl: a storage of 2 elements, its record has 7 bytes", "1234567");
}

TEST_F(TorchItemHostile, Row68StrideOrOffsetOutsideTheStorage) {
  const auto of = [&](int64_t offset, V shape, V strides) {
    return pickle_of(arguments(storage(2), offset, std::move(shape), std::move(strides)));
  };
  refuse_pickle(of(1, tuple({2}), tuple({1})), "w data.pkl: shape [2] at element 1 lies outside");
  refuse_pickle(of(-1, tuple({2}), tuple({1})), "lies outside of the storage");
  refuse_pickle(of(INT64_MAX, tuple({2}), tuple({1})), "lies outside of the storage");
  refuse_pickle(of(3, tuple({0}), tuple({1})), "lies outside of the storage");
  refuse_pickle(of(0, tuple({3}), tuple({1})), "lies outside of the storage");
  refuse_pickle(of(0, tuple({2}), tuple({0})), "w data.pkl: strides [0] of shape [2] are not contiguous");
  refuse_pickle(of(0, tuple({1, 2}), tuple({1, 2})), "strides [1, 2] of shape [1, 2] are not contiguous");
  refuse_pickle(of(0, tuple({1ll << 62, 4}), tuple({4, 1})),
                "w data.pkl: a shape, strides or offset that are none");
  refuse_pickle(of(0, tuple({0, 1ll << 62, 4}), tuple({4, 4, 1})),
                "a shape, strides or offset that are none");
  refuse_pickle(of(0, tuple({-2}), tuple({1})), "a shape, strides or offset that are none");
  refuse_pickle(of(0, tuple({2}), tuple({-1})), "a shape, strides or offset that are none");
  refuse_pickle(of(0, tuple({2}), tuple({})), "a shape, strides or offset that are none");
  refuse_pickle(of(0, V::of_int(2), tuple({1})), "a shape, strides or offset that are none");
  refuse_pickle(of(0, tuple({2, 2}), tuple({1, 2})), "lies outside of the storage");
  refuse_pickle(of(0, tuple({2, 2}), tuple({1, 1})), "strides [1, 1] of shape [2, 2] are not contiguous");
  refuse_pickle(of(0, tuple({1, 2, 2}), tuple({4, 1, 2})), "are not contiguous");
  // A view, and dims of 1 with any stride, are sound.
  EXPECT_EQ(read(archive(of(1, tuple({1, 1}), tuple({77, 5}))).bytes()).size, 4u);
}

TEST_F(TorchItemHostile, Row69Zip64BeyondTheEndAndTwoEnds) {
  Archive archive = sound();
  archive.parts[2].central.size = archive.parts[2].central.stored_size = zip::kSee64;
  for (const uint64_t size : {1ull << 40, ~0ull, 0xffffffffull}) {
    archive.parts[2].central_extra = raw(zip::ExtraHeader{zip::kExtraZip64, 16}) + raw(size) + raw(size);
    archive.parts[2].central.extra_size = 20;
    refuse(archive, "w a/data/0: ");
  }
  archive.parts[2].central_extra = raw(zip::ExtraHeader{zip::kExtraZip64, 400});
  archive.parts[2].central.extra_size = 4;
  refuse(archive, "w a/data/0: a broken extra field");

  const std::string sane = sound().bytes();
  refuse(sane + sane.substr(sane.size() - sizeof(zip::End)), "w zip end: directory of");
  refuse(sane + "x", "w zip end: no end-of-directory record");
  refuse(sane + sane, "w zip end: directory of");
  archive = sound();
  archive.before_directory = "hole";
  refuse(archive, "w zip directory: begins at");
  archive = sound();
  archive.end.comment_size = 1;
  refuse(archive.bytes() + "c", "w zip end: no end-of-directory record");
  refuse(archive, "w zip end: no end-of-directory record");
  archive = sound();
  archive.end.disk = 1;
  refuse(archive, "w zip end: an archive on several disks");
  archive = sound();
  archive.end.entries = 1;
  refuse(archive, "w zip directory: 4 entries, the end record says 5");
  archive = sound();
  archive.after_directory = raw(zip::End64{}) + raw(zip::Locator64{.end64_offset = 1ull << 60});
  refuse(archive, "w zip end: the ZIP64 end record is said to be at 1152921504606846976");
}

TEST_F(TorchItemHostile, Row70DuplicateRecord) {
  const auto pickle = pickle_of(arguments(storage(2), 0, tuple({2}), tuple({1})));
  refuse(Archive(Records{{"a/data.pkl", pickle}, {"a/data/0", "12345678"}, {"a/data/0", "87654321"}}),
         "w a/data/0: two records of that name");
  Archive shared = sound();
  shared.parts[3].central.local_offset = shared.parts[2].central.local_offset;
  refuse(shared, "w a/version: begins at");
  refuse(Archive(Records{{"a/data.pkl", pickle}, {"a/data/0", "12345678"}, {"a/data/1", "x"}}),
         "a/data/1: is part of nothing");
  refuse(Archive(Records{{"a/data.pkl", pickle}, {"b/data/0", "12345678"}}), "w b/data/0: is not in a/");
  refuse(Archive(Records{{"a/data.pkl", pickle}}), "w data/0: no such record");
  refuse(Archive(Records{{"a/version", "3"}}), "w data.pkl: no such record");
  refuse(Archive(Records{{"data.pkl", pickle}}), "w zip: no archive of torch.save");
  refuse(Archive(Records{}), "w zip: no archive of torch.save");
  refuse(Archive(Records{{"a/data.pkl", pickle}, {"a/byteorder", "big"}}), "w byteorder: \"big\"");
  refuse(Archive(Records{{"a/\x1b[31m", ""}}), "a name that cannot be printed");
}

TEST_F(TorchItemHostile, OtherPickles) {
  const auto with = [&](V from) { return pickle_of(arguments(std::move(from), 0, tuple({2}), tuple({1}))); };
  refuse_pickle(write_pickle(V::of_int(1)), "w data.pkl: is no tensor");
  refuse_pickle(with(storage(2, "torch ComplexFloatStorage")), "data.pkl byte ");
  refuse_pickle(with(storage(8, "torch.storage UntypedStorage")), "is not supported");
  refuse_pickle(with(V()), "a tensor of no storage");
  auto args = arguments(storage(8, "torch.storage UntypedStorage"), 0, tuple({2}), tuple({1}));
  args.push_back(V::of_global("torch.storage UntypedStorage"));
  refuse_pickle(pickle_of(args, "torch._utils _rebuild_tensor_v3"), "is not supported");
  args.back() = V::of_text("torch uint32");
  refuse_pickle(pickle_of(args, "torch._utils _rebuild_tensor_v3"), "is not supported");
  args.back() = V::of_global("torch uint32");
  EXPECT_EQ(read(archive(pickle_of(args, "torch._utils _rebuild_tensor_v3")).bytes()).dtype, DType::u32);
  // An object's archive holds no globals, nor storages.
  test::write_file(dir_ / "x.distcp", sound().bytes());
  const InputFile file(dir_ / "x.distcp");
  test::expect_input_error(
      {"x.distcp: w data.pkl byte", "global torch._utils _rebuild_tensor_v2 is not allowed"},
      [&] { read_torch_object(file, 0, file.size(), "w"); });
}

}  // namespace
}  // namespace dsv3
