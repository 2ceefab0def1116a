-- SPDX-License-Identifier: Apache-2.0
-- alua: arrays with asymmetric logical unit access, explicit or implicit. A group of paths is made
-- ready by asking the array to make the target port group of its path optimized, if it lets itself be
-- asked; then whatever it has made of it is waited for.
local handler = {}

local OPTIMIZED, NON_OPTIMIZED, OFFLINE, TRANSITIONING = 0, 1, 14, 15
local PATIENCE, PAUSE = 20000, 100  -- ms of a transition

local function same(key, asc, ascq, list)
  for _, sense in ipairs(list) do
    if key == sense[1] and asc == sense[2] and ascq == sense[3] then return true end
  end
  return false
end

local in_transition = { { 2, 0x04, 0x0a }, { 6, 0x04, 0x0a } }
-- Nothing is wrong with what these came with: it is sent again.
local changes = {
  { 6, 0x29, 0x00 },  -- power on, or reset
  { 6, 0x29, 0x04 },  -- internal reset
  { 6, 0x2a, 0x01 },  -- mode parameters changed
  { 6, 0x2a, 0x06 },  -- access state changed
  { 6, 0x2a, 0x07 },  -- implicit transition failed
  { 6, 0x3f, 0x03 },  -- inquiry data changed
  { 6, 0x3f, 0x0e },  -- reported units changed
}

local function be16(data, at)  -- from 0
  return data:byte(at + 1) * 256 + data:byte(at + 2)
end

-- A command; unit attentions are heard and forgotten.
local function ask(path, name, data)
  for _ = 1, 5 do
    local answer, why, key, asc, ascq = path:command(name, data)
    if answer or key ~= 6 or asc == 0x04 then return answer, why, key, asc, ascq end
  end
  return nil, "EIO"
end

-- The target port group of a path: the relative numbers are in its identification page.
local function group_of(path)
  local page, why, key, asc, ascq = ask(path, "vpd")
  if not page then return nil, why, key, asc, ascq end
  local at, last = 4, math.min(4 + be16(page, 2), 508)
  while at + 8 <= last do
    if page:byte(at + 2) % 16 == 5 then return be16(page, at + 6) end
    at = at + 4 + page:byte(at + 4)
  end
  return nil, "EPROTO"
end

-- The access state of a group.
local function state_of(path, group)
  local page, why, key, asc, ascq = ask(path, "rtpg")
  if not page then
    if same(key, asc, ascq, in_transition) then return TRANSITIONING end
    return nil, why, key, asc, ascq
  end
  local at, last = 4, math.min(4 + be16(page, 2), 512)
  while at + 8 <= last do
    if be16(page, at + 2) == group then return page:byte(at + 1) % 16 end
    at = at + 8 + 4 * page:byte(at + 8)
  end
  return nil, "EPROTO"
end

local function hopeless(path, what, why, key, asc, ascq)
  if same(key, asc, ascq, in_transition) then return "retry" end
  local sense = key and (" %x/%02x/%02x"):format(key, asc, ascq) or ""
  log(("alua: %s: %s: %s%s"):format(path:name(), what, why, sense))
  return "fail_path"
end

function handler.create(args)
  if #args > 0 then error("alua has no arguments, '" .. args[1] .. "'", 0) end
end

function handler.pg_init(bypassed, path)
  local inquiry, why, key, asc, ascq = ask(path, "inquiry")
  if not inquiry then return hopeless(path, "inquiry", why, key, asc, ascq) end
  local ways = inquiry:byte(6) // 16 % 4
  if ways == 0 then return hopeless(path, "inquiry", "no asymmetric access") end
  local explicit = ways >= 2
  local group
  group, why, key, asc, ascq = group_of(path)
  if not group then return hopeless(path, "identification", why, key, asc, ascq) end

  local asked = false
  for _ = 1, PATIENCE // PAUSE do
    local state
    state, why, key, asc, ascq = state_of(path, group)
    if not state then return hopeless(path, "port groups", why, key, asc, ascq) end
    if state == OPTIMIZED then
      return "ok"
    elseif state == TRANSITIONING then
      sleep(PAUSE)
    elseif state == OFFLINE then
      return hopeless(path, "port groups", "offline")
    elseif explicit and not asked then
      asked = true
      local done
      done, why, key, asc, ascq =
        ask(path, "stpg", ("\0\0\0\0\0\0") .. string.char(group // 256, group % 256))
      if not done then return hopeless(path, "set port groups", why, key, asc, ascq) end
    elseif state == NON_OPTIMIZED then
      return "ok"  -- not the best, but it works
    else
      return hopeless(path, "port groups", "not accessible")
    end
  end
  return "retry"
end

function handler.error(path, err)
  if same(err.key, err.asc, err.ascq, in_transition) or same(err.key, err.asc, err.ascq, changes) then
    return "retry"
  end
  -- Standby, unavailable and offline are not ready, which fails the path.
  return default_error(err)
end

return handler
