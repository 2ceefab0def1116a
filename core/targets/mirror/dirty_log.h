// SPDX-License-Identifier: Apache-2.0
// THE extension interface of dirty logs. A mirror divides its length into regions; its log knows
// which of them are the same on all legs (in sync), and which of them a crash could not have
// changed (clean). To write one: read core_log.cc, then disk_log.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/base/registry.h"
#include "core/base/result.h"
#include "core/dm/target.h"

namespace dmfs {

using RegionIndex = uint64_t;

class DirtyLog {
 public:
  // Called once, on any thread, possibly before the call that took it has returned; no lock held.
  // 0, or a positive errno.
  using Done = std::function<void(int error)>;

  virtual ~DirtyLog() = default;  // no resume() or flush() is under way

  virtual uint32_t region_size() const = 0;  // sectors, a power of two
  virtual uint64_t region_count() const = 0;
  // False: there is nothing to make durable, and flush() need not be called.
  virtual bool persistent() const { return true; }

  // Whether after a restart everything is taken to be in sync, whatever was out of sync before.
  virtual bool assumes_sync() const { return false; }

  // Must be called before anything below, and at every resume of the mirror: finds out what is in
  // sync. With an error the log goes on in memory, from the worst that may be. Never waits.
  // One resume() or flush() at a time: the caller sees to that.
  virtual void resume(Done done) = 0;
  // Makes durable what mark() and clear() have said before. A region is not written to until its
  // mark is durable. Never waits.
  virtual void flush(Done done) = 0;

  // ---- any thread; never waits; the caller may hold its own locks ------------------------------
  virtual bool in_sync(RegionIndex region) const = 0;
  virtual uint64_t sync_count() const = 0;
  // The legs may differ in the region, from now on or no longer. Before clear() the region's data
  // has to be durable on all legs.
  virtual void mark(RegionIndex region) = 0;
  virtual void clear(RegionIndex region) = 0;
  // The next region that is out of sync, and is given out only once until set_in_sync() is called
  // for it and the search begins again.
  virtual std::optional<RegionIndex> next_resync() = 0;
  virtual void restart_search() = 0;
  virtual void set_in_sync(RegionIndex region, bool in_sync) = 0;

  // "<type> <#args> <arg>...", as it stands in the table line.
  virtual std::string table_words() const = 0;
  // "<#words> <type> ...", as it stands in the status.
  virtual std::string status_words() const = 0;
};

struct DirtyLogType {
  std::string_view name;
  // `args` are the words behind the count of arguments. Thread of the command; may open a device.
  Result<std::unique_ptr<DirtyLog>> (*create)(TargetContext& context,
                                              std::span<const std::string> args);
};

using DirtyLogRegistry = Registry<DirtyLogType>;

// Every dirty log that dmfs has; filled at the first call.
const DirtyLogRegistry& builtin_dirty_logs();

}  // namespace dmfs
