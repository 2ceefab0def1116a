#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The checks of the original noflush patch, on real volumes. The queueing target is hang, which keeps
# what it is told to hold; "no path and no queueing" is error.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/noflush_checks.sh"
start_dmfs

queueing() { echo "$1 $2 hang $3 $4"; }
fresh() {
  two_files
  dmctl create v --table "$(queueing 0 $SECTORS a 0)"
}
forget() { :; }
no_path() {
  dmctl load v --table "0 $SECTORS error"
  dmctl resume v
}
hold() {
  local at
  for at in "${@:-0}"; do
    dmctl message v "$at" hold 0 $(($(dmctl table v | awk -v at="$at" '$1 == at { print $2 }')))
  done
}
told_to_fail() {
  local at
  wait_until 10 sh -c '"$DMFS_BUILD/dmctl" --json why v | grep -q "\"suspending\":true"'
  for at; do dmctl message v "$at" fail; done
}
recover() { dmctl message v 0 release; }
recovered() { :; }
queues() { expect "0 $SECTORS hang $1 1" dmctl status v; }
noflush_checks

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
