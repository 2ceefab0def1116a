// SPDX-License-Identifier: Apache-2.0
// mirror: the same data on several legs. This is the whole of the target; its parts are in
//   mirror.cc           map, the hooks, what waits
//   mirror_reads.cc     a read, and another leg when one fails
//   mirror_writes.cc    a write from the log to the legs, and what happens when one fails
//   mirror_recovery.cc  copying regions that differ, and ranges that could not be read
//   mirror_clean.cc     regions that nothing goes on in are told to the log as clean
//   mirror_late.cc      legs that did not answer in time
//   mirror_stale.cc     legs that have missed what was acknowledged
//   mirror_args.cc      the table line
//
// Lock order: mutex_, then those of the log, the clock and the event counter. No bio completes, and
// neither the client, the copier nor the log is called to do I/O, with it held.
//
// Who finishes a bio may see the mirror destroyed right after; whatever else goes on is counted in
// what the destructor waits for, and touches the mirror last when it counts itself out.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "core/base/alarm.h"
#include "core/base/executor.h"
#include "core/base/mutex.h"
#include "core/dm/target.h"
#include "core/io/io_client.h"
#include "core/io/kcopyd.h"
#include "core/targets/mirror/dirty_log.h"
#include "core/targets/mirror/legs.h"
#include "core/targets/mirror/regions.h"

namespace dmfs {

struct MirrorFeatures {
  bool handle_errors = false;
  bool keep_log = false;
  std::chrono::milliseconds io_timeout{0};  // 0: none
};

class Mirror final : public Target {
 public:
  struct Parts {
    std::unique_ptr<DirtyLog> log;
    std::vector<std::pair<BackingFile*, Sectors>> legs;
    MirrorFeatures features;
  };
  // ENOMEM, EINVAL.
  static Result<std::unique_ptr<Target>> make(TargetContext& context, Parts parts);
  // Stops copying, tells the log what is clean unless suspended, and waits for its own I/O.
  ~Mirror() override;

  MapResult map(Bio& bio) override;
  EndIo end_io(Bio& bio, int& error) override;
  size_t cancel(const BioCancel& cancel) override;
  std::string table_line() const override;
  std::string status_line() const override;
  IoLimits limits() const override;
  bool supports_discard() const override;
  void list_held(HeldList& list) const override;
  std::string freed_by() const override;
  void presuspend() override;
  void presuspend_undo() override;
  void postsuspend() override;
  void resume() override;
  std::optional<std::string> hand_over() const override;
  std::optional<std::string> take_over(std::span<const TargetSpec> before) override;
  bool lingers() const override { return client_->late() > 0; }
  Extent extent_at(Sectors offset, Sectors length) const override;
  Sectors allocated(Sectors length) const override;

 private:
  struct Write;
  struct TimedRead;
  // A range that a leg could not read and another one could.
  struct Repair {
    unsigned leg;
    Sectors offset, count;  // within the target
  };
  class RecoveryJob final : public CopyJob {
   public:
    explicit RecoveryJob(Mirror& mirror) : mirror_(mirror) {}
    void ended(const Outcome& outcome) override { mirror_.recovery_ended(outcome); }
    std::array<CopyJob::Place, Legs::kMax> places;

   private:
    Mirror& mirror_;
  };
  // Requests of the mirror's own, one at a time.
  class OwnRequest final : public IoNotify {
   public:
    // The result: which regions failed, and which of these did not answer in time.
    using Ended = void (Mirror::*)(Legs::Mask failed, Legs::Mask late);
    OwnRequest(Mirror& mirror, Ended ended) : mirror_(mirror), ended_(ended) {}
    void notified(const IoNotice& notice) override;
    std::array<IoRegion, Legs::kMax> regions;
    std::array<unsigned, Legs::kMax> leg_of{};
    IoRequest request;

   private:
    Mirror& mirror_;
    const Ended ended_;
    Legs::Mask failed_ = 0, late_ = 0;
  };

  Mirror(TargetContext& context, Parts parts);
  bool times_out() const { return features_.io_timeout.count() > 0; }
  RegionIndex region_of(Sectors offset) const { return offset.n / region_size_; }
  uint64_t region_count() const { return log_->region_count(); }

