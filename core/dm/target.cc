// SPDX-License-Identifier: Apache-2.0
#include "core/dm/target.h"

namespace dmfs {

Result<std::string> Target::message(std::span<const std::string> words) {
  (void)words;
  return Error{EINVAL, "Target type does not support messages"};
}

}  // namespace dmfs
