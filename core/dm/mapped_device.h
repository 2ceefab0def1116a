// SPDX-License-Identifier: Apache-2.0
// A mapped device: a live table that I/O goes through, an inactive one that waits for resume, and
// the state machine of suspend and resume.
//
// Lock order: command_mutex_ > (a manager's and a store's locks) > slots_mutex_ ; held_mutex_ and
// the event mutex are leaves. Targets, completions and submit() are called with none of them
// held, except hooks (presuspend ...), which run under command_mutex_.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/dm/event_counter.h"
#include "core/dm/held.h"
#include "core/dm/fs_freezer.h"
#include "core/dm/in_flight.h"
#include "core/dm/table.h"
#include "core/io/bio.h"

namespace dmfs {

struct DmIo;

struct SuspendOptions {
  bool noflush = false;
  bool lockfs = true;            // freeze file systems over the device; not when noflush
  FsFreezer* freezer = nullptr;  // who does that; nullptr: nobody. Must outlive the resume
};

class MappedDevice {
 public:
  // `budget` outlives the device; without one it has one of its own.
  explicit MappedDevice(uint32_t minor) : MappedDevice(minor, own_budget_) {}
  MappedDevice(uint32_t minor, HeldBudget& budget);
  ~MappedDevice();  // no I/O inside, nothing held
  MappedDevice(const MappedDevice&) = delete;
  MappedDevice& operator=(const MappedDevice&) = delete;

  uint32_t minor() const { return minor_; }

  // ---- I/O: any thread, never blocks for long --------------------------------------------
  // Takes the bio and completes it once. `bio.sector` counts from the start of the device. While
  // the device is suspended the bio waits on the deferred list. Past the end: EIO. A write to a
  // read-only table: EPERM.
  //
  // A barrier (kBioBarrier; on an ordered table also a write with kBioFua): what is in flight
  // ends, then a flush, the bio, and, if it changes anything, another flush. What comes later waits
  // on the deferred list. A flush that is a barrier is one flush. The first error is kept, save that
  // EOPNOTSUPP supersedes it; when the first flush fails the bio itself is not sent (the kernel of
  // 2009, the last with barriers, sent it). Pushed back as a whole.
  void submit(Bio& bio);
  // Whether submit() would put a bio on the deferred list now (a hint).
  bool defers() const { return in_flight_.closed(); }
  // Nobody waits for the bio any more: where it is held (here, by a target, or on a volume below)
  // it completes with `error`, now or when it would be held. False when nothing of it is held now;
  // it completes by itself then. The bio is one that was given to submit().
  bool cancel_held(Bio& bio, int error);
  // The same for clones of a bio that came to a volume above.
  size_t cancel(const BioCancel& cancel);
  // Completes everything that is held now, here or by targets, with `error`; returns how many.
  // Later I/O is held again.
  size_t fail_held(int error);
  // The same, and from here on nothing is held any more but fails. For the end.
  void refuse_held(int error);
  size_t held_count() const;
  // What waits here, then what targets keep.
  HeldList held() const;
  HeldBudget& held_budget() { return budget_; }
  // How many were refused because there was no room to hold them.
  uint64_t refused_count() const;
  int64_t in_flight() const { return in_flight_.count(); }

  // ---- what others may see: any thread ----------------------------------------------------
  Sectors size() const { return {size_.load(std::memory_order_acquire)}; }
  bool read_only() const { return read_only_.load(std::memory_order_acquire); }
  bool ordered() const { return ordered_.load(std::memory_order_relaxed); }
  // While a barrier, or what waits behind one, is on its way.
  bool sequencing() const;
  // While a noflush suspend lets requeued bios come back.
  bool noflush_suspending() const;
  // While a suspend waits for what is in flight.
  bool suspending() const { return suspending_.load(std::memory_order_relaxed); }
  bool suspended() const { return suspended_.load(std::memory_order_acquire); }
  std::shared_ptr<const Table> live_table() const;      // shared with readers of status
  std::shared_ptr<const Table> inactive_table() const;
  EventCounter& events() { return events_; }
  // A number that no device has had before, since the last resume: what was read before that may
  // not be what is there. 0 before the first.
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

