// SPDX-License-Identifier: Apache-2.0
#include "core/dm/in_flight.h"

namespace dmfs {

int64_t InFlight::count() const {
  int64_t sum = 0;
  for (const Line& line : lines_) sum += line.count.load(std::memory_order_seq_cst);
  return sum;
}

bool InFlight::empty() const {
  for (const Line& line : lines_) {
    if (line.count.load(std::memory_order_seq_cst) != 0) return false;
  }
  return true;
}

void InFlight::wake_waiter() {
  MutexLock lock(mutex_);
  changed_.notify_all();
}

}  // namespace dmfs
