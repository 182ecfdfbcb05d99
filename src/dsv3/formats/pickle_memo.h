#pragma once
// What a pickle calls back from its memo. For the parser of pickles alone.

#include <cstdint>
#include <vector>

#include "dsv3/formats/pickle_bytes.h"

namespace dsv3 {

// By index, whether some opcode fetches it. Python's pickler puts every object into the memo and fetches few:
// without the others, what was read and is not needed any more can go. Nothing is refused here: the scan ends
// at the first opcode that the parser would not obey.
std::vector<bool> find_fetched(PickleBytes bytes);

}  // namespace dsv3