  // ---- mirror.cc
  // True: the bio has been taken.
  bool wait_until_loaded(Bio& bio);
  void loaded();
  void end_all_held();

  // ---- mirror_reads.cc
  MapResult map_read(Bio& bio);
  // Where to read, if there is a place.
  std::optional<unsigned> leg_to_read(Sectors offset) const;
  // `bio.sector` is that of the device, before and after.
  bool choose_leg_for(Bio& bio) const;
  void send_timed_read(Bio& bio);
  void timed_read_ended(Bio& bio, RegionState state);
  // A leg has failed the read. True: the bio has been pointed at another one.
  bool read_failed(Bio& bio, LegError how);
  void note_repairs(const Bio& bio);

  // ---- mirror_writes.cc
  // Takes a write, discard, write-zeroes or flush to where it can go on.
  void admit(Bio& bio);
  void issue(Write& write);
  void write_ended(Write& write);
  // A write that has reached none or not all of its legs. `failed`, `late`: which it has not.
  void write_failed(Write& write);
  // Keeps it until there is a new table, or answers why not.
  int hold_write(Write& write) DM_REQUIRES(mutex_);
  // Ends the bio, or the piece of it, as soon as it will be found again.
  void finish(Write& write, int error);
  void end_write(Write& write, int error);
  // Notes that a leg has failed; that it is late only if it may be given up.
  void fail_leg(unsigned leg, LegError error) DM_EXCLUDES(mutex_);
  // True: the caller is to call run_log_flush() when it has let go of the lock.
  bool want_log_flush() DM_REQUIRES(mutex_);
  void run_log_flush();
  void log_flushed(int error);

  // ---- mirror_recovery.cc
  // Goes on with what is to be copied, if nothing is.
  void kick_recovery();
  // True: a copy is to be started with start_copy().
  bool next_copy() DM_REQUIRES(mutex_);
  bool next_repair() DM_REQUIRES(mutex_);
  bool begin_copy_of(RegionIndex region) DM_REQUIRES(mutex_);
  void fill_job(Sectors offset, Sectors count) DM_REQUIRES(mutex_);
  void check_in_sync() DM_REQUIRES(mutex_);
  void start_copy();
  void recovery_ended(const CopyJob::Outcome& outcome);
  // What the region is after the copy; its delayed writes.
  BioList settle_copied(const CopyJob::Outcome& outcome) DM_REQUIRES(mutex_);
  BioList give_up_copy() DM_REQUIRES(mutex_);
  void readmit(BioList bios);
  void stop_recovery();
  void allow_recovery();

  // ---- mirror_clean.cc
  // Nothing goes on any more in a region that is the same on all legs.
  void region_idle(RegionIndex region) DM_REQUIRES(mutex_);
  void clean_due();
  bool begin_cleaning() DM_REQUIRES(mutex_);
  void legs_flushed(Legs::Mask failed, Legs::Mask late);
  // Waits until the log is told all that can be told.
  void settle_log();

  // ---- mirror_stale.cc
  Legs::Mask all_legs() const;
  std::string stale_text(Legs::Mask stale) const;
  Legs::Mask stale_in(const std::string& text) const;
  // Before the first I/O.
  void begin_with_stale(Legs::Mask stale) DM_EXCLUDES(mutex_);
  // Some legs have missed what is about to be acknowledged. False: then none would have all.
  bool narrow_complete(Legs::Mask having) DM_REQUIRES(mutex_);
  // A leg that has all: the primary one if it has.
  unsigned whole_leg() const DM_REQUIRES(mutex_);
  // Whether a restart would begin from a leg that has all.
  bool is_remembered() const DM_REQUIRES(mutex_);
  // True: the write waits for that. `error`: it cannot be acknowledged.
  bool wait_until_remembered(Write& write, int& error);
  void want_save() DM_REQUIRES(mutex_);
  void save_stale();  // on the worker
  bool flush_legs();

  // ---- mirror_late.cc
  // The leg has not answered in time.
  void leg_overdue(unsigned leg);
  // Whether there is another one to go on with.
  bool may_give_up(unsigned leg) const DM_REQUIRES(mutex_);
  void arm_probe();
  void probe_late();
  void probed(Legs::Mask failed, Legs::Mask late);
  void stop_probing();

