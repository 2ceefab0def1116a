// SPDX-License-Identifier: Apache-2.0
// The mounts of our mount namespace, as /proc/self/mountinfo tells them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

namespace dmfs {

struct Mounted {
  uint64_t id = 0;
  dev_t device = 0;  // the file system's; anonymous (major 0) for some that lie on block devices
  std::string point;
  std::string type;
  std::string source;
};

// In the order of the file: who is mounted on top comes after what it hides. Lines that make no
// sense are left out. Asks no file system anything.
std::vector<Mounted> parse_mounts(std::istream& mountinfo);
// Empty when there is no /proc.
std::vector<Mounted> list_mounts();

}  // namespace dmfs
