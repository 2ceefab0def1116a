#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# dmctl paths, fail-path and reinstate-path on a real mount; a checker brings a path back, and a path
# that hangs is left.
. "$(dirname "$0")/lib.sh"
requires_fuse
truncate -s 1M disk
for i in 1 2; do ln disk "p$i"; done
start_dmfs
dmctl create plain --table "0 8 zero"
dmctl create h --table "0 2048 hang $W/p2 0"
dmctl create v --table "0 2048 multipath 7 queue_mode bio path_timeout 300 checker read 1 0 1 1 round-robin 0 2 0 $W/p1 h"
dmctl paths v >tree
grep -q "^v (253:[0-9]*) dmfs,multipath$" tree || fail "$(cat tree)"
grep -q "^|\?\`\?-+- policy='round-robin 0' status=enabled$" tree || fail "$(cat tree)"
grep -q "^  |- $W/p1 active" tree || fail "$(cat tree)"
dmctl paths >all
[ "$(head -1 all)" = "$(head -1 tree)" ] || fail "$(cat all)"
refused "no target with paths" dmctl paths plain
dmctl --json paths v | grep -q '"checker"' || fail "no checker in the JSON"
dmctl fail-path v p1
dmctl paths v | grep -q "$W/p1 failed" || fail "$(dmctl paths v)"
path_is() { dmctl paths v | grep -q "$1 $2"; }
wait_until 20 path_is "$W/p1" "active, checker up"
dmctl reinstate-path v "$W/p1"
# What hangs is failed, and what it was given goes another path.
dmctl message h 0 hold 0 2048
head -c 65536 < <(yes data) >data
timeout 60 dd if=data of=mnt/v bs=4096 conv=notrunc,fsync status=none || fail "the write failed"
cmp data <(head -c 65536 disk) || fail "the data is not there"
wait_until 20 path_is h failed
dmctl message h 0 release
wait_until 20 path_is h "active, checker up"
cmp data <(head -c 65536 disk) || fail "the data has gone"
