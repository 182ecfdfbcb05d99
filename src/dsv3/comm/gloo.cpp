// The only file that sees Gloo, through the stub headers of third_party/gloo_stubs.
#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "dsv3/comm/backends.h"

namespace dsv3 {

c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            bool one_host, std::chrono::milliseconds timeout) {
  using Gloo = c10d::ProcessGroupGloo;
  auto options = Gloo::Options::create(timeout);
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  options->devices.push_back(one_host                  ? Gloo::createDeviceForHostname("127.0.0.1")
                             : interface && *interface ? Gloo::createDeviceForInterface(interface)
                                                       : Gloo::createDefaultDevice());
  return c10::make_intrusive<Gloo>(store, rank, size, options);
}

}  // namespace dsv3
