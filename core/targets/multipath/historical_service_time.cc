// SPDX-License-Identifier: Apache-2.0
// historical-service-time: the path whose requests have lately taken the least time, weighed by how
// many it has. The times are a moving average, in nanoseconds of 1024 parts as the kernel prints it.
// A path that has been idle for long is tried now and then, as it may have become better.
#include <array>

#include "core/base/mutex.h"
#include "core/targets/multipath/path_order.h"
#include "core/targets/multipath/path_selector.h"

namespace dmfs {
namespace {

constexpr std::string_view kName = "historical-service-time";
constexpr uint64_t kOne = 1024;           // of fixed-point numbers
constexpr uint32_t kDefaultWeight = 972;  // 0.95
// A weight is for a request of one bucket's length; longer ones have powers of it.
constexpr unsigned kBucketShift = 24;  // about 16 ms
constexpr size_t kBuckets = 64;
__extension__ typedef unsigned __int128 Wide;

uint64_t rounded(uint64_t product) { return (product + kOne / 2) / kOne; }

struct History {
  uint64_t service_time = kOne;  // 1/1024 ns
  uint64_t outstanding = 0;
  uint64_t last_finish = 0, stale_after = 0;  // ns

  bool stale(uint64_t now) const { return stale_after < now; }
};

class HistoricalServiceTime final : public PathSelector {
 public:
  HistoricalServiceTime(Clock& clock, uint32_t weight, uint32_t threshold)
      : clock_(clock), threshold_(threshold) {
    uint64_t power = weights_[0] = weight;
    for (size_t i = 1; i + 1 < kBuckets; ++i) weights_[i] = power = rounded(power * weight);
    weights_[kBuckets - 1] = 0;
  }

  // [<repeat count>], which is not used and printed as 0, as in the kernel
  Status add_path(std::span<const std::string> args) override {
    DM_TRY(uint32_t repeat, repeat_count(kName, args, 1));
    (void)repeat;
    MutexLock lock(mutex_);
    order_.append(static_cast<unsigned>(paths_.size()));
    paths_.push_back({});
    return {};
  }

  int select(uint64_t) override {
    if (int only = order_.only(); only != kNone) return only;
    uint64_t now = nanoseconds(clock_.now());
    MutexLock lock(mutex_);
    if (order_.empty()) return kNone;
    unsigned best = order_.paths().front();
    for (unsigned path : order_.paths()) {
      if (path != best && better(paths_[path], paths_[best], now)) best = path;
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
    MutexLock lock(mutex_);
    ++paths_[path].outstanding;
  }
  void end_io(unsigned path, uint64_t, Clock::Time started_at) override {
    uint64_t now = nanoseconds(clock_.now());
    MutexLock lock(mutex_);
    History& history = paths_[path];
    --history.outstanding;
    // What waited for another request of the path begins where that one ended.
    uint64_t started = std::max(nanoseconds(started_at), history.last_finish);
    uint64_t took = now > started ? now - started : 0;
    history.last_finish = now;
    uint64_t weight = weights_[std::min<uint64_t>(took >> kBucketShift, kBuckets - 1)];
    uint64_t latest = std::min(took, UINT64_MAX / kOne / kOne) * kOne;
    Wide sum = Wide{history.service_time} * weight + Wide{latest} * (kOne - weight) + kOne / 2;
    history.service_time = static_cast<uint64_t>(sum / kOne);
    history.stale_after = now + order_.paths().size() * (history.service_time / kOne);
  }

  std::string args() const override { return fmt::format("2 {} {}", weights_[0], threshold_); }
  std::string path_table(unsigned) const override { return "0"; }
  std::string path_info(unsigned path) const override {
    MutexLock lock(mutex_);
    const History& history = paths_[path];
    return fmt::format("{} {} {}", history.service_time, history.outstanding, history.stale_after);
  }

 private:
  static uint64_t nanoseconds(Clock::Time time) {
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count());
  }

  bool better(const History& a, const History& b, uint64_t now) const {
    // Times that differ by less than the threshold are the same.
    auto [less, more] = std::minmax(a.service_time, b.service_time);
    if (Wide{more} <= Wide{less} * threshold_) return a.outstanding < b.outstanding;
    // An idle path that has not been heard of for long, before a busy one; of two idle ones that
    // which has been idle for longer.
    bool a_idle = a.outstanding == 0, b_idle = b.outstanding == 0;
    if (a_idle && b_idle) return a.stale_after < b.stale_after;
    if (a_idle && a.stale(now)) return true;
    if (b_idle && b.stale(now)) return false;
    bool b_wins = Wide{a.outstanding + 1} * a.service_time > Wide{b.outstanding + 1} * b.service_time;
    // Who wins by what is long past gets no more than the other.
    if (b_wins ? b.stale(now) : a.stale(now)) return a.outstanding < b.outstanding;
    return !b_wins;
  }

  Clock& clock_;
  const uint32_t threshold_;
  std::array<uint64_t, kBuckets> weights_;  // constant after construction
  mutable Mutex mutex_;                     // leaf
  PathOrder order_;                         // changed under mutex_
  std::vector<History> paths_ DM_GUARDED_BY(mutex_);
};

// [<base weight> [<threshold multiplier>]]
Result<std::unique_ptr<PathSelector>> create(Clock& clock, std::span<const std::string> args) {
  uint32_t weight = kDefaultWeight, threshold = 0;
  if (args.size() > 2) return selector_error(kName, "incorrect number of arguments", args[2]);
  if (!args.empty()) {
    DM_TRY(weight, selector_number(kName, "invalid base weight", args[0]));
    if (weight >= kOne) return selector_error(kName, "invalid base weight", args[0]);
  }
  if (args.size() == 2) {
    DM_TRY(threshold, selector_number(kName, "invalid threshold multiplier", args[1]));
  }
  return std::unique_ptr<PathSelector>(
      std::make_unique<HistoricalServiceTime>(clock, weight, threshold));
}

}  // namespace

extern const PathSelectorType kHistoricalServiceTimeSelector;
const PathSelectorType kHistoricalServiceTimeSelector{kName, 1, 3, true, true, create};

}  // namespace dmfs
