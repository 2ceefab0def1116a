// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cassert>
#include <utility>

#include "core/targets/mirror/mirror_write.h"

namespace dmfs {
namespace {

constexpr uint64_t kMaxPieceRegions = 4096;  // of a discard or write-zeroes at a time

}  // namespace

void Mirror::Write::notified(const IoNotice& notice) {
  if (notice.state == RegionState::Timeout) return mirror->leg_overdue(leg_of[notice.region]);
  Legs::Mask bit = Legs::Mask{1} << leg_of[notice.region];
  if (notice.state == RegionState::Error) failed |= bit;
  if (notice.state == RegionState::Error && notice.error == EOPNOTSUPP) unsupported |= bit;
  if (notice.state == RegionState::Cancelled) late |= bit;
  if (notice.last) mirror->write_ended(*this);
}

void Mirror::admit(Bio& bio) {
  Write* write = nullptr;
  bool flush_log = false, hold = false, go = false;
  int cancelled = 0;
  {
    MutexLock lock(mutex_);
    bool has_regions = bio.op != Op::Flush;
    Sectors offset = has_regions ? context_.offset(bio) : Sectors{};
    RegionIndex first = region_of(offset), last = first;
    Sectors count = bio.count;
    if (has_regions) {
      Sectors most{(first + kMaxPieceRegions) * region_size_ - offset.n};
      count = std::min(count, most);
      last = region_of(offset + count - Sectors{1});
    }
    bool no_sync = false;
    for (RegionIndex region = first; has_regions && region <= last && !write; ++region) {
      RegionPhase phase = regions_.phase(region);
      no_sync |= phase == RegionPhase::NoSync;
      if (phase != RegionPhase::Recovering) continue;
      cancelled = bio.cancelled();
      if (cancelled) break;
      stamp_held(bio);
      regions_.find(region)->delayed.push_back(bio);
      return;
    }
    if (!cancelled) {
      write = ObjectPool<Write>::get();
      write->mirror = this;
      write->bio = &bio;
      write->count = count;
      write->has_regions = has_regions;
      // A range of several regions goes to all legs, whatever it crosses.
      write->only_primary = no_sync && first == last;
      write->first = first;
      write->last = last;
      write->mark = 0;
      write->sent = write->failed = write->late = write->unsupported = 0;
      uint64_t mark = log_->persistent() ? next_mark_ : 0;
      for (RegionIndex region = first; has_regions && region <= last; ++region) {
        regions_.begin_write(region, mark);
        write->mark = std::max(write->mark, regions_.find(region)->mark);
      }
      // While a leg has failed what does not go to all legs waits, as does everything when the log
      // has: until there is a new table.
      hold = features_.handle_errors &&
             (log_failure_ || (no_sync && leg_failure_ && !features_.keep_log));
      if (!hold && !write->only_primary && write->mark > durable_mark_) {
        cancelled = bio.cancelled();
        if (!cancelled) {
          stamp_held(bio);
          awaiting_log_.push_back(write);
          flush_log = want_log_flush();
        }
      } else {
        go = true;
      }
    }
  }
  if (cancelled) {
    if (write) return finish(*write, cancelled);
    return bio.complete(cancelled);
  }
  if (hold) return write_failed(*write);
  if (go) return issue(*write);
  if (flush_log) run_log_flush();
}

void Mirror::issue(Write& write) {
  Bio& bio = *write.bio;
  bio.held_since = 0;
  Sectors offset = write.has_regions ? context_.offset(bio) : Sectors{};
  unsigned used = 0, primary = 0;
  if (write.only_primary) {
    MutexLock lock(mutex_);
    primary = whole_leg();
  }
  for (unsigned i = 0; i < legs_.size(); ++i) {
    if (write.only_primary && i != primary) continue;
    if (legs_.late(i)) {
      write.late |= Legs::Mask{1} << i;
      continue;
    }
    const Legs::Leg& leg = legs_[i];
    write.sent |= Legs::Mask{1} << i;
    write.leg_of[used] = i;
    write.regions[used++] =
        write.has_regions ? IoRegion(leg.file, leg.start + offset, write.count)
                          : IoRegion(leg.file, {}, {});
  }
  if (used == 0) return write_ended(write);
  IoRequest& request = write.request;
  request.op = bio.op;
  request.flags = bio.flags;
  request.memory = op_has_data(bio.op)
                       ? IoMemory::scatter({bio.data.segments, bio.data.segment_count},
                                           bio.data.offset)
                       : IoMemory();
  request.regions = {write.regions.data(), used};
  request.notify = &write;
  request.timeout = features_.io_timeout;
  request.cancel_on_timeout = false;  // leg_overdue() decides
  request.cancellable = times_out();
  request.pid = bio.pid;
  client_->submit(request);
}

void Mirror::write_ended(Write& write) {
  Legs::Mask all = (Legs::Mask{1} << legs_.size()) - 1;
  if (!(write.failed | write.late)) return finish(write, 0);
  // What none can do leaves them as they are, and says nothing about them.
  if (write.unsupported == all || (write.only_primary && write.unsupported)) {
    return finish(write, EOPNOTSUPP);
  }
  for (unsigned i = 0; i < legs_.size(); ++i) {
    if (write.failed >> i & 1) fail_leg(i, kWriteError);
  }
  if (write.only_primary) {
    // Another leg that has all may have taken its place.
    bool another;
    {
      MutexLock lock(mutex_);
      another = !legs_.failed(whole_leg()) && !(write.sent >> whole_leg() & 1);
    }
    if (another) {
      write.sent = write.failed = write.late = write.unsupported = 0;
      return issue(write);
    }
    return finish(write, EIO);
  }
  write_failed(write);
}

void Mirror::fail_leg(unsigned leg, LegError error) {
  {
    MutexLock lock(mutex_);
    if (error == kLate && !may_give_up(leg)) return;
    if (error != kLate) leg_failure_ = true;
    if (!legs_.add_error(leg, error)) return;
    if (error == kLate) late_count_.fetch_add(1, std::memory_order_relaxed);
    if (error != kLate && !features_.handle_errors) return;
    for (unsigned i = 0; i < legs_.size() && legs_.primary() == leg; ++i) {
      if ((complete_ >> i & 1) && !legs_.failed(i)) legs_.set_primary(i);
    }
    context_.raise_event();
  }
  if (error == kLate) arm_probe();
}

void Mirror::write_failed(Write& write) {
  bool start = false;
  BioList delayed;
  {
    MutexLock lock(mutex_);
    if (!log_failure_) {
      in_sync_ = false;
      // What was written before may be lost on a leg that could not flush.
      if (!write.has_regions) regions_.set_all_dirty_no_sync();
      for (RegionIndex region = write.first; write.has_regions && region <= write.last; ++region) {
        if (copy_ == Copy::Quiescing && region == copied_region_) {
          delayed = give_up_copy();
          start = next_copy();
        }
        regions_.set_no_sync(region);
      }
    }
  }
  if (start) start_copy();
  readmit(delayed);

  int error = 0;
  {
    MutexLock lock(mutex_);
    bool hold = features_.handle_errors && !features_.keep_log;
    bool primary_has_it = !((write.failed | write.late) >> legs_.primary() & 1);
    bool only_late = write.late && !write.failed && !log_failure_;
    if (!legs_.first_valid() || (features_.keep_log && log_failure_)) {
      error = EIO;
    } else if (only_late) {
      if (!primary_has_it) error = EIO;
    } else if (hold && suspending_) {
      error = context_.noflush_suspending() ? kRequeue : EIO;
    } else if (hold) {
      error = hold_write(write);
      if (!error) return;
    }
  }
  finish(write, error);
}

int Mirror::hold_write(Write& write) {
  if (int cancelled = write.bio->cancelled()) return cancelled;
  if (!context_.held_budget().take(*write.bio)) {
    // Told once for all that is refused until there is room again.
    if (!std::exchange(told_full_, true)) context_.raise_event();
    return ENOMEM;
  }
  told_full_ = false;
  stamp_held(*write.bio);
  held_.push_back(&write);
  return 0;
}

void Mirror::finish(Write& write, int error) {
  if (!error && wait_until_remembered(write, error)) return;
  end_write(write, error);
}

void Mirror::end_write(Write& write, int error) {
  bool start = false;
  {
    MutexLock lock(mutex_);
    for (RegionIndex region = write.first; write.has_regions && region <= write.last; ++region) {
      if (!regions_.end_write(region)) continue;
      Region* entry = regions_.find(region);
      if (!entry) continue;
      if (entry->phase == RegionPhase::Dirty) region_idle(region);
      if (copy_ == Copy::Quiescing && region == copied_region_) {
        copy_ = Copy::Copying;
        start = true;
      }
    }
  }
  if (start) start_copy();
  Bio& bio = *write.bio;
  Sectors count = write.count;
  ObjectPool<Write>::put(&write);
  if (error || bio.op == Op::Flush || count == bio.count) return bio.complete(error);
  bio.sector += count;
  bio.count -= count;
  admit(bio);
}

bool Mirror::want_log_flush() {
  if (log_busy_) {
    log_wanted_ = true;
    return false;
  }
  log_busy_ = true;
  flushing_mark_ = next_mark_++;
  return true;
}

void Mirror::run_log_flush() {
  log_->flush([this](int error) { log_flushed(error); });
}

void Mirror::log_flushed(int error) {
  std::vector<Write*> marked;
  bool more, failed;
  {
    MutexLock lock(mutex_);
    if (error) log_failure_ = true;
    uint64_t durable = durable_mark_ = flushing_mark_;
    auto later = std::stable_partition(awaiting_log_.begin(), awaiting_log_.end(),
                                       [&](Write* w) { return w->mark <= durable; });
    marked.assign(awaiting_log_.begin(), later);
    awaiting_log_.erase(awaiting_log_.begin(), later);
    failed = log_failure_ && features_.handle_errors;
    log_busy_ = false;
    more = std::exchange(log_wanted_, false) && want_log_flush();
    changed_.notify_all();
  }
  // The next one is on its way before these are, each of which may be the last to need the mirror.
  if (more) run_log_flush();
  for (Write* write : marked) failed ? write_failed(*write) : issue(*write);
}

}  // namespace dmfs
