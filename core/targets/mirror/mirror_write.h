// SPDX-License-Identifier: Apache-2.0
// A write, discard, write-zeroes or flush on its way through a mirror.
#pragma once

#include "core/base/object_pool.h"
#include "core/targets/mirror/mirror.h"

namespace dmfs {

struct Mirror::Write final : IoNotify {
  void notified(const IoNotice& notice) override;

  Mirror* mirror = nullptr;
  Bio* bio = nullptr;
  Sectors count;             // of the bio; a long one goes in pieces
  bool has_regions = false;  // not a flush
  bool only_primary = false; // the region is out of sync
  RegionIndex first = 0, last = 0;
  uint64_t mark = 0;         // the log write it waits for
  Legs::Mask sent = 0;       // to these legs
  Legs::Mask failed = 0;     // with an error
  Legs::Mask late = 0;       // has not answered in time, or was left out because it had not before
  Legs::Mask unsupported = 0;
  std::array<unsigned, Legs::kMax> leg_of{};
  std::array<IoRegion, Legs::kMax> regions;
  IoRequest request;
  Write* pool_next = nullptr;
};

}  // namespace dmfs
