// SPDX-License-Identifier: Apache-2.0
#include "core/dm/mapped_device.h"

#include <cassert>
#include <utility>

#include <fmt/format.h>

namespace dmfs {
namespace {

uint64_t next_generation() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1) + 1;
}

}  // namespace

MappedDevice::MappedDevice(uint32_t minor, HeldBudget& budget) : minor_(minor), budget_(budget) {}

MappedDevice::~MappedDevice() {
  stop_sequencer();
  MutexLock lock(held_mutex_);
  assert(in_flight_.count() == 0 && deferred_.empty() && pushback_.empty());
}

std::shared_ptr<const Table> MappedDevice::live_table() const {
  MutexLock lock(slots_mutex_);
  return live_;
}

std::shared_ptr<const Table> MappedDevice::inactive_table() const {
  MutexLock lock(slots_mutex_);
  return inactive_;
}

std::shared_ptr<Table> MappedDevice::set_inactive(std::shared_ptr<Table> table) {
  MutexLock lock(slots_mutex_);
  std::swap(inactive_, table);
  return table;
}

bool MappedDevice::cancel_held(Bio& bio, int error) {
  static std::atomic<uint64_t> last_round{0};
  // First the mark, then the search: who keeps the bio meanwhile sees one, or is found by the other.
  bio.cancel_error.store(error, std::memory_order_relaxed);
  return cancel({&bio, error, last_round.fetch_add(1) + 1}) > 0;
}

size_t MappedDevice::cancel(const BioCancel& cancel) {
  // Volumes may lie on one several times over.
  if (cancel_round_.exchange(cancel.round) == cancel.round) return 0;
  BioList deferred, pushback;
  {
    MutexLock lock(held_mutex_);
    deferred = deferred_.take(cancel);
    pushback = pushback_.take(cancel);
    reconsider_.store(true);
  }
  if (deferred.barriers() > 0) in_flight_.poke();
  size_t count = let_go(pushback, cancel.error) + let_go(deferred, cancel.error);
  if (in_flight_.count() == 0) return count;
  if (auto table = live_table()) {
    for (const Table::Entry& entry : table->entries()) count += entry.target->cancel(cancel);
    for (BackingFile* device : table->devices()) count += device->cancel(cancel);
  }
  return count;
}

size_t MappedDevice::fail_held(int error) {
  BioList deferred, pushback;
  {
    MutexLock lock(held_mutex_);
    std::swap(deferred, deferred_);
    std::swap(pushback, pushback_);
    reconsider_.store(true);
  }
  if (deferred.barriers() > 0) in_flight_.poke();
  size_t count = let_go(pushback, error) + let_go(deferred, error);
  if (in_flight_.count() == 0) return count;
  if (auto table = live_table()) {
    for (const Table::Entry& entry : table->entries()) {
      count += entry.target->cancel({.origin = nullptr, .error = error});
    }
  }
  return count;
}

bool MappedDevice::noflush_suspending() const {
  MutexLock lock(held_mutex_);
  return noflush_suspending_;
}

size_t MappedDevice::held_count() const {
  MutexLock lock(held_mutex_);
  return deferred_.size() + pushback_.size();
}

uint64_t MappedDevice::refused_count() const {
  MutexLock lock(held_mutex_);
  return refused_;
}

HeldList MappedDevice::held() const {
  HeldList list;
  {
    MutexLock lock(held_mutex_);
    list.add_all("pushback", pushback_);
    list.add_all("deferred", deferred_);
  }
  if (auto table = live_table()) {
    for (const Table::Entry& entry : table->entries()) entry.target->list_held(list);
  }
  return list;
}

int MappedDevice::defer(Bio& bio, bool& tell) {
  if (refuse_held_with_) return refuse_held_with_;
  if (int cancelled = bio.cancelled()) return cancelled;
  // What waits for a barrier only is not refused: the front bounds it, and it goes on by itself.
  if (!blocked_) {
    budget_.force(bio);
  } else if (!budget_.take(bio)) {
    // Told once for all that is refused until there is room again.
    tell = refused_++ == refused_told_;
    return ENOMEM;
  }
  refused_told_ = refused_;
  stamp_held(bio);
  deferred_.push_back(bio);
  return 0;
}

size_t MappedDevice::let_go(BioList& list, int error) {
  size_t count = list.size();
  while (Bio* bio = list.pop_front()) {
    taken(*bio);
    bio->complete(error);
  }
  return count;
}

