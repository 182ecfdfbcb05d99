#pragma once
// The tokens of a tokenizer.json that are looked for in the text itself, before it is cut into words.

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "dsv3/data/nfc.h"
#include "dsv3/data/tokenizer_json.h"

namespace dsv3 {

// Immutable, shared by threads.
class AddedTokens {
 public:
  // nfc: the file's normalizer. No two tokens may be the same text, nor two "normalized" ones the same NFC.
  AddedTokens(std::vector<AddedToken> tokens, bool nfc);

  // Calls on_text for what lies between tokens (never empty) and on_token for each token, in order: the
  // longest at the leftmost place, first those that are not "normalized", then the others in what is left,
  // each piece of it brought to NFC by itself when the file says so. text is valid UTF-8.
  void split(std::string_view text, NfcMemory& memory, const std::function<void(std::string_view)>& on_text,
             const std::function<void(int32_t id)>& on_token) const;

 private:
  // A trie of bytes: nodes lie behind each other, the children of one in a row, by byte.
  struct Node {
    uint32_t first_child = 0;
    uint16_t num_children = 0;
    uint8_t byte = 0;
    int32_t token = -1;  // index of the one that ends here
  };
  struct Trie {
    std::vector<Node> nodes = {Node{}};
    std::array<bool, 256> starts = {};  // bytes that a token begins with
    int only_start = -1;                // when there is one alone
    bool empty() const { return nodes.size() == 1; }
  };
  Trie make_trie(bool normalized) const;
  static int32_t longest_at(const Trie& trie, std::string_view text, size_t at);
  template <class OnText, class OnToken>
  void scan(const Trie& trie, std::string_view text, OnText on_text, OnToken on_token) const;

  std::vector<AddedToken> tokens_;  // by what is looked for
  bool nfc_;
  Trie plain_, normalized_;
};

}  // namespace dsv3
