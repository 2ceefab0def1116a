// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.h"

#include <algorithm>
#include <cstdio>

#include "cli/columns.h"
#include "cli/usage.h"

namespace dmfs::cli {
namespace {

bool help_command(Session& session, const Words&) {
  session.print(usage_text(session.options().program));
  if (session.options().columns) session.print("\n" + report_fields_text());
  return true;
}

constexpr int kAny = Command::kAny;
constexpr bool kDaemon = true, kNoDaemon = false;

constexpr Command kCommands[] = {
    {"help", 0, 0, kNoDaemon, help_command},
    {"mount", 0, 1, kNoDaemon, mount_command},
    {"umount", 0, 1, kNoDaemon, umount_command},
    {"create", 0, 2, kDaemon, create_command},
    {"remove", 0, kAny, kDaemon, remove_command},
    {"remove_all", 0, 0, kDaemon, remove_all_command},
    {"rename", 1, 2, kDaemon, rename_command},
    {"load", 0, 2, kDaemon, load_command},
    {"reload", 0, 2, kDaemon, load_command},
    {"clear", 0, kAny, kDaemon, clear_command},
    {"suspend", 0, kAny, kDaemon, suspend_command},
    {"resume", 0, kAny, kDaemon, resume_command},
    {"wipe_table", 0, kAny, kDaemon, wipe_table_command},
    {"table", 0, kAny, kDaemon, table_command},
    {"status", 0, kAny, kDaemon, status_command},
    {"info", 0, kAny, kDaemon, info_command},
    {"deps", 0, kAny, kDaemon, deps_command},
    {"ls", 0, 0, kDaemon, ls_command},
    {"message", 1, kAny, kDaemon, message_command},
    {"wait", 0, 2, kDaemon, wait_command},
    {"setgeometry", 4, 5, kDaemon, setgeometry_command},
    {"why", 0, kAny, kDaemon, why_command},
    {"fail-held", 0, 2, kDaemon, fail_held_command},
    {"paths", 0, kAny, kDaemon, paths_command},
    {"fail-path", 0, 2, kDaemon, fail_path_command},
    {"reinstate-path", 0, 2, kDaemon, reinstate_path_command},
    {"lab", 2, kAny, kDaemon, lab_command},
    {"mknodes", 0, kAny, kDaemon, mknodes_command},
    {"targets", 0, 0, kDaemon, targets_command},
    {"target-version", 1, kAny, kDaemon, target_version_command},
    {"version", 0, 0, kNoDaemon, version_command},
};

// Commands that take words after the device count the device only when a word names it.
int words_needed(const Session& session, const Command& command) {
  bool device_is_word = !session.by_option();
  if (command.name == "message") return device_is_word ? 2 : 1;
  if (command.name == "fail-path" || command.name == "reinstate-path") return device_is_word ? 2 : 1;
  if (command.name == "fail-held") return device_is_word ? 1 : 0;
  if (command.name == "setgeometry") return device_is_word ? 5 : 4;
  return command.min_words;
}

}  // namespace

std::span<const Command> all_commands() {
  return kCommands;
}

const Command* find_command(std::string_view name) {
  auto it = std::find_if(std::begin(kCommands), std::end(kCommands),
                         [&](const Command& c) { return c.name == name; });
  return it == std::end(kCommands) ? nullptr : it;
}

int run_command(Session& session) {
  const Options& options = session.options();
  if (options.help) return help_command(session, {}) ? 0 : 1;
  std::string name = options.version ? "version" : options.words.empty() ? "" : options.words[0];
  const Command* command = find_command(name);
  if (!command) {
    if (!name.empty()) session.complain("Unknown command.");
    std::fputs(usage_text(options.program).c_str(), stderr);
    return 1;
  }
  Words words(options.words.begin() + (options.version ? 0 : 1), options.words.end());
  int count = static_cast<int>(words.size());
  if (count < words_needed(session, *command) ||
      (command->max_words != kAny && count > command->max_words)) {
    session.complain("Incorrect number of arguments.");
    std::fputs(usage_text(options.program).c_str(), stderr);
    return 1;
  }
  if (command->name == "info" && options.columns) {
    if (auto status = check_info_fields(session)) return *status;
  }
  if ((!command->needs_daemon || session.connected()) && command->run(session, words)) return 0;
  session.complain("Command failed.");
  return 1;
}

bool for_each_device(Session& session, const Words& words,
                     bool (*each)(Session& session, const DeviceRef& device)) {
  if (session.by_option()) {
    DeviceRef device;
    return session.find_by_option(device) && each(session, device);
  }
  if (words.empty()) {
    session.complain("No device specified.");
    return false;
  }
  for (const std::string& word : words) {
    DeviceRef device;
    if (!session.find(word, device) || !each(session, device)) return false;
  }
  return true;
}

}  // namespace dmfs::cli
