// SPDX-License-Identifier: Apache-2.0
#include "core/dm/held.h"

#include <cerrno>

namespace dmfs {
namespace {

int64_t now_ns() {
  auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace

void HeldList::add(const char* where, const Bio& bio, Sectors sector) {
  if (count++ >= kMaxListed) return;
  // A clone has been asked for when its origin was, unless it was held by itself.
  int64_t since = bio.held_since ? bio.held_since : bio.origin->held_since;
  bios.push_back({.where = where,
                  .op = bio.op,
                  .fua = (bio.flags & kBioFua) != 0,
                  .sector = sector,
                  .count = bio.count,
                  .pid = bio.pid,
                  .age = std::chrono::nanoseconds(since ? now_ns() - since : 0)});
}

void HeldList::add_all(const char* where, const BioList& list) {
  for (const Bio* bio = list.front(); bio; bio = bio->next) add(where, *bio);
}

void stamp_held(Bio& bio) {
  if (bio.held_since == 0) bio.held_since = now_ns();
}

int KeptBios::keep(Bio& bio, bool& tell) {
  if (int cancelled = bio.cancelled()) return cancelled;
  if (!budget_.take(bio)) {
    tell = !std::exchange(told_, true);
    return ENOMEM;
  }
  told_ = false;
  stamp_held(bio);
  bios_.push_back(bio);
  return 0;
}

void KeptBios::force(Bio& bio) {
  budget_.force(bio);
  stamp_held(bio);
  bios_.push_back(bio);
}

Bio* KeptBios::pop_front() {
  Bio* bio = bios_.pop_front();
  if (bio) budget_.give(*bio);
  return bio;
}

BioList KeptBios::give(BioList taken) {
  for (const Bio* bio = taken.front(); bio; bio = bio->next) budget_.give(*bio);
  return taken;
}

bool HeldBudget::take(const Bio& bio) {
  uint64_t bytes = cost(bio);
  uint64_t used = used_.load(std::memory_order_relaxed);
  do {
    if (bytes > limit_ || used > limit_ - bytes) return bytes == 0;
  } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  return true;
}

}  // namespace dmfs
