-- SPDX-License-Identifier: Apache-2.0
-- emc: arrays of two storage processors, of which one owns the unit; the paths of the other are
-- passive until the unit trespasses. Arguments: none, or <short trespass> <honor reservations>, each
-- 0 or 1.
local handler = {}

local short, honor = false, false

local function flag(word)
  if word ~= "0" and word ~= "1" then error("emc: 0 or 1 expected, not '" .. word .. "'", 0) end
  return word == "1"
end

function handler.create(args)
  if #args == 0 then return end
  if #args ~= 2 then error("emc has 0 or 2 arguments, not " .. #args, 0) end
  short, honor = flag(args[1]), flag(args[2])
end

-- MODE SELECT with the trespass page: to the processor that it reaches.
local function trespass_page()
  local bit = honor and 0x80 or 0
  if short then return string.char(0, 0, 0, 0, 0x22, 0x02, bit + 1, 0xff) end
  return ("\0"):rep(8) .. string.char(0x22, 0x09, 0, bit + 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
end

local function hopeless(path, what, why, key, asc, ascq)
  local sense = key and (" %x/%02x/%02x"):format(key, asc, ascq) or ""
  log(("emc: %s: %s: %s%s"):format(path:name(), what, why, sense))
  return "fail_path"
end

-- Hears the unit attention of a new path, lest the first I/O does.
local function settle(path)
  for _ = 1, 200 do
    local ready, why, key, asc, ascq = path:command("tur")
    if ready then return "ok" end
    if key == 2 and asc == 0x04 and ascq == 0x01 then
      sleep(100)
    elseif key == 2 and asc == 0x04 and ascq == 0x03 then
      return "retry"  -- it has gone again
    elseif key ~= 6 then
      return hopeless(path, "not ready", why, key, asc, ascq)
    end
  end
  return "retry"
end

function handler.pg_init(bypassed, path)
  local page, why, key, asc, ascq = path:command("vpd")
  if not page then return hopeless(path, "inquiry", why, key, asc, ascq) end
  local state = page:byte(5)
  if state == 2 then return settle(path) end
  if state ~= 1 then return hopeless(path, "inquiry", "the unit is not bound") end
  local done
  done, why, key, asc, ascq = path:command("mode_select", trespass_page())
  if done then return settle(path) end
  if key == 5 and asc == 0x04 and ascq == 0x00 then return "bypass_pg" end  -- it is being copied
  if key == 2 and asc == 0x04 and (ascq == 0x03 or ascq == 0x01) or key == 6 then return "retry" end
  return hopeless(path, "trespass", why, key, asc, ascq)
end

function handler.error(path, err)
  if err.key == 2 and err.asc == 0x04 then
    if err.ascq == 0x03 then return "bypass_pg" end  -- a passive path
    if err.ascq == 0x01 then return "retry" end
  end
  -- The array copies the unit: it is the same on all paths.
  if err.key == 5 and err.asc == 0x25 and err.ascq == 0x01 then return "error_io" end
  -- The first I/O to a new path.
  if err.key == 6 and err.asc == 0x29 and err.ascq == 0x00 then return "retry" end
  return default_error(err)
end

return handler
