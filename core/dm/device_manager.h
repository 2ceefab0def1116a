// SPDX-License-Identifier: Apache-2.0
// All mapped devices: who is called what, who has it open, who lies on whom; and what of that is
// in the store.
//
// Lock order: a device's command_mutex > change_mutex_ > index_mutex_ > a device's slots_mutex.
// change_mutex_ is held across store writes, index_mutex_ never is, so that lookups (which the
// mount makes all the time) never wait for a disk.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/base/executor.h"
#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/dm/change_observer.h"
#include "core/dm/commands.h"
#include "core/dm/device_store.h"
#include "core/dm/fs_freezer.h"
#include "core/dm/mapped_device.h"
#include "core/dm/table.h"
#include "core/io/io_service.h"

namespace dmfs {

// Volumes may lie on volumes this deep: each level costs a bio some of its thread's stack.
inline constexpr unsigned kMaxStackDepth = 64;
// As in the kernel (MINORBITS).
inline constexpr uint32_t kMaxMinor = (1u << 20) - 1;

// Tells the manager which mapped device a path is, if it is a file of our own mount.
class OwnMount {
 public:
  virtual ~OwnMount() = default;
  // The minor of the volume that an O_PATH descriptor refers to; -1 when it is not ours.
  virtual int64_t minor_of(int path_fd) const = 0;
};

class DeviceManager {
 public:
  struct Options {
    const TargetRegistry& registry;
    DeviceStore& store;
    Executor& executor;            // for removals at the last close
    IoService& io;                 // for backing files
    Clock& clock;                  // for targets, and for suspends with a time limit
    uint64_t held_limit = HeldBudget::kDefaultLimit;  // bytes of data in suspended devices
    // See Table::Options.
    std::function<Result<std::string>(const std::string&)> read_script = {};
    std::function<void(const std::string&)> log = {};
  };

  explicit DeviceManager(Options options);
  ~DeviceManager();  // nothing is open any more
  DeviceManager(const DeviceManager&) = delete;
  DeviceManager& operator=(const DeviceManager&) = delete;

  // Brings back what the store has. A device whose table cannot be built is kept, and says why
  // (DeviceInfo::not_activated). Fails only when the store does. Call once, before all else.
  Status start();
  // At the end: every held bio fails with EIO, event numbers are stored, waiters leave.
  void stop();

  Clock& clock() { return clock_; }

  // Which mount is ours, once it is mounted; nullptr takes it back.
  void set_own_mount(const OwnMount* mount) DM_EXCLUDES(index_mutex_);

  // ---- for the front and for stacking: any thread, quick -----------------------------------
  struct Listing {
    std::string name;
    uint32_t minor;
  };
  std::vector<Listing> list() const DM_EXCLUDES(index_mutex_);  // in name order
  std::shared_ptr<MappedDevice> find(const std::string& name) const DM_EXCLUDES(index_mutex_);
  std::shared_ptr<MappedDevice> find(uint32_t minor) const DM_EXCLUDES(index_mutex_);
  // Counts a user in. ENXIO: no such device, or it is being removed.
  Result<std::shared_ptr<MappedDevice>> open(uint32_t minor) DM_EXCLUDES(index_mutex_);
  // Counts one out; a deferred removal happens soon after the last.
  void close(uint32_t minor) DM_EXCLUDES(index_mutex_);
  std::string name_of(uint32_t minor) const DM_EXCLUDES(index_mutex_);

  // Who freezes file systems over volumes in a suspend with lockfs; nullptr: nobody. Must stay until
  // it is replaced and no volume is suspended through it (thaw_all()).
  void set_fs_freezer(FsFreezer* freezer) {
    fs_freezer_.store(freezer, std::memory_order_release);
  }
  // At the end, before stop(), while the mount still serves: thaws everything. If there is anything
  // to thaw, what is held by whatever volume fails with EIO, for a file system may lie on several.
  void thaw_all(CancelToken& cancel) DM_EXCLUDES(index_mutex_);

  // Who is told of changes that volumes make to volumes below them; nullptr: nobody. Must stay
  // until it is replaced and nothing is outstanding.
  void set_change_observer(ChangeObserver* observer) {
    change_observer_.store(observer, std::memory_order_release);
  }
  ChangeObserver* change_observer() const {
    return change_observer_.load(std::memory_order_acquire);
  }

