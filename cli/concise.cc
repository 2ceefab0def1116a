// SPDX-License-Identifier: Apache-2.0
#include "cli/concise.h"

#include <fmt/format.h>

#include <charconv>
#include <sstream>

namespace dmfs::cli {
namespace {

// Splits into entries of fields, and takes the backslashes away.
std::vector<std::vector<std::string>> split_entries(std::string_view text) {
  std::vector<std::vector<std::string>> entries(1, std::vector<std::string>(1));
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] == ';') {
      entries.emplace_back(1);
    } else if (text[i] == ',') {
      entries.back().emplace_back();
    } else {
      if (text[i] == '\\' && i + 1 < text.size()) i++;
      entries.back().back() += text[i];
    }
  }
  return entries;
}

void trim(std::string& text) {
  size_t first = text.find_first_not_of(" \t\r\n");
  text.erase(0, first == std::string::npos ? text.size() : first);
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
}

Error incomplete(const std::vector<std::string>& fields) {
  auto field = [&](size_t i) { return i < fields.size() ? fields[i] : std::string("(null)"); };
  return Error{EINVAL,
               fmt::format("Incomplete entry: five comma-separated fields are required for each "
                           "device\nParsed {} fields: name: {} uuid: {} minor: {} flags: {} "
                           "table: {}",
                           fields.size(), field(0), field(1), field(2), field(3), field(4))};
}

Result<ConciseDevice> parse_entry(std::vector<std::string> fields) {
  for (size_t i = 0; i < fields.size() && i < 4; i++) trim(fields[i]);
  if (fields.size() < 5) return incomplete(fields);
  ConciseDevice device{.name = fields[0], .uuid = fields[1]};
  if (const std::string& word = fields[2]; !word.empty()) {
    uint32_t minor = 0;
    const char* end = word.data() + word.size();
    auto [stop, error] = std::from_chars(word.data(), end, minor);
    if (error != std::errc() || stop != end) {
      return Error{EINVAL,
                   fmt::format("Invalid minor number '{}' for device {}.", word, fields[0])};
    }
    device.minor = minor;
  }
  if (!fields[3].empty() && fields[3] != "ro" && fields[3] != "rw") {
    return Error{EINVAL, fmt::format("Invalid flags parameter '{}' must be 'ro' or 'rw' or empty.",
                                     fields[3])};
  }
  device.read_only = fields[3] == "ro";
  std::string table;
  for (size_t i = 4; i < fields.size(); i++) table += fields[i] + "\n";
  std::istringstream stream(table);
  DM_TRY(device.table, parse_table(stream, "of device " + device.name));
  return device;
}

std::string escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == ',' || c == ';' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

Result<std::vector<ConciseDevice>> parse_concise(std::string_view text) {
  std::vector<ConciseDevice> devices;
  for (auto& fields : split_entries(text)) {
    if (fields.size() == 1) trim(fields[0]);
    if (fields.size() == 1 && fields[0].empty()) continue;  // after the last semicolon
    DM_TRY(auto device, parse_entry(std::move(fields)));
    devices.push_back(std::move(device));
  }
  return devices;
}

std::string format_concise(const DeviceTable& device) {
  const Device& info = device.info;
  std::string out = fmt::format("{},{},{},{}", escape(info.name), escape(info.uuid), info.minor,
                                info.read_only ? "ro" : "rw");
  for (const TableLine& line : device.targets) out += "," + escape(format_line(line));
  return out;
}

}  // namespace dmfs::cli
