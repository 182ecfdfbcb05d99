#pragma once
// dsv3 COMMAND … --nproc N: N local ranks of the engine under one launcher.
//
// A rank finds in its environment RANK and LOCAL_RANK (0 … N-1), WORLD_SIZE and LOCAL_WORLD_SIZE (N), in
// DSV3_RUN_FOLDER a private folder that ends with the job and holds the status board (base/rank_board.h, file
// "board"), and OMP_NUM_THREADS = max(1, usable processors / N) unless the user set it. Rank 0 finds
// DSV3_TERMINAL=1 when the launcher's stdout is a terminal; its own is a pipe even then, because a rank is no
// part of the terminal's foreground job. stdin is /dev/null but for rank 0, which has the launcher's when
// that is no terminal. A rank that outlives its launcher is killed by the kernel.

#include <string>
#include <vector>

namespace dsv3 {

// args: the command's name and its arguments. Without --nproc, with --nproc 1 or with --help this is
// exec_engine. Otherwise runs the ranks and returns what they agree on as exit code, else throws the Error
// that names the rank which failed first. UsageError for a value outside 1 … 1024, for a second --nproc, and
// for N > 1 in a process that is itself a rank of torchrun, mpirun or srun, or with an argument that names
// standard input or a pipe: every rank reads its files itself.
int launch(std::vector<std::string> args);

}  // namespace dsv3
