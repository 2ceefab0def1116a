// SPDX-License-Identifier: Apache-2.0
#include <cassert>
#include <utility>

#include "core/targets/mirror/mirror.h"

namespace dmfs {

void Mirror::kick_recovery() {
  bool start;
  {
    MutexLock lock(mutex_);
    start = next_copy();
  }
  if (start) start_copy();
}

bool Mirror::next_copy() {
  // What is copied to a leg that does not answer gets nowhere.
  if (copy_ != Copy::Idle || !recovery_allowed_ || legs_.any_late()) return false;
  if (next_repair()) return copy_ == Copy::Copying;
  std::optional<RegionIndex> region = log_->next_resync();
  if (!region) {
    check_in_sync();
    return false;
  }
  copy_is_repair_ = false;
  bool at_once = begin_copy_of(*region);
  Sectors offset{*region * region_size_};
  Sectors left = context_.length() - offset;
  fill_job(offset, std::min(Sectors{region_size_}, left));
  return at_once;
}

bool Mirror::begin_copy_of(RegionIndex region) {
  Region& entry = regions_.get(region);
  entry.before = entry.phase;
  entry.phase = RegionPhase::Recovering;
  copied_region_ = region;
  copy_ = entry.pending > 0 ? Copy::Quiescing : Copy::Copying;
  return copy_ == Copy::Copying;
}

bool Mirror::next_repair() {
  while (!repairs_.empty()) {
    Repair repair = repairs_.front();
    repairs_.pop_front();
    RegionIndex region = region_of(repair.offset);
    std::optional<unsigned> from = legs_.choose();
    // Where the legs differ the whole region is copied anyway.
    if (!log_->in_sync(region) || !from || *from == repair.leg) continue;
    repair_ = repair;
    copy_is_repair_ = true;
    begin_copy_of(region);
    fill_job(repair.offset, repair.count);
    return true;
  }
  return false;
}

void Mirror::check_in_sync() {
  if (in_sync_ || log_->sync_count() != region_count()) return;
  in_sync_ = true;
  complete_ = all_legs() & ~pretended_;
  legs_.set_primary(whole_leg());
  leg_failure_ = false;
  legs_.forget_errors();
  if (stale_) want_save();
  context_.raise_event();
}

void Mirror::fill_job(Sectors offset, Sectors count) {
  auto place = [&](unsigned i) {
    return CopyJob::Place{&legs_[i].file, legs_[i].start + offset};
  };
  unsigned source = copy_is_repair_ ? legs_.choose().value_or(legs_.primary()) : whole_leg();
  copy_source_ = source;
  unsigned used = 0;
  for (unsigned i = 0; i < legs_.size(); ++i) {
    if (copy_is_repair_ ? i == repair_.leg : i != source) job_.places[used++] = place(i);
  }
  job_.source = place(source);
  job_.destinations = {job_.places.data(), used};
  job_.count = count;
  job_.queue = &worker_;
  // Without handle_errors what can be copied is, and a leg that fails is taken to be in sync.
  job_.ignore_errors = !features_.handle_errors && !copy_is_repair_;
  job_.in_kernel = false;  // legs that share blocks would be no mirror
  job_.timeout = features_.io_timeout;
}

void Mirror::start_copy() {
  copier_->submit(job_);
  bool stop;
  {
    // stop_recovery() may have come between; then nothing else starts the job again.
    MutexLock lock(mutex_);
    stop = copy_ == Copy::Copying && !recovery_allowed_;
  }
  if (stop) (void)copier_->cancel(job_);
}

// On the worker, which the destructor waits for.
void Mirror::recovery_ended(const CopyJob::Outcome& outcome) {
  bool repair;
  unsigned source, repaired;
  {
    MutexLock lock(mutex_);
    assert(copy_ == Copy::Copying);
    repair = copy_is_repair_;
    source = copy_source_;
    repaired = repair_.leg;
  }
  bool late = outcome.error == ETIMEDOUT;
  // That a repair fails says nothing that is not known. When a leg is late it does.
  if (!outcome.cancelled && (late || !repair)) {
    LegError how = late ? kLate : kSyncError;
    if (outcome.read_error) fail_leg(source, how);
    unsigned bit = 0;
    for (unsigned i = 0; i < legs_.size(); ++i) {
      if (repair ? i != repaired : i == source) continue;
      if (outcome.write_errors >> bit++ & 1) fail_leg(i, how);
    }
  }
  BioList delayed;
  bool start;
  {
    MutexLock lock(mutex_);
    delayed = settle_copied(outcome);
    start = next_copy();
    changed_.notify_all();
  }
  if (start) start_copy();
  readmit(delayed);
}

BioList Mirror::settle_copied(const CopyJob::Outcome& outcome) {
  RegionIndex region = copied_region_;
  Region& entry = regions_.get(region);
  assert(entry.phase == RegionPhase::Recovering && entry.pending == 0);
  BioList delayed = std::exchange(entry.delayed, {});
  copy_ = Copy::Idle;
  bool late = outcome.error == ETIMEDOUT;
  if (copy_is_repair_) {
    entry.phase = entry.before;
    if (outcome.ok()) {
      repaired_.fetch_add(1, std::memory_order_relaxed);
      legs_.clear_error(repair_.leg, kReadError);
      if (!legs_.any_failed()) leg_failure_ = false;
    }
  } else {
    bool copied = outcome.ok() || (!features_.handle_errors && !outcome.cancelled && !late);
    log_->set_in_sync(region, copied);
    if (copied && !outcome.ok()) {
      unsigned bit = 0;
      for (unsigned i = 0; i < legs_.size(); ++i) {
        if (i == copy_source_) continue;
        if (outcome.read_error || (outcome.write_errors >> bit & 1)) pretended_ |= Legs::Mask{1} << i;
        ++bit;
      }
    }
    entry.phase = copied ? RegionPhase::Dirty : RegionPhase::NoSync;
    entry.suspect = !outcome.ok();
    // The only leg that has all is slow: again.
    if (late && !legs_.any_late()) log_->restart_search();
  }
  if (entry.phase == RegionPhase::Dirty) {
    region_idle(region);
  } else {
    regions_.forget(region);
  }
  return delayed;
}

// Before it has begun to be copied.
BioList Mirror::give_up_copy() {
  Region& entry = regions_.get(copied_region_);
  BioList delayed = std::exchange(entry.delayed, {});
  entry.phase = entry.before;
  if (!copy_is_repair_) log_->set_in_sync(copied_region_, false);
  copy_ = Copy::Idle;
  return delayed;
}

void Mirror::readmit(BioList bios) {
  while (Bio* bio = bios.pop_front()) admit(*bio);
}

void Mirror::stop_recovery() {
  BioList delayed;
  bool copying;
  {
    MutexLock lock(mutex_);
    recovery_allowed_ = false;
    repairs_.clear();
    if (copy_ == Copy::Quiescing) delayed = give_up_copy();
    copying = copy_ == Copy::Copying;
  }
  readmit(delayed);
  if (copying) (void)copier_->cancel(job_);
  {
    MutexLock lock(mutex_);
    while (copy_ != Copy::Idle) changed_.wait(mutex_);
  }
  // What is still on its way to a leg must not arrive behind what another table writes. A leg that
  // may be late is not waited for: it would hold up all.
  if (times_out()) return;
  for (unsigned i = 0; i < legs_.size(); ++i) client_->wait_late(legs_[i].file);
}

void Mirror::allow_recovery() {
  {
    MutexLock lock(mutex_);
    recovery_allowed_ = !context_.read_only();
  }
  kick_recovery();
}

}  // namespace dmfs
