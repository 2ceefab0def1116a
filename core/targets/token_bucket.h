// SPDX-License-Identifier: Apache-2.0
// A rate, and what has been used of it. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/clock.h"

namespace dmfs {

// Lets through so much a second, and after a pause so much more at once as the pause has saved, at
// most that of `burst`. What goes may be larger than all that has been saved: the bucket is in debt
// then, and the next has to wait longer.
class TokenBucket {
 public:
  // 0: no limit. What was owed under another rate or burst is forgiven.
  void set(uint64_t per_second, Clock::Duration burst, Clock::Time now) {
    if (per_second == rate_ && burst == burst_) return;
    rate_ = per_second;
    burst_ = burst;
    empty_until_ = std::min(empty_until_, now + burst_);
  }
  uint64_t rate() const { return rate_; }
  // When the next one may go.
  Clock::Time ready() const { return rate_ ? empty_until_ - burst_ : Clock::Time::min(); }
  // One of that size goes, `now` being ready() or later.
  void take(uint64_t amount, Clock::Time now) {
    if (!rate_) return;
    auto cost = static_cast<double>(amount) / static_cast<double>(rate_);
    // Past this nobody can tell the difference, and sums stay within the clock's range.
    constexpr double kMaxSeconds = 1e8;
    auto pause = std::chrono::duration_cast<Clock::Duration>(
        std::chrono::duration<double>(std::min(cost, kMaxSeconds)));
    empty_until_ = std::max(empty_until_, now) + pause;
  }

 private:
  uint64_t rate_ = 0;
  Clock::Duration burst_{};
  Clock::Time empty_until_{};  // when all that was used will have been earned
};

}  // namespace dmfs
