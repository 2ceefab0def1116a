#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writers that check what they wrote, while the volume moves from file set to file set below them.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires fio
start_dmfs
half=16384 # sectors: 8 MiB striped over two files, 8 MiB linear on a third
for file in 0.a 0.b 0.c; do backing $file 8M >/dev/null; done
table() { printf '%s\n' "0 $half striped 2 16 $1.a 0 $1.b 0" "$half $half linear $1.c 0"; }
table 0 | dmctl create v

JOBS=(--filename=mnt/v --size=4m --rw=randwrite --bssplit=4k/60:12k/20:64k/20 --verify=crc32c
  --verify_fatal=1 --fallocate=none --verify_state_save=0)
# writer NAME FIO-OPTIONS...: fills its part and then checks all of it, again and again.
writer() {
  local name=$1 rounds=0
  shift
  while [ ! -e stop ]; do
    fio --output="$name.out" "${JOBS[@]}" --randrepeat=0 --do_verify=1 --name="$name" "$@" || return 1
    rounds=$((rounds + 1))
    echo $rounds >"$name.rounds"
  done
}
writers=()
begin() { writer "$@" & writers+=("$!") PIDS+=("$!"); }
begin direct --ioengine=libaio --iodepth=32 --direct=1
begin odd --ioengine=libaio --iodepth=8 --direct=1 --offset=4m --size=2m
begin border --ioengine=psync --offset=6m # 6 to 10 MiB: from the striped target to the linear one
begin sync --ioengine=psync --fsync=16 --offset=10m
names=(direct odd border sync)
progress() { # something was written after the swap
  local seen
  seen=$(sha256sum "$1".a "$1".b "$1".c)
  wait_until 10 sh -c "[ \"\$(sha256sum $1.a $1.b $1.c)\" != '$seen' ]"
}
for swap in $(seq 8); do
  old=$((swap - 1))
  progress $old
  if [ $((swap % 3)) = 0 ]; then dmctl suspend --noflush v; else dmctl suspend v; fi
  for part in a b c; do cp $old.$part $swap.$part; done
  sha256sum $old.? >sums.$old
  table $swap | dmctl load v
  for i in 0 1 2 3; do
    kill -0 "${writers[i]}" 2>/dev/null || { cat "${names[i]}.out"; fail "fio ${names[i]} before swap $swap"; }
  done
  dmctl resume v
  dmctl table v | grep -q " $W/$swap.a " || fail "the table after swap $swap"
done
progress 8
: >stop
for i in 0 1 2 3; do
  wait "${writers[i]}" || { cat "${names[i]}.out"; fail "fio ${names[i]}"; }
  [ "$(cat "${names[i]}.rounds")" -ge 2 ] || fail "${names[i]} has hardly run"
done

say "no old file was written after its swap"
for old in $(seq 0 7); do sha256sum -c --quiet sums.$old || fail "file set $old was written to"; done

say "swapped while it is not suspended first, with one last full check"
fio --output=final.out "${JOBS[@]}" --size=16m --name=final --ioengine=libaio --iodepth=16 --direct=1 --do_verify=0 \
  --randrepeat=1 || fail "fio"
for part in a b c; do cp 8.$part 9.$part; done
table 9 | dmctl load v
dmctl resume v
rm 8.?
fio --output=final.out "${JOBS[@]}" --size=16m --name=final --ioengine=libaio --iodepth=16 --direct=1 \
  --verify_only=1 --randrepeat=1 || { cat final.out; fail "the last check"; }
grep -q 'err= 0' final.out || { cat final.out; fail "the last check"; }
wait_until 10 dmctl remove v
stop_dmfs
