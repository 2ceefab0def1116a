#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ext4 on a loop device over a multipath of four paths to one file, under fio with checksums: paths
# fail by message and by errors of their own, flap, hang, and all go away and come back; a hardware
# handler in Lua refuses a path, answers late and bypasses a group. The load sees no error, and the
# file system is clean. First with paths that are hard links, then with volumes.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires_loop
requires fio mkfs.ext4 fsck.ext4
SECTORS=98304 # 48 MiB
mkdir handlers
# What it does with the first activation of some paths: <path> <answer> ... Late is a third of a second.
cat >handlers/moody.lua <<'LUA'
local moods = {}
return {
  create = function(args)
    for i = 1, #args, 2 do moods[tonumber(args[i])] = args[i + 1] end
  end,
  pg_init = function(bypassed, path)
    local mood = moods[path.number]
    moods[path.number] = nil
    if mood == "late" then
      sleep(300)
      mood = nil
    end
    return mood or "ok"
  end,
}
LUA
start_dmfs -o handlers="$W/handlers"

turn() { # VOLUME TARGET: at once, whatever is under way
  dmctl load "$1" --table "0 $SECTORS $2"
  dmctl suspend --noflush "$1"
  dmctl resume "$1"
}
tell() { dmctl message m 0 "$@"; }
status_has() { dmctl status m | grep -qE -- "$1"; }
# Failed by an error and not by us.
fails() { wait_until 20 status_has " $1 F "; }
# multipath HANDLER PATH...: the first two in one group, the others in a second
multipath() {
  echo "multipath 1 queue_if_no_path $1 2 1 round-robin 0 2 1 $2 1 $3 1 round-robin 0 2 1 $4 1 $5 1"
}
held() { dmctl --json why m | grep -q '"where":"multipath"'; }

load_begins() { # over m
  attach m --direct-io=on
  mkfs.ext4 -q "$LOOP"
  mount_fs "$LOOP" "$W/fs"
  rm -f stop
  loads &
  fio=$!
  PIDS+=("$fio")
}
loads() { # until it is told to stop: writes, and reads all back
  local passes=0
  while [ ! -e stop ]; do
    fio --output=fio.out --name=v --directory=fs --size=8m --rw=randwrite --bs=4k --ioengine=psync \
      --fsync=32 --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --fallocate=none \
      --rate_iops=3000 --randseed=$((++passes)) || return 1
    grep -q 'err= 0' fio.out || return 1
  done
  echo "$passes passes"
}
goes_on() { # it has not stopped, and data arrives
  kill -0 "$fio" || { cat fio.out; fail "fio has ended"; }
  local before
  before=$(writes_done)
  wait_until 20 more_than "$before"
}
writes_done() { awk '{ print $7 }' "/sys/block/${LOOP#/dev/}/stat"; }
more_than() { [ "$(writes_done)" -gt "$1" ]; }
load_ends() {
  goes_on
  : >stop
  wait "$fio" || { cat fio.out; fail "fio"; }
  umount_fs "$W/fs"
  fsck.ext4 -fn "$LOOP" >fsck.out 2>&1 || { cat fsck.out; fail "fsck"; }
  detach "$LOOP"
  # shellcheck disable=SC2034 # of lib.sh
  LOOPS=() MOUNTS=()
}
all_gone() { # SECONDS COMMAND...: after which all paths are gone; they stay so
  local seconds=$1
  shift
  "$@"
  wait_until 20 held
  dmctl why m >why.out
  grep -q "reinstate_path" why.out || fail "$(cat why.out)"
  status_has ' A 0 ' && fail "$(dmctl status m)"
  read -rt "$seconds" <> <(:) || :
  kill -0 "$fio" || { cat fio.out; fail "fio has ended"; }
  held || fail "nothing waits: $(dmctl status m)"
}

say "four hard links: paths fail and come back by message"
truncate -s $((SECTORS * 512)) disk
for i in 1 2 3 4; do ln disk "p$i"; done
links=("$W/p1" "$W/p2" "$W/p3" "$W/p4")
dmctl create m --table "0 $SECTORS $(multipath 0 "${links[@]}")"
load_begins
for i in 1 2 3 4; do
  tell fail_path "$W/p$i"
  goes_on
  tell reinstate_path "$W/p$i"
done
for i in 3 1 2; do
  tell fail_path "$W/p$i"
  goes_on
done
for i in 1 2 3; do tell reinstate_path "$W/p$i"; done
for _ in $(seq 50); do # flaps
  tell fail_path "$W/p1"
  tell fail_path "$W/p2"
  tell reinstate_path "$W/p2"
  tell reinstate_path "$W/p1"
done
goes_on
say "all are gone for a while"
fail_all() { for i in 1 2 3 4; do tell fail_path "$W/p$i"; done; }
all_gone 10 fail_all
for i in 3 1 2 4; do tell reinstate_path "$W/p$i"; done
goes_on
say "groups are switched, disabled and enabled"
for i in 2 1 2 1; do
  tell switch_group $i
  goes_on
  tell disable_group $i
  goes_on
  tell enable_group $i
done
load_ends
wait_until 10 dmctl remove m

say "four volumes over one file: paths err, flap and hang"
truncate -s $((SECTORS * 512)) shared
way() { case $1 in v3) echo "hang $W/shared 0" ;; v4) echo "flakey $W/shared 0 1 1" ;; *) echo "linear $W/shared 0" ;; esac; }
for v in v1 v2 v3; do dmctl create $v --table "0 $SECTORS $(way $v)"; done
dmctl create v4 --table "0 $SECTORS linear $W/shared 0"
volumes=(v1 v2 v3 v4)
dmctl create m --table "0 $SECTORS $(multipath "7 moody 1 fail_path 3 late 4 bypass_pg" "${volumes[@]}")"
load_begins
goes_on
status_has ' A 0 2 0 v1 F 1 v2 A 0 ' || fail "the handler has refused v1: $(dmctl status m)"
tell reinstate_path v1
goes_on
for v in v1 v2; do
  turn $v error
  goes_on
done
# The other group is activated late.
fails v1
fails v2
status_has ' A 0 2 0 v3 A 0 v4 A 0 ' || fail "$(dmctl status m)"
for v in v1 v2; do
  turn $v "$(way $v)"
  tell reinstate_path $v
done
goes_on
# Back, and once more there: by a path with which the handler bypasses the group.
tell switch_group 1
goes_on
tell fail_path v3
tell switch_group 2
goes_on
status_has ' A 0 2 0 v1 A [0-9]+ v2 A [0-9]+ D 0 2 0 v3 F 1 v4 A 0 ' || fail "$(dmctl status m)"
tell reinstate_path v3
tell enable_group 2
goes_on
say "a path hangs for a while, another is good in one second of two"
tell switch_group 2
goes_on
dmctl message v3 0 hold 0 $SECTORS
wait_until 10 bash -c '"$DMFS_BUILD/dmctl" --json why v3 | grep -q "\"where\":\"hang\""'
dmctl message v3 0 release
goes_on
turn v4 "$(way v4)"
fails v4
goes_on
tell reinstate_path v4
goes_on
say "all err for a while"
turn_all() {
  for v in v1 v2 v3 v4; do turn $v error; done
}
all_gone 3 turn_all
for v in v4 v3 v2 v1; do turn $v "linear $W/shared 0"; done
for v in v1 v2 v3 v4; do tell reinstate_path $v; done
goes_on
load_ends
wait_until 10 dmctl remove m
for v in v1 v2 v3 v4; do dmctl remove $v; done
stop_dmfs
