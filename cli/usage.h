// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace dmfs::cli {

// What `help` prints. Every command and option in it is in man/dmctl.8; a test compares them.
std::string usage_text(std::string_view program);

}  // namespace dmfs::cli
