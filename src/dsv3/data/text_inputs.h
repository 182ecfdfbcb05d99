#pragma once
// Which files `dsv3 prepare` and `dsv3 tokenizer train` read, and how each of them holds its documents.

#include <filesystem>
#include <string>
#include <vector>

#include "dsv3/data/byte_source.h"

namespace dsv3 {

enum class TextFormat {
  text,   // a document a file
  lines,  // a document a line
  jsonl,  // a document a line, which is a JSON object
};

struct TextInput {
  std::filesystem::path path;  // "-": standard input
  TextFormat format = TextFormat::text;
  Compression compression = Compression::none;
};

// format: "auto" goes by the names, .txt and .md as text, .jsonl, each of them also with .gz or .zst behind,
// and takes standard input as text; "text", "lines" and "jsonl" read every input so, whatever its name.
// Of a folder the files anywhere below are taken, sorted by path: those that match glob (fnmatch(3); against
// the path below the folder when it has a '/', else against the file's name), without one those whose names
// "auto" knows. Links to folders are not followed.
// UsageError: no input; one that does not exist or whose name says no format; "-" twice or an unknown format.
std::vector<TextInput> list_text_inputs(const std::vector<std::filesystem::path>& inputs,
                                        const std::string& format, const std::string& glob);

}  // namespace dsv3
