#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A hardware handler in Lua on a real mount: from -o handlers, through failures of its own, and after a
# restart without its file.
. "$(dirname "$0")/lib.sh"
requires_fuse
mkdir handlers
cat >handlers/own.lua <<'LUA'
local limit
return {
  create = function(args) limit = tonumber(args[1]) end,
  pg_init = function(bypassed, path)
    if path.number < limit then error("path " .. path:name() .. " is not for use") end
    sleep(20)
    return path:read(0) and "ok" or "fail_path"
  end,
  status = function() return { "limit", limit } end,
}
LUA
truncate -s 1M disk
for i in 1 2 3; do ln disk "p$i"; done
refused "'handlers' is no absolute path" start_dmfs -o handlers=handlers
start_dmfs -o handlers="$W/handlers"
line() { echo "0 2048 multipath 0 2 own $1 3 1 round-robin 0 1 0 $W/p1 round-robin 0 1 0 $W/p2 round-robin 0 1 0 $W/p3"; }
refused "unknown hardware handler 'other'" dmctl create v --table "0 2048 multipath 0 1 other 0 0"
dmctl create v --table "$(line 3)"
before=$(dmctl table v)
head -c 32768 < <(yes data) >data
dd if=data of=mnt/v bs=4096 conv=notrunc status=none
cmp data <(head -c 32768 disk) || fail "the data is not there"
expect "0 2048 multipath 2 0 1 2 limit 3 3 3 E 0 1 0 $W/p1 F 1 E 0 1 0 $W/p2 F 1 A 0 1 0 $W/p3 A 0 " dmctl status v
dmctl info v | grep -q "own.lua:5: path $W/p2 is not for use" || fail "$(dmctl info v)"
grep -q "own.lua:5: path $W/p1 is not for use" "$STORE.log" || fail "nothing in the log"
stop_dmfs
rm handlers/own.lua
start_dmfs
expect "$before" dmctl table v
cmp data <(head -c 32768 mnt/v) || fail "the data is not there after the restart"
refused "unknown hardware handler 'own'" dmctl load v --table "$(line 1)"
wait_until 10 dmctl remove v
stop_dmfs
