// SPDX-License-Identifier: Apache-2.0
// The index of this folder.
#pragma once

#include "core/dm/target.h"

namespace dmfs {

// Every target type that dmfs has, to be called once at start.
void register_builtin_targets(TargetRegistry& registry);

}  // namespace dmfs
