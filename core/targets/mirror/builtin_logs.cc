// SPDX-License-Identifier: Apache-2.0
#include <cassert>

#include "core/targets/mirror/dirty_log.h"

namespace dmfs {

// One definition in each <name>_log.cc.
extern const DirtyLogType kCoreLog;
extern const DirtyLogType kDiskLog;

const DirtyLogRegistry& builtin_dirty_logs() {
  static const DirtyLogRegistry registry = [] {
    DirtyLogRegistry all;
    for (const DirtyLogType* type : {&kCoreLog, &kDiskLog}) {
      [[maybe_unused]] Status added = all.add(*type);
      assert(added && "two dirty logs of one name");
    }
    return all;
  }();
  return registry;
}

}  // namespace dmfs
