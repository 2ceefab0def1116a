// SPDX-License-Identifier: Apache-2.0
#include "core/dm/commands.h"

#include <sys/sysmacros.h>

#include <atomic>

#include <fmt/format.h>

#include "core/dm/device_manager.h"

namespace dmfs {
namespace {

DeviceSelector by_minor(uint32_t minor) {
  DeviceSelector selector;
  selector.minor = minor;
  return selector;
}

}  // namespace

Result<DeviceInfo> Commands::create(const CreateArgs& args) { return manager_.create(args); }
Result<bool> Commands::remove(const RemoveArgs& args) { return manager_.remove(args); }
Result<DeviceInfo> Commands::rename(const RenameArgs& args) { return manager_.rename(args); }
Result<DeviceInfo> Commands::load(const LoadArgs& args) { return manager_.load(args); }
Result<DeviceInfo> Commands::clear(const DeviceSelector& device) { return manager_.clear(device); }
Result<DeviceInfo> Commands::status(const DeviceSelector& device) { return manager_.info(device); }
std::vector<DeviceInfo> Commands::list() { return manager_.infos(); }

Result<DeviceInfo> Commands::suspend(const SuspendArgs& args, CancelToken& cancel) {
  if (!args.timeout) return manager_.suspend(args, cancel);
  // Either ends the wait: the time, or the client.
  struct Deadline {
    CancelToken token;
    std::atomic<bool> passed{false};
  } deadline;
  Clock& clock = manager_.clock();
  Result<DeviceInfo> done = [&] {
    CancelToken::Waker client(cancel, [&deadline] { deadline.token.cancel(); });
    uint64_t alarm = clock.call_at(clock.now() + *args.timeout, [&deadline] {
      deadline.passed.store(true);
      deadline.token.cancel();
    });
    auto suspended = manager_.suspend(args, deadline.token);
    clock.cancel_and_wait(alarm);
    return suspended;
  }();
  if (!done && done.error().code == EINTR && deadline.passed.load() && !cancel.cancelled()) {
    return Error{ETIMEDOUT, done.error().message + fmt::format("; gave up after {} ms",
                                                               args.timeout->count())};
  }
  return done;
}

Result<WaitReport> Commands::why(const DeviceSelector& selector) {
  DM_TRY(auto device, manager_.select(selector));
  DM_TRY(auto info, manager_.info(selector));
  WaitReport report{.info = std::move(info),
                    .suspending = device->suspending(),
                    .in_flight = device->in_flight(),
                    .refused = device->refused_count(),
                    .held = device->held(),
                    .freed_by = {}};
  const std::string& name = report.info.name;
  auto live = device->live_table();
  if (report.suspending) {
    report.freed_by.push_back(fmt::format(
        "a suspend waits for the {} in flight; interrupting it makes the device active again",
        report.in_flight));
  } else if (report.info.suspended) {
    report.freed_by.push_back(
        live || report.info.inactive_table
            ? fmt::format("the device is suspended: dmctl resume {}", name)
            : fmt::format("the device has no table: dmctl load {0}, then dmctl resume {0}", name));
  } else if (device->sequencing()) {
    report.freed_by.push_back(fmt::format(
        "a barrier: it goes when the {} in flight have ended, and what came after it then",
        report.in_flight));
  }
  if (report.held.count > 0) {
    report.freed_by.push_back(fmt::format("to fail what waits: dmctl fail-held {}", name));
  }
  if (!live) return report;
  for (const Table::Entry& entry : live->entries()) {
    HeldList kept;
    entry.target->list_held(kept);
    if (kept.count == 0) continue;
    report.freed_by.push_back(fmt::format("target {} at sector {} keeps {}: {}", entry.type->name,
                                          entry.begin.n, kept.count, entry.target->freed_by()));
  }
  if (report.in_flight == 0) return report;
  for (BackingFile* below : live->devices()) {
    int64_t minor = below->volume_minor();
    if (minor < 0) continue;
    auto volume = manager_.find(static_cast<uint32_t>(minor));
    if (volume && volume->suspended()) {
      report.freed_by.push_back(fmt::format("volume {0} below is suspended: dmctl resume {0}",
                                            below->name()));
    } else if (volume && volume->in_flight() > 0) {
      report.freed_by.push_back(fmt::format("volume {0} below has {1} in flight: dmctl why {0}",
                                            below->name(), volume->in_flight()));
    }
  }
  return report;
}

Result<uint64_t> Commands::fail_held(const DeviceSelector& selector, int error) {
  DM_TRY(auto device, manager_.select(selector));
  return uint64_t{device->fail_held(error)};
}

Result<DeviceInfo> Commands::resume(const ResumeArgs& args, CancelToken& cancel) {
  return manager_.resume(args, cancel);
}

Result<DeviceInfo> Commands::set_geometry(const DeviceSelector& device, const Geometry& geometry) {
  return manager_.set_geometry(device, geometry);
}

Result<RemoveAllResult> Commands::remove_all(bool deferred) {
  // A removal may free what lay below: go round until a round frees nothing.
  RemoveAllResult result;
  bool progress = true;
  while (progress) {
    progress = false;
    result.open.clear();
    for (const DeviceInfo& info : manager_.infos()) {
      auto removed = manager_.remove({.device = by_minor(info.minor), .deferred = false});
      if (removed) {
        progress = true;
      } else if (removed.error().code == EBUSY) {
        result.open.push_back(info.name);
      } else if (removed.error().code != ENXIO) {
        return removed.error();
      }
    }
  }
  if (deferred) {
    for (const std::string& name : result.open) {
      DeviceSelector selector;
      selector.name = name;
      auto removed = manager_.remove({.device = selector, .deferred = true});
      if (!removed && removed.error().code != ENXIO) return removed.error();
    }
  }
  return result;
}

Result<TableStatus> Commands::table(const TableArgs& args) {
  DM_TRY(auto device, manager_.select(args.device));
  DM_TRY(auto info, manager_.info(args.device));
  auto table = args.inactive ? device->inactive_table() : device->live_table();
  TableStatus status{std::move(info), {}};
  if (table) status.targets = table->spec().targets;
  return status;
}

Result<TableStatus> Commands::table_status(const TableArgs& args) {
  DM_TRY(auto device, manager_.select(args.device));
  DM_TRY(auto info, manager_.info(args.device));
  auto table = args.inactive ? device->inactive_table() : device->live_table();
  TableStatus status{std::move(info), {}};
  if (table) status.targets = table->status().targets;
  return status;
}

Result<TableDeps> Commands::deps(const TableArgs& args) {
  DM_TRY(auto device, manager_.select(args.device));
  DM_TRY(auto info, manager_.info(args.device));
  auto table = args.inactive ? device->inactive_table() : device->live_table();
  TableDeps result{std::move(info), {}};
  if (!table) return result;
  const auto& files = table->devices();
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    Dependency dep;
    if (int64_t minor = (*file)->volume_minor(); minor >= 0) {
      dep.name = (*file)->name();
      dep.major = kVirtualMajor;
      dep.minor = static_cast<uint32_t>(minor);
    } else {
      dep.path = (*file)->name();
      dep.major = ::major((*file)->device_number());
      dep.minor = ::minor((*file)->device_number());
    }
    result.deps.push_back(std::move(dep));
  }
  return result;
}

