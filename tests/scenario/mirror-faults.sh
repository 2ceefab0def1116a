#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A mirror of three files on tmpfs, on ext4 over a loop device, and on another dmfs that is told to
# hang; ext4 on a loop device over it. Under fio: a leg hangs, a leg fails and is replaced. Then the
# legs are compared, and a resync goes on where kill -9 of the daemon has ended it.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires_loop
requires fio mkfs.ext4 cmp
SECTORS=98304 # 48 MiB
SIZE=$((SECTORS * 512))

say "three places"
other() { DMFS_SOCKET=$W/other.sock dmctl "$@"; }
mkdir other tmpfs ext4
other mount "$W/other" --store "$W/other.db" --socket "$W/other.sock"
stop_other() {
  mounted "$W/other" || return 0
  DMFS_SOCKET=$W/other.sock timeout 10 "$DMFS_BUILD/dmctl" message hung 0 release >/dev/null 2>&1
  DMFS_SOCKET=$W/other.sock timeout 20 "$DMFS_BUILD/dmctl" umount "$W/other" || umount -l "$W/other"
}
trap 'stop_other; cleanup' EXIT
backing far $SIZE >/dev/null
other create hung --table "0 $SECTORS hang $W/far 0"
mount -t tmpfs -o size=120m tmpfs "$W/tmpfs"
MOUNTS+=("$W/tmpfs")
backing disk 160M >/dev/null
LOOP=$(losetup -f --show "$W/disk")
LOOPS+=("$LOOP")
mkfs.ext4 -q "$LOOP"
mount_fs "$LOOP" "$W/ext4"
truncate -s $SIZE tmpfs/a ext4/b ext4/spare
backing log 1M >/dev/null
# Different to begin with.
head -c 4M /dev/urandom >tmpfs/head
dd if=tmpfs/head of=tmpfs/a conv=notrunc status=none

start_dmfs
dmctl create la --table "0 $SECTORS linear $W/tmpfs/a 0"
mirror() { echo "0 $SECTORS mirror disk 2 $W/log 1024 3 $1 0 $W/ext4/b 0 $W/other/hung 0 3 handle_errors io_timeout 2000"; }
dmctl create m --table "$(mirror la)"
dmctl wait --synced --timeout 60 m
cmp tmpfs/a ext4/b
cmp tmpfs/a far

say "a file system on it, and fio"
attach m --direct-io=on
mkfs.ext4 -q "$LOOP"
mount_fs "$LOOP" "$W/fs"
fio --output=fio.out --name=v --directory=fs --size=16m --rw=randwrite --bs=4k --ioengine=psync --fsync=32 \
  --verify=crc32c --do_verify=1 --verify_fatal=1 --loops=3 --rate_iops=3000 --fallocate=none &
fio=$!
PIDS+=("$fio")

say "the third leg hangs, and answers again"
other message hung 0 hold 0 $SECTORS
wait_until 30 bash -c '"$DMFS_BUILD/dmctl" status m | grep -q " AAD .* late"'
kill -0 $fio
other message hung 0 release
wait_until 30 bash -c '"$DMFS_BUILD/dmctl" status m | grep -q " AAA "'
# Until then the first leg alone may have all.
dmctl wait --synced --timeout 100 m

say "the first leg fails, and is replaced"
dmctl load la --table "0 $SECTORS error"
dmctl suspend --noflush la
dmctl resume la
wait_until 30 bash -c '"$DMFS_BUILD/dmctl" status m | grep -q " DAA "'
# What the log knows is about the other legs, so the new one is copied from one of them, in full.
dmctl load m --table "0 $SECTORS mirror disk 3 $W/log 1024 sync 3 $W/ext4/b 0 $W/ext4/spare 0 $W/other/hung 0 3 handle_errors io_timeout 2000"
dmctl suspend --noflush m
dmctl resume m
dmctl wait --synced --timeout 100 m
wait "$fio" || { cat fio.out; fail "fio"; }
grep -q 'err= 0' fio.out || { cat fio.out; fail "fio did not run"; }
umount_fs "$W/fs"
fsck.ext4 -fn "$LOOP" >fsck.out 2>&1 || { cat fsck.out; fail "fsck"; }
detach "$LOOP"
dmctl wait --synced --timeout 60 m
cmp ext4/b ext4/spare
cmp ext4/b far

say "a leg that hangs is replaced while it does"
truncate -s $SIZE near
other message hung 0 hold 0 $SECTORS
dd if=/dev/urandom of="$MNT/m" bs=64k count=40 conv=notrunc status=none
dmctl load m --table "0 $SECTORS mirror disk 3 $W/log 1024 sync 3 $W/ext4/b 0 $W/ext4/spare 0 $W/near 0 3 handle_errors io_timeout 2000"
timeout 20 "$DMFS_BUILD/dmctl" suspend --noflush m
timeout 20 "$DMFS_BUILD/dmctl" resume m
dmctl wait --synced --timeout 60 m
dd if=/dev/urandom of="$MNT/m" bs=64k count=40 conv=notrunc status=none
cmp ext4/b near
cmp ext4/b ext4/spare
other message hung 0 release

say "a resync goes on after kill -9"
wait_until 10 dmctl remove m
dmctl create lb --table "0 $SECTORS throttle $W/ext4/spare 0 2 write_bps 8388608"
truncate -s 1M log.new
head -c 8M /dev/urandom | dd of=ext4/b conv=notrunc status=none
mv log.new log
dmctl create m --table "0 $SECTORS mirror disk 2 $W/log 1024 2 $W/ext4/b 0 lb 0"
synced() { dmctl status m | sed -E 's,.* ([0-9]+)/[0-9]+ .*,\1,'; }
enough() { [ "$(synced)" -ge 20 ]; }
wait_until 60 enough
pid=$(daemon_pid)
kill -KILL "$pid"
wait_until 20 bash -c "! kill -0 $pid"
if mounted "$MNT"; then umount -l "$MNT" || fusermount3 -uz "$MNT"; fi
start_dmfs
first=$(synced)
[ "$first" -ge 10 ] || fail "began again at $first"
dmctl message lb 0 set write_bps 0
dmctl wait --synced --timeout 60 m
cmp ext4/b ext4/spare
wait_until 10 dmctl remove m
stop_dmfs