  // constant after construction
  TargetContext& context_;
  const MirrorFeatures features_;
  const std::unique_ptr<DirtyLog> log_;
  const uint64_t region_size_;  // sectors

  // own synchronisation
  Legs legs_;
  std::atomic<bool> loaded_{false};
  std::atomic<uint64_t> repaired_{0};   // ranges
  std::atomic<uint64_t> late_count_{0}; // how often a leg has become late

  mutable Mutex mutex_;
  CondVar changed_;  // something that a hook or the destructor may wait for has ended
  bool suspending_ DM_GUARDED_BY(mutex_) = false;  // from presuspend() to resume()
  bool asleep_ DM_GUARDED_BY(mutex_) = true;       // from postsuspend() to resume(): the log is not ours
  bool closing_ DM_GUARDED_BY(mutex_) = false;
  bool in_sync_ DM_GUARDED_BY(mutex_);             // all regions are, and no write has failed since
  bool log_failure_ DM_GUARDED_BY(mutex_) = false;
  bool leg_failure_ DM_GUARDED_BY(mutex_) = false; // other than a late leg
  BioList waits_for_load_ DM_GUARDED_BY(mutex_);
  Regions regions_ DM_GUARDED_BY(mutex_);
  // Those whose regions are being marked, and those that are kept until the table is replaced.
  std::deque<Write*> awaiting_log_ DM_GUARDED_BY(mutex_);
  std::deque<Write*> held_ DM_GUARDED_BY(mutex_);

  // The legs that have all that was acknowledged; there is always one.
  Legs::Mask complete_ DM_GUARDED_BY(mutex_) = 0;
  Legs::Mask pretended_ DM_GUARDED_BY(mutex_) = 0;  // legs that only count as copied to
  // Legs that a restart must not begin from; and of these the ones that are certainly saved.
  Legs::Mask stale_ DM_GUARDED_BY(mutex_) = 0;
  Legs::Mask saved_stale_ DM_GUARDED_BY(mutex_) = 0;
  bool saving_ DM_GUARDED_BY(mutex_) = false;  // save_stale() runs or will
  std::deque<Write*> awaiting_save_ DM_GUARDED_BY(mutex_);

  bool told_full_ DM_GUARDED_BY(mutex_) = false;  // that there was no room for more in held_

  bool log_busy_ DM_GUARDED_BY(mutex_) = false;    // resume() or flush() is under way
  bool log_wanted_ DM_GUARDED_BY(mutex_) = false;  // another flush is to follow
  uint64_t next_mark_ DM_GUARDED_BY(mutex_) = 1;   // the log write that will hold new marks
  uint64_t flushing_mark_ DM_GUARDED_BY(mutex_) = 0;
  uint64_t durable_mark_ DM_GUARDED_BY(mutex_) = 0;

  // Recovery: one region at a time, as in the kernel.
  enum class Copy : uint8_t { Idle, Quiescing, Copying };
  Copy copy_ DM_GUARDED_BY(mutex_) = Copy::Idle;
  bool recovery_allowed_ DM_GUARDED_BY(mutex_) = false;
  bool copy_is_repair_ DM_GUARDED_BY(mutex_) = false;
  RegionIndex copied_region_ DM_GUARDED_BY(mutex_) = 0;
  unsigned copy_source_ DM_GUARDED_BY(mutex_) = 0;
  Repair repair_ DM_GUARDED_BY(mutex_){};
  std::deque<Repair> repairs_ DM_GUARDED_BY(mutex_);
  bool cleaning_ DM_GUARDED_BY(mutex_) = false;
  std::vector<RegionIndex> cleaned_ DM_GUARDED_BY(mutex_);
  bool probing_ DM_GUARDED_BY(mutex_) = false;
  unsigned probed_leg_ DM_GUARDED_BY(mutex_) = 0;

  // Of whoever holds the copy, the cleaning or the probe.
  RecoveryJob job_;
  OwnRequest flush_request_;
  OwnRequest probe_request_;
  std::array<std::byte, kSectorSize> probe_memory_;

  // own synchronisation; destroyed first, in this order from the bottom
  ThreadExecutor worker_;
  std::unique_ptr<IoClient> client_;
  std::unique_ptr<Kcopyd> copier_;
  Alarm clean_alarm_;
  Alarm probe_alarm_;
};

}  // namespace dmfs