std::vector<const TargetType*> Commands::target_types() {
  std::vector<const TargetType*> types;
  for (const auto& [name, type] : registry_.all()) types.push_back(type);
  return types;
}

Result<PathsOfDevice> Commands::paths(const DeviceSelector& selector) {
  PathsOfDevice answer;
  DM_TRY(answer.info, status(selector));
  DM_TRY(auto device, manager_.select(selector));
  auto table = device->live_table();
  if (!table) return answer;
  for (const Table::Entry& entry : table->entries()) {
    auto report = entry.target->paths_report();
    if (!report) continue;
    answer.targets.push_back({entry.begin, entry.length,
                              std::string(entry.type ? entry.type->name : std::string_view()),
                              *std::move(report)});
  }
  return answer;
}

Result<std::string> Commands::message(const DeviceSelector& selector, Sectors sector,
                                      const std::string& message) {
  DM_TRY(auto device, manager_.select(selector));
  DM_TRY(auto words, split_args(message));
  if (words.empty()) return Error{EINVAL, "Empty message received."};
  if (words[0].starts_with('@')) {
    if (words[0] != "@cancel_deferred_remove") {
      return Error{EINVAL, fmt::format("Unsupported message sent to DM core: {}", words[0])};
    }
    if (words.size() != 1) {
      return Error{EINVAL, fmt::format("Invalid arguments for @cancel_deferred_remove: '{}'", words[1])};
    }
    DM_TRY_STATUS(manager_.cancel_deferred_remove(selector));
    return std::string();
  }
  // No lock: a message may be what frees the bios that a suspend waits for, and completes bios.
  auto table = device->live_table();
  if (!table) return Error{EINVAL, "The device has no table."};
  if (sector >= table->size()) {
    return Error{EINVAL, fmt::format("Target message sector outside device: {}", sector.n)};
  }
  return table->find(sector).target->message(words);
}

Result<DeviceInfo> Commands::wait(const DeviceSelector& selector, uint32_t event_nr,
                                  CancelToken& cancel) {
  DM_TRY(auto device, manager_.select(selector));
  switch (device->events().wait(event_nr, cancel)) {
    case EventCounter::Wait::Closed:
      return Error{ENXIO, "the device was removed"};
    case EventCounter::Wait::Cancelled:
      return Error{EINTR, "wait was interrupted"};
    case EventCounter::Wait::Changed:
      break;
  }
  return manager_.info(by_minor(device->minor()));
}

}  // namespace dmfs
