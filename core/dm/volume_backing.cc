// SPDX-License-Identifier: Apache-2.0
#include "core/dm/volume_backing.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/base/object_pool.h"

namespace dmfs {
namespace {

// Goes down in the place of a bio that changes a volume which somebody keeps copies of.
struct WatchedBio : Bio {
  WatchedBio() : Bio(&WatchedBio::ended) {}

  static void ended(Bio& bio) {
    auto& watched = static_cast<WatchedBio&>(bio);
    ChangeObserver* observer = watched.manager->change_observer();
    if (!observer) return watched.pass_up();
    // A bio that has failed may have changed something all the same.
    observer->changed_from_above(watched.minor, watched.sector, watched.count,
                                 [&watched] { watched.pass_up(); });
  }
  void pass_up() {
    Bio& above = *original;
    int error = status;
    Sense error_sense = sense;
    ObjectPool<WatchedBio>::put(this);
    above.complete(error, error_sense);
  }

  Bio* original = nullptr;
  DeviceManager* manager = nullptr;
  uint32_t minor = 0;
  WatchedBio* pool_next = nullptr;
};

}  // namespace

Result<std::unique_ptr<BackingFile>> VolumeBacking::open(DeviceManager& manager, uint32_t minor) {
  DM_TRY(auto device, manager.open(minor));
  return std::unique_ptr<BackingFile>(new VolumeBacking(manager, std::move(device)));
}

VolumeBacking::~VolumeBacking() { manager_.close(device_->minor()); }

void VolumeBacking::submit_watched(Bio& bio) {
  WatchedBio& watched = *ObjectPool<WatchedBio>::get();
  watched.reset();
  watched.op = bio.op;
  watched.flags = bio.flags;
  watched.slot = bio.slot;
  watched.sector = bio.sector;
  watched.count = bio.count;
  watched.data = bio.data;
  watched.pid = bio.pid;
  watched.original = &bio;
  watched.origin = bio.origin;
  watched.manager = &manager_;
  watched.minor = device_->minor();
  device_->submit(watched);
}

Extent VolumeBacking::extent_at(Sectors start, Sectors length) const {
  auto table = device_->live_table();
  if (!table || start >= table->size()) return {true, length};
  Extent extent = table->extent_at(start);
  return {extent.data, std::min(extent.length, length)};
}

std::string VolumeBacking::fault() const {
  auto table = device_->live_table();
  if (!table) return {};
  if (!table->unavailable_reason().empty()) {
    return fmt::format("{}: not activated: {}", name(), table->unavailable_reason());
  }
  return table->fault();
}

}  // namespace dmfs
