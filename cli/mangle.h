// SPDX-License-Identifier: Apache-2.0
// Device names and uuids as libdevmapper mangles them: characters outside [0-9A-Za-z#+-.:=@_] are
// sent, and stored, as \xNN. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace dmfs::cli {

enum class Mangling {
  None,  // names go and come as they are
  Auto,  // what is mangled already stays; the default
  Hex,   // every unsafe character, the backslash too
};

std::optional<Mangling> parse_mangling(std::string_view word);

// EINVAL when an Auto name mixes \xNN with characters that need it.
Result<std::string> mangle(std::string_view text, Mangling mode);

// For display. A \xNN that is none stays as it is.
std::string unmangle(std::string_view text, Mangling mode);

}  // namespace dmfs::cli
