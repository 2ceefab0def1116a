// SPDX-License-Identifier: Apache-2.0
// The regions of a mirror that something goes on in: writes are under way, or it is being copied.
// All others are as the log says. Not thread-safe; belongs to the mirror, under its lock.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/io/bio.h"
#include "core/targets/mirror/dirty_log.h"

namespace dmfs {

enum class RegionPhase : uint8_t {
  Clean,       // the same on all legs, and the log says so
  Dirty,       // the same on all legs when nothing is under way; the log calls it dirty
  NoSync,      // only the primary leg counts
  Recovering,  // writes wait until those under way have ended and it has been copied
};

struct Region {
  RegionPhase phase = RegionPhase::Clean;
  uint32_t pending = 0;      // writes under way, those that are held included
  bool touched = false;      // written to since the cleaning began
  bool suspect = false;      // a copy has failed that counts as done: not to be called clean
  uint64_t mark = 0;         // the log write that makes its mark durable
  RegionPhase before = RegionPhase::Clean;  // Recovering: what it was
  BioList delayed;           // Recovering: the writes that wait
};

class Regions {
 public:
  explicit Regions(DirtyLog& log) : log_(log) {}

  RegionPhase phase(RegionIndex region) const;
  // nullptr when nothing goes on there.
  Region* find(RegionIndex region);
  // Makes an entry of what the log says, if there is none.
  Region& get(RegionIndex region);

  // A write to it begins. Clean becomes Dirty: it is marked in the log, and `mark` names the log
  // write to come.
  void begin_write(RegionIndex region, uint64_t mark);
  // It has ended. True: it was the last one.
  bool end_write(RegionIndex region);

  // The legs differ there.
  void set_no_sync(RegionIndex region);
  // The same for each that is Dirty.
  void set_all_dirty_no_sync();

  // The Dirty ones that nothing is under way in; from now on it is noted if they are written to.
  std::vector<RegionIndex> begin_cleaning();
  // Those that were not written to are cleared in the log, and forgotten.
  void finish_cleaning(const std::vector<RegionIndex>& regions);
  void clean(RegionIndex region);
  void forget(RegionIndex region) { regions_.erase(region); }

  // For whoever looks for bios that wait.
  std::unordered_map<RegionIndex, Region>& all() { return regions_; }
  const std::unordered_map<RegionIndex, Region>& all() const { return regions_; }

 private:
  DirtyLog& log_;
  std::unordered_map<RegionIndex, Region> regions_;
};

}  // namespace dmfs
