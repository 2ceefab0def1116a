// SPDX-License-Identifier: Apache-2.0
// A mount whose daemon is dead: every use of it ends in ENOTCONN until somebody unmounts it.
#pragma once

#include <string>

#include "core/base/result.h"

namespace dmfs::cli {

bool is_stale_mount(const std::string& path);

// Lazily, with umount2 where we may, else with fusermount3.
Status detach_stale_mount(const std::string& path);

}  // namespace dmfs::cli
