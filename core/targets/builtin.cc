// SPDX-License-Identifier: Apache-2.0
#include "core/targets/builtin.h"

#include <cassert>

namespace dmfs {

// One definition in each <name>.cc.
extern const TargetType kDelayTarget;
extern const TargetType kDustTarget;
extern const TargetType kErrorTarget;
extern const TargetType kFlakeyTarget;
extern const TargetType kHangTarget;
extern const TargetType kLabTarget;
extern const TargetType kLinearTarget;
extern const TargetType kMirrorTarget;
extern const TargetType kMultipathTarget;
extern const TargetType kStripedTarget;
extern const TargetType kThrottleTarget;
extern const TargetType kUnstripedTarget;
extern const TargetType kZeroTarget;

void register_builtin_targets(TargetRegistry& registry) {
  for (const TargetType* type :
       {&kDelayTarget, &kDustTarget, &kErrorTarget, &kFlakeyTarget, &kHangTarget, &kLabTarget,
        &kLinearTarget, &kMirrorTarget, &kMultipathTarget, &kStripedTarget, &kThrottleTarget,
        &kUnstripedTarget, &kZeroTarget}) {
    [[maybe_unused]] Status added = registry.add(*type);
    assert(added && "two built-in targets of one name");
  }
}

}  // namespace dmfs
