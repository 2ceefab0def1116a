// SPDX-License-Identifier: Apache-2.0
// Keeps work to a percentage of the time: after so much of it, a rest in proportion. Times are the
// caller's; not thread-safe.
#pragma once

#include <algorithm>

#include "core/base/clock.h"

namespace dmfs {

class DutyCycle {
 public:
  // `burst`: how long work goes on before it rests, if it does not by itself.
  explicit DutyCycle(Clock::Duration burst) : burst_(burst) {}

  // 0 (no more begins) to 100 (no rests). Holds for the rest that is being had, too.
  void set_percent(unsigned percent) { percent_ = std::min(percent, 100u); }
  unsigned percent() const { return percent_; }

  // Whether another piece of work may begin.
  bool may_begin(Clock::Time now) {
    if (percent_ == 0) return false;
    if (percent_ == 100) return true;
    if (active_ > 0) return worked_ + (now - begun_) < burst_;
    if (resting_ && now < rest_ends()) return false;
    return true;
  }
  // When it may, if nothing is under way and a rest is; else the end of time.
  Clock::Time rest_ends() const {
    if (percent_ == 0 || active_ > 0 || !resting_) return Clock::Time::max();
    return ended_ + worked_ * (100 - percent_) / percent_;
  }
  // may_begin() was true.
  void begin(Clock::Time now) {
    if (active_++ > 0) return;
    // Time without work counts as rest.
    Clock::Duration idle = std::min<Clock::Duration>(now - ended_, 100 * kMaxBursts * burst_);
    bool rested = resting_ || percent_ == 100;
    Clock::Duration paid = rested ? worked_ : idle * percent_ / (100 - percent_);
    worked_ = std::max(Clock::Duration{}, worked_ - paid);
    resting_ = false;
    begun_ = now;
  }
  void end(Clock::Time now) {
    if (--active_ > 0) return;
    // What hangs does not work: it is not to be paid for by a rest as long.
    worked_ = std::min(worked_ + (now - begun_), kMaxBursts * burst_);
    ended_ = now;
    resting_ = worked_ >= burst_;
  }

 private:
  static constexpr int kMaxBursts = 10;

  const Clock::Duration burst_;
  unsigned percent_ = 100;
  unsigned active_ = 0;        // pieces of work
  bool resting_ = false;       // a rest is due
  Clock::Duration worked_{};   // since the last rest, up to begun_ or ended_
  Clock::Time begun_{};        // of what is under way
  Clock::Time ended_{};        // of what was
};

}  // namespace dmfs
