#pragma once
// How often each word of a text occurs: all that learning a byte-level BPE needs to know of it.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dsv3/data/pretokenizer.h"
#include "dsv3/data/text_inputs.h"

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

struct CountOptions {
  int threads = 1;                // that split text; the result is the same for any number
  std::string text_key = "text";  // of the objects of .jsonl: where the text stands
  int64_t max_bad = 0;            // so many lines that are no text are skipped
  std::function<void(const std::string&)> on_bad_line = {};  // told each of them: "FILE:LINE: WHY"
  // Called now and then with how many bytes of the inputs are read of how many; 0: nobody knows.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

struct CountedText {
  WordCounts words = {};
  uint64_t bytes = 0;     // of text
  int64_t bad_lines = 0;  // skipped
};

// The words of inputs as splitter cuts them; a file of text and a line of others is a text by itself. Each
// thread has a table of its own. A file of text is read in pieces of up to 512 kB: a piece ends before a line
// or before a space with an ASCII letter behind it, where the patterns of `tokenizer train` end a word in any
// context: the words are those of the files as wholes. Where 256 kB have neither, as Chinese on one line, it
// ends at any character, and a word may be cut in two. InputError: {file, "byte N"} of the first text that is
// no UTF-8, a bad line too many, what open_bytes() refuses. splitter has no step that adds a prefix.
CountedText count_words(const std::vector<TextInput>& inputs, const PreTokenizer& splitter,
                        const CountOptions& options);

}  // namespace dsv3
