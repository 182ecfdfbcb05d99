#pragma once
// A stretch of text on its way to token files: read by one thread, encoded by any, written by one.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dsv3/data/text_inputs.h"
#include "dsv3/data/tokenizer.h"

namespace dsv3 {

constexpr uint64_t kMaxLineBytes = 16 << 20;            // a JSON parser holds 13 times as much
constexpr uint64_t kMaxWholeDocumentBytes = 64 << 20;   // where a document must be in memory as a whole
constexpr uint64_t kMaxDocumentBytes = 0x7fffffff - 1;  // .idx counts tokens, eos too, in int32

// A place in the inputs from which reading can go on: a document begins there.
struct TextPlace {
  uint64_t input = 0;        // its number
  uint64_t offset = 0;       // in its text, which is what decompressing gives
  int64_t line = 1;          // of lines
  int64_t empty_inputs = 0;  // before it
};

struct TextJob {
  enum class Kind {
    piece,       // of a document, for a tokenizer that cuts anywhere
    document,    // as a whole
    lines,       // of documents, ended by '\n', the last maybe not
    json_lines,  // the same, each of them a JSON object
    long_line,   // no text: a line that is longer than kMaxLineBytes
  };
  // Where documents go: all of them, or the part that is not held out, and the one that is.
  enum Part { kTrain = 0, kValid = 1 };
  struct Piece {
    Part part = kTrain;
    bool ends = false;  // the document, in this part
    size_t ids = 0;     // so many of TextJob::ids
    uint64_t bytes = 0;
  };
  struct BadLine {
    int64_t line = 0;  // from 1
    std::string why;
  };

  Kind kind = Kind::piece;
  std::shared_ptr<const std::string> file = {};  // for messages
  std::string text = {};
  std::optional<TextPlace> begin = {};  // nothing: inside of a document
  Piece piece = {};                     // of a piece: part and ends

  // By TextEncoder, LineTexts:
  std::vector<int32_t> ids = {};  // of all pieces, one behind the other, with eos where a document ends
  std::vector<Piece> pieces = {};
  std::vector<BadLine> bad = {};
  int64_t empty = 0;  // JSON objects whose text is empty
};

// How texts become ids.
struct TextRules {
  const Tokenizer& tokenizer;
  int32_t eos = 0;
  double held_out = 0;   // the fraction of each document's bytes that goes to kValid
  std::string text_key;  // of JSON objects

  // Where the held-out part of a document of this size begins.
  uint64_t cut(uint64_t size) const {
    return size - static_cast<uint64_t>(static_cast<double>(size) * held_out);
  }
};

// Cuts an input into jobs, from a place that a job of it has begun at or from its begin on, and hands them to
// add in order; memory stays bounded. False: it holds no byte.
// InputError: a document of more than kMaxDocumentBytes, or of more than kMaxWholeDocumentBytes that must be
// in memory: the tokenizer does not cut anywhere, or a part is held out of a text of unknown size.
bool read_text(const TextInput& input, const TextRules& rules, const TextPlace& from,
               const std::function<void(TextJob)>& add);

// The same of an input of lines: jobs of Kind lines, json_lines and long_line.
bool read_lines(const TextInput& input, const TextPlace& from, const std::function<void(TextJob)>& add);

// What lines hold; each thread has its own, because a JSON parser is inside.
class LineTexts {
 public:
  using Use = std::function<void(std::string_view text)>;

  explicit LineTexts(std::string text_key);
  ~LineTexts();
  LineTexts(LineTexts&&) noexcept;
  // Calls with the text of each line of a job that read_lines() has made; it is valid until then. A line that
  // is no document becomes a BadLine, also when use throws an InputError.
  void for_each(TextJob& job, const Use& use);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Encodes jobs; one for each thread.
class TextEncoder {
 public:
  explicit TextEncoder(const TextRules& rules);  // which outlives it
  // Fills what is encoded and drops the text. A line that is no document becomes a BadLine; InputError as
  // Tokenizer::encode for what is no line.
  void encode(TextJob& job);

 private:
  void encode_piece(TextJob& job, std::string_view text, TextJob::Part part, bool ends,
                    std::string_view what) const;
  void encode_document(TextJob& job, std::string_view text, std::string_view what) const;

  const TextRules& rules_;
  LineTexts lines_;
};

}  // namespace dsv3