  // ---- commands: serialised by the caller through command_mutex() --------------------------
  // Called by the functions below at the one point where a change becomes final: makes it durable.
  // When it fails, the change is undone and its error returned.
  using Commit = std::function<Status()>;

  Mutex& command_mutex() DM_ATTRIBUTE(lock_returned(command_mutex_)) { return command_mutex_; }
  // Replaces (or with nullptr drops) the inactive table; the old one is returned, to be destroyed
  // by the caller once it holds no lock.
  std::shared_ptr<Table> set_inactive(std::shared_ptr<Table> table) DM_REQUIRES(command_mutex_);
  // Freezes what lies over the device, blocks new I/O and waits until what is inside has ended.
  // EINTR when cancelled: the device is active again then. A failed freeze likewise. Already
  // suspended: fine.
  Status suspend(const SuspendOptions& options, CancelToken& cancel, const Commit& commit)
      DM_REQUIRES(command_mutex_);
  // Swaps in the inactive table if there is one (suspending first if active), then lets I/O go
  // and thaws what a suspend has frozen.
  // `replaced` gets the old live table, as set_inactive. EINVAL: suspended without any table.
  Status resume(const SuspendOptions& options, CancelToken& cancel, const Commit& commit,
                std::shared_ptr<Table>& replaced) DM_REQUIRES(command_mutex_);
  // What the suspend or resume before this has to say besides its result, and what it has frozen.
  FreezeReport take_report() DM_REQUIRES(command_mutex_);
  // Whether a suspend has frozen what lies over the device, or has tried to.
  bool locked_fs() const DM_REQUIRES(command_mutex_) { return frozen_by_ != nullptr; }
  // At the end, while I/O is still answered: thaws what a suspend has frozen, though the device
  // stays suspended. After refuse_held(), else the thaw might wait for what is held.
  void let_go(CancelToken& cancel) DM_REQUIRES(command_mutex_) { unlock_fs(cancel); }
  // At start, before any I/O: puts the stored state in place. An error when a target refuses to
  // resume; the tables are in place all the same.
  Status restore(std::shared_ptr<Table> live, std::shared_ptr<Table> inactive, bool suspended)
      DM_REQUIRES(command_mutex_);
  // The device is removed and nobody has it open: drops both tables, which the caller destroys
  // once it holds no lock; what waits for an event leaves; I/O fails from here on.
  std::vector<std::shared_ptr<Table>> retire() DM_REQUIRES(command_mutex_);

 private:
  friend struct DmIo;

  // I/O path (dm_io.cc)
  void start(Bio& bio, InFlight::Shard shard);
  void finish(DmIo& io);

  // Barriers (barrier.cc)
  bool is_barrier(Bio& bio) const;
  void submit_barrier(Bio& bio);
  int start_sequencer() DM_REQUIRES(held_mutex_);
  void stop_sequencer();
  void run_sequencer();
  // Whether the sequencer may send what is deferred.
  bool may_sequence() const DM_REQUIRES(held_mutex_) {
    return ordering_ && !blocked_ && !noflush_suspending_;
  }
  // Takes the barrier off the deferred list, if it is still the first and may go now.
  bool take_barrier(Bio& bio);
  void run_barrier(Bio& bio);
  int run_steps(Bio& bio);
  // Sends a part of the sequence of `bio` and waits for it: an errno, 0, or kRequeue.
  int run_step(Bio& bio, Op op);
  static void step_ended(Bio& step);
  // Sends what is deferred, in order, up to the first barrier; when nothing is left, opens the
  // door. By a resume, or (while that may) by the sequencer.
  enum class Issuer { Resume, Sequencer };
  void issue_held(Issuer issuer);

