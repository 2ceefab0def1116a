// SPDX-License-Identifier: Apache-2.0
// Errnos as people write them.
#pragma once

#include <string>

namespace dmfs {

// From its name ("ENOSPC") or its number ("28"); 0 when there is no such errno.
int parse_errno(const std::string& word);

}  // namespace dmfs
