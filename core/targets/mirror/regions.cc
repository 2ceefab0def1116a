// SPDX-License-Identifier: Apache-2.0
#include "core/targets/mirror/regions.h"

#include <cassert>

namespace dmfs {

RegionPhase Regions::phase(RegionIndex region) const {
  auto found = regions_.find(region);
  if (found != regions_.end()) return found->second.phase;
  return log_.in_sync(region) ? RegionPhase::Clean : RegionPhase::NoSync;
}

Region* Regions::find(RegionIndex region) {
  auto found = regions_.find(region);
  return found == regions_.end() ? nullptr : &found->second;
}

Region& Regions::get(RegionIndex region) {
  RegionPhase now = phase(region);
  auto [entry, is_new] = regions_.try_emplace(region);
  if (is_new) entry->second.phase = now;
  return entry->second;
}

void Regions::begin_write(RegionIndex region, uint64_t mark) {
  Region& entry = get(region);
  ++entry.pending;
  entry.touched = true;
  if (entry.phase != RegionPhase::Clean) return;
  entry.phase = RegionPhase::Dirty;
  entry.mark = mark;
  log_.mark(region);
}

bool Regions::end_write(RegionIndex region) {
  Region* entry = find(region);
  assert(entry && entry->pending > 0);
  if (--entry->pending > 0) return false;
  // What is known of it stands in the log.
  if (entry->phase == RegionPhase::NoSync) forget(region);
  return true;
}

void Regions::set_no_sync(RegionIndex region) {
  Region& entry = get(region);
  entry.phase = RegionPhase::NoSync;
  log_.set_in_sync(region, false);
}

void Regions::set_all_dirty_no_sync() {
  for (auto at = regions_.begin(); at != regions_.end();) {
    auto& [region, entry] = *at;
    RegionPhase& phase = entry.phase == RegionPhase::Recovering ? entry.before : entry.phase;
    if (phase == RegionPhase::Dirty) {
      phase = RegionPhase::NoSync;
      log_.set_in_sync(region, false);
    }
    at = entry.phase == RegionPhase::NoSync && entry.pending == 0 ? regions_.erase(at)
                                                                  : std::next(at);
  }
}

std::vector<RegionIndex> Regions::begin_cleaning() {
  std::vector<RegionIndex> idle;
  for (auto& [region, entry] : regions_) {
    if (entry.phase != RegionPhase::Dirty || entry.pending > 0 || entry.suspect) continue;
    entry.touched = false;
    idle.push_back(region);
  }
  return idle;
}

void Regions::finish_cleaning(const std::vector<RegionIndex>& regions) {
  for (RegionIndex region : regions) {
    Region* entry = find(region);
    if (!entry || entry->phase != RegionPhase::Dirty || entry->touched) continue;
    assert(entry->pending == 0);
    clean(region);
  }
}

void Regions::clean(RegionIndex region) {
  log_.clear(region);
  forget(region);
}

}  // namespace dmfs
