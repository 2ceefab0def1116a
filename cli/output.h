// SPDX-License-Identifier: Apache-2.0
// What the commands print, but for the reports (columns.h) and the tree (tree.h). Every function
// gives whole lines, each with its newline. Pure functions; golden/ is the judge.
#pragma once

#include <string>
#include <string_view>

#include "cli/replies.h"

namespace dmfs::cli {

// How `ls` and `deps` name a device: -o devno, devname, blkdevname.
enum class NameForm { DevNo, DevName, BlkDevName };

// The long form of `info`, with the blank line that ends it.
std::string info_text(const Device& device);

// `table` and `status` lines of the targets of type `target` (all when empty), each after `prefix`.
// A device without a table has one empty line.
std::string targets_text(const DeviceTable& table, std::string_view prefix,
                         std::string_view target);

// "2 dependencies\t: (253, 1) (/a/file)". A file has no number and is named by its path.
std::string deps_text(const DeviceDeps& deps, std::string_view prefix, NameForm form);

// "name\t(253:0)"
std::string ls_line(const Device& device, NameForm form);
// "name\t(253, 0)", as `ls --target` has it.
std::string ls_target_line(const Device& device);

std::string target_version_line(const TargetVersion& target);

}  // namespace dmfs::cli
