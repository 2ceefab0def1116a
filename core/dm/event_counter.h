// SPDX-License-Identifier: Apache-2.0
// The event number of a device and the people who wait for it to change.
#pragma once

#include <cstdint>

#include "core/base/cancel.h"
#include "core/base/mutex.h"

namespace dmfs {

class EventCounter {
 public:
  enum class Wait { Changed, Closed, Cancelled };

  uint32_t number() const;
  // At start: as the store has it.
  void restore(uint32_t number);
  // Any thread; takes only this object's lock.
  void raise();
  // The device is gone: every wait, now and later, ends with Closed.
  void close();
  // Returns at once when the number differs from `number`.
  Wait wait(uint32_t number, CancelToken& cancel);

 private:
  mutable Mutex mutex_;  // leaf
  CondVar changed_;
  uint32_t number_ DM_GUARDED_BY(mutex_) = 0;
  bool closed_ DM_GUARDED_BY(mutex_) = false;
};

}  // namespace dmfs
