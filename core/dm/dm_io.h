// SPDX-License-Identifier: Apache-2.0
// One bio inside a mapped device, and its clones on their way through targets.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/base/object_pool.h"
#include "core/dm/in_flight.h"
#include "core/dm/table.h"
#include "core/io/bio.h"

namespace dmfs {

class MappedDevice;
struct DmIo;

// A part of a bio, on one target.
struct Clone : Bio {
  Clone();
  DmIo* io = nullptr;
  const Table::Entry* entry = nullptr;
  Clone* pool_next = nullptr;
};

// Lives from submit until the last clone has ended. The submitter counts as one while it still
// makes clones, so that an early end does not end the whole.
struct DmIo {
  static DmIo& begin(MappedDevice& device, Bio& bio, InFlight::Shard shard);

  // Makes a clone for `entry` and gives it to the target.
  void send(const Table::Entry& entry, Sectors sector, Sectors count, uint64_t skip_bytes,
            uint16_t slot);
  // Keeps the error and its sense if none was kept before.
  void record(int error, Sense sense = {});
  // Takes one off `remaining`; the last one finishes the bio.
  void put();

  static void clone_ended(Bio& bio);

  MappedDevice* device = nullptr;
  Bio* original = nullptr;
  std::atomic<uint32_t> remaining{0};
  // An errno and its sense, which change together.
  struct alignas(8) Outcome {
    int error = 0;
    Sense sense;
  };
  static_assert(std::atomic<Outcome>::is_always_lock_free);
  std::atomic<Outcome> outcome{};     // the first, save that EOPNOTSUPP of a flush supersedes
  std::atomic<bool> requeue{false};   // supersedes any error
  InFlight::Shard shard = 0;
  bool first_used = false;
  Clone first;                        // most bios need only one
  DmIo* pool_next = nullptr;

 private:
  Clone& new_clone();
  void free_clone(Clone& clone);
};

}  // namespace dmfs
