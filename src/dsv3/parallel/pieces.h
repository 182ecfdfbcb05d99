#pragma once
// The network cut at its detached boundaries: what runs forward, and again when it is recomputed, as one
// call.

#include <functional>
#include <vector>

#include "dsv3/parallel/model.h"

namespace dsv3 {

// A block, half of a block, or the final norm.
struct Piece {
  int64_t layer = -1;             // −1: the final norm, whose weight lies in the head's unit
  bool first_of_layer = true;     // its backward is the last that needs the layer's unit
  bool recompute = false;         // forward keeps no graph, backward runs it again
  RouterState* router = nullptr;  // of the MoE layer in it
  std::function<BlockOutput(const std::vector<at::Tensor>& inputs, const Replay& replay)> forward;
};

// The block of `layer` as one piece, or as two where only one half is recomputed. MTP's (layer ≥ L): the
// first piece takes {embedded, hidden} and the last one ends with shared_head.norm. pass outlives the pieces.
std::vector<Piece> block_pieces(Model& model, const PassContext& pass, int64_t layer);
Piece final_norm_piece(const Model& model, const PassContext& pass);

}  // namespace dsv3
