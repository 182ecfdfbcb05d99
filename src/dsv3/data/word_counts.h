#pragma once
// How often each word of a text occurs: all that learning a byte-level BPE needs to know of it.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "dsv3/data/pretokenizer.h"

namespace dsv3 {

// Words with their counts. Takes 48 bytes a word and the word's bytes.
class WordCounts {
 public:
  struct Word {
    const char* bytes = nullptr;
    uint32_t length = 0;  // 0: free, since no word is empty
    uint32_t hash = 0;
    int64_t count = 0;
    std::string_view text() const { return {bytes, length}; }
  };

  // word is below 4 GB and not empty; its bytes are copied.
  void add(std::string_view word, int64_t count);
  // Adds what other holds and empties it.
  void absorb(WordCounts& other);

  size_t size() const { return size_; }
  uint64_t bytes() const { return bytes_; }  // of all words, each once
  // Calls with each Word, in any order.
  template <class Call>
  void for_each(Call call) const {
    for (const Word& word : table_)
      if (word.length != 0) call(word);
  }

 private:
  Word& find(std::string_view word, uint32_t hash);
  const char* keep(std::string_view word);
  void grow();

  std::vector<Word> table_ = std::vector<Word>(1 << 10);  // open addressing, at most half full
  size_t size_ = 0;
  uint64_t bytes_ = 0;
  std::vector<std::unique_ptr<char[]>> blocks_;  // the words' bytes, which never move
  char* room_ = nullptr;
  size_t left_ = 0;  // bytes of room_
};

struct CountedText {
  WordCounts words;
  uint64_t bytes = 0;  // of all files
};

// Called now and then with how many bytes of how many are done, by one thread at a time.
using CountProgress = std::function<void(uint64_t done, uint64_t total)>;

// The words of files, each a text by itself, as splitter cuts them. Files are read in pieces of up to 512 kB
// by up to `threads` threads, each with a table of its own; a piece ends before a line or before a space with
// an ASCII letter behind it, where the patterns of known_pre_tokenizer() end a word in any context, and only
// where 256 kB have none at a character, which may cut a word in two. So the words are those of the files as
// wholes, and the same for any number of threads.
// InputError: {file, "byte N"} of the first text that is no UTF-8, a file that changes while it is read, one
// that is no regular file. splitter has no step that adds a prefix.
CountedText count_words(const std::vector<std::filesystem::path>& files, const PreTokenizer& splitter,
                        int threads, const CountProgress& progress = {});

}  // namespace dsv3
