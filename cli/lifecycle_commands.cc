// SPDX-License-Identifier: Apache-2.0
// create, remove, remove_all, rename, wipe_table.
#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <iterator>
#include <thread>

#include "cli/commands.h"
#include "cli/concise.h"

namespace dmfs::cli {
namespace {

using nlohmann::json;

constexpr int kRemoveTries = 25;
constexpr auto kRemovePause = std::chrono::milliseconds(200);

struct NewDevice {
  DeviceRef ref = {};
  std::vector<TableLine> table = {};
  TableModes modes = {};
};

// A device without a table is only made; one with a table is made, loaded and resumed, or not at
// all.
bool create_device(Session& session, const NewDevice& device) {
  json params = {{"name", device.ref.name}};
  if (!device.ref.uuid.empty()) params["uuid"] = device.ref.uuid;
  if (device.ref.minor) params["minor"] = *device.ref.minor;
  if (!read_ahead_option(session, params)) return false;
  auto reply = session.run("create", device.ref, "create", params);
  if (!reply) return false;
  auto created = session.expect(read_device(*reply, session.options().mangling));
  if (!created) return false;
  if (device.table.empty()) return session.print_info_if_verbose(*reply);

  DeviceRef ref{.name = device.ref.name, .major = created->major, .minor = created->minor};
  if (session.run("reload", ref, "load", load_params(device.table, device.modes))) {
    reply = session.run("resume", ref, "resume");
    if (reply) return session.print_info_if_verbose(*reply);
  }
  if (!session.run("remove", ref, "remove")) session.complain("Failed to revert device creation.");
  return false;
}

bool create_concise(Session& session, const Words& words) {
  std::string text;
  if (words.empty()) {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    text = words[0];
  }
  auto devices = session.expect(parse_concise(text));
  if (!devices) return false;
  for (ConciseDevice& entry : *devices) {
    NewDevice device{.table = std::move(entry.table), .modes = {.read_only = entry.read_only}};
    if (!session.mangle_word("name", entry.name, device.ref.name)) return false;
    if (!session.mangle_word("uuid", entry.uuid, device.ref.uuid)) return false;
    device.ref.minor = entry.minor;
    if (!create_device(session, device)) return false;
  }
  return true;
}

bool remove_device(Session& session, const DeviceRef& device) {
  const Options& options = session.options();
  // Whether the error table could be loaded or not, the removal is tried.
  if (options.force) load_error_table(session, device);
  json params = json::object();
  if (options.deferred) params["deferred"] = true;
  for (int attempt = 1;; attempt++) {
    auto reply = session.call_on(device, "remove", params);
    if (reply) return true;
    session.ioctl_failed("remove", device, reply.error());
    if (!options.retry || reply.error().code != EBUSY || attempt == kRemoveTries) return false;
    std::this_thread::sleep_for(kRemovePause);
  }
}

}  // namespace

bool create_with_table(Session& session, const std::string& name, const TableLine& line) {
  return create_device(session, {.ref = {.name = name}, .table = {line}});
}

bool create_command(Session& session, const Words& words) {
  const Options& options = session.options();
  if (options.concise) {
    if (words.size() < 2) return create_concise(session, words);
    session.complain("--concise takes one word, or standard input.");
    return false;
  }
  if (words.empty()) {
    session.complain("Please provide a name for the new device.");
    return false;
  }
  NewDevice device{.modes = {options.read_only, options.ordered}};
  if (!options.no_table &&
      !read_table_option(session, words.size() > 1 ? words[1] : "", device.table)) {
    return false;
  }
  if (!session.mangle_word("name", words[0], device.ref.name)) return false;
  if (options.uuid && !session.mangle_word("uuid", *options.uuid, device.ref.uuid)) return false;
  device.ref.major = options.major;
  device.ref.minor = options.minor;
  return create_device(session, device);
}

bool remove_command(Session& session, const Words& words) {
  return for_each_device(session, words, remove_device);
}

bool remove_all_command(Session& session, const Words&) {
  const Options& options = session.options();
  json params = json::object();
  if (options.deferred) params["deferred"] = true;
  auto reply = session.run("remove_all", "remove_all", params);
  if (!reply) return false;
  if (options.force) {
    auto open = session.expect(read_open_names(*reply));
    if (!open) return false;
    for (const std::string& name : *open) load_error_table(session, {.name = name});
    if (!open->empty() && !(reply = session.run("remove_all", "remove_all", params))) {
      return false;
    }
    open = session.expect(read_open_names(*reply));
    if (!open) return false;
    if (!open->empty()) {
      session.complain(fmt::format("Unable to remove {} device(s).", open->size()));
    }
  }
  if (options.json) session.print_line(*reply);
  return true;
}

bool rename_command(Session& session, const Words& words) {
  const Options& options = session.options();
  DeviceRef device;
  const std::string& new_word = words.back();
  if (session.by_option() && words.size() == 1) {
    if (!session.find_by_option(device)) return false;
  } else if (words.size() < 2) {
    session.complain("No device specified.");
    return false;
  } else if (!session.find(words[0], device)) {
    return false;
  }
  if (new_word.empty()) {
    session.complain(options.set_uuid ? "Non empty new uuid is required."
                                      : "Non empty new name is required.");
    return false;
  }
  if (!options.set_uuid && new_word.size() > kMaxNameLength) {
    // Not quite the words that it has for a device's present name.
    session.complain(fmt::format("Name \"{}\" too long", new_word));
    return false;
  }
  std::string mangled;
  if (!session.mangle_word(options.set_uuid ? "uuid" : "name", new_word, mangled)) return false;
  json params = {{options.set_uuid ? "new_uuid" : "new_name", mangled}};
  auto reply = session.run("rename", device, "rename", params);
  return reply && session.print_info_if_verbose(*reply);
}

bool wipe_table_command(Session& session, const Words& words) {
  return for_each_device(session, words, load_error_table);
}

bool load_error_table(Session& session, const DeviceRef& device) {
  const Options& options = session.options();
  uint64_t size = 0;
  auto reply = session.run("table", device, "table");
  if (reply) {
    auto table = session.expect(read_device_table(*reply, options.mangling));
    if (!table) return false;
    for (const TableLine& line : table->targets) size += line.length;
    if (size == 0) return true;  // nothing to make unusable
  }
  if (!session.run("reload", device, "load",
                   load_params({{.length = size, .type = "error"}}, {}))) {
    return false;
  }
  json flags = json::object();
  if (options.noflush) flags["noflush"] = true;
  if (options.nolockfs) flags["lockfs"] = false;
  reply = session.run("resume", device, "resume", flags);
  if (reply) return session.print_info_if_verbose(*reply);
  session.run("clear", device, "clear");
  return false;
}

}  // namespace dmfs::cli
