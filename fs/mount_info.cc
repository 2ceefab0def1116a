// SPDX-License-Identifier: Apache-2.0
#include "fs/mount_info.h"

#include <sys/sysmacros.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace dmfs {
namespace {

// Spaces, tabs, newlines and backslashes stand as \ooo.
std::string unescape(const std::string& field) {
  std::string out;
  for (size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size()) {
      out += static_cast<char>(std::strtol(field.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      out += field[i];
    }
  }
  return out;
}

}  // namespace

std::vector<Mounted> parse_mounts(std::istream& mountinfo) {
  std::vector<Mounted> mounts;
  for (std::string line; std::getline(mountinfo, line);) {
    std::istringstream words(line);
    std::string parent, root, word;
    unsigned major = 0, minor = 0;
    char colon = 0;
    Mounted mounted;
    words >> mounted.id >> parent >> major >> colon >> minor >> root >> mounted.point;
    while (words >> word && word != "-") {
    }
    if (!(words >> mounted.type) || colon != ':') continue;
    words >> mounted.source;  // may be empty
    mounted.device = makedev(major, minor);
    mounted.point = unescape(mounted.point);
    mounted.source = unescape(mounted.source);
    mounts.push_back(std::move(mounted));
  }
  return mounts;
}

std::vector<Mounted> list_mounts() {
  std::ifstream mountinfo("/proc/self/mountinfo");
  return parse_mounts(mountinfo);
}

}  // namespace dmfs
