// SPDX-License-Identifier: Apache-2.0
// What scripts find there that is itself Lua.
#pragma once

namespace dmfs {

// Returns path:command(name, data). The sectors behind the data of a path of a lab array are those of
// core/targets/lab/lab_array.h; nothing is written where they are not.
inline constexpr char kLuaPrelude[] = R"lua(
local kMailbox, kSignature = 8, "dmfs lab mailbox"
local reads = { tur = 0, inquiry = 1, vpd = 2, rtpg = 3 }
local writes = { stpg = 3, mode_select = 4, start_unit = 5 }
local type, error = type, error
return function(path, name, data)
  local at = reads[name] or writes[name]
  if not at then error("no such command", 2) end
  data = data or ""
  if type(data) ~= "string" or #data > 512 then error("data of a command: a string of 512 bytes at most", 2) end
  local size = path:size()
  if size <= kMailbox then return nil, "EOPNOTSUPP" end
  local found, why, key, asc, ascq = path:read(size - 1)
  if not found then return nil, why, key, asc, ascq end
  if found:sub(1, #kSignature) ~= kSignature then return nil, "EOPNOTSUPP" end
  at = size - kMailbox + at
  if reads[name] then return path:read(at) end
  return path:write(at, data .. ("\0"):rep(512 - #data))
end
)lua";

}  // namespace dmfs
