// SPDX-License-Identifier: Apache-2.0
// suspend, resume, clear, wait, message, setgeometry, mknodes.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "cli/commands.h"

namespace dmfs::cli {
namespace {

using nlohmann::json;

constexpr uint32_t kDefaultReadAhead = 256;

// Takes the device off the front of `words` unless an option names it.
bool take_device(Session& session, Words& words, DeviceRef& device) {
  if (session.by_option()) return session.find_by_option(device);
  if (words.empty()) {
    session.complain("No device specified.");
    return false;
  }
  std::string word = words.front();
  words.erase(words.begin());
  return session.find(word, device);
}

template <typename T>
bool parse_whole(std::string_view word, T& value) {
  auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return !word.empty() && error == std::errc() && end == word.data() + word.size();
}

json suspend_flags(const Options& options) {
  json flags = json::object();
  if (options.noflush) flags["noflush"] = true;
  if (options.nolockfs) flags["lockfs"] = false;
  return flags;
}

bool suspend_device(Session& session, const DeviceRef& device) {
  json params = suspend_flags(session.options());
  if (auto timeout = session.options().timeout_ms) params["timeout_ms"] = *timeout;
  auto reply = session.run("suspend", device, "suspend", params);
  return reply && session.print_info_if_verbose(*reply);
}

bool resume_device(Session& session, const DeviceRef& device) {
  json params = suspend_flags(session.options());
  if (!read_ahead_option(session, params)) return false;
  auto reply = session.run("resume", device, "resume", params);
  return reply && session.print_info_if_verbose(*reply);
}

bool clear_device(Session& session, const DeviceRef& device) {
  auto reply = session.run("clear", device, "clear");
  return reply && session.print_info_if_verbose(*reply);
}

}  // namespace

bool read_ahead_option(Session& session, json& params) {
  const auto& option = session.options().read_ahead;
  if (!option || *option == "auto") return true;
  std::string_view word = *option;
  bool at_least = word.starts_with('+');
  if (at_least) word.remove_prefix(1);
  uint32_t sectors = 0;
  if (*option != "none" && !parse_whole(word, sectors)) {
    session.complain(
        fmt::format("Invalid read-ahead '{}': expected [+]SECTORS, auto or none.", *option));
    return false;
  }
  params["read_ahead"] = at_least ? std::max(sectors, kDefaultReadAhead) : sectors;
  return true;
}

bool suspend_command(Session& session, const Words& words) {
  return for_each_device(session, words, suspend_device);
}

bool resume_command(Session& session, const Words& words) {
  return for_each_device(session, words, resume_device);
}

bool clear_command(Session& session, const Words& words) {
  return for_each_device(session, words, clear_device);
}

bool wait_command(Session& session, const Words& all_words) {
  Words words = all_words;
  DeviceRef device;
  if (!take_device(session, words, device)) return false;
  if (session.options().synced) {
    if (words.empty()) return wait_synced(session, device);
    session.complain(fmt::format("--synced takes no event number, but '{}' was given.", words[0]));
    return false;
  }
  uint32_t event = 0;
  if (!words.empty() && !parse_whole(words[0], event)) {
    session.complain(fmt::format("Invalid event number '{}'.", words[0]));
    return false;
  }
  // A device that is removed ends the wait well; one that was never there does not.
  if (!session.run("waitevent", device, "status")) return false;
  auto reply = session.call_on(device, "wait", {{"event_nr", event}});
  if (reply) return session.print_info_if_verbose(*reply);
  if (reply.error().code == ENXIO) return true;
  session.ioctl_failed("waitevent", device, reply.error());
  return false;
}

bool message_command(Session& session, const Words& all_words) {
  Words words = all_words;
  DeviceRef device;
  if (!take_device(session, words, device)) return false;
  uint64_t sector = 0;
  if (!parse_whole(words[0], sector)) {
    session.complain(fmt::format("Invalid sector '{}'.", words[0]));
    return false;
  }
  words.erase(words.begin());
  // The daemon splits the message into words again, so that quoting is the user's.
  std::string message = fmt::format("{}", fmt::join(words, " "));
  if (message.empty()) session.complain("No message supplied.");
  auto reply =
      session.run("message", device, "message", {{"sector", sector}, {"message", message}});
  if (!reply) return false;
  if (session.options().json) {
    session.print_line(*reply);
    return true;
  }
  auto result = session.expect(read_message_result(*reply));
  if (!result) return false;
  if (!result->empty() && result->back() != '\n') *result += '\n';
  session.print(*result);
  return true;
}

bool setgeometry_command(Session& session, const Words& all_words) {
  Words words = all_words;
  DeviceRef device;
  if (!take_device(session, words, device)) return false;
  constexpr const char* kKeys[] = {"cylinders", "heads", "sectors", "start"};
  json params = json::object();
  for (size_t i = 0; i < std::size(kKeys); i++) {
    uint64_t value = 0;
    if (!parse_whole(words[i], value)) {
      session.ioctl_failed(
          "setgeometry", device,
          Error{EINVAL, fmt::format("{} '{}' is not a number", kKeys[i], words[i])});
      return false;
    }
    params[kKeys[i]] = value;
  }
  return session.run("setgeometry", device, "set_geometry", params).has_value();
}

bool mknodes_command(Session&, const Words&) {
  return true;  // the files under the mount are always those of the devices
}

}  // namespace dmfs::cli
