// SPDX-License-Identifier: Apache-2.0
// What the dirty logs share: the arguments, and the bits in memory.
#pragma once

#include "core/base/mutex.h"
#include "core/targets/mirror/dirty_log.h"
#include "core/targets/mirror/region_bits.h"

namespace dmfs {

// What the table line asks for at the beginning.
enum class SyncWish : uint8_t {
  IfNeeded,  // nothing said: what is known to be in sync is not copied
  Never,     // nosync: all is taken to be in sync
  All,       // sync: everything is copied
};

struct RegionLogArgs {
  uint32_t region_size = 0;
  uint64_t region_count = 0;
  SyncWish sync = SyncWish::IfNeeded;
};

// <region size> [sync|nosync]
Result<RegionLogArgs> parse_region_log_args(const TargetContext& context,
                                            std::span<const std::string> args);

class RegionLog : public DirtyLog {
 public:
  explicit RegionLog(const RegionLogArgs& args);

  uint32_t region_size() const override { return args_.region_size; }
  uint64_t region_count() const override { return args_.region_count; }
  bool in_sync(RegionIndex region) const override { return sync_.test(region); }
  uint64_t sync_count() const override { return sync_count_.load(std::memory_order_relaxed); }
  void mark(RegionIndex region) override { clean_.clear(region); }
  void clear(RegionIndex region) override { clean_.set(region); }
  std::optional<RegionIndex> next_resync() override;
  void restart_search() override;
  void set_in_sync(RegionIndex region, bool in_sync) override;

 protected:
  // "<region size> [sync|nosync]", and how many words that is.
  std::string args_text() const;
  size_t args_count() const { return args_.sync == SyncWish::IfNeeded ? 1 : 2; }
  // Clean is what is in sync, and nothing else is.
  void sync_from_clean();

  // constant after construction
  const RegionLogArgs args_;
  // own synchronisation
  RegionBits clean_;
  RegionBits sync_;

 private:
  RegionBits recovering_;  // given out by next_resync()
  std::atomic<uint64_t> sync_count_{0};
  Mutex search_mutex_;     // leaf
  RegionIndex search_ DM_GUARDED_BY(search_mutex_) = 0;
};

}  // namespace dmfs
