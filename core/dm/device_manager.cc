// SPDX-License-Identifier: Apache-2.0
// The index: names, uuids, minors, open counts, and what others may know of a device.
#include "core/dm/device_manager.h"

#include <fmt/format.h>

namespace dmfs {
namespace {

Error no_such_device(const DeviceSelector& selector) {
  std::string what = selector.name    ? fmt::format("'{}'", *selector.name)
                     : selector.uuid  ? fmt::format("uuid '{}'", *selector.uuid)
                     : selector.minor ? fmt::format("{}:{}", kVirtualMajor, *selector.minor)
                                      : std::string("no name given");
  return Error{ENXIO, fmt::format("no such device: {}", what)};
}

}  // namespace

DeviceManager::DeviceManager(Options options)
    : registry_(options.registry),
      store_(options.store),
      executor_(options.executor),
      io_(options.io),
      clock_(options.clock),
      held_budget_(options.held_limit),
      read_script_(std::move(options.read_script)),
      log_(std::move(options.log)) {}

DeviceManager::~DeviceManager() {
  std::optional<ThreadExecutor>* undertaker;
  {
    MutexLock lock(bury_mutex_);
    undertaker = &undertaker_;
  }
  undertaker->reset();  // nobody else is here any more
  // Tables first, while every device that they lie on is still in the index.
  std::vector<std::shared_ptr<MappedDevice>> devices;
  {
    MutexLock lock(index_mutex_);
    stopping_ = true;
    for (auto& [minor, node] : nodes_) devices.push_back(node.device);
  }
  for (auto& device : devices) {
    std::vector<std::shared_ptr<Table>> tables;
    MutexLock command(device->command_mutex());
    tables = device->retire();
  }
}

void DeviceManager::bury(const std::shared_ptr<MappedDevice>& device,
                         std::shared_ptr<Table>& table) {
  if (!table || !table->lingers()) return;
  MutexLock lock(bury_mutex_);
  if (!undertaker_) undertaker_.emplace();
  // The table may still raise events of the device.
  undertaker_->post([device, dead = std::move(table)]() mutable { dead.reset(); });
}

void DeviceManager::set_own_mount(const OwnMount* mount) {
  MutexLock lock(index_mutex_);
  own_mount_ = mount;
}

int64_t DeviceManager::own_minor_of(int path_fd) const {
  const OwnMount* mount;
  {
    MutexLock lock(index_mutex_);
    mount = own_mount_;
  }
  return mount ? mount->minor_of(path_fd) : -1;
}

std::vector<DeviceManager::Listing> DeviceManager::list() const {
  MutexLock lock(index_mutex_);
  std::vector<Listing> all;
  all.reserve(names_.size());
  for (const auto& [name, minor] : names_) all.push_back({name, minor});
  return all;
}

std::shared_ptr<MappedDevice> DeviceManager::find(const std::string& name) const {
  MutexLock lock(index_mutex_);
  auto it = names_.find(name);
  return it == names_.end() ? nullptr : nodes_.at(it->second).device;
}

std::shared_ptr<MappedDevice> DeviceManager::find(uint32_t minor) const {
  MutexLock lock(index_mutex_);
  auto it = nodes_.find(minor);
  return it == nodes_.end() ? nullptr : it->second.device;
}

std::string DeviceManager::name_of(uint32_t minor) const {
  MutexLock lock(index_mutex_);
  auto it = nodes_.find(minor);
  return it == nodes_.end() ? fmt::format("{}:{}", kVirtualMajor, minor) : it->second.record.name;
}

Result<std::shared_ptr<MappedDevice>> DeviceManager::open(uint32_t minor) {
  MutexLock lock(index_mutex_);
  auto it = nodes_.find(minor);
  if (it == nodes_.end() || it->second.removing) {
    return Error{ENXIO, fmt::format("no such device: {}:{}", kVirtualMajor, minor)};
  }
  ++it->second.open_count;
  return it->second.device;
}

void DeviceManager::close(uint32_t minor) {
  {
    MutexLock lock(index_mutex_);
    Node& node = nodes_.at(minor);
    assert(node.open_count > 0);
    if (--node.open_count > 0 || !node.record.deferred_remove || stopping_) return;
  }
  executor_.post([this, minor] { remove_deferred(minor); });
}

DeviceManager::Node* DeviceManager::find_node(const DeviceSelector& selector) {
  uint32_t minor = 0;
  if (selector.name) {
    auto it = names_.find(*selector.name);
    if (it == names_.end()) return nullptr;
    minor = it->second;
  } else if (selector.uuid) {
    auto it = uuids_.find(*selector.uuid);
    if (it == uuids_.end()) return nullptr;
    minor = it->second;
  } else if (selector.minor) {
    minor = *selector.minor;
  } else {
    return nullptr;
  }
  auto it = nodes_.find(minor);
  return it == nodes_.end() ? nullptr : &it->second;
}

Result<DeviceManager::Node> DeviceManager::node_of(const DeviceSelector& selector) const {
  MutexLock lock(index_mutex_);
  Node* node = const_cast<DeviceManager*>(this)->find_node(selector);
  if (!node) return no_such_device(selector);
  return *node;
}

Result<std::shared_ptr<MappedDevice>> DeviceManager::select(const DeviceSelector& selector) const {
  DM_TRY(Node node, node_of(selector));
  return node.device;
}

DeviceInfo DeviceManager::describe(const Node& node) {
  auto live = node.device->live_table();
  DeviceInfo info;
  info.name = node.record.name;
  info.uuid = node.record.uuid;
  info.minor = node.record.minor;
  info.open_count = node.open_count;
  info.event_nr = node.device->events().number();
  info.suspended = node.device->suspended();
  info.live_table = live != nullptr;
  info.inactive_table = node.device->inactive_table() != nullptr;
  info.deferred_remove = node.record.deferred_remove;
  info.read_ahead = node.record.read_ahead;
  info.geometry = node.record.geometry;
  if (live) {
    info.target_count = static_cast<uint32_t>(live->entries().size());
    info.read_only = live->read_only();
    info.ordered = live->ordered();
    info.size = live->size();
    info.not_activated = live->unavailable_reason();
    info.fault = live->fault();
  }
  info.held = node.device->in_flight() > 0 ? node.device->held().count : node.device->held_count();
  return info;
}

Result<DeviceInfo> DeviceManager::describe(uint32_t minor) const {
  return info(DeviceSelector{.name = {}, .uuid = {}, .minor = minor});
}

Result<DeviceInfo> DeviceManager::describe(uint32_t minor, FreezeReport report) const {
  DM_TRY(DeviceInfo info, describe(minor));
  info.frozen = std::move(report.frozen);
  info.notes = std::move(report.notes);
  return info;
}

Result<DeviceInfo> DeviceManager::info(const DeviceSelector& selector) const {
  DM_TRY(Node node, node_of(selector));
  return describe(node);
}

std::vector<DeviceInfo> DeviceManager::infos() const {
  std::vector<Node> nodes;
  {
    MutexLock lock(index_mutex_);
    for (const auto& [name, minor] : names_) nodes.push_back(nodes_.at(minor));
  }
  std::vector<DeviceInfo> all;
  all.reserve(nodes.size());
  for (const Node& node : nodes) all.push_back(describe(node));
  return all;
}

Status DeviceManager::update(uint32_t minor, const std::function<void(DeviceRecord&)>& change,
                             std::vector<StoreChange> more) {
  DeviceRecord record;
  {
    MutexLock lock(index_mutex_);
    const Node& node = nodes_.at(minor);
    record = node.record;
    record.event_nr = node.device->events().number();
  }
  change(record);
  std::vector<StoreChange> changes{PutDevice{record}};
  for (StoreChange& step : more) changes.push_back(std::move(step));
  DM_TRY_STATUS(store_.commit(changes));
  MutexLock lock(index_mutex_);
  nodes_.at(minor).record = std::move(record);
  return {};
}

Result<DeviceInfo> DeviceManager::set_geometry(const DeviceSelector& selector,
                                               const Geometry& geometry) {
  DM_TRY(auto device, select(selector));
  MutexLock command(device->command_mutex());
  MutexLock change(change_mutex_);
  DM_TRY(Node node, node_of({.name = {}, .uuid = {}, .minor = device->minor()}));
  // Limits and order of checks as in the kernel's dev_set_geometry and dm_set_geometry.
  if (geometry.cylinders > 65535 || geometry.heads > 255 || geometry.sectors > 255) {
    return Error{EINVAL, fmt::format("Geometry exceeds range limits: {} {} {}", geometry.cylinders,
                                     geometry.heads, geometry.sectors)};
  }
  if (device->live_table() &&
      geometry.start > geometry.cylinders * geometry.heads * geometry.sectors) {
    return Error{EINVAL, fmt::format("Start sector is beyond the geometry limits: {}",
                                     geometry.start)};
  }
  DM_TRY_STATUS(update(device->minor(), [&](DeviceRecord& record) { record.geometry = geometry; }));
  return describe(device->minor());
}

}  // namespace dmfs
