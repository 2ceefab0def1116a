// SPDX-License-Identifier: Apache-2.0
// DeviceManager's create, remove and rename.
#include <fmt/format.h>

#include "core/dm/device_manager.h"

namespace dmfs {
namespace {

Status check_name(const std::string& name) {
  if (name.empty()) return Error{EINVAL, "name not supplied when creating device"};
  if (name.size() > kMaxNameLength) {
    return Error{ENAMETOOLONG, fmt::format("name '{}' is longer than {} bytes", name, kMaxNameLength)};
  }
  if (name.find('/') != std::string::npos) {
    return Error{EINVAL, fmt::format("invalid device name '{}': it contains '/'", name)};
  }
  if (name.find('\0') != std::string::npos) {
    return Error{EINVAL, "invalid device name: it contains a NUL byte"};
  }
  if (name == "." || name == ".." || name == "control") {
    return Error{EINVAL, fmt::format("invalid device name '{}': it is reserved", name)};
  }
  return {};
}

Status check_uuid(const std::string& uuid) {
  if (uuid.size() > kMaxUuidLength) {
    return Error{ENAMETOOLONG, fmt::format("uuid '{}' is longer than {} bytes", uuid, kMaxUuidLength)};
  }
  return {};
}

}  // namespace

uint32_t DeviceManager::free_minor() {
  auto it = nodes_.lower_bound(lowest_maybe_free_);
  while (it != nodes_.end() && it->first == lowest_maybe_free_) {
    ++lowest_maybe_free_;
    ++it;
  }
  return lowest_maybe_free_;
}

void DeviceManager::index_record(const DeviceRecord& before, const DeviceRecord& after) {
  if (before.name != after.name) {
    names_.erase(before.name);
    names_.emplace(after.name, after.minor);
  }
  if (before.uuid != after.uuid) {
    if (!before.uuid.empty()) uuids_.erase(before.uuid);
    if (!after.uuid.empty()) uuids_.emplace(after.uuid, after.minor);
  }
  nodes_.at(after.minor).record = after;
}

Result<DeviceInfo> DeviceManager::create(const CreateArgs& args) {
  DM_TRY_STATUS(check_name(args.name));
  DM_TRY_STATUS(check_uuid(args.uuid));
  MutexLock change(change_mutex_);
  DeviceRecord record;
  record.name = args.name;
  record.uuid = args.uuid;
  if (args.read_ahead) record.read_ahead = *args.read_ahead;
  {
    MutexLock lock(index_mutex_);
    if (names_.contains(args.name)) {
      return Error{EBUSY, fmt::format("a device named '{}' exists already", args.name)};
    }
    if (!args.uuid.empty() && uuids_.contains(args.uuid)) {
      return Error{EBUSY, fmt::format("a device with uuid '{}' exists already", args.uuid)};
    }
    record.minor = args.minor ? *args.minor : free_minor();
    // ENXIO for both, as the kernel answers.
    if (record.minor > kMaxMinor) {
      return Error{ENXIO, fmt::format("minor {} is out of range (0 to {})", record.minor, kMaxMinor)};
    }
    if (nodes_.contains(record.minor)) {
      return Error{ENXIO, fmt::format("minor {} is in use", record.minor)};
    }
  }
  // change_mutex_ keeps name, uuid and minor ours while the store is written.
  DM_TRY_STATUS(store_.commit({PutDevice{record}}));
  {
    MutexLock lock(index_mutex_);
    Node node;
    node.device = std::make_shared<MappedDevice>(record.minor, held_budget_);
    node.record = record;
    nodes_.emplace(record.minor, std::move(node));
    names_.emplace(record.name, record.minor);
    if (!record.uuid.empty()) uuids_.emplace(record.uuid, record.minor);
  }
  return describe(record.minor);
}

Result<bool> DeviceManager::remove(const RemoveArgs& args) {
  std::vector<std::shared_ptr<Table>> dropped;  // destroyed with no lock held
  DM_TRY(auto device, select(args.device));
  MutexLock command(device->command_mutex());
  return remove_device(device, args.deferred, dropped);
}

Result<bool> DeviceManager::remove_device(const std::shared_ptr<MappedDevice>& device,
                                          bool deferred,
                                          std::vector<std::shared_ptr<Table>>& dropped) {
  uint32_t minor = device->minor();
  MutexLock change(change_mutex_);
  std::string name, uuid;
  bool in_use = false;
  {
    MutexLock lock(index_mutex_);
    auto it = nodes_.find(minor);
    if (it == nodes_.end() || it->second.device != device) {
      return Error{ENXIO, "the device was removed meanwhile"};
    }
    Node& node = it->second;
    name = node.record.name;
    uuid = node.record.uuid;
    in_use = node.open_count > 0;
    if (in_use && !deferred) {
      return Error{EBUSY, fmt::format("'{}' is in use: open count {}", name, node.open_count)};
    }
    if (!in_use) node.removing = true;
  }
  if (in_use) {
    DM_TRY_STATUS(update(minor, [](DeviceRecord& record) { record.deferred_remove = true; }));
    // Its last user may have left before the flag was there to be seen.
    MutexLock lock(index_mutex_);
    if (nodes_.at(minor).open_count == 0) executor_.post([this, minor] { remove_deferred(minor); });
    return true;
  }
  Status erased = store_.commit({EraseDevice{minor}});
  {
    MutexLock lock(index_mutex_);
    if (!erased) {
      nodes_.at(minor).removing = false;
      return erased.error();
    }
    nodes_.erase(minor);
    names_.erase(name);
    if (!uuid.empty()) uuids_.erase(uuid);
    lowest_maybe_free_ = std::min(lowest_maybe_free_, minor);
  }
  dropped = device->retire();
  for (auto& table : dropped) bury(device, table);
  return false;
}

void DeviceManager::remove_deferred(uint32_t minor) {
  std::vector<std::shared_ptr<Table>> dropped;
  std::shared_ptr<MappedDevice> device = find(minor);
  if (!device) return;
  MutexLock command(device->command_mutex());
  {
    // Cancelled, or opened again (then its next last close comes back here).
    MutexLock lock(index_mutex_);
    auto it = nodes_.find(minor);
    if (it == nodes_.end() || it->second.device != device || it->second.open_count > 0 ||
        !it->second.record.deferred_remove || stopping_) {
      return;
    }
  }
  (void)remove_device(device, true, dropped);
}

Status DeviceManager::cancel_deferred_remove(const DeviceSelector& selector) {
  DM_TRY(auto device, select(selector));
  MutexLock command(device->command_mutex());
  MutexLock change(change_mutex_);
  DM_TRY(Node node, node_of({.name = {}, .uuid = {}, .minor = device->minor()}));
  if (!node.record.deferred_remove) return {};
  return update(device->minor(), [](DeviceRecord& record) { record.deferred_remove = false; });
}

Status DeviceManager::rename_in_index(uint32_t minor, const RenameArgs& args,
                                      DeviceRecord& before) {
  MutexLock lock(index_mutex_);
  auto it = nodes_.find(minor);
  if (it == nodes_.end()) return Error{ENXIO, "the device was removed meanwhile"};
  before = it->second.record;
  DeviceRecord after = before;
  if (args.new_uuid) {
    if (!before.uuid.empty() && !uuids_.contains(*args.new_uuid)) {
      return Error{EINVAL, fmt::format("Unable to change uuid of mapped device {} to {} because "
                                       "uuid is already set to {}",
                                       before.name, *args.new_uuid, before.uuid)};
    }
    if (uuids_.contains(*args.new_uuid)) {
      return Error{EBUSY, fmt::format("Unable to change uuid on mapped device {} to one that "
                                      "already exists: {}",
                                      before.name, *args.new_uuid)};
    }
    after.uuid = *args.new_uuid;
  } else {
    if (names_.contains(*args.new_name)) {
      return Error{EBUSY, fmt::format("Unable to change name on mapped device {} to one that "
                                      "already exists: {}",
                                      before.name, *args.new_name)};
    }
    after.name = *args.new_name;
  }
  index_record(before, after);
  return {};
}

std::vector<StoreChange> DeviceManager::tables_above(uint32_t minor) const {
  std::vector<std::shared_ptr<MappedDevice>> devices;
  {
    MutexLock lock(index_mutex_);
    for (const auto& [other, node] : nodes_) devices.push_back(node.device);
  }
  std::vector<StoreChange> changes;
  for (const auto& device : devices) {
    for (Slot slot : {Slot::Live, Slot::Inactive}) {
      auto table = slot == Slot::Live ? device->live_table() : device->inactive_table();
      if (!table) continue;
      for (const BackingFile* below : table->devices()) {
        if (below->volume_minor() != int64_t{minor}) continue;
        changes.push_back(PutTable{device->minor(), slot, table->spec()});
        break;
      }
    }
  }
  return changes;
}

Result<DeviceInfo> DeviceManager::rename(const RenameArgs& args) {
  if (args.new_name.has_value() == args.new_uuid.has_value()) {
    return Error{EINVAL, "rename takes a new name or a new uuid"};
  }
  if (args.new_name) DM_TRY_STATUS(check_name(*args.new_name));
  if (args.new_uuid) {
    if (args.new_uuid->empty()) return Error{EINVAL, "an empty uuid"};
    DM_TRY_STATUS(check_uuid(*args.new_uuid));
  }
  DM_TRY(auto device, select(args.device));
  uint32_t minor = device->minor();
  {
    MutexLock change(change_mutex_);
    // The index first: tables above print (and are stored) with the new name. Should the store
    // refuse, nobody has been told of it yet.
    DeviceRecord before;
    DM_TRY_STATUS(rename_in_index(minor, args, before));
    Status stored = update(minor, [](DeviceRecord& record) { ++record.event_nr; },
                           args.new_name ? tables_above(minor) : std::vector<StoreChange>());
    if (!stored) {
      MutexLock lock(index_mutex_);
      index_record(DeviceRecord(nodes_.at(minor).record), before);
      return stored.error();
    }
  }
  device->events().raise();
  return describe(minor);
}

}  // namespace dmfs