  // ---- commands ----------------------------------------------------------------------------
  Result<DeviceInfo> create(const CreateArgs& args);
  Result<bool> remove(const RemoveArgs& args);
  Result<DeviceInfo> rename(const RenameArgs& args);
  Result<DeviceInfo> suspend(const SuspendArgs& args, CancelToken& cancel);
  Result<DeviceInfo> resume(const ResumeArgs& args, CancelToken& cancel);
  Result<DeviceInfo> load(const LoadArgs& args);
  Result<DeviceInfo> clear(const DeviceSelector& selector);
  Result<DeviceInfo> set_geometry(const DeviceSelector& selector, const Geometry& geometry);
  Status cancel_deferred_remove(const DeviceSelector& selector);
  // ENXIO when there is none.
  Result<std::shared_ptr<MappedDevice>> select(const DeviceSelector& selector) const
      DM_EXCLUDES(index_mutex_);
  Result<DeviceInfo> info(const DeviceSelector& selector) const DM_EXCLUDES(index_mutex_);
  // The volume of our own mount that an O_PATH descriptor refers to; -1 for anything else.
  int64_t own_minor_of(int path_fd) const DM_EXCLUDES(index_mutex_);
  std::vector<DeviceInfo> infos() const DM_EXCLUDES(index_mutex_);  // in name order

 private:
  struct Node {
    std::shared_ptr<MappedDevice> device;
    DeviceRecord record;    // as in the store, save that the event number may lag
    uint32_t open_count = 0;
    bool removing = false;  // no new opens
  };
  class Activator;

  Node* find_node(const DeviceSelector& selector) DM_REQUIRES(index_mutex_);
  // A copy, so that what is asked of the device is asked without the lock: a table that is let go
  // of under index_mutex_ would close its files and come back for the lock.
  Result<Node> node_of(const DeviceSelector& selector) const DM_EXCLUDES(index_mutex_);
  static DeviceInfo describe(const Node& node);
  Result<DeviceInfo> describe(uint32_t minor) const;
  Result<DeviceInfo> describe(uint32_t minor, FreezeReport report) const;
  SuspendOptions suspend_options(bool noflush, bool lockfs) const {
    return {noflush, lockfs, fs_freezer_.load(std::memory_order_acquire)};
  }
  uint32_t free_minor() DM_REQUIRES(index_mutex_);

  // Changes the record, and what else belongs to it, in the store and then here.
  Status update(uint32_t minor, const std::function<void(DeviceRecord&)>& change,
                std::vector<StoreChange> more = {}) DM_REQUIRES(change_mutex_)
      DM_EXCLUDES(index_mutex_);
  Result<std::shared_ptr<Table>> build_table(MappedDevice& device, const TableSpec& spec,
                                             const std::string& cwd,
                                             Activator* activator = nullptr);
  // EINVAL when `table` may not replace what the device has, as in the kernel.
  static Status check_replaces(const Table& table, const MappedDevice& device);
  // ELOOP when `table`, put under the device, would make a cycle or too deep a stack.
  Status check_stack(const Table& table, uint32_t minor) const DM_REQUIRES(change_mutex_)
      DM_EXCLUDES(index_mutex_);
  Result<bool> remove_device(const std::shared_ptr<MappedDevice>& device, bool deferred,
                             std::vector<std::shared_ptr<Table>>& dropped)
      DM_REQUIRES(device->command_mutex());
  void remove_deferred(uint32_t minor);
  // Takes the table of the device away, if nobody should wait for its end; else leaves it.
  void bury(const std::shared_ptr<MappedDevice>& device, std::shared_ptr<Table>& table);
  // Sets the new name or uuid in the index, where nothing stands in the way.
  Status rename_in_index(uint32_t minor, const RenameArgs& args, DeviceRecord& before)
      DM_REQUIRES(change_mutex_) DM_EXCLUDES(index_mutex_);
  void index_record(const DeviceRecord& before, const DeviceRecord& after)
      DM_REQUIRES(index_mutex_);
  // The tables, as they print now, of all devices that lie on `minor`.
  std::vector<StoreChange> tables_above(uint32_t minor) const DM_EXCLUDES(index_mutex_);

  // constant after construction
  const TargetRegistry& registry_;
  DeviceStore& store_;
  Executor& executor_;
  IoService& io_;
  Clock& clock_;
  HeldBudget held_budget_;
  const std::function<Result<std::string>(const std::string&)> read_script_;
  const std::function<void(const std::string&)> log_;

  Mutex bury_mutex_;  // leaf
  std::optional<ThreadExecutor> undertaker_ DM_GUARDED_BY(bury_mutex_);  // since the first burial

  // own synchronisation
  std::atomic<ChangeObserver*> change_observer_{nullptr};
  std::atomic<FsFreezer*> fs_freezer_{nullptr};

  mutable Mutex change_mutex_;  // serialises changes of the store; held across its writes

  mutable Mutex index_mutex_;  // held briefly, never across I/O
  std::map<uint32_t, Node> nodes_ DM_GUARDED_BY(index_mutex_);
  std::map<std::string, uint32_t, std::less<>> names_ DM_GUARDED_BY(index_mutex_);
  std::map<std::string, uint32_t, std::less<>> uuids_ DM_GUARDED_BY(index_mutex_);
  uint32_t lowest_maybe_free_ DM_GUARDED_BY(index_mutex_) = 0;
  const OwnMount* own_mount_ DM_GUARDED_BY(index_mutex_) = nullptr;
  bool stopping_ DM_GUARDED_BY(index_mutex_) = false;  // nothing is removed any more
};

}  // namespace dmfs
