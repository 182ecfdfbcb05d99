// read_text(), read_lines(): inputs cut into jobs.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "dsv3/base/error.h"
#include "dsv3/data/text_job.h"

namespace dsv3 {
namespace {

class Reader {
 public:
  Reader(const TextInput& input, const TextPlace& from, const std::function<void(TextJob)>& add)
      : input_(input),
        add_(add),
        bytes_(open_bytes(input.path, input.compression, from.offset)),
        file_(std::make_shared<const std::string>(bytes_->name())),
        total_(from.offset),
        next_(from) {}

  void read(const TextRules& rules) {
    if (input_.format != TextFormat::text) {
      read_lines();
    } else if (rules.tokenizer.cuts_anywhere() && (rules.held_out == 0 || bytes_->size())) {
      read_pieces(rules);
    } else {
      read_whole();
    }
  }
  void read_lines() {
    std::string text;  // lines that are no job yet, the last cut anywhere
    for (std::string_view bytes = next(); !bytes.empty(); bytes = next()) {
      if (skipping_) {
        const size_t end = bytes.find('\n');
        if (end == bytes.npos) continue;
        bytes.remove_prefix(end + 1);
        skipping_ = false;
        next_.offset = total_ - bytes.size();
      }
      const size_t newline = bytes.rfind('\n');
      if (newline == bytes.npos) {
        text += bytes;
        if (text.size() > kMaxLineBytes) skip_line(text);
        continue;
      }
      text += bytes.substr(0, newline + 1);
      add_lines(std::move(text));
      text = bytes.substr(newline + 1);
    }
    if (!text.empty()) add_lines(std::move(text));
  }

  bool any() const { return total_ > 0; }

 private:
  TextJob job(TextJob::Kind kind, std::string_view text) const {
    return {.kind = kind, .file = file_, .text = std::string(text)};
  }

  void check_size(uint64_t size, uint64_t most) const {
    if (size <= most) return;
    throw InputError(*file_, "size",
                     fmt::format("{}{} bytes, expected at most {} in a document",
                                 bytes_->size() ? "" : "more than ", bytes_->size() ? size : most, most),
                     "--format lines makes a document of each line, split -C 64M smaller files");
  }

  std::string_view next() {
    const std::string_view bytes = bytes_->next();
    total_ += bytes.size();
    return bytes;
  }

  void read_pieces(const TextRules& rules) {
    check_size(bytes_->size().value_or(0), kMaxDocumentBytes);
    const uint64_t cut = bytes_->size() ? rules.cut(*bytes_->size()) : kMaxDocumentBytes;
    uint64_t at = 0;
    std::optional<TextPlace> begin = next_;
    for (std::string_view bytes = next(); !bytes.empty(); bytes = next()) {
      check_size(total_, kMaxDocumentBytes);
      const size_t train = std::min<uint64_t>(bytes.size(), cut - std::min(at, cut));
      add_piece(bytes.substr(0, train), TextJob::kTrain, begin);
      add_piece(bytes.substr(train), TextJob::kValid, begin);
      at += bytes.size();
    }
    if (total_ == 0) return;
    end_document(TextJob::kTrain);
    if (cut < total_) end_document(TextJob::kValid);
  }

  // begin: of the first piece of the document alone.
  void add_piece(std::string_view text, TextJob::Part part, std::optional<TextPlace>& begin) {
    if (text.empty()) return;
    TextJob piece = job(TextJob::Kind::piece, text);
    piece.piece.part = part;
    piece.begin = std::exchange(begin, std::nullopt);
    add_(std::move(piece));
  }

  // By a job of its own: that a piece was the last is known once there is no other.
  void end_document(TextJob::Part part) {
    TextJob end = job(TextJob::Kind::piece, "");
    end.piece = {.part = part, .ends = true};
    add_(std::move(end));
  }

  void read_whole() {
    TextJob document = job(TextJob::Kind::document, "");
    document.begin = next_;
    check_size(bytes_->size().value_or(0), kMaxWholeDocumentBytes);
    document.text.reserve(bytes_->size().value_or(0));
    for (std::string_view bytes = next(); !bytes.empty(); bytes = next()) {
      check_size(total_, kMaxWholeDocumentBytes);
      document.text += bytes;
    }
    if (total_ > 0) add_(std::move(document));
  }

  // Names the line before the rest of it is read: there may be no end to it.
  void skip_line(std::string& text) {
    TextJob line = job(TextJob::Kind::long_line, "");
    line.begin = next_;
    ++next_.line;
    add_(std::move(line));
    text = std::string();
    skipping_ = true;
  }

  void add_lines(std::string text) {
    const int64_t lines = std::count(text.begin(), text.end(), '\n');
    TextJob lines_job =
        job(input_.format == TextFormat::jsonl ? TextJob::Kind::json_lines : TextJob::Kind::lines, "");
    lines_job.begin = next_;
    next_.line += lines;
    next_.offset += text.size();
    lines_job.text = std::move(text);
    add_(std::move(lines_job));
  }

  const TextInput& input_;
  const std::function<void(TextJob)>& add_;
  std::unique_ptr<ByteSource> bytes_;
  std::shared_ptr<const std::string> file_;
  uint64_t total_;         // bytes read, and passed by
  TextPlace next_;         // of lines, the first that is no job yet
  bool skipping_ = false;  // the rest of a line that is too long
};

}  // namespace

bool read_text(const TextInput& input, const TextRules& rules, const TextPlace& from,
               const std::function<void(TextJob)>& add) {
  Reader reader(input, from, add);
  reader.read(rules);
  return reader.any();
}

bool read_lines(const TextInput& input, const TextPlace& from, const std::function<void(TextJob)>& add) {
  Reader reader(input, from, add);
  reader.read_lines();
  return reader.any();
}

}  // namespace dsv3
