#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An ordered table: writes through O_DSYNC and O_SYNC descriptors wait for all before them, and all
# after them wait. hang shows it: what it keeps holds up the barrier.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires_root # dd with O_DIRECT into the mount
start_dmfs
backing a 2M >/dev/null

# writes TAG SECTOR [dd flags]: eight sectors in the background, with $writer its process
writes() {
  head -c 4096 < <(yes "$1") >"tag.$1"
  dd if="tag.$1" of=mnt/v bs=4096 seek=$(($2 * 512)) count=1 oflag=direct,seek_bytes"${3:+,$3}" \
    conv=notrunc status=none 2>"err.$1" &
  writer=$!
  PIDS+=("$writer")
}
ends() {
  wait_until 20 sh -c "! kill -0 $1 2>/dev/null || grep -q '^State:.Z' /proc/$1/status"
  wait "$1"
}
landed() { cmp -s -n 4096 "tag.$1" a 0 $(($2 * 512)); }
lands() { landed "$1" "$2" || fail "$1 is not at sector $2"; }
waiting() { [ "$(dmctl --json why v | sed -E 's/.*"held_count":([0-9]+).*/\1/')" = "$1" ]; }

say "an ordered table is told, kept, and gone with the next"
dmctl create v --ordered --table "0 4096 hang a 0"
dmctl info v | grep -qx 'Ordered:           yes' || fail "info: $(dmctl info v)"
stop_dmfs
start_dmfs
dmctl info v | grep -qx 'Ordered:           yes' || fail "forgotten in a restart"
dmctl load v --table "0 4096 hang a 0"
dmctl resume v
! dmctl info v | grep -q Ordered || fail "still ordered"

say "not ordered: a synchronous write passes one that hangs"
dmctl message v 0 hold 0 8
writes one 0
wait_until 10 waiting 1
writes two 8 dsync
ends "$writer" || fail "$(cat err.two)"
lands two 8
dmctl message v 0 release

say "ordered: it waits, and so does what comes after it"
dmctl load v --ordered --table "0 4096 hang a 0"
dmctl resume v
for flag in dsync sync; do
  dmctl message v 0 hold 0 8
  writes "first-$flag" 0
  first=$writer
  wait_until 10 waiting 1
  writes "barrier-$flag" 8 "$flag"
  barrier=$writer
  wait_until 10 waiting 2
  writes "last-$flag" 16
  last=$writer
  wait_until 10 waiting 3
  dmctl why v >why
  grep -q 'a barrier: it goes when the 1 in flight have ended' why || fail "why: $(cat why)"
  for tag in first:0 barrier:8 last:16; do
    ! landed "${tag%:*}-$flag" "${tag#*:}" || fail "$tag has landed"
  done
  dmctl message v 0 release
  ends "$first" && ends "$barrier" && ends "$last" || fail "$(cat err.*)"
  lands "first-$flag" 0
  lands "barrier-$flag" 8
  lands "last-$flag" 16
done
waiting 0 || fail "something waits: $(dmctl why v)"

say "pushed back by a noflush suspend, with all that waits, and in order after it"
dmctl message v 0 hold 8 8
writes before 0
ends "$writer"
writes kept 8 dsync
barrier=$writer
wait_until 10 waiting 1
writes after 16
after=$writer
wait_until 10 waiting 2
dmctl suspend --noflush v
dmctl why v | grep -q pushback || dmctl why v | grep -q deferred || fail "$(dmctl why v)"
waiting 2 || fail "after the suspend: $(dmctl why v)"
dmctl message v 0 release
dmctl resume v
ends "$barrier" && ends "$after" || fail "$(cat err.kept err.after)"
lands kept 8
lands after 16

say "a suspend that flushes lets a barrier that has begun end, and one that has not wait"
dmctl message v 0 hold 0 8
writes x1 0
x1=$writer
wait_until 10 waiting 1
writes x2 8 dsync
x2=$writer
wait_until 10 waiting 2
"$DMFS_BUILD/dmctl" suspend v &
suspend=$!
PIDS+=("$suspend")
wait_until 10 sh -c "'$DMFS_BUILD/dmctl' --json why v | grep -q '\"suspending\":true'"
dmctl message v 0 release
wait "$suspend"
ends "$x1" || fail "$(cat err.x1)"
waiting 1 || fail "the barrier does not wait: $(dmctl why v)"
! landed x2 8 || fail "the barrier went while suspended"
dmctl resume v
ends "$x2" || fail "$(cat err.x2)"
lands x2 8

say "a writer that is killed while its barrier waits"
dmctl message v 0 hold 0 8
writes y1 0
y1=$writer
wait_until 10 waiting 1
writes y2 8 dsync
wait_until 10 waiting 2
kill -KILL "$writer"
wait_until 10 waiting 1
writes y3 16
ends "$writer" || fail "what came after the barrier waits for it"
lands y3 16
dmctl message v 0 release
ends "$y1" || fail "$(cat err.y1)"
! landed y2 8 || fail "the killed write has landed"

dmctl remove v || wait_until 10 dmctl remove v
stop_dmfs
