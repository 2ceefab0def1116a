-- SPDX-License-Identifier: Apache-2.0
-- rdac: arrays of two controllers, of which one owns the unit; a MODE SELECT of the redundant
-- controller page moves it.
local handler = {}

local function hopeless(path, what, why, key, asc, ascq)
  local sense = key and (" %x/%02x/%02x"):format(key, asc, ascq) or ""
  log(("rdac: %s: %s: %s%s"):format(path:name(), what, why, sense))
  return "fail_path"
end

-- In process of becoming ready; quiescence is in progress or has been achieved.
local function will_pass(key, asc, ascq)
  return key == 2 and (asc == 0x04 and (ascq == 0x01 or ascq == 0xa1) or asc == 0xa1 and ascq == 0x02)
    or key == 6 and (asc == 0x29 and ascq == 0x00 or asc == 0x8b and ascq == 0x02)
end

local function settle(path)
  for _ = 1, 200 do
    local ready, why, key, asc, ascq = path:command("tur")
    if ready then return "ok" end
    if not will_pass(key, asc, ascq) then
      if key == 5 and asc == 0x94 then return "retry" end  -- it has gone again
      return hopeless(path, "not ready", why, key, asc, ascq)
    end
    if key == 2 then sleep(100) end
  end
  return "retry"
end

-- The page, with every unit that it has room for told to come here.
local page = ("\0"):rep(8) .. string.char(0x2c + 0x40, 0x01, 0x01, 0x28) .. ("\0"):rep(6)
  .. string.char(0x02) .. ("\0"):rep(5) .. ("\x81"):rep(256)

function handler.create(args)
  if #args > 0 then error("rdac has no arguments, '" .. args[1] .. "'", 0) end
end

function handler.pg_init(bypassed, path)
  local vpd, why, key, asc, ascq = path:command("vpd")
  if not vpd then return hopeless(path, "inquiry", why, key, asc, ascq) end
  if vpd:sub(5, 8) ~= "vace" then return hopeless(path, "inquiry", "no volume access control page") end
  if vpd:byte(9) % 2 == 1 then return settle(path) end
  local done
  done, why, key, asc, ascq = path:command("mode_select", page)
  if done then return settle(path) end
  -- Another command has the lock; or the controller is at it.
  if key == 5 and asc == 0x91 and ascq == 0x36 then return "retry" end
  if key == 2 and asc == 0x04 and ascq == 0x01 then return "retry" end
  if key == 0 or key == 6 or key == 0x0b then return "retry" end
  return hopeless(path, "mode select", why, key, asc, ascq)
end

function handler.error(path, err)
  if will_pass(err.key, err.asc, err.ascq) then return "retry" end
  -- The other controller has it. An illegal request, but it is the path's.
  if err.key == 5 and err.asc == 0x94 and err.ascq == 0x01 then return "fail_path" end
  return default_error(err)
end

return handler
