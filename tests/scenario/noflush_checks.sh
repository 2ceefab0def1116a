# shellcheck shell=bash disable=SC2154
# Sourced by the scenarios that run the checks of the original noflush patch, each for a target that
# queues. Writes carry a tag each, so that what arrives, where and how often, is seen in the files a
# and b. The scenario says:
#   queueing START COUNT FILE OFFSET   prints a table line of the target
#   fresh              two files of zeroes; a volume v that can queue, over a
#   forget             clears away what fresh has made besides v
#   no_path            a volume that cannot serve and does not queue is in the place of v
#   hold SECTOR...     the targets there, that at 0 by default, have no path and queue
#   told_to_fail SECTOR...   a suspend waits for what they queue: it fails
#   recover, recovered what queues has a path again: during a suspend, and once it is resumed
#   queues N           the target at 0 keeps N requests
requires_fuse
requires_root # dd with O_DIRECT into the mount, and signals to it
SECTORS=4096

two_files() {
  local file
  for file in a b; do
    rm -f "$file"
    backing "$file" $((SECTORS * 512)) >/dev/null
  done
}
gone() { wait_until 10 dmctl remove v; forget; }
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
suspend_fails_them() { # SECTOR...: a suspend that flushes ends, and so does what was queued
  local suspend
  "$DMFS_BUILD/dmctl" suspend v &
  suspend=$!
  PIDS+=("$suspend")
  told_to_fail "$@"
  ends "$suspend" || fail "suspend"
}

noflush_checks() {
  local suspend
  say "1: succeeds with a valid path"
  fresh
  writes one 0 8
  ends "$writer" || fail "$(cat err.one)"
  lands one 0 8 a

  say "2: fails with none and no queueing"
  no_path
  writes two 8 8
  fails "$writer" two
  untouched a 8 8
  gone

  say "3: is queued with none and queueing"
  fresh
  hold
  writes three 0 8
  wait_until 10 held_are 1
  waits "$writer"
  untouched a 0 8

  say "4: fails at a suspend without noflush"
  suspend_fails_them 0
  fails "$writer" three
  dmctl resume v
  untouched a 0 8
  gone

  say "5: the same for I/O that spans two targets"
  fresh
  dmctl load v --table "$(queueing 0 2048 a 0)
$(queueing 2048 2048 b 0)"
  dmctl resume v
  hold 0 2048
  writes span 2044 8
  wait_until 10 held_are 2
  suspend_fails_them 0 2048
  fails "$writer" span
  dmctl resume v
  untouched a 2044 4
  untouched b 0 4
  gone

  say "6: with noflush it leaves the target and does not return"
  fresh
  hold
  writes six 0 8
  wait_until 10 held_are 1
  dmctl suspend --noflush v
  queues 0
  dmctl why v | grep -q "deferred  write of 8 sectors at sector 0" || fail "$(dmctl why v)"
  waits "$writer"

  say "7: is queued again at a resume without recovery"
  dmctl resume v
  wait_until 10 held_are 1
  queues 1
  waits "$writer"
  untouched a 0 8

  say "8: succeeds at a resume after recovery"
  dmctl suspend --noflush v
  recover
  dmctl resume v
  recovered
  ends "$writer" || fail "$(cat err.six)"
  lands six 0 8 a

  say "9: succeeds after a table load, on the new table only"
  hold
  writes nine 16 8
  wait_until 10 held_are 1
  dmctl load v --table "$(queueing 0 $SECTORS b 0)"
  dmctl suspend --noflush v
  waits "$writer"
  dmctl resume v
  ends "$writer" || fail "$(cat err.nine)"
  lands nine 16 8 b
  untouched a 16 8
  gone

  say "10: the same for I/O that spans two targets, once each"
  fresh
  dmctl load v --table "$(queueing 0 2048 a 0)
$(queueing 2048 2048 a 2048)"
  dmctl resume v
  hold 0
  writes ten 2044 8 # one half is held, the other is done at once
  wait_until 10 held_are 1
  dmctl load v --table "$(queueing 0 $SECTORS b 0)"
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
  hold
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
  recover
  recovered
  ends "$writer" || fail "$(cat err.top)"
  dd if=mnt/top of=/dev/null bs=4096 count=1 iflag=direct status=none
  wait_until 10 dmctl remove top
  gone
}
