// libFuzzer's entry to tokenizer.json: any bytes are read or throw dsv3::Error, and what is read encodes a
// text and decodes it.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "dsv3/base/error.h"
#include "dsv3/data/bpe_tokenizer.h"
#include "fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const dsv3::BpeTokenizer tokenizer(fuzz_file(data, size));
    std::vector<int32_t> ids;
    tokenizer.encode("Hello  world's 12345\n\n \xe4\xb8\xad\xe6\x96\x87 <think>word</think>!", true, ids);
    for (const int32_t id : ids)
      if (id < 0 || id >= tokenizer.vocab_size()) abort();
    tokenizer.decode(ids, false);
  } catch (const dsv3::Error&) {
  }
  return 0;
}
