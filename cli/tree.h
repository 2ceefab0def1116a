// SPDX-License-Identifier: Apache-2.0
// `ls --tree`: which device stands on which device or file. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "cli/replies.h"

namespace dmfs::cli {

struct TreeOptions {
  bool utf = false;       // box-drawing characters instead of ASCII
  bool compact = false;   // the first child on its parent's line
  bool inverted = false;  // from the files up
  bool block_name = false;
  bool device = true;  // (MAJOR:MINOR), and the files
  bool active = false;
  bool open = false;
  bool rw = false;
  bool uuid = false;
};

// `devices` in name order, each with its dependencies in the daemon's order.
std::string render_tree(const std::vector<DeviceDeps>& devices, const TreeOptions& options);

}  // namespace dmfs::cli
