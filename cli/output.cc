// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"

#include <fmt/format.h>

namespace dmfs::cli {
namespace {

std::string_view tables_present(const Device& d) {
  if (d.live_table) return d.inactive_table ? "LIVE & INACTIVE" : "LIVE";
  return d.inactive_table ? "INACTIVE" : "None";
}

std::string dependency_text(const Dependency& dep, NameForm form) {
  if (!dep.is_volume()) return dep.path;
  switch (form) {
    case NameForm::DevNo:
      return fmt::format("{}, {}", dep.major, dep.minor);
    case NameForm::DevName:
      return dep.name;
    case NameForm::BlkDevName:
      return fmt::format("dm-{}", dep.minor);
  }
  return {};
}

}  // namespace

std::string info_text(const Device& d) {
  std::string out = fmt::format("Name:              {}\n", d.name);
  out +=
      fmt::format("State:             {}{}{}\n", d.suspended ? "SUSPENDED" : "ACTIVE",
                  d.read_only ? " (READ-ONLY)" : "", d.deferred_remove ? " (DEFERRED REMOVE)" : "");
  if (!d.not_activated.empty()) out += fmt::format("Not activated:     {}\n", d.not_activated);
  if (!d.fault.empty()) out += fmt::format("Fault:             {}\n", d.fault);
  if (d.ordered) out += "Ordered:           yes\n";
  if (d.held > 0) out += fmt::format("Held:              {}\n", d.held);
  if (d.has_disk()) out += fmt::format("Read Ahead:        {}\n", d.read_ahead);
  out += fmt::format("Tables present:    {}\n", tables_present(d));
  out += fmt::format("Open count:        {}\n", d.open_count);
  out += fmt::format("Event number:      {}\n", d.event_nr);
  out += fmt::format("Major, minor:      {}, {}\n", d.major, d.minor);
  out += fmt::format("Number of targets: {}\n", d.target_count);
  if (!d.uuid.empty()) out += fmt::format("UUID: {}\n", d.uuid);
  return out + "\n";
}

std::string targets_text(const DeviceTable& table, std::string_view prefix,
                         std::string_view target) {
  if (table.targets.empty() && target.empty()) return fmt::format("{}\n", prefix);
  std::string out;
  for (const TableLine& line : table.targets) {
    if (target.empty() || target == line.type) {
      out += fmt::format("{}{}\n", prefix, format_line(line));
    }
  }
  return out;
}

std::string deps_text(const DeviceDeps& deps, std::string_view prefix, NameForm form) {
  std::string out = fmt::format("{}{} dependencies\t:", prefix, deps.deps.size());
  for (const Dependency& dep : deps.deps) out += fmt::format(" ({})", dependency_text(dep, form));
  return out + "\n";
}

std::string ls_line(const Device& d, NameForm form) {
  if (form == NameForm::DevName && d.has_disk()) return fmt::format("{0}\t({0})\n", d.name);
  if (form == NameForm::BlkDevName && d.has_disk()) {
    return fmt::format("{}\t(dm-{})\n", d.name, d.minor);
  }
  return fmt::format("{}\t({}:{})\n", d.name, d.major, d.minor);
}

std::string ls_target_line(const Device& d) {
  return fmt::format("{}\t({}, {})\n", d.name, d.major, d.minor);
}

std::string target_version_line(const TargetVersion& t) {
  return fmt::format("{:<16} v{}.{}.{}\n", t.name, t.version[0], t.version[1], t.version[2]);
}

}  // namespace dmfs::cli
