#include "dsv3/comm/rendezvous.h"

#include <ATen/ATen.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <numeric>
#include <thread>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "dsv3/base/error.h"
#include "dsv3/comm/backends.h"
#include "dsv3/comm/rank_status.h"
#include "dsv3/comm/silent_ranks.h"

namespace dsv3 {
namespace {

using StorePtr = c10::intrusive_ptr<c10d::Store>;

// A folder of our own that nobody else can write into.
void private_folder(const std::string& folder) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    throw RunError(folder, std::string("cannot be created: ") + std::strerror(errno));
  struct stat info {};
  if (::lstat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != ::getuid() ||
      (info.st_mode & 077) != 0)
    throw RunError(folder, "is not a folder that only this user can enter", "remove it");
}

// A FileStore removes its file with the last rank; the folder that the ranks made for it goes then, too.
// Lives longer than the store.
struct FolderEnd {
  std::string folder;  // "": nothing to remove
  explicit FolderEnd(const LaunchEnv& env)
      : folder(env.launcher == LaunchEnv::Launcher::own ? "" : env.folder) {}
  FolderEnd(const FolderEnd&) = delete;
  ~FolderEnd() {
    if (!folder.empty()) ::rmdir(folder.c_str());
  }
};

bool is_loopback(const std::string& host) { return host == "localhost" || host == "127.0.0.1"; }

// A socket that listens on 127.0.0.1 alone: TCPStore's own listens on every address.
int listen_on_loopback(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 || ::listen(fd, 1024) != 0) {
    const int error = errno;
    ::close(fd);
    throw RunError("127.0.0.1:" + std::to_string(port), std::strerror(error), "choose another MASTER_PORT");
  }
  return fd;
}

StorePtr open_store(const LaunchEnv& env, std::chrono::milliseconds timeout) {
  if (!env.folder.empty()) {
    if (env.launcher != LaunchEnv::Launcher::own) private_folder(env.folder);
    auto store = c10::make_intrusive<c10d::FileStore>(env.folder + "/store", env.world);
    store->setTimeout(timeout);
    return store;
  }
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(env.port);
  options.isServer = env.rank == 0 && !env.agent_store;
  options.numWorkers = env.world;
  options.waitWorkers = false;
  options.timeout = timeout;
  if (options.isServer && is_loopback(env.host)) options.masterListenFd = listen_on_loopback(env.port);
  return c10::make_intrusive<c10d::TCPStore>(env.host, options);
}

// Rank 0 serves the store: it may not leave before the others have seen what it saw.
void let_others_look(const StorePtr& store, const LaunchEnv& env) {
  store->add("looked", 1);
  for (int wait = 0; env.rank == 0 && wait < 100 && store->add("looked", 0) < env.world; ++wait)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

// Every rank shows itself and what it is part of; two jobs that meet at one port see each other here.
void meet(const StorePtr& store, const LaunchEnv& env, const MeshLayout& layout, const std::string& place) {
  const std::string mine = (env.job.empty() ? "" : "job " + env.job + ": ") + "world " +
                           std::to_string(env.world) + " replicate " + std::to_string(layout.replicate) +
                           " ep " + std::to_string(layout.ep);
  if (store->add("came " + std::to_string(env.rank), 1) > 1)
    throw RunError(place, "rank " + std::to_string(env.rank) + " came twice",
                   std::string("two jobs share this place, or RANK is exported to all ranks") +
                       (env.folder.empty() ? "" : "; or a job that was killed left this folder: remove it"));
  store->set("rank " + std::to_string(env.rank), std::vector<uint8_t>(mine.begin(), mine.end()));
  for (int rank = 0; rank < env.world; ++rank) {
    const std::string key = "rank " + std::to_string(rank);
    std::vector<uint8_t> theirs;
    try {
      theirs = store->get(key);
    } catch (const std::exception&) {
      throw RunError(place, "not all ranks came: missing " + absent_ranks(store, "rank ", env.world),
                     "raise parallel.timeout_s if they start slowly");
    }
    if (std::string(theirs.begin(), theirs.end()) != mine) {
      let_others_look(store, env);
      throw RunError(place,
                     "rank " + std::to_string(rank) + " runs '" +
                         printable(std::string(theirs.begin(), theirs.end())) + "', this rank '" +
                         printable(mine) + "'",
                     "two jobs share this place");
    }
  }
}

}  // namespace

Mesh join(const LaunchEnv& env, const MeshLayout& layout, at::Device device, int64_t timeout_s) {
  const std::chrono::milliseconds timeout = std::chrono::seconds(timeout_s);
  const std::string place =
      env.folder.empty() ? env.host + ":" + std::to_string(env.port) : env.folder + "/store";
  const auto folder_end = std::make_shared<FolderEnd>(env);
  StorePtr store;
  Transports transports;
  try {
    store = c10::make_intrusive<c10d::PrefixStore>("dsv3 " + env.prefix, open_store(env, timeout));
    meet(store, env, layout, place);
    const GroupFactory factory(store, env, device, timeout);
    auto form = [&](const char* name, const std::vector<int>& ranks) {
      return ranks.size() == 1 ? single_transport() : factory.form(name, ranks);
    };
    std::vector<int> everyone(static_cast<size_t>(env.world));
    std::iota(everyone.begin(), everyone.end(), 0);
    transports = {.world = form("world", everyone),
                  .data = form("data", layout.data_ranks(env.rank)),
                  .replicate = form("replicate", layout.replicate_ranks(env.rank)),
                  .expert = form("expert", layout.expert_ranks(env.rank)),
                  .expert_data = form("expert_data", layout.expert_data_ranks(env.rank))};
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw RunError(
        place, "the ranks could not meet: " + transport_error(error),
        env.one_host() ? "" : "name the network interface between the hosts by GLOO_SOCKET_IFNAME");
  }
  Mesh mesh = Mesh::from_transports(transports, device);
  // Gloo names nobody. With a board the ranks see each other; without, a rank whose collective failed says so
  // in the store, and who is silent is the one that is missing.
  if (env.launcher == LaunchEnv::Launcher::own)
    publish_status(mesh.log(), env.folder + "/board");
  else
    mesh.log().missing = [folder_end, store, env](uint64_t) {
      const bool served = !env.agent_store && env.folder.empty();
      return silent_ranks(store, env.rank, env.world, served ? "rank 0" : "");
    };
  // Nobody goes on, and perhaps ends with an error of its own, while others are still connecting.
  mesh.sum(std::vector<int64_t>{1}, "rendezvous");
  return mesh;
}

}  // namespace dsv3
