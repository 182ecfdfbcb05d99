#pragma once
// What a forward pass leaves for its backward: the boundaries between pieces. Step's own.

#include "dsv3/parallel/pieces.h"

namespace dsv3 {

// What backward needs of a piece that ran.
struct Record {
  Piece piece;
  std::vector<at::Tensor> inputs;   // leaves; their grad() is the piece's result of backward
  at::Tensor output, balance;       // with graph; undefined when the piece is recomputed
  Replay replay;                    // routing of the first pass: recomputation neither chooses nor counts
  std::unique_ptr<Unsharded> held;  // reshard = after_backward: from forward to backward
};

struct HeadRecord {
  at::Tensor hidden;       // leaf [B, S, H]
  at::Tensor logp, extra;  // with graph, [T]
};

struct Output::Tape {
  struct Depth {
    at::Tensor tokens_BS;
    std::vector<Record> records;
    HeadRecord head;
  };
  std::vector<std::unique_ptr<PassContext>> passes;  // stable addresses: pieces point at them
  std::vector<Depth> depths;                         // 0: embedding … final norm; k: MTP depth k
  std::map<int64_t, size_t> hidden_after;            // block → number of records up to it
  size_t norm = 0;                                   // index of the final norm's record in depth 0
  std::unique_ptr<Unsharded> shared;                 // embedding and head, first to last use
};

}  // namespace dsv3
