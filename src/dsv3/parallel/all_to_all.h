#pragma once
// Expert parallelism: tokens travel to the ranks of the expert group that hold their experts, and back.

#include "dsv3/comm/group.h"
#include "dsv3/model/expert_dispatch.h"

namespace dsv3 {

// Rank p of the group holds experts [p · e, (p + 1) · e), e = experts / group size. Rows are sent sorted by
// (local expert, rank), so those that arrive are expert-major as they are.
std::unique_ptr<ExpertDispatch> all_to_all_dispatch(Group& expert_group, int64_t experts,
                                                    CountSource counts = counts_on_host);

}  // namespace dsv3
