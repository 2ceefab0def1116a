// SPDX-License-Identifier: Apache-2.0
#include "cli/session.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "cli/output.h"

namespace dmfs::cli {
namespace {

using nlohmann::json;

constexpr uint32_t kMajor = 253;

bool strip_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace

std::string DeviceRef::label() const {
  std::string out = fmt::format("{} {}", name, uuid);
  if (major && minor) out += fmt::format("({}:{})", *major, *minor);
  return out;
}

bool Session::connected() {
  if (call_) return true;
  auto call = connect_();
  if (call) {
    call_ = *std::move(call);
    return true;
  }
  complain(fmt::format("{}: {}", options_.program, call.error().message));
  return false;
}

Result<json> Session::call(std::string_view method, const json& params) {
  if (!call_) return Error{ENOTCONN, "not connected to a daemon"};
  return call_(method, params);
}

Result<json> Session::call_on(const DeviceRef& device, std::string_view method, json params) {
  if (device.major && *device.major != kMajor) {
    return Error{ENXIO, fmt::format("the major number is {}, not {}", kMajor, *device.major)};
  }
  if (device.minor && device.name.empty()) {
    params["minor"] = *device.minor;
  } else if (!device.uuid.empty() && device.name.empty()) {
    params["uuid"] = device.uuid;
  } else {
    params["name"] = device.name;
  }
  return call(method, params);
}

std::optional<json> Session::run(std::string_view ioctl, const DeviceRef& device,
                                 std::string_view method, json params) {
  auto reply = call_on(device, method, std::move(params));
  if (reply) {
    auto notes = expect(read_notes(*reply));
    if (!notes) return std::nullopt;
    for (const std::string& note : *notes) complain("  " + note);
    return *std::move(reply);
  }
  ioctl_failed(ioctl, device, reply.error());
  return std::nullopt;
}

std::optional<json> Session::run(std::string_view ioctl, std::string_view method,
                                 const json& params) {
  auto reply = call(method, params);
  if (reply) return *std::move(reply);
  ioctl_failed(ioctl, {}, reply.error());
  return std::nullopt;
}

bool Session::mangle_word(std::string_view what, const std::string& word, std::string& mangled) {
  const bool is_name = what == "name";
  const size_t limit = is_name ? kMaxNameLength : kMaxUuidLength;
  if (is_name && word.find('/') != std::string::npos) {
    complain(fmt::format("Name \"{}\" invalid. It contains \"/\".", word));
    return false;
  }
  if (is_name && word.size() > limit) {
    complain(fmt::format("Name \"{}\" too long.", word));
    return false;
  }
  auto text = mangle(word, options_.mangling);
  if (!text) {
    complain(fmt::format("The {} {}.", is_name ? "name" : "UUID", text.error().message));
  } else if (text->size() > limit) {
    complain(fmt::format("Mangled form of the {} too long for \"{}\".", is_name ? "name" : "UUID",
                         word));
  } else {
    mangled = *std::move(text);
    return true;
  }
  complain(fmt::format("Failed to mangle device {} \"{}\".", what, word));
  return false;
}

bool Session::find(const std::string& word, DeviceRef& device) {
  std::string_view name = word;
  if (strip_prefix(name, "/dev/mapper/") && name.find('/') == std::string_view::npos) {
    return mangle_word("name", std::string(name), device.name);
  }
  if (word.find('/') == std::string::npos) return mangle_word("name", word, device.name);
  return find_by_path(word, device);
}

bool Session::find_by_path(const std::string& path, DeviceRef& device) {
  std::string_view rest = path;
  uint32_t minor = 0;
  if (strip_prefix(rest, "/dev/dm-")) {
    auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), minor);
    if (!rest.empty() && error == std::errc() && end == rest.data() + rest.size()) {
      device.major = kMajor;
      device.minor = minor;
      return true;
    }
  }
  auto reply = call("version");
  auto version = reply ? read_version(*reply) : Result<DaemonVersion>(reply.error());
  std::error_code failed;
  std::filesystem::path full = std::filesystem::absolute(path, failed).lexically_normal();
  if (version && !failed && full.has_filename()) {
    std::filesystem::path mount(version->mount);
    // Symbolic links on the way are followed only where the plain comparison fails.
    if (full.parent_path() == mount.lexically_normal() ||
        std::filesystem::equivalent(full.parent_path(), mount, failed)) {
      return mangle_word("name", full.filename().string(), device.name);
    }
  }
  complain(fmt::format("Device {} not found", path));
  return false;
}

bool Session::find_by_option(DeviceRef& device) {
  if (options_.uuid) return mangle_word("uuid", *options_.uuid, device.uuid);
  device.major = options_.major;
  device.minor = options_.minor;
  return true;
}

void Session::print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void Session::print_line(const json& reply) {
  print(reply.dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
}

void Session::complain(std::string_view line) {
  // What was printed before comes before, also when both go to one file.
  std::fflush(stdout);
  std::string text(line);
  text += '\n';
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void Session::ioctl_failed(std::string_view ioctl, const DeviceRef& device, const Error& error) {
  complain(fmt::format("device-mapper: {} ioctl on {} failed: {}", ioctl, device.label(),
                       strerror(error.code)));
  if (!error.message.empty()) complain("  " + error.message);
}

bool Session::print_info_if_verbose(const json& reply) {
  if (!options_.verbose) return true;
  if (options_.json) {
    print_line(reply);
    return true;
  }
  auto device = expect(read_device(reply, options_.mangling));
  if (device) print(info_text(*device));
  return device.has_value();
}

}  // namespace dmfs::cli
