// SPDX-License-Identifier: Apache-2.0
// service-time: the path that will be done first, as far as the bytes under way and what the table
// says of its throughput tell.
#include <atomic>
#include <deque>

#include "core/base/mutex.h"
#include "core/targets/multipath/path_order.h"
#include "core/targets/multipath/path_selector.h"

namespace dmfs {
namespace {

constexpr std::string_view kName = "service-time";
constexpr uint32_t kMaxThroughput = 100;

struct PathLoad {
  uint64_t bytes;  // under way
  uint32_t throughput;
};

struct Path {
  explicit Path(uint32_t t) : throughput(t) {}
  PathLoad load() const { return {bytes.load(std::memory_order_relaxed), throughput}; }

  std::atomic<uint64_t> bytes{0};
  const uint32_t throughput;
};

// Whether a request of `incoming` bytes does better on `a`. What neither does better on is a tie.
bool better(const PathLoad& a, const PathLoad& b, uint64_t incoming) {
  if (a.throughput == b.throughput) return a.bytes < b.bytes;
  // A path without throughput is for when there is no other.
  if (a.bytes == b.bytes || a.throughput == 0 || b.throughput == 0) {
    return a.throughput > b.throughput;
  }
  // (bytes + incoming) / throughput, compared without dividing.
  __extension__ typedef unsigned __int128 Wide;
  Wide time_a = (Wide{a.bytes} + incoming) * b.throughput;
  Wide time_b = (Wide{b.bytes} + incoming) * a.throughput;
  return time_a != time_b ? time_a < time_b : a.throughput > b.throughput;
}

class ServiceTime final : public PathSelector {
 public:
  // [<repeat count> [<relative throughput>]]
  Status add_path(std::span<const std::string> args) override {
    constexpr std::string_view kThroughput = "invalid relative_throughput value";
    DM_TRY(uint32_t repeat, repeat_count(kName, args, 2));
    uint32_t throughput = 1;
    if (args.size() == 2) {
      DM_TRY(throughput, selector_number(kName, kThroughput, args[1]));
      if (throughput > kMaxThroughput) return selector_error(kName, kThroughput, args[1]);
    }
    MutexLock lock(mutex_);
    order_.append(static_cast<unsigned>(repeats_.size()));
    repeats_.push_back(repeat);
    paths_.emplace_back(throughput);
    return {};
  }

  int select(uint64_t bytes) override {
    if (int only = order_.only(); only != kNone) return only;
    MutexLock lock(mutex_);
    if (order_.empty()) return kNone;
    unsigned best = order_.paths().front();
    PathLoad least = paths_[best].load();
    for (unsigned path : order_.paths()) {
      PathLoad load = paths_[path].load();
      if (path == best || !better(load, least, bytes)) continue;
      best = path;
      least = load;
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
  void start_io(unsigned path, uint64_t bytes) override {
    paths_[path].bytes.fetch_add(bytes, std::memory_order_relaxed);
  }
  void end_io(unsigned path, uint64_t bytes, Clock::Time) override {
    paths_[path].bytes.fetch_sub(bytes, std::memory_order_relaxed);
  }

  std::string path_table(unsigned path) const override {
    return fmt::format("{} {}", repeats_[path], paths_[path].throughput);
  }
  std::string path_info(unsigned path) const override {
    return fmt::format("{} {}", paths_[path].load().bytes, paths_[path].throughput);
  }

 private:
  std::vector<uint32_t> repeats_;  // constant once the table is built
  std::deque<Path> paths_;         // as many, own synchronisation
  Mutex mutex_;                    // leaf
  PathOrder order_;                // changed under mutex_
};

// Arguments are accepted and ignored, as in the kernel.
Result<std::unique_ptr<PathSelector>> create(Clock&, std::span<const std::string>) {
  return std::unique_ptr<PathSelector>(std::make_unique<ServiceTime>());
}

}  // namespace

extern const PathSelectorType kServiceTimeSelector;
const PathSelectorType kServiceTimeSelector{kName, 2, 2, true, false, create};

}  // namespace dmfs
