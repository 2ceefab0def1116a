#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fio with checksums straight on volumes: block sizes, depths, several jobs, direct and buffered.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires fio
start_dmfs

backing a 24M >/dev/null
backing b 24M >/dev/null
backing c 24M >/dev/null
# 64 MiB: striped, then linear over a target border that no block size divides, then striped in
# small chunks.
printf '%s\n' "0 32768 striped 2 32 a 0 b 0" "32768 32767 linear c 8" \
  "65535 1 linear c 40960" "65536 16384 striped 2 8 a 20480 b 24576" | dmctl create v
expect $((81920 * 512)) stat -c %s mnt/v

verify() { # NAME fio options...
  local name=$1
  shift
  fio --output=fio.out --filename=mnt/v --verify=crc32c --do_verify=1 --verify_fatal=1 --size=100% \
    --randrepeat=1 --fallocate=none --name="$name" "$@" || { cat fio.out; fail "fio $name $*"; }
  grep -q 'err= 0' fio.out || { cat fio.out; fail "fio $name did not run"; }
}

for depth in 1 32; do
  say "direct, depth $depth"
  verify b512 --rw=randwrite --bs=512 --io_size=1m --iodepth=$depth --ioengine=libaio --direct=1
  verify b4k --rw=randwrite --bs=4k --io_size=8m --iodepth=$depth --ioengine=libaio --direct=1
  verify b64k --rw=randwrite --bs=64k --io_size=24m --iodepth=$depth --ioengine=libaio --direct=1
  verify b1m --rw=write --bs=1m --iodepth=$depth --ioengine=libaio --direct=1
done
say "mixed reads and writes of odd sizes"
verify mixed --rw=randrw --bssplit=512/20:1536/20:4k/20:20k/20:100k/20 --blockalign=512 --serialize_overlap=1 --io_size=8m \
  --iodepth=16 --ioengine=libaio --direct=1
say "bytes that are not sectors"
verify unaligned --rw=write --bs=1000 --io_size=400k --ioengine=psync --size=400k --offset=333
say "buffered, with syncs"
verify buffered --rw=randrw --bs=4k --io_size=8m --ioengine=psync --fsync=256
say "four jobs, each in its quarter, at once"
verify jobs --rw=randwrite --bs=4k --io_size=2m --size=10m --offset_increment=10m --numjobs=4 \
  --iodepth=16 --ioengine=libaio --direct=1
say "checked while it goes on"
verify backlog --rw=randwrite --bs=16k --io_size=8m --iodepth=64 \
  --ioengine=libaio --direct=1 --verify_backlog=64

say "the bytes are where the table says"
printf 'here is sector 40000 %.0s' $(seq 30) | head -c 512 >sector
dd if=sector of=mnt/v bs=512 seek=40000 conv=notrunc status=none
cmp sector <(dd if=c bs=512 skip=$((40000 - 32768 + 8)) count=1 status=none) || fail "linear offset"
dd if=sector of=mnt/v bs=512 seek=100 conv=notrunc status=none
# Sector 100: chunk 3 of 32 sectors, so stripe 1, its chunk 1, offset 4.
cmp sector <(dd if=b bs=512 skip=36 count=1 status=none) || fail "stripe"
wait_until 10 dmctl remove v
stop_dmfs
