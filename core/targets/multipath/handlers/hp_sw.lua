-- SPDX-License-Identifier: Apache-2.0
-- hp_sw: arrays whose passive paths become active when the unit is started through them.
local handler = {}

local function hopeless(path, what, why, key, asc, ascq)
  local sense = key and (" %x/%02x/%02x"):format(key, asc, ascq) or ""
  log(("hp_sw: %s: %s: %s%s"):format(path:name(), what, why, sense))
  return "fail_path"
end

function handler.create(args)
  if #args > 0 then error("hp_sw has no arguments, '" .. args[1] .. "'", 0) end
end

function handler.pg_init(bypassed, path)
  local started = false
  for _ = 1, 200 do
    local ready, why, key, asc, ascq = path:command("tur")
    if ready then return "ok" end
    if key == 2 and asc == 0x04 and ascq == 0x02 then  -- passive
      if started then return "retry" end
      started = true
      local done
      done, why, key, asc, ascq = path:command("start_unit")
      if not done then
        -- A switch-over is in progress.
        if key == 2 and asc == 0x04 and ascq == 0x03 then return "retry" end
        return hopeless(path, "start", why, key, asc, ascq)
      end
    elseif key == 2 and asc == 0x04 and (ascq == 0x01 or ascq == 0x03) then
      sleep(100)
    elseif key ~= 6 then
      return hopeless(path, "not ready", why, key, asc, ascq)
    end
  end
  return "retry"
end

function handler.error(path, err)
  if err.key == 2 and err.asc == 0x04 and (err.ascq == 0x01 or err.ascq == 0x03) then return "retry" end
  return default_error(err)
end

return handler