void MappedDevice::taken(Bio& bio) {
  budget_.give(bio);
  bio.held_since = 0;
}

void MappedDevice::publish(std::shared_ptr<Table> live) {
  assert(in_flight_.closed());
  const Table* table = live.get();
  {
    MutexLock lock(slots_mutex_);
    live_ = std::move(live);
  }
  io_table_.store(table, std::memory_order_release);
  size_.store(table ? table->size().n : 0, std::memory_order_release);
  read_only_.store(table && table->read_only(), std::memory_order_release);
  ordered_.store(table && table->ordered(), std::memory_order_relaxed);
}

Status MappedDevice::lock_fs(const SuspendOptions& options, CancelToken& cancel) {
  if (!options.lockfs || options.noflush || !options.freezer) return {};
  DM_TRY(report_, options.freezer->freeze(minor_, cancel));
  frozen_by_ = options.freezer;
  return {};
}

void MappedDevice::unlock_fs(CancelToken& cancel) {
  FsFreezer* freezer = std::exchange(frozen_by_, nullptr);
  if (!freezer) return;
  std::vector<std::string> notes = freezer->thaw(minor_, cancel);
  report_.frozen.clear();
  report_.notes.insert(report_.notes.end(), notes.begin(), notes.end());
}

FreezeReport MappedDevice::take_report() { return std::exchange(report_, {}); }

void MappedDevice::refuse_held(int error) {
  {
    MutexLock lock(held_mutex_);
    refuse_held_with_ = error;
  }
  (void)fail_held(error);
}

Status MappedDevice::block_and_drain(const SuspendOptions& options, CancelToken& cancel) {
  std::shared_ptr<const Table> table = live_table();
  // 1. Targets are told first; that this is a noflush suspend they can see already.
  {
    MutexLock lock(held_mutex_);
    noflush_suspending_ = options.noflush;
  }
  if (table) {
    for (const Table::Entry& entry : table->entries()) entry.target->presuspend();
  }
  // 2. What lies over the device writes out what it has, and writes no more: through the open door.
  suspending_.store(true, std::memory_order_relaxed);
  if (Status locked = table ? lock_fs(options, cancel) : Status(); !locked) {
    suspending_.store(false, std::memory_order_relaxed);
    for (const Table::Entry& entry : table->entries()) entry.target->presuspend_undo();
    return locked;
  }
  // 3. New I/O goes to the deferred list from here on, and barriers that have not begun stay there.
  block();
  // 4. Everything inside ends, or is pushed back.
  bool empty = wait_idle(cancel);
  suspending_.store(false, std::memory_order_relaxed);
  // 5. Nothing is pushed back any more; what was goes before what came later.
  {
    MutexLock lock(held_mutex_);
    noflush_suspending_ = false;
    deferred_.splice_front(pushback_);
  }
  if (!empty) {
    if (table) {
      for (const Table::Entry& entry : table->entries()) entry.target->presuspend_undo();
    }
    return Error{EINTR, fmt::format("suspend was interrupted while {} bios were in flight",
                                    in_flight_.count())};
  }
  if (table) {
    for (const Table::Entry& entry : table->entries()) entry.target->postsuspend();
  }
  return {};
}

void MappedDevice::block() {
  {
    MutexLock lock(held_mutex_);
    blocked_ = true;
    in_flight_.close();
    reconsider_.store(true);
  }
  in_flight_.poke();
}

bool MappedDevice::wait_idle(CancelToken& cancel) {
  CancelToken::Waker waker(cancel, [this] {
    in_flight_.poke();
    MutexLock lock(held_mutex_);
    sequence_ended_.notify_all();
  });
  {
    MutexLock lock(held_mutex_);
    while (sequencing_ && !cancel.cancelled()) sequence_ended_.wait(held_mutex_);
    if (sequencing_) return false;
  }
  return in_flight_.wait_empty([&cancel] { return cancel.cancelled(); });
}

void MappedDevice::unblock() {
  {
    MutexLock lock(held_mutex_);
    if (!blocked_) return;  // the suspend has failed before it blocked anything
    if (sequencing_) {
      // An interrupted suspend: the barrier goes on, and what has gathered goes after it.
      blocked_ = false;
      ordering_ = true;
      return;
    }
  }
  issue_held(Issuer::Resume);
  MutexLock lock(held_mutex_);
  blocked_ = false;
  sequencer_wake_.notify_all();
}

