// SPDX-License-Identifier: Apache-2.0
#include <cassert>

#include "core/targets/multipath/path_selector.h"

namespace dmfs {

// One definition in each <name>.cc.
extern const PathSelectorType kHistoricalServiceTimeSelector;
extern const PathSelectorType kIoAffinitySelector;
extern const PathSelectorType kQueueLengthSelector;
extern const PathSelectorType kRoundRobinSelector;
extern const PathSelectorType kServiceTimeSelector;

const PathSelectorRegistry& path_selectors() {
  static const PathSelectorRegistry registry = [] {
    PathSelectorRegistry all;
    for (const PathSelectorType* type :
         {&kHistoricalServiceTimeSelector, &kIoAffinitySelector, &kQueueLengthSelector,
          &kRoundRobinSelector, &kServiceTimeSelector}) {
      [[maybe_unused]] Status added = all.add(*type);
      assert(added && "two path selectors of one name");
    }
    return all;
  }();
  return registry;
}

}  // namespace dmfs