  // Steps 1 to 5 of a suspend. When it fails, the caller makes the device active again.
  Status block_and_drain(const SuspendOptions& options, CancelToken& cancel)
      DM_REQUIRES(command_mutex_);
  Status lock_fs(const SuspendOptions& options, CancelToken& cancel) DM_REQUIRES(command_mutex_);
  // After the door has opened: a file system may have to write in order to thaw.
  void unlock_fs(CancelToken& cancel) DM_REQUIRES(command_mutex_);
  // Closes the door; barriers that have not begun stay deferred.
  void block();
  // Waits until nothing is inside; false when cancelled.
  bool wait_idle(CancelToken& cancel);
  // Sends what was held, in order, and opens the door, or leaves that to the sequencer.
  void unblock() DM_REQUIRES(command_mutex_);
  void publish(std::shared_ptr<Table> live) DM_REQUIRES(command_mutex_);
  Status resume_targets() DM_REQUIRES(command_mutex_);
  // Puts the bio on the deferred list, or answers why not: an errno, and whether to tell it by an
  // event.
  int defer(Bio& bio, bool& tell) DM_REQUIRES(held_mutex_);
  // Completes what was taken off a list; how many.
  size_t let_go(BioList& list, int error);
  void taken(Bio& bio);
  // One atomic step: if a noflush suspend is under way the bio goes to pushback.
  bool push_back(Bio& bio);

  // constant after construction
  const uint32_t minor_;
  HeldBudget own_budget_;
  HeldBudget& budget_;

  // own synchronisation
  InFlight in_flight_;
  EventCounter events_;
  std::atomic<uint64_t> size_{0};
  std::atomic<bool> read_only_{false};
  std::atomic<bool> ordered_{false};
  std::atomic<bool> suspended_{false};
  std::atomic<bool> suspending_{false};
  std::atomic<uint64_t> generation_{0};
  std::atomic<uint64_t> cancel_round_{0};  // the last BioCancel::round that was here
  // Read by whoever is counted in_flight_; changed only while nobody is.
  std::atomic<const Table*> io_table_{nullptr};

  Mutex command_mutex_;  // one command at a time; held across waits
  FsFreezer* frozen_by_ DM_GUARDED_BY(command_mutex_) = nullptr;  // owes us a thaw()
  FreezeReport report_ DM_GUARDED_BY(command_mutex_);

  mutable Mutex slots_mutex_;
  std::shared_ptr<Table> live_ DM_GUARDED_BY(slots_mutex_);
  std::shared_ptr<Table> inactive_ DM_GUARDED_BY(slots_mutex_);

  mutable Mutex held_mutex_;  // leaf: take no lock while holding this
  BioList deferred_ DM_GUARDED_BY(held_mutex_);
  BioList pushback_ DM_GUARDED_BY(held_mutex_);
  bool noflush_suspending_ DM_GUARDED_BY(held_mutex_) = false;
  uint64_t refused_ DM_GUARDED_BY(held_mutex_) = 0;
  uint64_t refused_told_ DM_GUARDED_BY(held_mutex_) = 0;
  int refuse_held_with_ DM_GUARDED_BY(held_mutex_) = 0;  // nothing is held any more but fails

  // The door is closed while one of these is set, and changes only under held_mutex_.
  bool blocked_ DM_GUARDED_BY(held_mutex_) = false;   // by a suspend, until its resume is through
  bool ordering_ DM_GUARDED_BY(held_mutex_) = false;  // for a barrier; the sequencer opens it
  // The sequencer sends something, or has part of a barrier under way. A suspend waits for that.
  bool sequencing_ DM_GUARDED_BY(held_mutex_) = false;
  bool stopping_ DM_GUARDED_BY(held_mutex_) = false;
  bool step_done_ DM_GUARDED_BY(held_mutex_) = false;
  CondVar sequencer_wake_;   // may_sequence(), step_done_ or stopping_ may have changed
  CondVar sequence_ended_;   // sequencing_ is false, or who waits is to look up
  std::atomic<bool> reconsider_{false};  // set under held_mutex_: the device may not be as it was when a barrier began to wait
  std::thread sequencer_ DM_GUARDED_BY(held_mutex_);  // since the first barrier; joined at the end
  struct Step : Bio {
    explicit Step(MappedDevice& device) : Bio(&MappedDevice::step_ended), owner(device) {}
    MappedDevice& owner;
  };
  Step step_{*this};  // the sequencer's: the one part of a barrier that is on its way
};

}  // namespace dmfs
