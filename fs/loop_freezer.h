// SPDX-License-Identifier: Apache-2.0
// lockfs for a mount of ours: file systems that are mounted from loop devices over a volume are
// frozen (FIFREEZE) until thaw(), and what the kernel caches for the volume is written out.
//
// All of it may wait for I/O of the volume, and nothing wakes it from that; so it is done on a
// thread of its own for each freeze and thaw, and the command that waits for it can leave. Nothing
// here runs on a thread that serves the mount.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/base/fd.h"
#include "core/base/mutex.h"
#include "core/dm/fs_freezer.h"
#include "fs/loop_devices.h"
#include "fs/mount_info.h"

namespace dmfs {

class LoopFreezer final : public FsFreezer {
 public:
  struct Options {
    dev_t device = 0;   // the mount's
    std::string mount;  // where it is
    bool cache = false;  // the kernel keeps pages of volumes
    // Asked on the threads of commands: what a volume is called, and whether anybody has its file
    // open. What nobody has open has no loop device, and no pages to write out.
    std::function<std::string(uint32_t minor)> name_of;
    std::function<bool(uint32_t minor)> is_open;
    // Files that the daemon itself writes to: their file systems are never frozen.
    std::vector<std::string> own_files = {};
    LoopDevices loops = {};
  };

  explicit LoopFreezer(Options options) : options_(std::move(options)) {}
  ~LoopFreezer() override;  // after finish(); waits for what is under way
  LoopFreezer(const LoopFreezer&) = delete;
  LoopFreezer& operator=(const LoopFreezer&) = delete;

  Result<FreezeReport> freeze(uint32_t minor, CancelToken& cancel) override DM_EXCLUDES(mutex_);
  // Waits kMaxThawWait at the most: the thaw may need another volume that is suspended.
  std::vector<std::string> thaw(uint32_t minor, CancelToken& cancel) override DM_EXCLUDES(mutex_);

  static constexpr std::chrono::seconds kMaxThawWait{5};

  // At the end, when the mount is gone and so nothing waits for its I/O any more. False: something
  // waits all the same, and this object must not be destroyed.
  bool finish(std::chrono::seconds patience) DM_EXCLUDES(mutex_);

 private:
  struct Frozen {
    Fd root;  // keeps the mount from going away
    std::string point;
  };
  // What one freeze works on.
  struct Work {
    LoopFile file;
    FreezeReport report = {};
    std::vector<Frozen> frozen = {};
    std::vector<Mounted> mounts = {};
    std::set<dev_t> seen = {};  // file systems that it has dealt with
  };
  enum class State : uint8_t { Idle, Freezing, Frozen, Thawing };
  // Guarded by the mutex_, save for the thread, which belongs to the volume's command.
  struct Volume {
    State state = State::Idle;
    bool abandoned = false;  // nobody waits for the freeze: thaw when it is done
    std::thread thread;      // of the last freeze or thaw
    std::vector<Frozen> frozen = {};
    Result<FreezeReport> report = FreezeReport{};
    std::vector<std::string> thaw_notes = {};
  };

  // Returns when the volume is neither freezing nor thawing; false: `cancel` or the time says so.
  bool wait_settled(const Volume& volume, CancelToken& cancel,
                    std::chrono::steady_clock::time_point until) DM_EXCLUDES(mutex_);
  void run_freeze(Volume& volume, Work work) DM_EXCLUDES(mutex_);
  void run_thaw(Volume& volume) DM_EXCLUDES(mutex_);

  // ---- on a thread of ours, no lock held ----
  Status freeze_all(Work& work) const;
  // Whether any file system was found there.
  Result<bool> freeze_on(const BlockDevice& device, Work& work) const;
  Status freeze_one(const Mounted& mounted, Fd root, Work& work) const;
  // What was written to a block device past all file systems.
  Status write_out(const BlockDevice& device, bool has_file_system, Work& work) const;
  // What was changed in mapped pages of the volume's own file.
  Status write_out_pages(Work& work) const;
  bool is_own(const Mounted& mounted, const Work& work) const;
  static std::vector<std::string> thaw_these(std::vector<Frozen>& frozen);

  // constant after construction
  const Options options_;

  Mutex mutex_;  // leaf: a CancelToken is told under its own
  CondVar changed_;
  std::map<uint32_t, Volume> volumes_ DM_GUARDED_BY(mutex_);  // only added to
};

}  // namespace dmfs
