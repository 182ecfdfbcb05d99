#pragma once
// What a PickleValue points to. For the parser and the writer of pickles alone.

#include <string>
#include <vector>

#include "dsv3/formats/pickle.h"

namespace dsv3 {

struct PickleNode {
  PickleKind kind = PickleKind::none;
  // Held by another value: it may not change any more. Python's pickler fills a container before it puts it
  // anywhere, unless the container holds itself; so nothing but a cycle is lost, and the levels of a node are
  // final when its parent counts them.
  bool sealed = false;
  uint16_t levels = 1;             // of nodes, this one included
  std::string text;                // text, bytes; global: "module name"
  std::vector<PickleValue> items;  // call, instance: callable, tuple of arguments[, state]
};

}  // namespace dsv3
