#include "dsv3/data/indexed_dataset.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "data/token_files.h"

namespace dsv3 {
namespace {

std::vector<int64_t> read_all(const IndexedDataset& set) {
  std::vector<int64_t> ids(set.num_tokens());
  set.read(0, ids);
  return ids;
}

TEST(IndexedDataset, ReadsWhatTheFormatSays) {
  TempDir dir;
  RawPair{}.write(dir / "a");
  IndexedDataset set(dir / "a");
  EXPECT_EQ(set.num_documents(), 2);
  EXPECT_EQ(read_all(set), (std::vector<int64_t>{10, 11, 12, 20, 21}));
  EXPECT_EQ(set.document_begin(0), 0);
  EXPECT_EQ(set.document_begin(1), 3);
  EXPECT_EQ(set.document_begin(2), 5);
  std::vector<int64_t> documents;
  for (int64_t token = 0; token < 5; ++token) documents.push_back(set.document_of(token));
  EXPECT_EQ(documents, (std::vector<int64_t>{0, 0, 0, 1, 1}));
}

TEST(IndexedDataset, ReadsInt32AndDocumentsOfSeveralSequencesAndEmptyOnes) {
  TempDir dir;
  RawPair pair{.dtype = 4,
               .lengths = {1, 1, 2},
               .pointers = {0, 4, 8},
               .documents = {0, 2, 2, 3},
               .sequences = 3,
               .entries = 4,
               .bin = raw<int32_t>({70000, 1, 2, 3})};
  pair.write(dir / "a");
  IndexedDataset set(dir / "a");
  EXPECT_EQ(set.num_documents(), 3);
  EXPECT_EQ(read_all(set), (std::vector<int64_t>{70000, 1, 2, 3}));
  EXPECT_EQ(set.document_of(1), 0);
  EXPECT_EQ(set.document_of(2), 2);  // document 1 is empty
}

TEST(IndexedDataset, ReadOutsideIsRefused) {
  TempDir dir;
  RawPair{}.write(dir / "a");
  IndexedDataset set(dir / "a");
  std::vector<int64_t> ids(2);
  set.read(3, ids);
  EXPECT_EQ(ids, (std::vector<int64_t>{20, 21}));
  expect_error(ExitCode::failed, {"a.bin", "2 tokens from 4 on, it has 5"}, [&] { set.read(4, ids); });
  expect_error(ExitCode::failed, {"a.bin"}, [&] { set.read(-1, ids); });
  expect_error(ExitCode::failed, {"a.bin"}, [&] { set.read(std::numeric_limits<int64_t>::max(), ids); });
}

TEST(IndexedDataset, MissingFilesAreNamed) {
  TempDir dir;
  expect_error(ExitCode::usage, {"none", "dsv3 prepare"}, [&] { IndexedDataset set(dir / "none"); });
  RawPair{}.write(dir / "a");
  expect_error(ExitCode::usage, {"a.bin", "without .bin"}, [&] { IndexedDataset set(dir / "a.bin"); });
  std::filesystem::remove(dir / "a.bin");
  expect_error(ExitCode::content, {"a.bin"}, [&] { IndexedDataset set(dir / "a"); });
  RawPair{}.write(dir / "a");
  std::filesystem::remove(dir / "a.idx");
  expect_error(ExitCode::content, {"a.idx"}, [&] { IndexedDataset set(dir / "a"); });
}

// Rows 73 to 78 of the hostile inputs; 77 is in loader_test.cpp.
void expect_refused(const RawPair& pair, std::initializer_list<std::string_view> parts) {
  TempDir dir;
  pair.write(dir / "a");
  expect_error(ExitCode::content, parts, [&] { IndexedDataset set(dir / "a"); });
}

TEST(IndexedDataset, Row73BadMagicVersionOrDtype) {
  RawPair magic, version, dtype;
  magic.magic[3] = '\x1b';
  expect_refused(magic, {"a.idx", "magic", "MMI\\x1bIDX"});
  version.version = 2;
  expect_refused(version, {"a.idx", "version", "2, expected 1"});
  dtype.dtype = 7;
  expect_refused(dtype, {"a.idx", "dtype", "7", "int32"});
}

TEST(IndexedDataset, Row73ShortHeader) {
  TempDir dir;
  for (size_t size = 0; size < 34; ++size) {
    RawPair{}.write(dir / "a");
    std::filesystem::resize_file(dir / "a.idx", size);
    expect_error(ExitCode::content, {"a.idx", "size"}, [&] { IndexedDataset set(dir / "a"); });
  }
}

TEST(IndexedDataset, Row74CountTimesSizeOverflows) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  // 2^64 / 12, / 8 and their sums wrap to small numbers, one of them to the true size.
  for (auto [sequences, entries] : std::vector<std::pair<uint64_t, uint64_t>>{{kMax, 3},
                                                                              {2, kMax},
                                                                              {kMax / 12 + 1, 3},
                                                                              {2, kMax / 8 + 1},
                                                                              {2, kMax / 8 + 4},
                                                                              {kMax / 12, kMax / 8}}) {
    RawPair pair;
    pair.sequences = sequences;
    pair.entries = entries;
    expect_refused(pair, {"a.idx", "counts", "more than 2^64", "the file has 82"});
  }
}

TEST(IndexedDataset, Row74CountsBeyondTheFileAllocateNothing) {
  RawPair pair;
  pair.sequences = uint64_t{1} << 40;
  expect_refused(pair, {"a.idx", "counts", "1099511627776 sequences"});
  pair = {};
  pair.documents.push_back(2);  // 8 bytes more than the counts say
  expect_refused(pair, {"a.idx", "counts"});
}

TEST(IndexedDataset, Row75PointersOutsideOrNotMonotonic) {
  RawPair pair;
  pair.pointers = {0, int64_t{1} << 40};
  expect_refused(pair, {"a.idx", "pointers[1]", "expected 6"});
  pair.pointers = {0, 4};  // overlaps
  expect_refused(pair, {"a.idx", "pointers[1]"});
  pair.pointers = {6, 0};
  expect_refused(pair, {"a.idx", "pointers[0]", "expected 0"});
  pair.pointers = {0, -6};
  expect_refused(pair, {"a.idx", "pointers[1]", "-6"});
  pair = {};
  pair.lengths = {3, -2};
  expect_refused(pair, {"a.idx", "lengths[1]", "-2"});
  pair.lengths = {3, std::numeric_limits<int32_t>::max()};
  expect_refused(pair, {"a.idx", "lengths[1]", "a.bin has 10"});
}

TEST(IndexedDataset, Row75DocumentIndicesOutsideOrNotMonotonic) {
  RawPair pair;
  pair.documents = {1, 1, 2};
  expect_refused(pair, {"a.idx", "document_indices[0]"});
  pair.documents = {0, 3, 2};
  expect_refused(pair, {"a.idx", "document_indices[1]", "3, expected 0 to 2"});
  pair.documents = {0, -1, 2};
  expect_refused(pair, {"a.idx", "document_indices[1]"});
  pair.documents = {0, 1, 1};
  expect_refused(pair, {"a.idx", "document_indices[2]", "expected 2"});
}

TEST(IndexedDataset, Row75FaultsBehindTheFirstScanBlockAreFound) {
  constexpr int kCount = 40000;  // scanned 16,384 at a time
  RawPair pair{.lengths = std::vector<int32_t>(kCount, 1),
               .pointers = std::vector<int64_t>(kCount),
               .documents = std::vector<int64_t>(kCount + 1),
               .sequences = kCount,
               .entries = kCount + 1,
               .bin = std::string(2 * kCount, '\0')};
  for (int i = 0; i < kCount; ++i) pair.pointers[i] = 2 * i;
  std::iota(pair.documents.begin(), pair.documents.end(), 0);
  TempDir dir;
  pair.write(dir / "a");
  EXPECT_EQ(IndexedDataset(dir / "a").document_of(39999), 39999);
  RawPair pointer = pair, document = pair;
  pointer.pointers[30000] += 2;
  expect_refused(pointer, {"pointers[30000]"});
  document.documents[16384] = 0;
  expect_refused(document, {"document_indices[16384]"});
}

TEST(IndexedDataset, Row76RaggedBin) {
  RawPair pair;
  pair.bin.pop_back();
  expect_refused(pair, {"a.bin", "size", "9 bytes", "multiple of the 2"});
  pair.bin.pop_back();  // whole ids, one too few
  expect_refused(pair, {"lengths[1]", "a.bin has 8"});
  pair = {};
  pair.bin += pair.bin;
  expect_refused(pair, {"a.bin", "20 bytes, its .idx describes 10"});
}

TEST(IndexedDataset, Row78ZeroDocuments) {
  RawPair pair{.lengths = {}, .pointers = {}, .documents = {0}, .sequences = 0, .entries = 1, .bin = {}};
  expect_refused(pair, {"a.idx", "documents", "no document"});
  pair.documents = {};
  pair.entries = 0;
  expect_refused(pair, {"a.idx", "documents"});
}

TEST(IndexedDataset, FilesThatShrinkWhileOpenAreAnErrorNotACrash) {
  TempDir dir;
  RawPair{}.write(dir / "a");
  IndexedDataset set(dir / "a");
  std::vector<int64_t> ids(5);
  std::filesystem::resize_file(dir / "a.bin", 4);
  expect_error(ExitCode::content, {"a.bin", "shrank"}, [&] { set.read(0, ids); });
  std::filesystem::resize_file(dir / "a.idx", 40);
  expect_error(ExitCode::content, {"a.idx", "shrank"}, [&] { set.document_of(4); });
}

TEST(IndexedDataset, IndexThatChangesWhileOpenIsAnError) {
  TempDir dir;
  RawPair pair;
  pair.write(dir / "a");
  IndexedDataset set(dir / "a");
  std::string idx = pair.idx();
  idx.replace(idx.size() - 16, 8, raw<int64_t>({int64_t{1} << 60}));
  write_file(dir / "a.idx", idx);
  expect_error(ExitCode::content, {"a.idx", "changed"}, [&] { set.document_begin(1); });
}

TEST(IndexedDatasetWriter, WritesTheLayoutOfTheFormat) {
  TempDir dir;
  IndexedDatasetWriter writer(dir / "a", 259);
  writer.add_document(std::vector<int32_t>{10, 11, 12});
  writer.append(std::vector<int32_t>{20});
  writer.append(std::vector<int32_t>{21});
  writer.end_document();
  for (const std::string& name : names(dir))
    EXPECT_NE(name.find(".tmp-"), name.npos) << name << ": only temporary files before finish()";
  writer.finish();
  RawPair expected;
  EXPECT_EQ(read_file(dir / "a.idx"), expected.idx());
  EXPECT_EQ(read_file(dir / "a.bin"), expected.bin);
  EXPECT_EQ(names(dir), (std::vector<std::string>{"a.bin", "a.idx"}));
  EXPECT_EQ(writer.sizes().documents, 2);
  EXPECT_EQ(writer.sizes().tokens, 5);
  EXPECT_EQ(writer.sizes().largest_id, 21);
  EXPECT_EQ(writer.sizes().longest_document, 3);
}

// More than the writer's buffers hold.
TEST(IndexedDatasetWriter, ManyDocuments) {
  TempDir dir;
  constexpr int64_t kDocuments = 300'001;
  IndexedDatasetWriter writer(dir / "a", 259);
  for (int64_t d = 0; d < kDocuments; ++d)
    writer.add_document(std::vector<int32_t>(d % 3, static_cast<int32_t>(d % 256)));
  writer.finish();
  IndexedDataset set(dir / "a");
  ASSERT_EQ(set.num_documents(), kDocuments);
  for (const int64_t d : {int64_t{0}, int64_t{65'537}, int64_t{262'145}, kDocuments - 1})
    EXPECT_EQ(set.document_begin(d), d / 3 * 3 + d % 3 * (d % 3 - 1) / 2) << d;
}

TEST(IndexedDatasetWriter, WidthFollowsTheVocabulary) {
  TempDir dir;
  for (int64_t vocab : {65536, 65537}) {
    IndexedDatasetWriter writer(dir / "a", vocab);
    writer.add_document(std::vector<int32_t>{65535, 0});
    writer.finish();
    EXPECT_EQ(read_file(dir / "a.bin").size(), vocab == 65536 ? 4u : 8u);
    EXPECT_EQ(read_all(IndexedDataset(dir / "a")), (std::vector<int64_t>{65535, 0}));
  }
}

TEST(IndexedDatasetWriter, LongDocumentsAndManyOnesComeBack) {
  TempDir dir;
  IndexedDatasetWriter writer(dir / "a", 70000);
  std::vector<int64_t> expected;
  std::vector<int32_t> ids;
  for (int d = 0; d < 3000; ++d) {
    ids.resize(d == 1000 ? 700000 : d % 7);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((d * 31 + i * 17) % 70000);
    expected.insert(expected.end(), ids.begin(), ids.end());
    writer.add_document(ids);
  }
  writer.finish();
  IndexedDataset set(dir / "a");
  EXPECT_EQ(set.num_documents(), 3000);
  EXPECT_EQ(set.document_begin(1001) - set.document_begin(1000), 700000);
  EXPECT_TRUE(read_all(set) == expected);
}

TEST(IndexedDatasetWriter, AbandonedLeavesNothingAndKeepsTheOldPair) {
  TempDir dir;
  RawPair{}.write(dir / "a");
  {
    IndexedDatasetWriter writer(dir / "a", 259);
    writer.add_document(std::vector<int32_t>{1});
  }
  EXPECT_EQ(names(dir), (std::vector<std::string>{"a.bin", "a.idx"}));
  EXPECT_EQ(read_file(dir / "a.idx"), RawPair{}.idx());
  IndexedDatasetWriter empty(dir / "a", 259);
  expect_error(ExitCode::content, {"a.idx", "documents"}, [&] { empty.finish(); });
  EXPECT_EQ(read_file(dir / "a.idx"), RawPair{}.idx());
}

TEST(IndexedDatasetWriter, ReplacesAnOldPair) {
  TempDir dir;
  RawPair{}.write(dir / "a");
  IndexedDatasetWriter writer(dir / "a", 259);
  writer.add_document(std::vector<int32_t>{7});
  writer.finish();
  EXPECT_EQ(read_all(IndexedDataset(dir / "a")), (std::vector<int64_t>{7}));
}

TEST(IndexedDatasetWriter, RefusesIdsOutsideTheVocabulary) {
  TempDir dir;
  IndexedDatasetWriter writer(dir / "a", 259);
  expect_error(ExitCode::content, {"a.bin", "token 1", "id 259, expected 0 to 258"}, [&] {
    writer.add_document(std::vector<int32_t>{258, 259});
  });
  expect_error(ExitCode::content, {"id -1"}, [&] { writer.append(std::vector<int32_t>{-1}); });
}

}  // namespace
}  // namespace dsv3
