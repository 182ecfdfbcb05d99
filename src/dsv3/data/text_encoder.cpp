// TextEncoder: jobs become ids.
#include <fmt/format.h>

#include "dsv3/base/error.h"
#include "dsv3/data/text_job.h"

namespace dsv3 {

TextEncoder::TextEncoder(const TextRules& rules) : rules_(rules), lines_(rules.text_key) {}

void TextEncoder::encode_piece(TextJob& job, std::string_view text, TextJob::Part part, bool ends,
                               std::string_view what) const {
  const size_t before = job.ids.size();
  rules_.tokenizer.encode(text, false, job.ids, what);
  if (ends) job.ids.push_back(rules_.eos);
  job.pieces.push_back({.part = part, .ends = ends, .ids = job.ids.size() - before, .bytes = text.size()});
}

void TextEncoder::encode_document(TextJob& job, std::string_view text, std::string_view what) const {
  size_t cut = rules_.cut(text.size());
  if (!rules_.tokenizer.cuts_anywhere()) {
    // Back to where a character begins; only so far as one is long.
    for (int i = 0; i < 3 && cut > 0 && cut < text.size() && (text[cut] & 0xC0) == 0x80; ++i) --cut;
  }
  if (cut > 0) encode_piece(job, text.substr(0, cut), TextJob::kTrain, true, what);
  if (cut == text.size()) return;
  encode_piece(job, text.substr(cut), TextJob::kValid, true,
               cut == 0 ? std::string(what) : fmt::format("{}: from byte {} on", what, cut));
}

void TextEncoder::encode(TextJob& job) {
  switch (job.kind) {
    case TextJob::Kind::piece:
      encode_piece(job, job.text, job.piece.part, job.piece.ends, *job.file);
      break;
    case TextJob::Kind::document:
      encode_document(job, job.text, *job.file);
      break;
    default:
      lines_.for_each(job, [&](std::string_view text) {
        const size_t ids = job.ids.size(), pieces = job.pieces.size();
        try {
          encode_document(job, text, "text");
        } catch (const InputError&) {
          job.ids.resize(ids);
          job.pieces.resize(pieces);
          throw;
        }
      });
  }
  job.text = std::string();
}

}  // namespace dsv3
