#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Volumes come, change and go: what the mount shows at once, what open ones refuse, bad names.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires python3
start_dmfs
backing a 8M >/dev/null
backing b 8M >/dev/null
# What the mount shows: names and sizes, by readdir.
shows() { expect "$*" sh -c "ls -s --block-size=1 -U mnt >/dev/null; find mnt -mindepth 1 -printf '%f:%s\n' | sort | xargs"; }

say "created, renamed, resized, removed: seen at once"
shows ''
refused "No such file" stat mnt/v
dmctl create v --table "0 4096 linear a 0"
shows v:2097152
expect 2097152 stat -c %s mnt/v
inode=$(stat -c %i mnt/v)
exec {fd}<>mnt/v
dmctl rename v w
refused "No such file" stat mnt/v
expect "$inode" stat -c %i mnt/w
shows w:2097152
printf 'through the old descriptor' >&$fd
expect 'through the old descriptor' head -c 26 a
dmctl load w --table "0 8192 linear a 0"
expect 2097152 stat -c %s mnt/w
dmctl resume w
expect 4194304 stat -c %s mnt/w
expect 4194304 stat -Lc %s /proc/self/fd/$fd
expect 4194304 python3 -c 'import os; print(os.lseek(os.open("mnt/w", os.O_RDONLY), 0, os.SEEK_END))'
expect 4194304 python3 -c "import os; print(os.lseek($fd, 0, os.SEEK_END))"
# The new end can be written and read through the old descriptor, and nothing past it.
python3 - $fd <<'END'
import errno, os, sys
fd = int(sys.argv[1])
assert os.pwrite(fd, b'end!', 4194300) == 4
assert os.pread(fd, 100, 4194300) == b'end!'
assert os.pread(fd, 100, 4194304) == b''
assert os.pwrite(fd, b'12345678', 4194300) == 4, 'a write over the end is short'
try:
    os.pwrite(fd, b'x', 4194304)
    raise SystemExit('a write past the end was accepted')
except OSError as e:
    assert e.errno == errno.ENOSPC, e
END
expect 1234 dd if=a bs=1 skip=4194300 count=4 status=none
dmctl load w --table "0 2048 linear a 0"
dmctl resume w
shows w:1048576
expect 1048576 stat -Lc %s /proc/self/fd/$fd
expect '' dd if=mnt/w bs=512 skip=2048 count=1 status=none

say "what is open stays"
grep -q '^Open count: *1$' <(dmctl info w) || fail "open count"
refused "Device or resource busy" dmctl remove w
shows w:1048576
dmctl remove --deferred w
shows w:1048576
dmctl info w | grep -q 'DEFERRED REMOVE' || fail "no sign of the deferred removal"
python3 -c "import os; assert os.pwrite($fd, b'it still works', 0) == 14"
expect 'it still works' head -c 14 a
dmctl message w 0 @cancel_deferred_remove
exec {fd}>&-
wait_until 10 sh -c "\"$DMFS_BUILD/dmctl\" info w | grep -q '^Open count: *0$'"
shows w:1048576
exec {fd}<mnt/w
dmctl remove --deferred w
shows w:1048576
exec {fd}<&-
wait_until 10 sh -c '[ -z "$(ls mnt)" ]'
expect "No devices found" dmctl ls
refused "No such device" dmctl remove w

say "remove --force: an error table under the one who has it open"
dmctl create f --table "0 2048 linear a 0"
exec {fd}<>mnt/f
before=$(sha256sum <a)
refused "Device or resource busy" dmctl remove --force f
expect "0 2048 error " dmctl table f
refused "Input/output error" dd if=/dev/zero of=mnt/f bs=512 count=1 conv=notrunc
refused "Input/output error" head -c 512 <&$fd
expect "$before" sha256sum <a
exec {fd}>&-
wait_until 10 dmctl remove --force f
shows ''
dmctl create f --table "0 2048 linear a 0"
dmctl remove --force f
shows ''

say "remove_all leaves what is open"
for i in $(seq 20); do echo "v$i,,,rw,0 $((i * 8)) zero;"; done | tr -d '\n' >concise
dmctl create --concise "$(cat concise)"
dmctl create top --table "0 8 linear v5 0"
expect 21 sh -c 'ls mnt | wc -l'
exec {fd}<mnt/v7
dmctl remove_all 2>out || :
shows v7:28672
exec {fd}<&-
wait_until 10 sh -c "\"$DMFS_BUILD/dmctl\" remove_all; [ -z \"\$(ls mnt)\" ]"

say "a name that comes back is another volume"
dmctl create again --table "0 8 zero"
exec {fd}<mnt/again
dmctl rename again old
dmctl create again --table "0 16 zero"
shows again:8192 old:4096
expect 4096 stat -Lc %s /proc/self/fd/$fd
exec {fd}<&-
wait_until 10 dmctl remove old again
for i in $(seq 30); do # the same name and number at once, another size
  dmctl create again --table "0 $((i * 8)) zero"
  expect $((i * 4096)) stat -c %s mnt/again
  expect $((i * 4096)) sh -c 'cat mnt/again | wc -c'
  wait_until 10 dmctl remove again
  refused "No such file" stat mnt/again
done

say "the mount is not a place to make files"
dmctl create v --table "0 2048 linear b 0"
refused "not permitted" rm mnt/v
refused "not permitted" touch mnt/new
refused "not permitted" mkdir mnt/dir
refused "not permitted" mv mnt/v mnt/w
refused "not permitted" ln mnt/v mnt/w
refused "not permitted" ln -s v mnt/w
refused "not permitted" mkfifo mnt/fifo
refused "not permitted" chmod 666 mnt/v
refused "Invalid argument" truncate -s 4096 mnt/v
refused "Invalid argument" truncate -s 4M mnt/v
shows v:1048576
echo hello >mnt/v # opens with O_TRUNC
shows v:1048576
expect hello head -n 1 b
printf 'more' | dd of=mnt/v bs=1 seek=6 conv=notrunc status=none
expect 'hello more' sh -c "head -c 10 b | tr '\n' ' '"
refused "No space left" dd if=/dev/zero of=mnt/v bs=64k conv=notrunc
expect 0 sh -c 'head -c 1M b | tr -d "\0" | wc -c'

say "names that are refused"
long=$(printf 'n%.0s' $(seq 127))
dmctl create "$long" --table "0 8 zero"
shows "$long:4096" v:1048576
dmctl remove "$long"
for name in . .. control a/b /v ''; do
  if dmctl create "$name" --table "0 8 zero" 2>err; then fail "created: '$name'"; fi
  [ -s err ] || fail "refused '$name' without a word"
  if dmctl rename v "$name" 2>err; then fail "renamed to: '$name'"; fi
  [ -s err ] || fail "refused '$name' without a word"
done
if dmctl create "n$long" --table "0 8 zero" 2>err; then fail "128 bytes of name"; fi
if dmctl rename v "n$long" 2>err; then fail "renamed to 128 bytes of name"; fi
dmctl create w --table "0 8 zero"
refused "Device or resource busy" dmctl rename w v
if dmctl create v --table "0 8 zero" 2>err; then fail "two of one name"; fi
shows v:1048576 w:4096
wait_until 10 dmctl remove v w
stop_dmfs
