// libFuzzer's entry to tokenizer.json: any bytes are read or throw dsv3::Error, and what is read encodes a
// text and decodes it.

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/data/bpe_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // One file of a private folder, rewritten each time: the reader takes a path.
  static const std::string folder = [] {
    char name[] = "/dev/shm/dsv3-fuzz-XXXXXX";
    if (mkdtemp(name) == nullptr) abort();
    return std::string(name);
  }();
  static const std::string path = folder + "/tokenizer.json";
  static const bool cleanup = std::atexit([] {
                                unlink(path.c_str());
                                rmdir(folder.c_str());
                              }) == 0;
  if (!cleanup) abort();
  const int file = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0 || write(file, data, size) != static_cast<ssize_t>(size)) abort();
  close(file);
  try {
    const dsv3::BpeTokenizer tokenizer(path);
    std::vector<int32_t> ids;
    tokenizer.encode("Hello  world's 12345\n\n \xe4\xb8\xad\xe6\x96\x87 <think>word</think>!", true, ids);
    for (const int32_t id : ids)
      if (id < 0 || id >= tokenizer.vocab_size()) abort();
    tokenizer.decode(ids, false);
  } catch (const dsv3::Error&) {
  }
  return 0;
}
