// SPDX-License-Identifier: Apache-2.0
// I/O that waits: what is told about it, and how much memory it may take.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/io/bio.h"

namespace dmfs {

// A bio that waits, as `why` shows it.
struct HeldBio {
  std::string where;  // "deferred", "pushback", or the type of the target that keeps it
  Op op;
  bool fua;
  Sectors sector;     // on the mapped device
  Sectors count;
  pid_t pid;          // of the process that asked, 0 if unknown
  std::chrono::nanoseconds age;
};

// Some of what waits in one place, oldest first, and how many there are.
struct HeldList {
  static constexpr size_t kMaxListed = 1000;

  std::vector<HeldBio> bios;  // kMaxListed at most
  size_t count = 0;

  // Under the lock that keeps the bio where it is.
  void add(const char* where, const Bio& bio) { add(where, bio, bio.sector); }
  // The bio has been remapped: where it was before.
  void add(const char* where, const Bio& bio, Sectors sector);
  void add_all(const char* where, const BioList& list);
};

// Marks the moment from which a bio has been held, unless it bears one.
void stamp_held(Bio& bio);

// Bounds the data of the bios that wait in suspended devices, or are kept by targets for as long as
// somebody wants, of all devices together.
class HeldBudget {
 public:
  static constexpr uint64_t kDefaultLimit = uint64_t{1} << 30;

  explicit HeldBudget(uint64_t limit = kDefaultLimit) : limit_(limit) {}

  // False: there is no room.
  bool take(const Bio& bio);
  // Though there may be no room: what has been accepted is never refused later.
  void force(const Bio& bio) { used_.fetch_add(cost(bio), std::memory_order_relaxed); }
  void give(const Bio& bio) { used_.fetch_sub(cost(bio), std::memory_order_relaxed); }
  uint64_t limit() const { return limit_; }
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  static uint64_t cost(const Bio& bio) { return op_has_data(bio.op) ? bio.bytes() : 0; }

  const uint64_t limit_;  // bytes
  std::atomic<uint64_t> used_{0};
};

// The bios that a target keeps until somebody lets them go, within a budget; what is taken out is
// given back to it. Not thread-safe: under the target's lock.
class KeptBios {
 public:
  explicit KeptBios(HeldBudget& budget) : budget_(budget) {}
  KeptBios(const KeptBios&) = delete;
  KeptBios& operator=(const KeptBios&) = delete;

  // Keeps the bio, or answers why not, an errno: that of its cancel, or ENOMEM when there is no
  // room. Then `tell` is set at the first of a row: the target raises an event.
  int keep(Bio& bio, bool& tell);
  // Keeps it in any case: what has been accepted is never refused later.
  void force(Bio& bio);
  Bio* pop_front();                     // the oldest
  // Puts all of `other`, of the same budget, before what is here.
  void splice_front(KeptBios& other) { bios_.splice_front(other.bios_); }
  BioList take(const BioCancel& cancel) { return give(bios_.take(cancel)); }
  BioList take_all() { return give(std::exchange(bios_, {})); }
  const Bio* front() const { return bios_.front(); }  // oldest; the next is Bio::next
  const BioList& list() const { return bios_; }
  size_t size() const { return bios_.size(); }
  bool empty() const { return bios_.empty(); }

 private:
  BioList give(BioList taken);

  HeldBudget& budget_;
  BioList bios_;
  bool told_ = false;
};

}  // namespace dmfs
