// SPDX-License-Identifier: Apache-2.0
// Tables as text, read with dmsetup's rules: "<start> <length> <type> [<params>]" a line; blank
// lines and lines that begin with # are skipped, and so is the rest of a line from a word that
// begins with #. Numbers are read as scanf reads them (a sign wraps, 0x10 is 0 and the word "x10").
#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace dmfs::cli {

inline constexpr size_t kMaxTypeLength = 15;

struct TableLine {
  uint64_t start = 0;
  uint64_t length = 0;
  std::string type = {};
  std::string params = {};

  bool operator==(const TableLine&) const = default;
};

// `source` is how an error names the text: "on stdin", a file's name. The message is dmsetup's,
// with its period: "Invalid format on line 1 of table on stdin."
Result<std::vector<TableLine>> parse_table(std::istream& text, std::string_view source);

// A file, or standard input when `path` is empty.
Result<std::vector<TableLine>> read_table(const std::string& path);

std::string format_line(const TableLine& line);

}  // namespace dmfs::cli
