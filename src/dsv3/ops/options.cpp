#include "dsv3/ops/options.h"

#include <map>

#include "dsv3/base/error.h"

namespace dsv3 {
namespace {

template <class T>
T choose(const char* key, const std::string& value, const std::map<std::string, T>& choices) {
  auto found = choices.find(value);
  if (found == choices.end()) throw UsageError(key, "unknown value '" + printable(value) + "'");
  return found->second;
}

}  // namespace

OpsOptions OpsOptions::parse(const std::string& backend, const std::string& grouped,
                             const std::string& attention) {
  OpsOptions options;
  options.backend = choose<Backend>(
      "ops.backend", backend, {{"auto", Backend::fast}, {"aten", Backend::aten}, {"fast", Backend::fast}});
  options.grouped = choose<GroupedGemm>("ops.grouped", grouped,
                                        {{"auto", GroupedGemm::automatic},
                                         {"loop", GroupedGemm::loop},
                                         {"mkl", GroupedGemm::mkl},
                                         {"grouped_mm", GroupedGemm::grouped_mm}});
  options.attention = choose<AttentionKind>("ops.attention", attention,
                                            {{"auto", AttentionKind::automatic},
                                             {"flash", AttentionKind::flash},
                                             {"flash_padded", AttentionKind::flash_padded},
                                             {"cudnn", AttentionKind::cudnn},
                                             {"math", AttentionKind::math}});
  if (options.backend == Backend::aten && options.grouped == GroupedGemm::mkl)
    throw UsageError("ops.grouped", "'mkl' is a kernel of the fast back end, ops.backend is 'aten'",
                     "use loop or grouped_mm");
  return options;
}

}  // namespace dsv3
