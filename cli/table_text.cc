// SPDX-License-Identifier: Apache-2.0
#include "cli/table_text.h"

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <iostream>
#include <optional>

namespace dmfs::cli {
namespace {

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

void skip_space(std::string_view& text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
}

// As scanf's %llu: white space, a sign, digits; past 2^64-1 it sticks there; a minus wraps.
std::optional<uint64_t> scan_number(std::string_view& text) {
  skip_space(text);
  bool negative = false;
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) {
    negative = text.front() == '-';
    text.remove_prefix(1);
  }
  if (text.empty() || !is_digit(text.front())) return std::nullopt;
  uint64_t value = 0;
  bool overflow = false;
  for (; !text.empty() && is_digit(text.front()); text.remove_prefix(1)) {
    uint64_t digit = static_cast<uint64_t>(text.front() - '0');
    overflow = overflow || __builtin_mul_overflow(value, uint64_t{10}, &value) ||
               __builtin_add_overflow(value, digit, &value);
  }
  if (overflow) return UINT64_MAX;
  return negative ? 0 - value : value;
}

std::string_view scan_word(std::string_view& text) {
  skip_space(text);
  size_t end = 0;
  while (end < text.size() && !is_space(text[end])) end++;
  std::string_view word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

// dmsetup cuts at any #; a device's name or a path may hold one, so here it has to begin a word.
std::string_view without_comment(std::string_view params) {
  for (size_t i = 0; i < params.size(); i++) {
    if (params[i] == '\\') {
      i++;
    } else if (params[i] == '#' && (i == 0 || is_space(params[i - 1]))) {
      return params.substr(0, i);
    }
  }
  return params;
}

Result<std::optional<TableLine>> parse_line(std::string_view text, std::string_view source,
                                            size_t number) {
  skip_space(text);
  if (text.empty() || text.front() == '#') return std::optional<TableLine>();
  auto start = scan_number(text);
  auto length = start ? scan_number(text) : std::nullopt;
  std::string_view type = length ? scan_word(text) : std::string_view();
  if (type.empty()) {
    return Error{EINVAL, fmt::format("Invalid format on line {} of table {}.", number, source)};
  }
  if (type.size() > kMaxTypeLength) {
    return Error{EINVAL, fmt::format("Target type name {} is too long.", type)};
  }
  skip_space(text);
  return std::optional(
      TableLine{*start, *length, std::string(type), std::string(without_comment(text))});
}

}  // namespace

Result<std::vector<TableLine>> parse_table(std::istream& text, std::string_view source) {
  std::vector<TableLine> lines;
  std::string line;
  for (size_t number = 1; std::getline(text, line); number++) {
    DM_TRY(auto parsed, parse_line(line, source, number));
    if (parsed) lines.push_back(*std::move(parsed));
  }
  if (text.bad()) return Error{EIO, fmt::format("Cannot read the table {}.", source)};
  return lines;
}

Result<std::vector<TableLine>> read_table(const std::string& path) {
  if (path.empty()) return parse_table(std::cin, "on stdin");
  std::ifstream file(path);
  if (!file) {
    int code = errno;
    return Error{code, fmt::format("Couldn't open '{}' for reading: {}", path, strerror(code))};
  }
  return parse_table(file, path);
}

std::string format_line(const TableLine& line) {
  return fmt::format("{} {} {} {}", line.start, line.length, line.type, line.params);
}

}  // namespace dmfs::cli
