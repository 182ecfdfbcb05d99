#include "dsv3/data/added_tokens.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "dsv3/data/unicode.h"

namespace dsv3 {
namespace {

bool word_before(std::string_view text, size_t at) {
  size_t begin = unicode::char_before(text, at);
  return unicode::is_word(unicode::next_char(text, begin));
}
bool word_behind(std::string_view text, size_t at) { return unicode::is_word(unicode::next_char(text, at)); }

size_t spaces_begin(std::string_view text, size_t at, size_t least) {
  while (at > least) {
    const size_t before = unicode::char_before(text, at);
    size_t next = before;
    if (!unicode::is_space(unicode::next_char(text, next))) break;
    at = before;
  }
  return at;
}
size_t spaces_end(std::string_view text, size_t at) {
  while (at < text.size()) {
    size_t next = at;
    if (!unicode::is_space(unicode::next_char(text, next))) break;
    at = next;
  }
  return at;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, bool nfc) : tokens_(std::move(tokens)), nfc_(nfc) {
  std::ranges::sort(tokens_, {}, &AddedToken::shown);
  plain_ = make_trie(false);
  normalized_ = make_trie(true);
}

AddedTokens::Trie AddedTokens::make_trie(bool normalized) const {
  Trie trie;
  // A node still to be filled: its tokens are [begin, end) and agree in the first depth bytes.
  struct Open {
    size_t node, begin, end, depth;
  };
  std::vector<uint32_t> chosen;
  for (uint32_t i = 0; i < tokens_.size(); ++i)
    if (tokens_[i].normalized == normalized) chosen.push_back(i);
  const auto content = [&](size_t i) { return std::string_view(tokens_[chosen[i]].shown); };

  std::vector<Open> open = {{0, 0, chosen.size(), 0}};
  for (size_t done = 0; done < open.size(); ++done) {
    auto [node, begin, end, depth] = open[done];
    // Sorted: the token that ends here stands first.
    if (begin < end && content(begin).size() == depth)
      trie.nodes[node].token = static_cast<int32_t>(chosen[begin++]);
    trie.nodes[node].first_child = static_cast<uint32_t>(trie.nodes.size());
    while (begin < end) {
      const char byte = content(begin)[depth];
      const size_t first = begin;
      while (begin < end && content(begin)[depth] == byte) ++begin;
      ++trie.nodes[node].num_children;
      open.push_back({trie.nodes.size(), first, begin, depth + 1});
      trie.nodes.push_back({.byte = static_cast<uint8_t>(byte)});
    }
  }
  const Node& root = trie.nodes.front();
  for (size_t i = 0; i < root.num_children; ++i) trie.starts[trie.nodes[root.first_child + i].byte] = true;
  if (root.num_children == 1) trie.only_start = trie.nodes[root.first_child].byte;
  return trie;
}

int32_t AddedTokens::longest_at(const Trie& trie, std::string_view text, size_t at) {
  int32_t token = -1;
  const Node* node = &trie.nodes.front();
  for (; at < text.size(); ++at) {
    const auto first = trie.nodes.begin() + node->first_child;
    const auto last = first + node->num_children;
    const auto child = std::lower_bound(first, last, static_cast<uint8_t>(text[at]),
                                        [](const Node& a, uint8_t byte) { return a.byte < byte; });
    if (child == last || child->byte != static_cast<uint8_t>(text[at])) break;
    node = &*child;
    if (node->token >= 0) token = node->token;
  }
  return token;
}

// As find_matches() of `tokenizers`: a token that is not taken is skipped as a whole, and the white space
// that one has taken is still searched for the next.
template <class OnText, class OnToken>
void AddedTokens::scan(const Trie& trie, std::string_view text, OnText on_text, OnToken on_token) const {
  size_t text_begin = 0, at = 0;
  size_t run_begin = 0, run_end = 0;  // white space that rstrip has walked over: never twice
  while (!trie.empty() && at < text.size()) {
    if (trie.only_start >= 0) {
      const void* found = std::memchr(text.data() + at, trie.only_start, text.size() - at);
      if (found == nullptr) break;
      at = static_cast<size_t>(static_cast<const char*>(found) - text.data());
    } else if (!trie.starts[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    const int32_t index = longest_at(trie, text, at);
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = at, end = at + token.shown.size();
    at = end;
    if (token.single_word &&
        ((begin > 0 && word_before(text, begin)) || (end < text.size() && word_behind(text, end)))) {
      continue;
    }
    if (token.lstrip) begin = std::max(spaces_begin(text, begin, text_begin), text_begin);
    if (token.rstrip) {
      if (end < run_begin || end > run_end) {
        run_begin = end;
        run_end = spaces_end(text, end);
      }
      end = run_end;
    }
    if (text_begin < begin) on_text(text.substr(text_begin, begin - text_begin));
    on_token(token.id);
    text_begin = end;
  }
  if (text_begin != text.size()) on_text(text.substr(text_begin));
}

void AddedTokens::split(std::string_view text, NfcMemory& memory,
                        const std::function<void(std::string_view)>& on_text,
                        const std::function<void(int32_t id)>& on_token) const {
  const auto on_piece = [&](std::string_view piece) {
    scan(normalized_, nfc_ ? to_nfc(piece, memory) : piece, on_text, on_token);
  };
  scan(plain_, text, on_piece, on_token);
}

}  // namespace dsv3
