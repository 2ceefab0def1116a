#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The checks of the original noflush patch, on real volumes. The queueing target is hang, which keeps
# what it is told to hold; "no path and no queueing" is error. Writes carry a tag each, so that what
# arrives, where and how often, is seen in the files.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires_root # dd with O_DIRECT into the mount, and signals to it
start_dmfs
SECTORS=4096

fresh() { # two files of zeroes; a volume v that queues, over a
  local file
  for file in a b; do
    rm -f "$file"
    backing "$file" $((SECTORS * 512)) >/dev/null
  done
  dmctl create v --table "0 $SECTORS hang a 0"
}
gone() { wait_until 10 dmctl remove v; }
holds() { dmctl message v "${1:-0}" hold 0 $((SECTORS / ${2:-1})); }
# writes TAG SECTOR COUNT: in the background, with $writer its process
writes() {
  head -c $(($3 * 512)) < <(yes "$1") >"tag.$1"
  dd if="tag.$1" of=mnt/v bs=$(($3 * 512)) seek=$(($2 * 512)) count=1 oflag=direct,seek_bytes \
    conv=notrunc status=none 2>"err.$1" &
  writer=$!
  PIDS+=("$writer")
}
held_are() { [ "$(dmctl --json why v | sed -E 's/.*"held_count":([0-9]+).*/\1/')" = "$1" ]; }
ends() { # within time, with the status of the process
  wait_until 20 sh -c "! kill -0 $1 2>/dev/null || grep -q '^State:.Z' /proc/$1/status"
  wait "$1"
}
lands() { # TAG SECTOR COUNT FILE
  cmp -n $(($3 * 512)) "tag.$1" "$4" 0 $(($2 * 512)) || fail "$1 is not at sector $2 of $4"
}
untouched() { cmp -n $(($3 * 512)) /dev/zero "$1" 0 $(($2 * 512)) || fail "$1 was written"; }
fails() { # WRITER TAG
  if ends "$1"; then fail "the write of $2 has succeeded"; fi
  grep -q "Input/output error" "err.$2" || fail "the write of $2: $(cat "err.$2")"
}
waits() { # WRITER: neither has it ended nor does it end while commands are answered
  dmctl info v >/dev/null
  kill -0 "$1" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$1/status" || fail "it did not wait"
}

say "1: succeeds with a valid path"
fresh
writes one 0 8
ends "$writer" || fail "$(cat err.one)"
lands one 0 8 a

say "2: fails with none and no queueing"
dmctl load v --table "0 $SECTORS error"
dmctl resume v
writes two 8 8
fails "$writer" two
untouched a 8 8
gone

say "3: is queued with none and queueing"
fresh
holds
writes three 0 8
wait_until 10 held_are 1
waits "$writer"
untouched a 0 8

say "4: fails at a suspend without noflush, when what queues is told to fail"
dmctl suspend v &
suspend=$!
wait_until 10 sh -c '"$DMFS_BUILD/dmctl" --json why v | grep -q "\"suspending\":true"'
dmctl message v 0 fail
ends "$suspend" || fail "suspend"
fails "$writer" three
dmctl resume v
untouched a 0 8
gone

say "5: the same for I/O that spans two targets"
fresh
dmctl load v --table "0 2048 hang a 0
2048 2048 hang b 0"
dmctl resume v
holds 0 2
holds 2048 2
writes span 2044 8
wait_until 10 held_are 2
dmctl suspend v &
suspend=$!
wait_until 10 sh -c '"$DMFS_BUILD/dmctl" --json why v | grep -q "\"suspending\":true"'
dmctl message v 0 fail
dmctl message v 2048 fail
ends "$suspend" || fail "suspend"
fails "$writer" span
dmctl resume v
untouched a 2044 4
untouched b 0 4
gone

say "6: with noflush it leaves the target and does not return"
fresh
holds
writes six 0 8
wait_until 10 held_are 1
dmctl suspend --noflush v
expect "0 $SECTORS hang 0 1" dmctl status v
dmctl why v | grep -q "deferred  write of 8 sectors at sector 0" || fail "$(dmctl why v)"
waits "$writer"

say "7: is queued again at a resume without recovery"
dmctl resume v
wait_until 10 held_are 1
expect "0 $SECTORS hang 1 1" dmctl status v
waits "$writer"
untouched a 0 8

