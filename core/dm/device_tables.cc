// SPDX-License-Identifier: Apache-2.0
// DeviceManager's load, clear, suspend and resume.
#include <set>

#include <fmt/format.h>

#include "core/dm/activation.h"
#include "core/dm/device_manager.h"
#include "core/dm/device_resolver.h"

namespace dmfs {

Result<std::shared_ptr<Table>> DeviceManager::build_table(MappedDevice& device,
                                                          const TableSpec& spec,
                                                          const std::string& cwd,
                                                          Activator* activator) {
  DeviceResolver::Options options{*this, io_, device.minor(), cwd};
  if (activator) {
    options.before_volume = [activator](uint32_t minor) { activator->ensure(minor); };
  }
  DeviceResolver resolver(std::move(options));
  Table::Options table_options{registry_, resolver, clock_};
  // A table lives no longer than its device, save in the hands of a reader, who raises nothing.
  table_options.raise_event = [&device] { device.events().raise(); };
  table_options.budget = &device.held_budget();
  table_options.save_state = [this, minor = device.minor()](uint64_t position,
                                                            const std::string& state) -> Status {
    // Nobody stores the whole table meanwhile, and so an older state.
    MutexLock change(change_mutex_);
    return store_.commit({PutTargetState{minor, Slot::Live, position, state}});
  };
  table_options.noflush_suspending = [&device] { return device.noflush_suspending(); };
  table_options.identify = [this](const std::string& word) {
    return DeviceResolver::identify(*this, word);
  };
  table_options.log = log_;
  table_options.read_script = read_script_;
  DM_TRY(auto table, Table::build(spec, table_options));
  return std::shared_ptr<Table>(std::move(table));
}

Status DeviceManager::check_replaces(const Table& table, const MappedDevice& device) {
  auto live = device.live_table();
  auto inactive = device.inactive_table();
  const TargetType* immutable = live ? live->immutable_type() : nullptr;
  if (immutable && table.immutable_type() != immutable && !table.has_wildcard()) {
    return Error{EINVAL, fmt::format("can't replace immutable target type {}", immutable->name)};
  }
  TableKind before = live ? live->kind() : TableKind::Any;
  if (before == TableKind::Any && inactive) before = inactive->kind();
  TableKind after = table.kind();
  if (before == TableKind::Any || after == TableKind::Any || before == after) return {};
  return Error{EINVAL, fmt::format("can't change device type (old={} vs new={}) after initial table "
                                   "load.", static_cast<int>(before), static_cast<int>(after))};
}

Status DeviceManager::check_stack(const Table& table, uint32_t minor) const {
  // Breadth first over the volumes below, through live and inactive tables. Loads are serialised
  // by change_mutex_, and a resume only moves a table from slot to slot.
  std::set<uint32_t> seen;
  std::vector<uint32_t> level;
  for (const BackingFile* file : table.devices()) {
    if (file->volume_minor() >= 0) level.push_back(static_cast<uint32_t>(file->volume_minor()));
  }
  for (unsigned depth = 1; !level.empty(); ++depth) {
    if (depth >= kMaxStackDepth) {
      return Error{ELOOP, fmt::format("volumes would lie more than {} deep on each other",
                                      kMaxStackDepth)};
    }
    std::vector<uint32_t> below;
    for (uint32_t at : level) {
      if (at == minor) {
        return Error{ELOOP, fmt::format("'{}' would lie on itself: a cycle", name_of(minor))};
      }
      if (!seen.insert(at).second) continue;
      std::shared_ptr<MappedDevice> device = find(at);
      if (!device) continue;
      for (const auto& slot : {device->live_table(), device->inactive_table()}) {
        if (!slot) continue;
        for (const BackingFile* file : slot->devices()) {
          if (file->volume_minor() >= 0) below.push_back(static_cast<uint32_t>(file->volume_minor()));
        }
      }
    }
    level = std::move(below);
  }
  return {};
}

Result<DeviceInfo> DeviceManager::load(const LoadArgs& args) {
  std::shared_ptr<Table> replaced;  // destroyed with no lock held, and so is a refused `table`
  std::shared_ptr<Table> table;
  if (args.table.targets.empty()) return clear(args.device);
  DM_TRY(auto device, select(args.device));
  {
    MutexLock command(device->command_mutex());
    DM_TRY(table, build_table(*device, args.table, args.cwd));
    DM_TRY_STATUS(check_replaces(*table, *device));
    MutexLock change(change_mutex_);
    DM_TRY_STATUS(check_stack(*table, device->minor()));
    DM_TRY(Node node, node_of({.name = {}, .uuid = {}, .minor = device->minor()}));
    DM_TRY_STATUS(store_.commit({PutTable{device->minor(), Slot::Inactive, table->spec()}}));
    replaced = device->set_inactive(table);
  }
  return describe(device->minor());
}

Result<DeviceInfo> DeviceManager::clear(const DeviceSelector& selector) {
  std::shared_ptr<Table> replaced;
  DM_TRY(auto device, select(selector));
  {
    MutexLock command(device->command_mutex());
    MutexLock change(change_mutex_);
    DM_TRY(Node node, node_of({.name = {}, .uuid = {}, .minor = device->minor()}));
    if (device->inactive_table()) {
      DM_TRY_STATUS(store_.commit({DropTable{device->minor(), Slot::Inactive}}));
      replaced = device->set_inactive(nullptr);
    }
  }
  return describe(device->minor());
}

Result<DeviceInfo> DeviceManager::suspend(const SuspendArgs& args, CancelToken& cancel) {
  FreezeReport report;
  DM_TRY(auto device, select(args.device));
  {
    MutexLock command(device->command_mutex());
    SuspendOptions options = suspend_options(args.noflush, args.lockfs);
    DM_TRY_STATUS(device->suspend(options, cancel, [&]() -> Status {
      MutexLock change(change_mutex_);
      DM_TRY(Node node, node_of({.name = {}, .uuid = {}, .minor = device->minor()}));
      return update(device->minor(), [](DeviceRecord& record) { record.suspended = true; });
    }));
    report = device->take_report();
  }
  return describe(device->minor(), std::move(report));
}

Result<DeviceInfo> DeviceManager::resume(const ResumeArgs& args, CancelToken& cancel) {
  std::shared_ptr<Table> replaced;
  std::shared_ptr<Table> unavailable;
  FreezeReport report;
  DM_TRY(auto device, select(args.device));
  {
    MutexLock command(device->command_mutex());
    auto live = device->live_table();
    if (live && !live->unavailable_reason().empty() && !device->inactive_table()) {
      // What could not be activated at start is tried again: as a swap to the same lines.
      DM_TRY(auto retried, build_table(*device, live->spec(), {}));
      MutexLock change(change_mutex_);
      DM_TRY_STATUS(check_stack(*retried, device->minor()));
      unavailable = device->set_inactive(std::move(retried));
    }
    DM_TRY_STATUS(device->resume(
        suspend_options(args.noflush, args.lockfs), cancel,
        [&]() -> Status {
          // The new table is in the live slot already; what was inactive is gone from there.
          std::vector<StoreChange> more;
          auto now = device->live_table();
          if (now != live) {
            more.push_back(PutTable{device->minor(), Slot::Live, now->spec()});
            more.push_back(DropTable{device->minor(), Slot::Inactive});
          }
          MutexLock change(change_mutex_);
          DM_TRY(Node node, node_of({.name = {}, .uuid = {}, .minor = device->minor()}));
          return update(device->minor(), [&](DeviceRecord& record) {
            record.suspended = false;
            if (args.read_ahead) record.read_ahead = *args.read_ahead;
            // A new table means a new geometry, as in the kernel when the size changes.
            if (live && now->size() != live->size()) record.geometry = {};
          }, std::move(more));
        },
        replaced));
    report = device->take_report();
  }
  bury(device, replaced);
  return describe(device->minor(), std::move(report));
}

}  // namespace dmfs
