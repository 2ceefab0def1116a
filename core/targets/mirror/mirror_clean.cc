// SPDX-License-Identifier: Apache-2.0
#include "core/targets/mirror/mirror.h"

namespace dmfs {
namespace {

// A region stays dirty in the log for so long after its last write: whoever writes to it again
// meanwhile need not wait for the log.
constexpr std::chrono::milliseconds kCleanDelay{100};

}  // namespace

void Mirror::region_idle(RegionIndex region) {
  if (!log_->persistent()) return regions_.clean(region);
  clean_alarm_.set(context_.clock().now() + kCleanDelay);
}

void Mirror::clean_due() {
  bool begin;
  {
    MutexLock lock(mutex_);
    begin = !closing_ && begin_cleaning();
  }
  if (begin) client_->submit(flush_request_.request);
}

// What a leg has only in its cache may be lost there and nowhere else, so the legs are flushed
// before the log calls the regions clean.
bool Mirror::begin_cleaning() {
  if (cleaning_ || asleep_) return false;
  if (legs_.any_late()) return false;  // nobody knows what it has
  cleaned_ = regions_.begin_cleaning();
  if (cleaned_.empty()) return false;
  unsigned used = 0;
  for (unsigned i = 0; i < legs_.size(); ++i) {
    flush_request_.leg_of[used] = i;
    flush_request_.regions[used++] = IoRegion(legs_[i].file, {}, {});
  }
  cleaning_ = true;
  IoRequest& request = flush_request_.request;
  request.op = Op::Flush;
  request.regions = {flush_request_.regions.data(), used};
  request.notify = &flush_request_;
  request.timeout = features_.io_timeout;
  request.cancel_on_timeout = times_out();
  request.cancellable = times_out();
  return true;
}

void Mirror::legs_flushed(Legs::Mask failed, Legs::Mask late) {
  for (unsigned i = 0; i < legs_.size(); ++i) {
    if (failed >> i & 1) fail_leg(i, kFlushError);
    if (late >> i & 1) fail_leg(i, kLate);
  }
  bool flush = false;
  {
    MutexLock lock(mutex_);
    if (failed | late) {
      in_sync_ = false;
      // What they had taken may be lost. If that is so everywhere they are all as good.
      (void)narrow_complete(all_legs() & ~(failed | late));
      regions_.set_all_dirty_no_sync();
    } else {
      regions_.finish_cleaning(cleaned_);
      flush = want_log_flush();
      // What was written to meanwhile has its turn later.
      if (!regions_.begin_cleaning().empty()) {
        clean_alarm_.set(context_.clock().now() + kCleanDelay);
      }
    }
    cleaned_.clear();
  }
  if (flush) run_log_flush();
  MutexLock lock(mutex_);
  cleaning_ = false;
  changed_.notify_all();
}

void Mirror::settle_log() {
  // Twice: what was written to while a cleaning was under way is left for the second.
  for (int round = 0; round < 2; ++round) {
    bool begin;
    {
      MutexLock lock(mutex_);
      while (cleaning_) changed_.wait(mutex_);
      begin = begin_cleaning();
    }
    if (begin) client_->submit(flush_request_.request);
  }
  MutexLock lock(mutex_);
  while (cleaning_ || log_busy_) changed_.wait(mutex_);
}

}  // namespace dmfs
