// SPDX-License-Identifier: Apache-2.0
#include "core/dm/volume_backing.h"

#include <algorithm>

#include <fmt/format.h>

namespace dmfs {

Result<std::unique_ptr<BackingFile>> VolumeBacking::open(DeviceManager& manager, uint32_t minor) {
  DM_TRY(auto device, manager.open(minor));
  return std::unique_ptr<BackingFile>(new VolumeBacking(manager, std::move(device)));
}

VolumeBacking::~VolumeBacking() { manager_.close(device_->minor()); }

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
