// SPDX-License-Identifier: Apache-2.0
// queue-length: the path with the fewest requests under way.
#include <atomic>
#include <deque>

#include "core/base/mutex.h"
#include "core/targets/multipath/path_order.h"
#include "core/targets/multipath/path_selector.h"

namespace dmfs {
namespace {

constexpr std::string_view kName = "queue-length";

class QueueLength final : public PathSelector {
 public:
  // [<repeat count>]
  Status add_path(std::span<const std::string> args) override {
    DM_TRY(uint32_t repeat, repeat_count(kName, args, 1));
    MutexLock lock(mutex_);
    order_.append(static_cast<unsigned>(repeats_.size()));
    repeats_.push_back(repeat);
    lengths_.emplace_back(0);
    return {};
  }

  int select(uint64_t) override {
    if (int only = order_.only(); only != kNone) return only;
    MutexLock lock(mutex_);
    if (order_.empty()) return kNone;
    unsigned best = order_.paths().front();
    for (unsigned path : order_.paths()) {
      if (length(path) < length(best)) best = path;
    }
    order_.use(best);
    return static_cast<int>(best);
  }
  void fail_path(unsigned path) override {
    MutexLock lock(mutex_);
    order_.remove(path);
  }
  void reinstate_path(unsigned path) override {
    MutexLock lock(mutex_);
    order_.append(path);
  }
  void start_io(unsigned path, uint64_t) override {
    lengths_[path].fetch_add(1, std::memory_order_relaxed);
  }
  void end_io(unsigned path, uint64_t, Clock::Time) override {
    lengths_[path].fetch_sub(1, std::memory_order_relaxed);
  }

  std::string path_table(unsigned path) const override { return fmt::to_string(repeats_[path]); }
  std::string path_info(unsigned path) const override { return fmt::to_string(length(path)); }

 private:
  uint64_t length(unsigned path) const { return lengths_[path].load(std::memory_order_relaxed); }

  std::vector<uint32_t> repeats_;  // constant once the table is built
  std::deque<std::atomic<uint64_t>> lengths_;  // as many, own synchronisation
  Mutex mutex_;                                // leaf
  PathOrder order_;                            // changed under mutex_
};

// Arguments are accepted and ignored, as in the kernel.
Result<std::unique_ptr<PathSelector>> create(Clock&, std::span<const std::string>) {
  return std::unique_ptr<PathSelector>(std::make_unique<QueueLength>());
}

}  // namespace

extern const PathSelectorType kQueueLengthSelector;
const PathSelectorType kQueueLengthSelector{kName, 1, 1, true, false, create};

}  // namespace dmfs
