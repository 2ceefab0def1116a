#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A volume as a raw disk of qemu: convert to and from it, patterns, discard, zeroes.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires qemu-img qemu-io
start_dmfs

backing a 20M >/dev/null
backing b 20M >/dev/null
dmctl create disk --table "0 65536 striped 2 64 a 0 b 0"
qemu-img info -f raw mnt/disk >info
grep -q '32 MiB (33554432 bytes)' info || { cat info; fail "qemu-img info"; }

say "an image goes to the volume, and comes back the same"
qemu-img create -q -f qcow2 image.qcow2 32M
head -c 5000000 /dev/urandom >random
qemu-io -f qcow2 -c 'write -q -P 0x11 0 1M' -c 'write -q -s random 3145728 5000000' \
  -c 'write -q -P 0x22 33488896 65536' image.qcow2
qemu-img convert -n -f qcow2 -O raw image.qcow2 mnt/disk
qemu-img compare -q -f qcow2 -F raw image.qcow2 mnt/disk || fail "compare after convert"
qemu-img convert -f raw -O qcow2 mnt/disk back.qcow2
qemu-img compare -q -f qcow2 -F qcow2 image.qcow2 back.qcow2 || fail "compare of the copy"
qemu-io -f qcow2 -c 'write -q -P 0x77 20M 4k' back.qcow2
if qemu-img compare -q -f qcow2 -F raw back.qcow2 mnt/disk; then fail "compare finds nothing"; fi

say "patterns through the cache and past it"
for cache in none writeback directsync; do
  qemu-io -f raw -t $cache -c 'write -P 0x33 65536 1M' -c 'write -P 0x44 1000448 4096' \
    -c 'flush' -c 'read -P 0x33 65536 934912' -c 'read -P 0x44 1000448 4096' mnt/disk >out 2>&1 ||
    { cat out; fail "qemu-io, cache $cache"; }
  if grep -i 'failed\|error' out; then fail "qemu-io, cache $cache"; fi
done
qemu-io -f raw -c 'read -P 0x55 65536 4096' mnt/disk >out 2>&1 || :
grep -q 'verification failed' out || fail "a wrong pattern was not noticed"

say "bytes that are no sectors"
qemu-io -f raw -c 'write -P 0x66 1234567 4321' -c 'read -P 0x66 1234567 4321' mnt/disk >out 2>&1
if grep -i 'failed\|error' out; then fail "unaligned"; fi

say "discard and zero writes reach the files below"
used() { stat -c %b a; }
qemu-io -f raw -c 'write -q -P 0x5a 8M 8M' -c flush mnt/disk
before=$(used)
qemu-io -f raw -d unmap -c 'discard 8M 8M' mnt/disk >out 2>&1
if grep -i 'failed\|error' out; then fail "discard"; fi
[ "$(used)" -lt "$before" ] || fail "discard freed nothing: $before blocks, then $(used)"
qemu-io -f raw -c 'write -q -P 0x5a 8M 8M' -c 'write -z 9M 1M' -c 'read -P 0 9M 1M' \
  -c 'read -P 0x5a 8M 1M' -c 'read -P 0x5a 10M 6M' mnt/disk >out 2>&1
if grep -i 'failed\|error' out; then fail "write zeroes"; fi
qemu-io -f raw -d unmap -c 'write -z -u 10M 1M' -c 'read -P 0 10M 1M' -c 'read -P 0x5a 11M 1M' \
  mnt/disk >out 2>&1
if grep -i 'failed\|error' out; then fail "write zeroes, unmap"; fi

say "a zero target is a hole"
dmctl create hole --table "0 2048 zero"
qemu-img map -f raw --output=json mnt/hole >map
grep -q '"zero": true' map || { cat map; fail "map of a zero target"; }
wait_until 10 dmctl remove disk hole
stop_dmfs
