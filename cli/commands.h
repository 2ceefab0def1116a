// SPDX-License-Identifier: Apache-2.0
// The table of commands. A command says on stderr what went wrong and returns false.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/session.h"

namespace dmfs::cli {

using Words = std::vector<std::string>;

struct Command {
  static constexpr int kAny = -1;

  std::string_view name;
  int min_words;  // after the command
  int max_words;  // kAny: no limit
  bool needs_daemon;
  bool (*run)(Session& session, const Words& words);
};

std::span<const Command> all_commands();
const Command* find_command(std::string_view name);

// The whole program: finds and runs the command of session.options(). The exit status.
int run_command(Session& session);

// Runs `each` on every device that is named, in turn, until one fails. "No device specified." when
// there is none.
bool for_each_device(Session& session, const Words& words,
                     bool (*each)(Session& session, const DeviceRef& device));

// lifecycle_commands.cc
bool create_command(Session&, const Words&);
bool remove_command(Session&, const Words&);
bool remove_all_command(Session&, const Words&);
bool rename_command(Session&, const Words&);
bool wipe_table_command(Session&, const Words&);
// A device of that name, mangled, with that table, live; or none at all.
bool create_with_table(Session&, const std::string& name, const TableLine& line);
// Loads a table of one error target, as long as the live table, and resumes it.
bool load_error_table(Session&, const DeviceRef&);

// state_commands.cc
bool suspend_command(Session&, const Words&);
bool resume_command(Session&, const Words&);
bool clear_command(Session&, const Words&);
bool wait_command(Session&, const Words&);
bool wait_synced(Session&, const DeviceRef&);  // wait_synced.cc
bool message_command(Session&, const Words&);
bool setgeometry_command(Session&, const Words&);
// What `why` prints.
std::string wait_report_text(const WaitReport& report);
bool why_command(Session& session, const Words& words);
bool fail_held_command(Session& session, const Words& words);
bool mknodes_command(Session&, const Words&);
// path_commands.cc
bool paths_command(Session&, const Words&);
bool fail_path_command(Session&, const Words&);
bool reinstate_path_command(Session&, const Words&);
// 0 when there is no --readahead or it is auto; false, with a word on stderr, when it is bad.
bool read_ahead_option(Session&, nlohmann::json& params);

// table_commands.cc
bool load_command(Session&, const Words&);
bool table_command(Session&, const Words&);
bool status_command(Session&, const Words&);
bool deps_command(Session&, const Words&);
// What `load` sends: targets, read_only, ordered, cwd.
struct TableModes {
  bool read_only = false;
  bool ordered = false;
};
nlohmann::json load_params(const std::vector<TableLine>& table, TableModes modes);
// --table, else the file, else standard input.
bool read_table_option(Session&, const std::string& file, std::vector<TableLine>& table);

// query_commands.cc
bool info_command(Session&, const Words&);
// For `info -c`, before all else: an exit status when -o asks for help or a field is unknown.
std::optional<int> check_info_fields(Session&);
bool ls_command(Session&, const Words&);
bool targets_command(Session&, const Words&);
bool target_version_command(Session&, const Words&);
bool version_command(Session&, const Words&);
// The `list` reply; "No devices found" is printed when it is empty and this is not --json. The
// devices of the reply are in `devices`.
bool list_devices(Session&, std::vector<Device>& devices);

// lab_commands.cc
bool lab_command(Session&, const Words&);

// mount_commands.cc
bool mount_command(Session&, const Words&);
bool umount_command(Session&, const Words&);

}  // namespace dmfs::cli
