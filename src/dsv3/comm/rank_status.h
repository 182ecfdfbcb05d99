#pragma once
// Tells the launcher, and the other ranks of this host, what this rank is doing.

#include <string>

#include "dsv3/comm/group.h"

namespace dsv3 {

// From here on every collective and phase of `log` shows on the board at `path` (base/rank_board.h), a
// heartbeat beside it, and log.missing names who keeps a collective from completing. Ends with the log's
// observer.
void publish_status(CollectiveLog& log, const std::string& path);

}  // namespace dsv3
