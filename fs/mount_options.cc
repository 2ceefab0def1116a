// SPDX-License-Identifier: Apache-2.0
#include "fs/mount_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <string_view>

namespace dmfs {
namespace {

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> words(1);
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] == '\\' && i + 1 < list.size()) {
      words.back() += list[++i];
    } else if (list[i] == ',') {
      words.emplace_back();
    } else {
      words.back() += list[i];
    }
  }
  std::erase(words, "");
  return words;
}

bool means_nothing_here(std::string_view name) {
  // noexec, nodev and nosuid hold whatever is said: nothing here can be executed or is a device.
  static constexpr std::array kWords = {
      "rw",    "defaults", "nosuid",     "suid",       "nodev",  "dev",     "noexec",
      "exec",  "noatime",  "atime",      "relatime",   "user",   "users",   "nouser",
      "owner", "group",    "noauto",     "auto",       "nofail", "_netdev", "comment",
      "async", "diratime", "nodiratime", "strictatime"};
  return name.starts_with("x-") || std::find(kWords.begin(), kWords.end(), name) != kWords.end();
}

Result<unsigned> number(std::string_view name, std::string_view text, unsigned min, unsigned max,
                        int base = 10) {
  unsigned value = 0;
  auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || failed != std::errc() || end != text.data() + text.size() || value < min ||
      value > max) {
    return Error{
        EINVAL,
        base == 8 ? fmt::format("-o {}: '{}' is not an octal mode up to {:o}", name, text, max)
                  : fmt::format("-o {}: '{}' is not a number from {} to {}", name, text, min, max)};
  }
  return value;
}

Result<std::string> text(std::string_view name, std::string_view value) {
  if (value.empty()) return Error{EINVAL, fmt::format("-o {}: needs a value", name)};
  return std::string(value);
}

// With K, M, G or T behind it, of 1024.
Result<uint64_t> bytes(std::string_view name, std::string_view text) {
  constexpr std::string_view kUnits = "KMGT";
  std::string_view digits = text;
  unsigned shift = 0;
  if (size_t unit = text.empty() ? kUnits.npos : kUnits.find(text.back()); unit != kUnits.npos) {
    shift = 10 * (static_cast<unsigned>(unit) + 1);
    digits.remove_suffix(1);
  }
  uint64_t value = 0;
  auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.empty() || failed != std::errc() || end != digits.data() + digits.size() ||
      value > UINT64_MAX >> shift) {
    return Error{EINVAL, fmt::format("-o {}: '{}' is not a number of bytes, such as 64M", name, text)};
  }
  return value << shift;
}

Result<Engine> engine_named(std::string_view value) {
  for (size_t i = 0; i < std::size(kEngineNames); ++i) {
    if (value == kEngineNames[i]) return static_cast<Engine>(i);
  }
  return Error{EINVAL, fmt::format("-o engine: '{}' is none of {}", value,
                                   fmt::join(kEngineNames, ", "))};
}

Status apply(MountOptions& options, const std::string& word) {
  size_t equals = word.find('=');
  std::string name = word.substr(0, equals);
  std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
  bool* flag = name == "ro"                    ? &options.read_only
               : name == "allow_other"         ? &options.allow_other
               : name == "allow_root"          ? &options.allow_root
               : name == "default_permissions" ? &options.default_permissions
               : name == "direct_backing"      ? &options.direct_backing
                                               : nullptr;
  if (flag) {
    if (equals != std::string::npos) {
      return Error{EINVAL, fmt::format("-o {}: takes no value: '{}'", name, value)};
    }
    *flag = true;
  } else if (name == "threads") {
    DM_TRY(options.threads, number(name, value, 1, kMaxThreads));
  } else if (name == "max_background") {
    DM_TRY(options.max_background, number(name, value, 1, kMaxMaxBackground));
  } else if (name == "mode") {
    DM_TRY(options.mode, number(name, value, 0, 0777, 8));
  } else if (name == "uid") {
    DM_TRY(options.uid, number(name, value, 0, UINT32_MAX - 1));
  } else if (name == "gid") {
    DM_TRY(options.gid, number(name, value, 0, UINT32_MAX - 1));
  } else if (name == "cache") {
    if (value != "on" && value != "off") {
      return Error{EINVAL, fmt::format("-o cache: '{}' is neither on nor off", value)};
    }
    options.cache = value == "on";
  } else if (name == "engine") {
    DM_TRY(options.engine, engine_named(value));
  } else if (name == "held_limit") {
    DM_TRY(options.held_limit, bytes(name, value));
  } else if (name == "handlers") {
    DM_TRY(options.handlers, text(name, value));
    if (options.handlers[0] != '/') {
      return Error{EINVAL, fmt::format("-o handlers: '{}' is no absolute path", value)};
    }
  } else if (name == "fsname") {
    DM_TRY(options.fsname, text(name, value));
  } else if (name == "log") {
    DM_TRY(options.log, text(name, value));
  } else if (name == "log_level") {
    if (spdlog::level::from_str(value) == spdlog::level::off && value != "off") {
      return Error{EINVAL, fmt::format("-o log_level: '{}' is none of trace, debug, info, warn, "
                                       "err, critical, off",
                                       value)};
    }
    options.log_level = value;
  } else if (!means_nothing_here(name)) {
    return Error{EINVAL, fmt::format("unknown option -o '{}'", word)};
  }
  return {};
}

}  // namespace

Result<MountOptions> parse_mount_options(const std::vector<std::string>& lists) {
  MountOptions options;
  for (const std::string& list : lists) {
    for (const std::string& word : split(list)) DM_TRY_STATUS(apply(options, word));
  }
  if (options.allow_other && options.allow_root) {
    return Error{EINVAL, "-o allow_other and -o allow_root exclude each other"};
  }
  return options;
}

}  // namespace dmfs
