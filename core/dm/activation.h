// SPDX-License-Identifier: Apache-2.0
// Brings devices back from the store at start, each after those that it lies on.
#pragma once

#include <cstdint>
#include <map>
#include <set>

#include "core/dm/device_manager.h"

namespace dmfs {

class DeviceManager::Activator {
 public:
  Activator(DeviceManager& manager, std::vector<StoredDevice> devices);
  void run();
  // Activates this one first, if it still waits for it. A cycle in a foreign store ends where it
  // meets itself: that table finds a device without a size.
  void ensure(uint32_t minor);

 private:
  void activate(const StoredDevice& stored);
  std::shared_ptr<Table> build(MappedDevice& device, const std::optional<TableSpec>& spec);

  DeviceManager& manager_;
  std::map<uint32_t, StoredDevice> waiting_;
  unsigned depth_ = 0;
};

}  // namespace dmfs