say "8: succeeds at a resume after recovery"
dmctl suspend --noflush v
dmctl message v 0 release
dmctl resume v
ends "$writer" || fail "$(cat err.six)"
lands six 0 8 a

say "9: succeeds after a table load, on the new table only"
holds
writes nine 16 8
wait_until 10 held_are 1
dmctl load v --table "0 $SECTORS linear b 0"
dmctl suspend --noflush v
waits "$writer"
dmctl resume v
ends "$writer" || fail "$(cat err.nine)"
lands nine 16 8 b
untouched a 16 8
gone

say "10: the same for I/O that spans two targets, once each"
fresh
dmctl load v --table "0 2048 hang a 0
2048 2048 hang a 2048"
dmctl resume v
holds 0 2
writes ten 2044 8 # one half is held, the other is done at once
wait_until 10 held_are 1
dmctl load v --table "0 $SECTORS linear b 0"
dmctl suspend --noflush v
waits "$writer"
dmctl resume v
ends "$writer" || fail "$(cat err.ten)"
lands ten 2044 8 b
untouched a 2044 4
gone

say "11: an interrupted noflush suspend: the device is active again, nothing is left on a list"
# A lower volume that holds keeps a noflush suspend of the upper one waiting: its own target, linear,
# has nothing to hand back.
fresh
dmctl create top --table "0 $SECTORS linear v 0"
holds
dd if=/dev/zero of=mnt/top bs=4096 count=1 oflag=direct conv=notrunc status=none 2>err.top &
writer=$!
PIDS+=("$writer")
wait_until 10 held_are 1
refused "1 bios were in flight" dmctl suspend --noflush --timeout 0.2 top
"$DMFS_BUILD/dmctl" suspend --noflush top &
suspend=$!
PIDS+=("$suspend")
wait_until 10 sh -c '"$DMFS_BUILD/dmctl" --json why top | grep -q "\"suspending\":true"'
kill -TERM "$suspend" # a background job ignores SIGINT
wait "$suspend" && fail "the suspend was not interrupted"
wait_until 10 sh -c '"$DMFS_BUILD/dmctl" --json why top | grep -q "\"suspending\":false"'
expect Active dmctl info -c --noheadings -o suspended top
dmctl why top | grep -q "volume v below has 1 in flight" || fail "$(dmctl why top)"
# The device works, and what is requeued from now on fails.
dmctl message v 0 release
ends "$writer" || fail "$(cat err.top)"
dd if=mnt/top of=/dev/null bs=4096 count=1 iflag=direct status=none
wait_until 10 dmctl remove top
gone

say "what is held can be seen, failed, and killed"
fresh
dmctl suspend v
writes seen 0 8
wait_until 10 held_are 1
dmctl info v | grep -q "^Held:              1$" || fail "$(dmctl info v)"
dmctl why v | grep -qF "asked for by dd ($writer)" || fail "$(dmctl why v)"
dmctl why v | grep -qF "dmctl resume v" || fail "$(dmctl why v)"
expect "1 failed" dmctl fail-held v ENOSPC
if ends "$writer"; then fail "it has succeeded"; fi
grep -q "No space left" err.seen || fail "$(cat err.seen)"
refused "'ENONSENSE' is no errno" dmctl fail-held v ENONSENSE
writes killed 0 8
wait_until 10 held_are 1
kill -KILL "$writer"
ends "$writer" 2>/dev/null && fail "a killed writer has ended well"
wait_until 10 held_are 0
dmctl resume v
untouched a 0 8
gone
stop_dmfs

say "held_limit"
start_dmfs -o held_limit=64K
fresh
dmctl suspend v
events=$(dmctl info -c --noheadings -o events v)
writes fits 0 96
fits=$writer
wait_until 10 held_are 1
writes toomuch 128 64
if ends "$writer"; then fail "it has succeeded"; fi
grep -q "Cannot allocate memory" err.toomuch || fail "$(cat err.toomuch)"
dmctl wait v "$events"
dmctl why v | grep -q "1 refused with ENOMEM" || fail "$(dmctl why v)"
dmctl resume v
ends "$fits" || fail "$(cat err.fits)"
lands fits 0 96 a
untouched a 128 64
gone
refused "-o held_limit: '12X' is not a number of bytes" start_dmfs -o held_limit=12X
stop_dmfs
