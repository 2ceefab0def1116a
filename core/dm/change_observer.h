// SPDX-License-Identifier: Apache-2.0
// Somebody who keeps copies of what volumes contain (the front, when the kernel caches pages).
#pragma once

#include <cstdint>
#include <functional>

#include "core/base/units.h"

namespace dmfs {

class ChangeObserver {
 public:
  virtual ~ChangeObserver() = default;
  // A volume that lies on `minor` has written to, discarded or zeroed [begin, begin + count) of it;
  // perhaps in vain. Any thread, no lock held; never blocks. `then` must be called once, on any
  // thread, when no copy is old any more: the change is acknowledged only after.
  virtual void changed_from_above(uint32_t minor, Sectors begin, Sectors count,
                                  std::function<void()> then) = 0;
};

}  // namespace dmfs
