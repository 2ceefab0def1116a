#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Arrays that are not there: four paths, two controllers, a multipath over them with the handlers that
# come with the program; ext4 on a loop device over it. Under fio the unit moves, paths flap, hang,
# fail, are slow and come back. The load sees no error, and fsck finds none.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires_loop
requires fio mkfs.ext4 fsck.ext4
start_dmfs

refused "Invalid --paths '0'" dmctl lab array x --paths 0
refused "There is no array 'x'" dmctl lab show x

owner() { dmctl lab show "$1" | sed -n '1s/.*controller \([0-9]*\) owns.*/\1/p'; }
owns() { [ "$(owner "$1")" = "$2" ]; }
# Of a path of the multipath.
is() { dmctl status "$1" | grep -q " $2 $3 "; }
reinstate() { # ARRAY PATH...: as a path daemon would
  local a=$1 p
  shift
  for p; do dmctl message "$a" 0 reinstate_path "$a-path$p"; done
}
# The file system takes a write and brings it down; and the load still runs.
working() {
  timeout 30 dd if=/dev/zero of=fs/marker bs=4k count=1 conv=fsync status=none || fail "no write gets through"
  kill -0 "$1" || { cat fio.out; fail "fio has ended"; }
}

array() { # KIND
  local a=$1 fio round p
  say "an array of kind $a"
  dmctl lab array "$a" --paths 4 --controllers 2 "--$a" --size 64M --create >line
  grep -q "^0 131072 multipath .* $a 2 1 round-robin 0 2 0 $a-path1 $a-path2 round-robin 0 2 0 $a-path3 $a-path4" line ||
    fail "$(cat line)"
  expect $((64 << 20)) stat -c %s "$a.img"
  refused "Invalid delay: 'never'" dmctl lab set "$a-path1" slow never
  attach "$a" --direct-io=on
  mkfs.ext4 -q "$LOOP"
  mount_fs "$LOOP" "$W/fs"
  fio --output=fio.out --name=v --directory=fs --size=8m --rw=randwrite --bs=4k --ioengine=psync --fsync=32 \
    --verify=crc32c --do_verify=1 --verify_fatal=1 --time_based --runtime=25 --rate_iops=1500 --fallocate=none &
  fio=$!
  PIDS+=("$fio")
  moves_of() { dmctl lab show "$a" | sed -n '1s/.*moved \([0-9]*\) times/\1/p'; }

  for round in 1 2; do
    say "$a: the unit moves, round $round"
    dmctl message "$a" 0 switch_group 2
    wait_until 20 owns "$a" 2
    dmctl lab set "$a-path1" transition 300
    dmctl message "$a" 0 switch_group 1
    wait_until 20 owns "$a" 1
    dmctl lab set "$a-path1" transition 0
    working $fio
  done

  say "$a: another host takes it"
  dmctl lab set "$a-path1" owner 2
  working $fio
  reinstate "$a" 1 2 3 4

  say "$a: a path hangs, and its controller's other one is gone"
  dmctl message "$a" 0 switch_group 1
  wait_until 20 owns "$a" 1
  dmctl lab set "$a-path1" hang
  dmctl lab set "$a-path2" gone
  wait_until 20 bash -c '"$DMFS_BUILD/dmctl" lab show '"$a"' | grep -q "hang  [1-9]"'
  dmctl lab show "$a"
  # Who is in charge gives the path up: what hangs in it goes another way.
  dmctl lab set "$a-path1" fail ETIMEDOUT
  wait_until 20 is "$a" "$a-path1" F
  wait_until 20 owns "$a" 2
  dmctl lab set "$a-path1" good
  dmctl lab set "$a-path2" good
  reinstate "$a" 1 2
  working $fio

  say "$a: paths flap, and are slow"
  dmctl lab set "$a-path3" flap 200 100
  dmctl lab set "$a-path4" slow 5
  wait_until 20 is "$a" "$a-path3" F
  dmctl lab set "$a-path3" good
  dmctl lab set "$a-path4" good
  reinstate "$a" 3
  working $fio

  say "$a: all are gone, and come back"
  for p in 1 2 3 4; do dmctl lab set "$a-path$p" gone; done
  for p in 1 2 3 4; do wait_until 20 is "$a" "$a-path$p" F; done
  for p in 1 2 3 4; do dmctl lab set "$a-path$p" good; done
  reinstate "$a" 1 2 3 4
  working $fio

  wait "$fio" || { cat fio.out; fail "fio"; }
  grep -q 'err= 0' fio.out || { cat fio.out; fail "fio did not run"; }
  umount_fs "$W/fs"
  fsck.ext4 -fn "$LOOP" >fsck.out 2>&1 || { cat fsck.out; fail "fsck"; }
  detach "$LOOP"
  say "$a: $(moves_of) moves"
  cmp "$a.img" "mnt/$a"
  [ "$(moves_of)" -ge 5 ] || fail "the unit has hardly moved"
  wait_until 10 dmctl lab remove "$a"
  expect "No devices found" dmctl ls --target lab
}
array alua
array emc
stop_dmfs
