// SPDX-License-Identifier: Apache-2.0
// why, fail-held: what waits on a device.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "cli/commands.h"

namespace dmfs::cli {
namespace {

// The command of a process, as ps shows it; empty when there is none, or it is not ours to see.
std::string command_of(uint64_t pid) {
  std::string name;
  if (pid != 0) std::getline(std::ifstream(fmt::format("/proc/{}/comm", pid)), name);
  return name;
}

std::string asker(const WaitingBio& bio) {
  if (bio.pid == 0) return "asked for by the kernel";
  std::string name = command_of(bio.pid);
  return name.empty() ? fmt::format("asked for by process {}", bio.pid)
                      : fmt::format("asked for by {} ({})", name, bio.pid);
}

bool why_device(Session& session, const DeviceRef& device) {
  auto reply = session.run("why", device, "why");
  if (!reply) return false;
  if (session.options().json) {
    session.print_line(*reply);
    return true;
  }
  auto report = session.expect(read_wait_report(*reply, session.options().mangling));
  if (report) session.print(wait_report_text(*report));
  return report.has_value();
}

}  // namespace

std::string wait_report_text(const WaitReport& r) {
  std::string out = fmt::format(
      "{}: {}{}; {} inside, {} held\n", r.info.name, r.info.suspended ? "suspended" : "active",
      r.suspending ? ", being suspended" : "", r.in_flight, r.held_count);
  for (const WaitingBio& bio : r.held) {
    out += fmt::format("  {:<9} {}{} of {} at sector {}, for {:.1f} s, {}\n", bio.where, bio.op,
                       bio.fua ? " (FUA)" : "",
                       bio.count == 1 ? "1 sector" : fmt::format("{} sectors", bio.count),
                       bio.sector, static_cast<double>(bio.age_ms) / 1000, asker(bio));
  }
  if (r.held_count > r.held.size()) {
    out += fmt::format("  and {} more\n", r.held_count - r.held.size());
  }
  if (r.refused > 0) {
    out += fmt::format("  {} refused with ENOMEM: more than -o held_limit\n", r.refused);
  }
  for (const std::string& act : r.freed_by) out += fmt::format("  {}\n", act);
  return out;
}

bool why_command(Session& session, const Words& words) {
  return for_each_device(session, words, why_device);
}

bool fail_held_command(Session& session, const Words& words) {
  DeviceRef device;
  bool by_word = !session.by_option();
  if (by_word ? !session.find(words[0], device) : !session.find_by_option(device)) return false;
  nlohmann::json params = nlohmann::json::object();
  size_t rest = by_word ? 1 : 0;
  if (words.size() > rest) params["errno"] = words[rest];
  auto reply = session.run("fail-held", device, "fail_held", params);
  if (!reply) return false;
  if (session.options().json) {
    session.print_line(*reply);
    return true;
  }
  auto failed = session.expect(read_failed_count(*reply));
  if (failed) session.print(fmt::format("{} failed\n", *failed));
  return failed.has_value();
}

}  // namespace dmfs::cli
