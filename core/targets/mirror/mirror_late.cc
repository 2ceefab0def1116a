// SPDX-License-Identifier: Apache-2.0
#include "core/targets/mirror/mirror.h"

namespace dmfs {

bool Mirror::may_give_up(unsigned leg) const {
  // The one that alone has all the data is waited for, as any disk is.
  for (unsigned i = 0; i < legs_.size(); ++i) {
    if (i != leg && (complete_ >> i & 1) && !legs_.failed(i)) return true;
  }
  return !(complete_ >> leg & 1);
}

void Mirror::leg_overdue(unsigned leg) {
  fail_leg(leg, kLate);
  // What else it has of ours is not waited for either.
  if (legs_.late(leg)) (void)client_->cancel(legs_[leg].file);
}

void Mirror::arm_probe() { probe_alarm_.set(context_.clock().now() + features_.io_timeout); }

// A leg that was late answers again when all that it was given has ended, and it can be read.
void Mirror::probe_late() {
  std::optional<unsigned> leg;
  bool any = false;
  {
    MutexLock lock(mutex_);
    if (closing_ || probing_) return;
    for (unsigned i = 0; i < legs_.size() && !leg; ++i) {
      if (!legs_.late(i)) continue;
      any = true;
      if (client_->late(legs_[i].file) == 0) leg = i;
    }
    if (leg) {
      probing_ = true;
      IoRequest& request = probe_request_.request;
      probe_request_.leg_of[0] = *leg;
      probe_request_.regions[0] = IoRegion(legs_[*leg].file, legs_[*leg].start, Sectors{1});
      request.op = Op::Read;
      request.memory = IoMemory::contiguous(probe_memory_.data(), probe_memory_.size());
      request.regions = {probe_request_.regions.data(), 1};
      request.notify = &probe_request_;
      request.timeout = features_.io_timeout;
      request.cancel_on_timeout = true;
      probed_leg_ = *leg;
    }
  }
  if (leg) {
    client_->submit(probe_request_.request);
  } else if (any) {
    arm_probe();
  }
}

void Mirror::probed(Legs::Mask failed, Legs::Mask late) {
  if (failed | late) {
    arm_probe();
  } else {
    {
      MutexLock lock(mutex_);
      legs_.clear_error(probed_leg_, kLate);
      log_->restart_search();
      clean_alarm_.set(context_.clock().now());
      context_.raise_event();
    }
    kick_recovery();
    // There may be others.
    if (legs_.any_late()) arm_probe();
  }
  MutexLock lock(mutex_);
  probing_ = false;
  changed_.notify_all();
}

void Mirror::stop_probing() {
  for (unsigned i = 0; i < legs_.size(); ++i) {
    if (legs_.late(i)) (void)client_->cancel(legs_[i].file);
  }
  MutexLock lock(mutex_);
  while (probing_) changed_.wait(mutex_);
}

}  // namespace dmfs
