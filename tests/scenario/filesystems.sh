#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Real file systems on loop devices over volumes: made, filled by fio with checksums, found clean.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires_loop
requires fio wipefs mkfs.ext4 e2fsck mkfs.xfs xfs_repair mkfs.btrfs btrfs
start_dmfs

# A linear volume over three files and a striped one over two, 360 MiB each: xfs wants 300.
sectors=$((360 * 2048))
for file in lin1 lin2 lin3; do backing $file 128M >/dev/null; done
for file in str1 str2; do backing $file 180M >/dev/null; done
third=$((120 * 2048))
printf '%s\n' "0 $third linear lin1 0" "$third $third linear lin2 2048" \
  "$((2 * third)) $third linear lin3 16384" | dmctl create lin
dmctl create str --table "0 $sectors striped 2 128 str1 0 str2 0"
expect $((sectors * 512)) stat -c %s mnt/lin
expect $((sectors * 512)) stat -c %s mnt/str

exercise() { # VOLUME TYPE CHECK...
  local volume=$1 type=$2
  shift 2
  say "$type on $volume"
  attach "$volume" --direct-io=on
  wipefs -qa "$LOOP" # what the last one left would make mkfs ask, or refuse
  "mkfs.$type" -q "$LOOP" || fail "mkfs.$type on $volume"
  mount_fs "$LOOP" fs
  # Checksums at several block sizes and depths, then all of it again after the caches are gone.
  fio --output=fio.out --name=global --directory=fs --verify=crc32c --do_verify=1 --size=8m \
    --direct=1 --ioengine=libaio --end_fsync=1 --fallocate=none \
    --name=small --bs=4k --iodepth=32 --rw=randwrite \
    --name=odd --bs=12k --iodepth=4 --rw=randwrite \
    --name=large --bs=1m --iodepth=8 --rw=write \
    --name=buffered --bs=16k --rw=randrw --direct=0 --ioengine=psync ||
    { cat fio.out; fail "fio on $type on $volume"; }
  head -c 3000000 /dev/urandom >fs/tree
  sha256sum <fs/tree >sum
  umount_fs fs
  "$@" "$LOOP" >fsck.out 2>&1 || { cat fsck.out; fail "$type on $volume is not clean"; }
  detach "$LOOP"
  # What was written lies in the volume, not in the loop device's caches.
  attach "$volume" --direct-io=on --read-only
  mkdir -p fs
  mount -o ro "$LOOP" fs
  MOUNTS+=(fs)
  expect "$(cat sum)" sha256sum <fs/tree
  umount_fs fs
  detach "$LOOP"
}

exercise lin ext4 e2fsck -fn
exercise str ext4 e2fsck -fn
exercise str xfs xfs_repair -n
exercise lin xfs xfs_repair -n
exercise lin btrfs btrfs check --force
exercise str btrfs btrfs check --force

say "all volumes closed"
wait_until 10 dmctl remove lin
wait_until 10 dmctl remove str
stop_dmfs