void MappedDevice::issue_held(Issuer issuer) {
  // What was held goes in order, before the door opens to newcomers. Those who arrive meanwhile
  // queue up behind; after a few rounds the door opens whatever is left, else a busy device
  // would pass all its I/O through this thread for ever.
  constexpr int kMaxRounds = 4;
  for (int round = 0;; ++round) {
    BioList held;
    bool last;
    {
      MutexLock lock(held_mutex_);
      if (issuer == Issuer::Sequencer && !may_sequence()) return;
      held = deferred_.take_before_barrier();
      last = !deferred_.empty() || held.empty() || round == kMaxRounds;
      if (last && deferred_.empty()) {
        ordering_ = false;
        in_flight_.open();
      }
    }
    while (Bio* bio = held.pop_front()) {
      taken(*bio);
      start(*bio, in_flight_.enter_closed());
    }
    if (last) return;
  }
}

Status MappedDevice::suspend(const SuspendOptions& options, CancelToken& cancel,
                             const Commit& commit) {
  report_ = {};
  if (suspended()) return {};
  Status done = block_and_drain(options, cancel);
  if (done) {
    done = commit();
    if (!done) (void)resume_targets();
  }
  if (!done) {
    unblock();
    unlock_fs(cancel);
    return done;
  }
  suspended_.store(true, std::memory_order_release);
  return {};
}

Status MappedDevice::resume_targets() {
  std::shared_ptr<const Table> table = live_table();
  if (!table) return {};
  for (const Table::Entry& entry : table->entries()) {
    if (Status ready = entry.target->preresume(); !ready) return ready;
  }
  for (const Table::Entry& entry : table->entries()) entry.target->resume();
  return {};
}

Status MappedDevice::resume(const SuspendOptions& options, CancelToken& cancel,
                            const Commit& commit, std::shared_ptr<Table>& replaced) {
  std::shared_ptr<Table> next;
  std::shared_ptr<Table> before;
  report_ = {};
  {
    MutexLock lock(slots_mutex_);
    next = inactive_;
    before = live_;
  }
  if (!next && !suspended()) return {};
  if (!next && !before) return Error{EINVAL, "suspended, and has no table to resume with"};

  bool was_suspended = suspended();
  if (!was_suspended) {
    if (Status drained = block_and_drain(options, cancel); !drained) {
      unblock();
      unlock_fs(cancel);
      return drained;
    }
  }
  if (next) {
    set_inactive(nullptr);
    if (before) next->take_over(*before);
    publish(next);
  }
  Status done = resume_targets();
  if (done) done = commit();
  if (!done) {
    // A target that refuses keeps the device suspended, as in the kernel, but here with the table
    // that it had: what the store has is what there is.
    if (next) {
      set_inactive(next);
      publish(before);
    }
    if (was_suspended) return done;
    (void)resume_targets();  // it was active: wake what block_and_drain() has put to sleep
    unblock();
    unlock_fs(cancel);
    return done;
  }
  if (next) replaced = std::move(before);
  suspended_.store(false, std::memory_order_release);
  unblock();
  // After what was held has gone its way: who sees this may wait for requests.
  generation_.store(next_generation(), std::memory_order_release);
  unlock_fs(cancel);
  return {};
}

Status MappedDevice::restore(std::shared_ptr<Table> live, std::shared_ptr<Table> inactive,
                             bool suspended) {
  (void)set_inactive(std::move(inactive));
  block();
  publish(std::move(live));
  suspended_.store(suspended, std::memory_order_release);
  if (suspended) return {};
  Status ready = resume_targets();
  unblock();
  return ready;
}

std::vector<std::shared_ptr<Table>> MappedDevice::retire() {
  block();
  refuse_held(ENXIO);
  // Nobody has it open, so there is hardly anything to thaw; and nobody to wait for it.
  CancelToken at_once;
  at_once.cancel();
  unlock_fs(at_once);
  std::vector<std::shared_ptr<Table>> tables{set_inactive(nullptr)};
  {
    MutexLock lock(slots_mutex_);
    tables.push_back(live_);
  }
  publish(nullptr);
  events_.close();
  return tables;
}

}  // namespace dmfs
