#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is wrong with files: missing, short, no file, read-only, shrinking, without space.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires fio
start_dmfs
backing a 1M >/dev/null
is_fine() { # the device v has neither lost its table nor got another one
  expect "0 2048 linear $W/a 0" dmctl table v
  expect "" dmctl table --inactive v
}
refused_table() { # WORDS TABLE: by create, which leaves nothing, and by load, which changes nothing
  refused "$1" dmctl create new --table "$2"
  [ ! -e mnt/new ] || fail "a volume is left of: $2"
  refused "No such device" dmctl remove new
  refused "$1" dmctl load v --table "$2"
  is_fine
}
dmctl create v --table "0 2048 linear a 0"

say "files that will not do"
refused_table "'$W/missing': No such file" "0 8 linear missing 0"
refused_table "No such file" "0 8 linear /no/such/folder/x 0"
refused_table "Not a directory" "0 8 linear a/x 0"
backing short 512K >/dev/null
refused_table "'$W/short' too small for target: start=0, len=2048, dev_size=1024" "0 2048 linear short 0"
refused_table "too small" "0 1024 linear short 1"
refused_table "too small" "0 2048 striped 2 8 a 0 short 512"
truncate -s 0 empty
refused_table "too small" "0 8 linear empty 0"
mkdir folder
refused_table "is a directory" "0 8 linear folder 0"
refused_table "is a directory" "0 8 linear $MNT 0"
mkfifo fifo
refused_table "neither a regular file nor a block device" "0 8 linear fifo 0"
refused_table "neither a regular file nor a block device" "0 8 linear /dev/null 0"
refused_table "neither a regular file nor a block device" "0 8 linear $DMFS_SOCKET 0"
ln -s loop2 loop1
ln -s loop1 loop2
refused_table "symbolic links" "0 8 linear loop1 0"
expect 0 stat -c %s empty
[ ! -e missing ] || fail "the missing file was made"

say "read-only"
mkdir place
backing place/file 1M >/dev/null
chmod 400 place/file
if [ "$(id -u)" = 0 ]; then
  # Modes do not stop root; a read-only mount does. Here, for the daemon looks things up itself.
  mount --bind place place && mount -o remount,ro,bind place && MOUNTS+=(place) || skip "cannot make a read-only mount"
fi
refused_table "load the table read-only (-r)" "0 2048 linear place/file 0"
dmctl create ro -r --table "0 2048 linear place/file 0"
dmctl info ro | grep -q READ-ONLY || fail "info does not show it"
expect 1048576 sh -c 'cat mnt/ro | wc -c'
refused "Operation not permitted" dd if=/dev/zero of=mnt/ro bs=512 count=1 conv=notrunc
wait_until 10 dmctl remove ro
[ "$(id -u)" != 0 ] || umount_fs place

say "a file shrinks under I/O"
backing file 8M >/dev/null
dmctl create shrinks --table "0 16384 linear file 0"
if dmctl info shrinks | grep Fault; then fail "a fault before there was one"; fi
dd if=/dev/zero of=mnt/shrinks bs=1M conv=notrunc oflag=direct count=8 status=none
# Reads everywhere; writes in what will be left only, so that none can race with the truncation and
# make the file long again.
fio --output=fio.out --filename=mnt/shrinks --bs=4k --ioengine=libaio --iodepth=8 --direct=1 --time_based \
  --runtime=60 --fallocate=none --group_reporting --exitall_on_error --name=reads --size=8m --rw=randread \
  --name=writes --size=1m --rw=randwrite >/dev/null 2>&1 &
fio=$!
PIDS+=("$fio")
wait_until 10 sh -c '[ "$("$DMFS_BUILD/dmctl" info -c --noheadings -o open shrinks)" -ge 2 ]'
truncate -s 1M file
wait_until 20 sh -c "! kill -0 $fio"
if wait $fio; then cat fio.out; fail "fio has noticed nothing"; fi
grep -q 'err= 5' fio.out || { cat fio.out; fail "no EIO"; }
expect 1048576 stat -c %s file
dmctl info shrinks | grep -q "^Fault: .*$W/file: has shrunk to 2048 sectors" ||
  { dmctl info shrinks; fail "info shows no fault"; }
expect 8388608 stat -c %s mnt/shrinks
dd if=mnt/shrinks of=/dev/null bs=1M count=1 iflag=direct status=none # the part that is left
refused "Input/output error" dd if=mnt/shrinks of=/dev/null bs=4k skip=256 count=1 iflag=direct
refused "Input/output error" dd if=/dev/zero of=mnt/shrinks bs=4k seek=1000 count=1 conv=notrunc oflag=direct
expect 1048576 stat -c %s file
# v never noticed, and another table makes it good.
dd if=/dev/zero of=mnt/v bs=1M count=1 conv=notrunc oflag=direct status=none
if dmctl info v | grep Fault; then fail "the fault of another volume"; fi
backing whole 8M >/dev/null
dmctl load shrinks --table "0 16384 linear whole 0"
dmctl resume shrinks
if dmctl info shrinks | grep Fault; then fail "the fault of another file"; fi
dd if=/dev/zero of=mnt/shrinks bs=1M count=8 conv=notrunc oflag=direct status=none
wait_until 10 dmctl remove shrinks

say "a file is unlinked, and a volume keeps it"
backing gone 1M >/dev/null
dmctl create unlinked --table "0 2048 linear gone 0"
rm gone
printf 'still here' | dd of=mnt/unlinked conv=notrunc status=none
expect 'still here' head -c 10 mnt/unlinked
wait_until 10 dmctl remove unlinked

[ "$(id -u)" = 0 ] || { say "not root: no file system to fill"; stop_dmfs; exit; }
say "no space below"
mkdir tiny
mount -t tmpfs -o size=4m tmpfs tiny || skip "cannot mount a tmpfs"
MOUNTS+=(tiny)
backing tiny/file 16M >/dev/null
dmctl create thin --table "0 32768 linear tiny/file 0"
dmctl create on-thin --table "0 16384 linear thin 16384"
dd if=/dev/zero of=mnt/thin bs=64k count=16 conv=notrunc oflag=direct status=none
refused "No space left on device" dd if=/dev/zero of=mnt/thin bs=64k count=256 conv=notrunc oflag=direct
refused "No space left on device" dd if=/dev/zero of=mnt/on-thin bs=64k count=16 conv=notrunc oflag=direct
fio --output=fio.out --filename=mnt/v --size=1m --name=others --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 \
  --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --fallocate=none --verify_state_save=0 ||
  { cat fio.out; fail "others do not go on"; }
expect 65536 sh -c 'dd if=mnt/thin bs=64k count=1 status=none | wc -c'
refused "No space left on device" dd if=/dev/zero of=mnt/thin bs=64k seek=200 count=1 conv=notrunc oflag=direct
# Discarded, there is room again.
fallocate -p -o 0 -l 1M mnt/thin
dd if=/dev/zero of=mnt/thin bs=64k seek=200 count=8 conv=notrunc oflag=direct status=none
dmctl remove_all
wait_until 10 sh -c '[ -z "$(ls mnt)" ]'
umount_fs tiny
stop_dmfs
