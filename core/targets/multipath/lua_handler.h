// SPDX-License-Identifier: Apache-2.0
// Hardware handlers that are Lua scripts; what a script sees is in dmfs-handlers(7).
#pragma once

#include <memory>
#include <span>
#include <string>

#include "core/targets/multipath/hw_handler.h"

namespace dmfs {

// Runs the script and its create(). A thread of its own runs all the rest of it, which takes no time
// of others and as little as LuaSandbox allows; an activation or a decision that is not there after
// kScriptPatience fails its path. Errors: EINVAL, with script and line.
inline constexpr std::chrono::seconds kScriptPatience{30};

Result<std::unique_ptr<HwHandler>> create_lua_handler(HwHost& host, const std::string& name,
                                                      const std::string& script,
                                                      std::span<const std::string> args);

}  // namespace dmfs
