#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A write that only the second leg has, because the first hangs, is acknowledged; then the daemon is
# killed. What was acknowledged is there after the restart, on both legs.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires_root # dd with O_DIRECT into the mount
other() { DMFS_SOCKET=$W/other.sock dmctl "$@"; }
mkdir other
backing far 8M >/dev/null
backing b 8M >/dev/null
other mount "$W/other" --store "$W/other.db" --socket "$W/other.sock"
stop_other() {
  mounted "$W/other" || return 0
  DMFS_SOCKET=$W/other.sock timeout 10 "$DMFS_BUILD/dmctl" message hung 0 release >/dev/null 2>&1
  DMFS_SOCKET=$W/other.sock timeout 20 "$DMFS_BUILD/dmctl" umount "$W/other" || umount -l "$W/other"
}
trap 'stop_other; cleanup' EXIT
other create hung --table "0 16384 hang $W/far 0"
start_dmfs
dmctl create m --table "0 16384 mirror core 1 64 2 $W/other/hung 0 $W/b 0 3 handle_errors io_timeout 1000"
dmctl wait --synced --timeout 60 m

say "the first leg hangs"
other message hung 0 hold 0 16384
head -c 4096 < <(yes new) >block
dd if=block of=mnt/m bs=4096 count=1 conv=notrunc oflag=direct status=none
dmctl status m | grep -q ' DA .* late 1' || fail "$(dmctl status m)"
cmp -n 4096 block b
! cmp -s -n 4096 block far || fail "the leg does not hang"

say "the daemon is killed"
pid=$(daemon_pid)
kill -KILL "$pid"
wait_until 20 bash -c "! kill -0 $pid"
if mounted "$MNT"; then umount -l "$MNT" || fusermount3 -uz "$MNT"; fi
other message hung 0 release
start_dmfs
dmctl wait --synced --timeout 60 m
cmp -n 4096 block mnt/m
cmp b far
cmp -n 4096 block far
wait_until 10 dmctl remove m
stop_dmfs
