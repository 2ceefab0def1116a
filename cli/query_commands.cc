// SPDX-License-Identifier: Apache-2.0
// info, ls, targets, target-version, version.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "cli/columns.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/tree.h"
#include "core/control/protocol.h"

namespace dmfs::cli {
namespace {

using nlohmann::json;

// The devices that the words or options name. False when one is missing, which has been told.
bool named_devices(Session& session, const Words& words, std::vector<json>& replies) {
  auto add = [&](const DeviceRef& device) {
    auto reply = session.call_on(device, "status");
    if (reply) {
      replies.push_back(*std::move(reply));
    } else if (reply.error().code == ENXIO) {
      session.complain("Device does not exist.");
    } else {
      session.ioctl_failed("info", device, reply.error());
    }
    return static_cast<bool>(reply);
  };
  if (session.by_option()) {
    DeviceRef device;
    return session.find_by_option(device) && add(device);
  }
  for (const std::string& word : words) {
    DeviceRef device;
    if (!session.find(word, device) || !add(device)) return false;
  }
  return true;
}

bool all_deps(Session& session, const std::vector<Device>& devices, std::vector<DeviceDeps>& out) {
  for (const Device& device : devices) {
    DeviceRef ref{.name = device.sent_name};
    auto reply = session.call_on(ref, "deps");
    if (!reply && reply.error().code == ENXIO) continue;  // removed since the list was made
    if (!reply) {
      session.ioctl_failed("deps", ref, reply.error());
      return false;
    }
    auto deps = session.expect(read_deps(*reply, session.options().mangling));
    if (!deps) return false;
    out.push_back(*std::move(deps));
  }
  return true;
}

ReportOptions report_options(const Options& options) {
  return {.fields = fmt::format("{}", fmt::join(options.o, ",")),
          .sort = options.sort,
          .separator = options.separator,
          .headings = !options.no_headings,
          .rows = options.rows,
          .name_prefixes = options.name_prefixes,
          .unquoted = options.unquoted};
}

bool print_report(Session& session, const std::vector<Device>& devices) {
  ReportOptions report = report_options(session.options());
  std::vector<ReportRow> rows;
  for (const Device& device : devices) rows.push_back({.device = device});
  std::vector<Device> everything;
  if (report_needs_deps(report)) {
    auto reply = session.run("list", "list");
    if (!reply) return false;
    auto list = session.expect(read_devices(*reply, session.options().mangling));
    if (!list) return false;
    std::vector<DeviceDeps> deps;
    everything = *std::move(list);
    if (!all_deps(session, everything, deps)) return false;
    std::map<uint32_t, ReportRow*> by_minor;
    for (ReportRow& row : rows) by_minor[row.device.minor] = &row;
    for (const DeviceDeps& d : deps) {
      auto user = std::find_if(everything.begin(), everything.end(),
                               [&](const Device& e) { return e.minor == d.info.minor; });
      for (const Dependency& dep : d.deps) {
        auto used = dep.is_volume() ? by_minor.find(dep.minor) : by_minor.end();
        if (used != by_minor.end() && user != everything.end()) {
          used->second->users.push_back(&*user);
        }
      }
      if (auto row = by_minor.find(d.info.minor); row != by_minor.end()) row->second->deps = d.deps;
    }
  }
  session.print(render_report(report, rows));
  return true;
}

bool ls_by_target(Session& session, const std::vector<Device>& devices) {
  for (const Device& device : devices) {
    DeviceRef ref{.name = device.sent_name};
    auto reply = session.call_on(ref, "table");
    if (!reply && reply.error().code == ENXIO) continue;  // removed since the list was made
    if (!reply) {
      session.ioctl_failed("table", ref, reply.error());
      return false;
    }
    auto table = session.expect(read_device_table(*reply, session.options().mangling));
    if (!table) return false;
    bool uses = std::any_of(table->targets.begin(), table->targets.end(), [&](const auto& line) {
      return line.type == *session.options().target;
    });
    if (uses) session.print(ls_target_line(device));
  }
  return true;
}

std::optional<std::vector<TargetVersion>> target_versions(Session& session) {
  auto reply = session.run("targets", "targets");
  if (!reply) return std::nullopt;
  return session.expect(read_targets(*reply));
}

}  // namespace

bool list_devices(Session& session, std::vector<Device>& devices) {
  auto reply = session.run("list", "list");
  if (!reply) return false;
  auto list = session.expect(read_devices(*reply, session.options().mangling));
  if (!list) return false;
  devices = *std::move(list);
  if (devices.empty() && !session.options().json) session.print("No devices found\n");
  return true;
}

std::optional<int> check_info_fields(Session& session) {
  const Options& options = session.options();
  for (const std::string& list : options.o) {
    if (list != "help" && list != "?") continue;
    session.complain(report_fields_text());
    return 0;
  }
  auto checked = check_report(report_options(options));
  if (checked) return std::nullopt;
  session.complain(report_fields_text() + checked.error().message);
  return 1;
}

bool info_command(Session& session, const Words& words) {
  const Options& options = session.options();
  std::vector<Device> devices;
  bool ok = true;
  if (words.empty() && !session.by_option()) {
    if (options.json) {
      auto reply = session.run("list", "list");
      if (reply) session.print_line(*reply);
      return reply.has_value();
    }
    if (!list_devices(session, devices)) return false;
    if (devices.empty()) return true;
  } else {
    std::vector<json> replies;
    ok = named_devices(session, words, replies);
    if (options.json) {
      if (ok) session.print_line(replies.size() == 1 ? replies[0] : json{{"devices", replies}});
      return ok;
    }
    for (const json& reply : replies) {
      auto device = session.expect(read_device(reply, options.mangling));
      if (!device) return false;
      devices.push_back(*std::move(device));
    }
  }
  if (options.columns) return (devices.empty() || print_report(session, devices)) && ok;
  for (const Device& device : devices) session.print(info_text(device));
  return ok;
}

bool ls_command(Session& session, const Words&) {
  const Options& options = session.options();
  if (options.json) {
    auto reply = session.run("list", "list");
    if (reply) session.print_line(*reply);
    return reply.has_value();
  }
  std::vector<Device> devices;
  if (!list_devices(session, devices)) return false;
  if (options.tree) {
    std::vector<DeviceDeps> deps;
    if (!all_deps(session, devices, deps)) return false;
    session.print(render_tree(deps, options.tree_options));
    return true;
  }
  if (options.target) return ls_by_target(session, devices);
  for (const Device& device : devices) session.print(ls_line(device, options.name_form));
  return true;
}

bool targets_command(Session& session, const Words&) {
  if (session.options().json) {
    auto reply = session.run("targets", "targets");
    if (reply) session.print_line(*reply);
    return reply.has_value();
  }
  auto targets = target_versions(session);
  if (!targets) return false;
  for (const TargetVersion& target : *targets) session.print(target_version_line(target));
  return true;
}

bool target_version_command(Session& session, const Words& words) {
  auto targets = target_versions(session);
  if (!targets) return false;
  std::vector<json> found;
  for (const std::string& word : words) {
    auto it = std::find_if(targets->begin(), targets->end(),
                           [&](const TargetVersion& t) { return t.name == word; });
    if (it == targets->end()) {
      session.complain(fmt::format("{}: unknown target type", word));
      return false;
    }
    if (session.options().json) {
      found.push_back({{"name", it->name}, {"version", it->version}});
    } else {
      session.print(target_version_line(*it));
    }
  }
  if (session.options().json) session.print_line({{"targets", found}});
  return true;
}

bool version_command(Session& session, const Words&) {
  if (!session.options().json) {
    session.print(fmt::format("Library version:   {} (dmfs)\n", kVersion));
  }
  if (!session.connected()) return false;
  auto reply = session.run("version", "version");
  if (!reply) return false;
  if (session.options().json) {
    session.print_line(*reply);
    return true;
  }
  auto version = session.expect(read_version(*reply));
  if (!version) return false;
  session.print(fmt::format("Driver version:    {}\n", version->driver));
  if (session.options().verbose > 0) {
    session.print(fmt::format("Engine:            {}\nMount:             {}\nStore:             {}\n"
                              "Daemon's process:  {}\n",
                              version->engine, version->mount, version->store, version->pid));
  }
  return true;
}

}  // namespace dmfs::cli
