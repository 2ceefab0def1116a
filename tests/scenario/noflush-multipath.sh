#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The checks of the original noflush patch on what they were made for: multipath, whose paths are
# volumes that turn to error and come back. And what noflush is for: a path that is gone and is back
# under another name, with a table load that keeps every write that waits.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/noflush_checks.sh"
start_dmfs

# A path over FILE at OFFSET is the volume FILE-OFFSET.
QUEUEING="4 queue_if_no_path retain_attached_hw_handler queue_mode bio"
path() {
  [ -e "mnt/$1-$2" ] || dmctl create "$1-$2" --table "0 $((SECTORS - $2)) linear $1 $2"
  echo "$1-$2"
}
queueing() { echo "$1 $2 multipath $QUEUEING 0 1 1 round-robin 0 1 1 $(path "$3" "$4") 1"; }
turn() { # VOLUME TABLE
  dmctl load "$1" --table "$2"
  dmctl suspend --noflush "$1"
  dmctl resume "$1"
}
fresh() {
  two_files
  dmctl create v --table "$(queueing 0 $SECTORS a 0)"
}
forget() {
  local p
  for p in $(dmctl info -c --noheadings -o name | grep -E '^[ab]-'); do dmctl remove "$p"; done
}
no_path() {
  turn a-0 "0 $SECTORS error"
  dmctl message v 0 fail_if_no_path
}
# The path of the target at a sector: told apart by what fails it. A probe read may wait as well,
# so it is the writer's own I/O that meets the error.
DEAD=()
hold() {
  local at p
  DEAD=()
  for at in "${@:-0}"; do
    p=$(dmctl table v | awk -v at="$at" '$1 == at { print $(NF - 1) }')
    turn "$p" "0 $(dmctl table "$p" | awk '{ print $2 }') error"
    DEAD+=("$p")
  done
}
told_to_fail() { :; }
recover() { # a path's offset is in its name
  local p
  for p in "${DEAD[@]}"; do
    turn "$p" "0 $(dmctl table "$p" | awk '{ print $2 }') linear ${p%-*} ${p#*-}"
  done
}
recovered() {
  local p
  for p in "${DEAD[@]}"; do dmctl message v 0 reinstate_path "$p"; done
}
queues() { [ "$(dmctl --json why v | grep -o '"where":"multipath"' | wc -l)" = "$1" ] || fail "$(dmctl why v)"; }
noflush_checks

say "a path that is gone comes back under another name"
fresh
dmctl create gone --table "0 $SECTORS linear a 0"
turn v "0 $SECTORS multipath $QUEUEING 0 1 1 service-time 0 1 2 gone 1 1"
turn gone "0 $SECTORS error"
writers=()
for i in $(seq 24); do
  writes "w$i" $((i * 16)) 16
  writers+=("$writer")
done
wait_until 20 held_are 24
dmctl status v | grep -q " gone F 1 " || fail "$(dmctl status v)"
mv a another
dmctl create back --table "0 $SECTORS linear another 0"
dmctl load v --table "0 $SECTORS multipath $QUEUEING 0 1 1 service-time 0 1 2 back 1 1"
dmctl suspend --noflush v
dmctl remove gone 2>/dev/null && fail "the live table has it"
dmctl resume v
for i in $(seq 24); do
  ends "${writers[i - 1]}" || fail "$(cat "err.w$i")"
  lands "w$i" $((i * 16)) 16 another
done
untouched another 0 16
untouched another 400 1000
dmctl remove gone
expect "0 $SECTORS multipath 2 0 0 0 1 1 A 0 1 2 back A 0 0 1 " dmctl status v

say "and without one it waits for a message"
turn back "0 $SECTORS error"
writes late 1000 8
wait_until 10 held_are 1
turn back "0 $SECTORS linear another 0"
waits "$writer"
dmctl message v 0 reinstate_path back
ends "$writer" || fail "$(cat err.late)"
lands late 1000 8 another
dmctl remove v
dmctl remove back
mv another a
forget
stop_dmfs
