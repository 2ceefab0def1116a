// SPDX-License-Identifier: Apache-2.0
// round-robin: each path in turn.
#include "core/base/mutex.h"
#include "core/targets/multipath/path_order.h"
#include "core/targets/multipath/path_selector.h"

namespace dmfs {
namespace {

constexpr std::string_view kName = "round-robin";

class RoundRobin final : public PathSelector {
 public:
  // [<repeat count>]
  Status add_path(std::span<const std::string> args) override {
    DM_TRY(uint32_t repeat, repeat_count(kName, args, 1));
    MutexLock lock(mutex_);
    order_.append(static_cast<unsigned>(repeats_.size()));
    repeats_.push_back(repeat);
    return {};
  }

  int select(uint64_t) override {
    if (int only = order_.only(); only != kNone) return only;
    MutexLock lock(mutex_);
    if (order_.empty()) return kNone;
    unsigned path = order_.paths().front();
    order_.use(path);
    return static_cast<int>(path);
  }
  void fail_path(unsigned path) override {
    MutexLock lock(mutex_);
    order_.remove(path);
  }
  // It is the next one, as in the kernel; the other selectors put it last.
  void reinstate_path(unsigned path) override {
    MutexLock lock(mutex_);
    order_.prepend(path);
  }

  std::string path_table(unsigned path) const override { return fmt::to_string(repeats_[path]); }

 private:
  std::vector<uint32_t> repeats_;  // constant once the table is built
  Mutex mutex_;                    // leaf
  PathOrder order_;                // changed under mutex_
};

// Arguments are accepted and ignored, as in the kernel.
Result<std::unique_ptr<PathSelector>> create(Clock&, std::span<const std::string>) {
  return std::unique_ptr<PathSelector>(std::make_unique<RoundRobin>());
}

}  // namespace

extern const PathSelectorType kRoundRobinSelector;
const PathSelectorType kRoundRobinSelector{kName, 1, 0, false, false, create};

}  // namespace dmfs
