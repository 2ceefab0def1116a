// SPDX-License-Identifier: Apache-2.0
#include "core/targets/mirror/mirror.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "core/targets/mirror/mirror_write.h"

namespace dmfs {
namespace {

constexpr Sectors kMaxIo{2048};   // of a read or write at a time
constexpr unsigned kMinIos = 8;

}  // namespace

Result<std::unique_ptr<Target>> Mirror::make(TargetContext& context, Parts parts) {
  unsigned legs = static_cast<unsigned>(parts.legs.size());
  std::unique_ptr<Mirror> mirror(new Mirror(context, std::move(parts)));
  DM_TRY(mirror->client_,
         IoClient::create(context.clock(), {.devices = legs,
                                            .min_ios = kMinIos,
                                            .max_size = static_cast<size_t>(kMaxIo.bytes())}));
  DM_TRY(mirror->copier_,
         Kcopyd::create(*mirror->client_, context.clock(), mirror->worker_, {}));
  mirror->begin_with_stale(mirror->stale_in(context.saved_state()));
  return std::unique_ptr<Target>(std::move(mirror));
}

Mirror::Mirror(TargetContext& context, Parts parts)
    : context_(context),
      features_(parts.features),
      log_(std::move(parts.log)),
      region_size_(log_->region_size()),
      in_sync_(log_->sync_count() == log_->region_count()),
      regions_(*log_),
      job_(*this),
      flush_request_(*this, &Mirror::legs_flushed),
      probe_request_(*this, &Mirror::probed),
      clean_alarm_(context.clock(), [this] { clean_due(); }),
      probe_alarm_(context.clock(), [this] { probe_late(); }) {
  for (auto [file, start] : parts.legs) legs_.add(*file, start);
  complete_ = in_sync_ ? all_legs() : 1;
}

Mirror::~Mirror() {
  {
    MutexLock lock(mutex_);
    closing_ = true;
  }
  if (!client_) return;  // not made to the end
  stop_recovery();
  stop_probing();
  settle_log();
}

MapResult Mirror::map(Bio& bio) {
  if (!loaded_.load(std::memory_order_acquire) && wait_until_loaded(bio)) return MapResult::Submitted;
  if (bio.op == Op::Read) return map_read(bio);
  if (bio.op == Op::Discard && !supports_discard()) {
    bio.complete(EOPNOTSUPP);  // on one leg alone it would make them differ
  } else {
    admit(bio);
  }
  return MapResult::Submitted;
}

bool Mirror::wait_until_loaded(Bio& bio) {
  int cancelled;
  {
    MutexLock lock(mutex_);
    if (loaded_.load(std::memory_order_relaxed)) return false;
    cancelled = bio.cancelled();
    if (!cancelled) {
      stamp_held(bio);
      waits_for_load_.push_back(bio);
      return true;
    }
  }
  bio.complete(cancelled);
  return true;
}

void Mirror::resume() {
  {
    MutexLock lock(mutex_);
    suspending_ = false;
    asleep_ = false;
    log_busy_ = true;
  }
  log_->resume([this](int) { loaded(); });
}

void Mirror::loaded() {
  BioList waiting;
  bool more;
  {
    MutexLock lock(mutex_);
    loaded_.store(true, std::memory_order_release);
    recovery_allowed_ = !suspending_ && !closing_ && !context_.read_only();
    std::swap(waiting, waits_for_load_);
  }
  while (Bio* bio = waiting.pop_front()) {
    bio->held_since = 0;
    switch (map(*bio)) {
      case MapResult::Remapped: bio->dev->submit(*bio); break;
      case MapResult::Kill: bio->complete(EIO); break;
      case MapResult::Submitted:
      case MapResult::Requeue: break;
    }
  }
  kick_recovery();
  {
    MutexLock lock(mutex_);
    log_busy_ = false;
    more = std::exchange(log_wanted_, false) && want_log_flush();
    changed_.notify_all();
  }
  if (more) run_log_flush();
}

void Mirror::presuspend() {
  {
    MutexLock lock(mutex_);
    suspending_ = true;
  }
  end_all_held();
  stop_recovery();
}

void Mirror::presuspend_undo() {
  bool loaded;
  {
    MutexLock lock(mutex_);
    suspending_ = false;
    loaded = loaded_.load(std::memory_order_relaxed);
  }
  if (loaded) allow_recovery();
}

void Mirror::postsuspend() {
  settle_log();
  MutexLock lock(mutex_);
  asleep_ = true;
  while (saving_) changed_.wait(mutex_);
}

// What waits for the table to be replaced goes back where it came from, or fails.
void Mirror::end_all_held() {
  int error = context_.noflush_suspending() ? kRequeue : EIO;
  std::deque<Write*> held;
  BioList loading;
  {
    MutexLock lock(mutex_);
    std::swap(held, held_);
    for (Write* write : held) context_.held_budget().give(*write->bio);
    if (error == kRequeue) std::swap(loading, waits_for_load_);
  }
  for (Write* write : held) finish(*write, error);
  loading.complete_all(error);
}

size_t Mirror::cancel(const BioCancel& cancel) {
  std::vector<Write*> writes;
  BioList bios[2];
  {
    MutexLock lock(mutex_);
    for (std::deque<Write*>* list : {&held_, &awaiting_log_}) {
      auto wanted = std::stable_partition(list->begin(), list->end(), [&](const Write* w) {
        return !cancel.wants(*w->bio);
      });
      for (auto at = wanted; at != list->end() && list == &held_; ++at) {
        context_.held_budget().give(*(*at)->bio);
      }
      writes.insert(writes.end(), wanted, list->end());
      list->erase(wanted, list->end());
    }
    bios[0] = waits_for_load_.take(cancel);
    if (copy_ != Copy::Idle) {
      if (Region* region = regions_.find(copied_region_)) bios[1] = region->delayed.take(cancel);
    }
  }
  size_t count = writes.size();
  for (Write* write : writes) finish(*write, cancel.error);
  for (BioList& list : bios) count += list.complete_all(cancel.error);
  return count;
}

void Mirror::list_held(HeldList& list) const {
  MutexLock lock(mutex_);
  for (const auto* writes : {&held_, &awaiting_log_}) {
    for (const Write* write : *writes) list.add("mirror", *write->bio);
  }
  list.add_all("mirror", waits_for_load_);
  if (copy_ == Copy::Idle) return;
  auto region = regions_.all().find(copied_region_);
  if (region != regions_.all().end()) list.add_all("mirror", region->second.delayed);
}

std::string Mirror::freed_by() const {
  {
    MutexLock lock(mutex_);
    if (held_.empty()) return "goes by itself when the log answers or the region is copied";
  }
  return "goes when a new table is loaded and resumed: a leg or the log has failed";
}

// <#legs> <device>... <regions in sync>/<regions> 1 <a letter for each leg> <the log's status>
// [<#details> [repaired <ranges>] [late <times>]]
std::string Mirror::status_line() const {
  std::string line = fmt::format("{}", legs_.size());
  for (unsigned i = 0; i < legs_.size(); ++i) line += ' ' + quote_arg(legs_[i].file.name());
  line += fmt::format(" {}/{} 1 {} {}", log_->sync_count(), region_count(), legs_.letters(),
                      log_->status_words());
  std::vector<std::string> details;
  if (uint64_t n = repaired_.load(std::memory_order_relaxed)) {
    details.push_back(fmt::format("repaired {}", n));
  }
  if (uint64_t n = late_count_.load(std::memory_order_relaxed)) {
    details.push_back(fmt::format("late {}", n));
  }
  if (!details.empty()) line += fmt::format(" {}", 2 * details.size());
  for (const std::string& detail : details) line += ' ' + detail;
  return line;
}

IoLimits Mirror::limits() const {
  return {.max_io_len = {std::min(region_size_, kMaxIo.n)},
          .num_flush_bios = 1,
          .num_discard_bios = 1,
          .num_write_zeroes_bios = 1};
}

bool Mirror::supports_discard() const {
  for (unsigned i = 0; i < legs_.size(); ++i) {
    if (!legs_[i].file.supports_discard()) return false;
  }
  return true;
}

Extent Mirror::extent_at(Sectors offset, Sectors length) const {
  const Legs::Leg& leg = legs_[legs_.primary()];
  return leg.file.extent_at(leg.start + offset, length);
}

Sectors Mirror::allocated(Sectors length) const {
  const Legs::Leg& leg = legs_[legs_.primary()];
  return leg.file.allocated(leg.start, length);
}

void Mirror::OwnRequest::notified(const IoNotice& notice) {
  Legs::Mask bit = Legs::Mask{1} << leg_of[notice.region];
  if (notice.state == RegionState::Error) failed_ |= bit;
  if (notice.state == RegionState::Cancelled) late_ |= bit;
  if (!notice.last) return;
  Legs::Mask failed = std::exchange(failed_, 0), late = std::exchange(late_, 0);
  (mirror_.*ended_)(failed, late);
}

}  // namespace dmfs
