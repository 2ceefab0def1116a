// SPDX-License-Identifier: Apache-2.0
#include "core/dm/activation.h"

#include <fmt/format.h>

namespace dmfs {

DeviceManager::Activator::Activator(DeviceManager& manager, std::vector<StoredDevice> devices)
    : manager_(manager) {
  for (StoredDevice& stored : devices) {
    uint32_t minor = stored.record.minor;
    waiting_.emplace(minor, std::move(stored));
  }
}

void DeviceManager::Activator::run() {
  while (!waiting_.empty()) ensure(waiting_.begin()->first);
}

void DeviceManager::Activator::ensure(uint32_t minor) {
  auto it = waiting_.find(minor);
  if (it == waiting_.end() || depth_ > kMaxStackDepth) return;
  StoredDevice stored = std::move(it->second);
  waiting_.erase(it);
  ++depth_;
  activate(stored);
  --depth_;
}

std::shared_ptr<Table> DeviceManager::Activator::build(MappedDevice& device,
                                                       const std::optional<TableSpec>& spec) {
  if (!spec) return nullptr;
  auto table = manager_.build_table(device, *spec, {}, this);
  if (!table) return Table::unavailable(*spec, table.error().message);
  {
    MutexLock change(manager_.change_mutex_);
    if (Status stack = manager_.check_stack(**table, device.minor()); !stack) {
      return Table::unavailable(*spec, stack.error().message);
    }
  }
  return *table;
}

void DeviceManager::Activator::activate(const StoredDevice& stored) {
  std::shared_ptr<MappedDevice> device = manager_.find(stored.record.minor);
  device->events().restore(stored.record.event_nr);
  std::shared_ptr<Table> live = build(*device, stored.live);
  std::shared_ptr<Table> inactive = build(*device, stored.inactive);
  std::shared_ptr<Table> refused;
  MutexLock command(device->command_mutex());
  if (Status ready = device->restore(live, inactive, stored.record.suspended); !ready) {
    refused = live;
    (void)device->restore(Table::unavailable(*stored.live, ready.error().message), inactive,
                          stored.record.suspended);
  }
}

Status DeviceManager::start() {
  DM_TRY(auto devices, store_.load());
  {
    MutexLock lock(index_mutex_);
    for (const StoredDevice& stored : devices) {
      Node node;
      node.device = std::make_shared<MappedDevice>(stored.record.minor, held_budget_);
      node.record = stored.record;
      names_.emplace(stored.record.name, stored.record.minor);
      if (!stored.record.uuid.empty()) uuids_.emplace(stored.record.uuid, stored.record.minor);
      nodes_.emplace(stored.record.minor, std::move(node));
    }
  }
  std::vector<uint32_t> to_remove;
  for (const StoredDevice& stored : devices) {
    if (stored.record.deferred_remove) to_remove.push_back(stored.record.minor);
  }
  Activator(*this, std::move(devices)).run();
  // Whoever had it open is gone with the last daemon.
  for (uint32_t minor : to_remove) executor_.post([this, minor] { remove_deferred(minor); });
  return {};
}

void DeviceManager::thaw_all(CancelToken& cancel) {
  std::vector<std::shared_ptr<MappedDevice>> devices;
  {
    MutexLock lock(index_mutex_);
    for (const auto& [minor, node] : nodes_) devices.push_back(node.device);
  }
  bool any = false;
  for (const auto& device : devices) {
    MutexLock command(device->command_mutex());
    any = any || device->locked_fs();
  }
  if (!any) return;
  for (const auto& device : devices) device->refuse_held(EIO);
  for (const auto& device : devices) {
    MutexLock command(device->command_mutex());
    device->let_go(cancel);
  }
}

void DeviceManager::stop() {
  std::vector<Node> nodes;
  {
    MutexLock lock(index_mutex_);
    stopping_ = true;
    for (const auto& [minor, node] : nodes_) nodes.push_back(node);
  }
  std::vector<StoreChange> changes;
  MutexLock change(change_mutex_);
  for (Node& node : nodes) {
    (void)node.device->fail_held(EIO);
    node.device->events().close();
    uint32_t event_nr = node.device->events().number();
    if (event_nr == node.record.event_nr) continue;
    node.record.event_nr = event_nr;
    changes.push_back(PutDevice{node.record});
  }
  // Event numbers that targets raised since the last command: wanted, but no promise depends on it.
  if (!changes.empty()) (void)store_.commit(changes);
}

}  // namespace dmfs
