#pragma once
// The public API: everything that a training loop of one's own needs. See examples/own_loop and
// docs/design.md.

#include "dsv3/base/error.h"         // IWYU pragma: export
#include "dsv3/checkpoint/resume.h"  // IWYU pragma: export
#include "dsv3/checkpoint/saver.h"   // IWYU pragma: export
#include "dsv3/comm/mesh.h"          // IWYU pragma: export
#include "dsv3/config/run_config.h"  // IWYU pragma: export
#include "dsv3/optim/optimizer.h"    // IWYU pragma: export
#include "dsv3/optim/schedule.h"     // IWYU pragma: export
#include "dsv3/parallel/model.h"     // IWYU pragma: export
#include "dsv3/parallel/step.h"      // IWYU pragma: export
#include "dsv3/train/evaluate.h"     // IWYU pragma: export
#include "dsv3/train/generate.h"     // IWYU pragma: export
#include "dsv3/train/loader.h"       // IWYU pragma: export
#include "dsv3/train/metrics.h"      // IWYU pragma: export
#include "dsv3/train/trainer.h"      // IWYU pragma: export
