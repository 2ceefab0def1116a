// SPDX-License-Identifier: Apache-2.0
// A DeviceStore in memory, with commits that fail when the test says so.
#pragma once

#include <atomic>
#include <map>
#include <vector>

#include "core/base/mutex.h"
#include "core/dm/device_store.h"

namespace dmfs::test {

class MapStore : public DeviceStore {
 public:
  Result<std::vector<StoredDevice>> load() override {
    MutexLock lock(mutex_);
    std::vector<StoredDevice> all;
    for (const auto& [minor, device] : devices_) all.push_back(device);
    return all;
  }
  Status commit(const std::vector<StoreChange>& changes) override {
    MutexLock lock(mutex_);
    ++commits_;
    if (fail_) return Error{fail_, "the store fails, as the test wants"};
    for (const StoreChange& change : changes) {
      if (const auto* put = std::get_if<PutDevice>(&change)) {
        devices_[put->record.minor].record = put->record;
      } else if (const auto* table = std::get_if<PutTable>(&change)) {
        slot(table->minor, table->slot) = table->table;
      } else if (const auto* saved = std::get_if<PutTargetState>(&change)) {
        slot(saved->minor, saved->slot)->targets.at(saved->position).state = saved->state;
      } else if (const auto* drop = std::get_if<DropTable>(&change)) {
        slot(drop->minor, drop->slot).reset();
      } else if (const auto* erase = std::get_if<EraseDevice>(&change)) {
        devices_.erase(erase->minor);
      }
    }
    return {};
  }
  void fail(int error) {
    MutexLock lock(mutex_);
    fail_ = error;
  }
  int commits() const {
    MutexLock lock(mutex_);
    return commits_;
  }
  StoredDevice at(uint32_t minor) const {
    MutexLock lock(mutex_);
    return devices_.at(minor);
  }
  size_t size() const {
    MutexLock lock(mutex_);
    return devices_.size();
  }

 private:
  std::optional<TableSpec>& slot(uint32_t minor, Slot which) DM_REQUIRES(mutex_) {
    StoredDevice& device = devices_.at(minor);
    return which == Slot::Live ? device.live : device.inactive;
  }

  mutable Mutex mutex_;
  std::map<uint32_t, StoredDevice> devices_ DM_GUARDED_BY(mutex_);
  int fail_ DM_GUARDED_BY(mutex_) = 0;
  int commits_ DM_GUARDED_BY(mutex_) = 0;
};

}  // namespace dmfs::test
