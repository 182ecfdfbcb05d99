#include "dsv3/cli/core/launch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "dsv3/base/error.h"
#include "dsv3/base/rank_board.h"
#include "dsv3/cli/command.h"
#include "dsv3/cli/core/supervisor.h"

extern char** environ;

namespace dsv3 {
namespace {

constexpr std::string_view kFlag = "--nproc";

// Removes --nproc from args; its value, if it is there.
std::optional<std::string> take_nproc(std::vector<std::string>& args) {
  std::optional<std::string> value;
  for (size_t i = 0; i < args.size() && args[i] != "--";) {
    const bool apart = args[i] == kFlag;
    if (!apart && !args[i].starts_with("--nproc=")) {
      ++i;
      continue;
    }
    if (value) throw UsageError(kFlag, "is given twice");
    if (apart && i + 1 == args.size()) throw UsageError(kFlag, "needs a value");
    value = apart ? args[i + 1] : args[i].substr(kFlag.size() + 1);
    args.erase(args.begin() + static_cast<ptrdiff_t>(i),
               args.begin() + static_cast<ptrdiff_t>(i + (apart ? 2 : 1)));
  }
  return value;
}

int parse_nproc(const std::string& text) {
  int ranks = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ranks);
  if (error != std::errc() || end != text.data() + text.size() || ranks < 1 || ranks > kMaxRanks)
    throw UsageError(kFlag, fmt::format("{}, expected 1 to {}", printable(text), kMaxRanks));
  return ranks;
}

bool wants_help(const std::vector<std::string>& args) {
  return std::any_of(args.begin(), args.end(),
                     [](const std::string& arg) { return arg == "--help" || arg == "-h"; });
}

// torchrun, mpirun or srun have started this process as one of theirs, and each of them would start N.
void refuse_second_launcher(int ranks) {
  for (const char* name : {"WORLD_SIZE", "RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "TORCHELASTIC_RUN_ID",
                           "SLURM_STEP_NUM_TASKS"}) {
    const char* value = std::getenv(name);
    if (!value || !*value) continue;
    // Slurm sets it for a batch script and an interactive step too; one task is no launch.
    if (std::string_view(name).starts_with("SLURM") && std::string_view(value) == "1") continue;
    throw UsageError(fmt::format("{} {}", kFlag, ranks),
                     fmt::format("{}={} in the environment: a launcher has started this process already",
                                 name, printable(value)),
                     "leave the flag out or unset the variable");
  }
}

// Each rank opens the files that the arguments name. Which arguments these are is the engine's knowledge;
// that none is standard input, which rank 0 alone has, or a pipe, of which each would get a part, needs none
// of it.
void refuse_read_once(const std::vector<std::string>& args, int ranks) {
  for (const std::string& arg : args) {
    const size_t equals = arg.starts_with("--") ? arg.find('=') : arg.npos;
    const std::string path = equals == arg.npos ? arg : arg.substr(equals + 1);
    struct stat file {};
    const bool pipe = ::stat(path.c_str(), &file) == 0 && (S_ISFIFO(file.st_mode) || S_ISSOCK(file.st_mode));
    if (!pipe && path != "/dev/stdin" && path != "/dev/fd/0" && path != "/proc/self/fd/0") continue;
    throw UsageError(printable(path, 400),
                     fmt::format("can be read once, and each of {} ranks reads it", ranks),
                     "write it to a file first");
  }
}

// 0700, for this job alone, gone with it.
class RunFolder {
 public:
  RunFolder() {
    const char* parent = std::getenv("TMPDIR");
    std::error_code error;
    const auto base = std::filesystem::absolute(parent && *parent ? parent : "/tmp", error);
    std::string name = (base / "dsv3-XXXXXX").string();
    if (!::mkdtemp(name.data()))
      throw RunError(printable(base.string(), 400),
                     std::string("no folder can be made there: ") + std::strerror(errno),
                     "TMPDIR names another place");
    path_ = name;
  }
  ~RunFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

int usable_processors() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));  // more than a cpu_set_t counts
}

std::vector<std::string> rank_environment(int rank, int ranks, const std::filesystem::path& folder) {
  std::vector<std::pair<std::string, std::string>> own = {
      {"RANK", std::to_string(rank)},       {"WORLD_SIZE", std::to_string(ranks)},
      {"LOCAL_RANK", std::to_string(rank)}, {"LOCAL_WORLD_SIZE", std::to_string(ranks)},
      {"DSV3_RUN_FOLDER", folder.string()}, {"DSV3_TERMINAL", rank == 0 && ::isatty(1) ? "1" : ""},
  };
  const char* threads = std::getenv("OMP_NUM_THREADS");
  if (!threads || !*threads)
    own.emplace_back("OMP_NUM_THREADS", std::to_string(std::max(1, usable_processors() / ranks)));
  std::vector<std::string> environment;
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    if (std::none_of(own.begin(), own.end(), [&](const auto& pair) { return pair.first == name; }))
      environment.emplace_back(text);
  }
  for (const auto& [name, value] : own) {
    if (!value.empty()) environment.push_back(name + "=" + value);
  }
  return environment;
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "this machine";
}

// The job's exit code, and its last words.
int conclude(const std::vector<RankEnd>& ends) {
  const Verdict verdict = judge(ends);
  if (!verdict.common_error.empty()) {
    fmt::print(stderr, "{}\n", verdict.common_error);
    return verdict.code;
  }
  for (size_t rank = 0; rank < ends.size(); ++rank) {
    if (ends[rank].error.empty() || verdict.culprit == static_cast<int>(rank)) continue;
    // When the culprit's own failure is known, there is no more in what came of it.
    if (is_consequence(ends[rank]) && verdict.waited_in.empty()) continue;
    fmt::print(stderr, "[rank {}] {}\n", rank, ends[rank].error);
  }
  if (!verdict.culprit) return verdict.code;
  const int rank = *verdict.culprit;
  throw Error(static_cast<ExitCode>(verdict.code), fmt::format("rank {} on {}", rank, host_name()),
              describe(ends[static_cast<size_t>(rank)], verdict.waited_in));
}

[[noreturn]] void run_alone(std::vector<std::string>& args) {
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  exec_engine(argv.data());
}

}  // namespace

int launch(std::vector<std::string> args) {
  const std::optional<std::string> value = take_nproc(args);
  args.insert(args.begin(), "dsv3");
  if (!value || wants_help(args)) run_alone(args);
  const int ranks = parse_nproc(*value);
  if (ranks == 1) run_alone(args);
  refuse_second_launcher(ranks);
  refuse_read_once(args, ranks);

  for (const int fd : {0, 1, 2}) {  // else a pipe of a rank would take the number of a closed stdout
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) < 0)
      throw RunError("/dev/null", std::strerror(errno));
  }
  SignalPipe signals;  // before there is a folder to leave behind
  allow_open_files(2 * static_cast<size_t>(ranks) + 32);
  const RunFolder folder;
  RankBoard board = RankBoard::create(folder.path() / "board", ranks);
  Supervisor supervisor(board, signals);
  for (int rank = 0; rank < ranks; ++rank) {
    supervisor.add(start_rank({.program = engine_path(),
                               .args = args,
                               .environment = rank_environment(rank, ranks, folder.path()),
                               .inherit_stdin = rank == 0 && !::isatty(0)}));
  }
  supervisor.run();
  if (supervisor.killed_by() != 0) return 128 + supervisor.killed_by();
  return conclude(supervisor.ends());
}

}  // namespace dsv3
