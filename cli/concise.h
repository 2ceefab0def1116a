// SPDX-License-Identifier: Apache-2.0
// dmsetup's concise form: "<name>,<uuid>,<minor>,<flags>,<table line>[,<table line>...][;...]".
// A backslash makes the next character an ordinary one.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/replies.h"
#include "cli/table_text.h"
#include "core/base/result.h"

namespace dmfs::cli {

struct ConciseDevice {
  std::string name;
  std::string uuid = {};
  std::optional<uint32_t> minor = {};
  bool read_only = false;
  std::vector<TableLine> table = {};
};

// All or nothing; the message is dmsetup's, and may have two lines.
Result<std::vector<ConciseDevice>> parse_concise(std::string_view text);

// One entry, without the semicolon.
std::string format_concise(const DeviceTable& device);

}  // namespace dmfs::cli
