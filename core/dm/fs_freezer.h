// SPDX-License-Identifier: Apache-2.0
// Who locks the file systems over a volume while it is suspended (lockfs). The core knows neither
// mounts nor block devices; the front does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/result.h"

namespace dmfs {

struct FreezeReport {
  std::vector<std::string> frozen;  // what is frozen now: mount points
  std::vector<std::string> notes;   // what is not, and why: sentences for the user
};

// On the threads of commands, which hold the device's command mutex and wait meanwhile; many
// volumes at a time, for one volume one call at a time. Takes no lock of the core's, and must not
// need a thread that serves I/O of the volume.
class FsFreezer {
 public:
  virtual ~FsFreezer() = default;
  // The volume is active. Writes out what the system caches for it and freezes the file systems
  // over it. What there is no right to, or no way, is a note. An error: it was tried and failed (or
  // `cancel` ended it, EINTR); nothing stays frozen then, though thawing may take a little longer
  // than this call.
  virtual Result<FreezeReport> freeze(uint32_t minor, CancelToken& cancel) = 0;
  // Once after each freeze() that was ok: thaws what that has frozen. The volume answers I/O again
  // (be it with errors). When `cancel` ends the wait, it goes on by itself. What went wrong is
  // returned: sentences for the user.
  virtual std::vector<std::string> thaw(uint32_t minor, CancelToken& cancel) = 0;
};

}  // namespace dmfs
