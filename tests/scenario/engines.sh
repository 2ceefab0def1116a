#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every engine under fio with checksums; io_uring forbidden; backing files opened O_DIRECT.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires fio fincore python3
support=$(cd "$(dirname "$0")/../support" && pwd)

engine() { dmctl version -v | sed -n 's/^Engine: *//p'; }
load() { # fio with checksums on a volume of two files, whole pages and odd sectors
  local size
  rm -f a b
  backing a 16M >/dev/null
  backing b 9M >/dev/null
  printf '%s\n' "0 24577 linear a 3" "24577 16383 linear b 5" | dmctl create v
  for size in 512 4k 7k 256k; do
    fio --output=fio.out --name="b$size" --filename=mnt/v --rw=randwrite --bs=$size --io_size=4m \
      --blockalign=512 --serialize_overlap=1 --size=$((40960 * 512)) --iodepth=16 --ioengine=libaio --direct=1 --fdatasync=64 \
      --verify=crc32c --do_verify=1 --verify_fatal=1 --fallocate=none --randrepeat=1 2>fio.err ||
      { cat fio.out fio.err; fail "fio $size with $(engine)"; }
    grep -q 'err= 0' fio.out || fail "fio $size did not run"
  done
}
same_by_another_way() { # what the volume shows is what lies in the files
  cmp <(dd if=mnt/v bs=1M status=none) <(
    dd if=a bs=512 skip=3 count=24577 status=none
    dd if=b bs=512 skip=5 count=16383 status=none) || fail "volume and files differ with $(engine)"
}

for name in auto inline threads io_uring; do
  for direct in "" ,direct_backing; do
    say "engine=$name$direct"
    if ! start_dmfs -o "engine=$name$direct" 2>err; then
      grep -q "io_uring" err || { cat err; fail "no start"; }
      [ "$name" = io_uring ] || { cat err; fail "no start"; }
      say "not here: $(cat err)"
      continue
    fi
    engine | grep -q "^$name: " || fail "version -v: $(engine)"
    grep -qF "engine $(engine)" "$STORE.log" || fail "not in the log: $(engine)"
    load
    same_by_another_way
    wait_until 10 dmctl remove v
    stop_dmfs
  done
done

say "a start where io_uring is forbidden"
forbidden() { "$support/without_io_uring.py" "$DMFS_BUILD/dmctl" mount "$MNT" --store "$STORE" --socket "$DMFS_SOCKET" "$@"; }
refused "engine io_uring cannot be had here: io_uring_setup: Operation not permitted" forbidden -o engine=io_uring
forbidden
engine | grep -qF "threads (no io_uring: io_uring_setup: Operation not permitted)" ||
  engine | grep -qF "(no io_uring: io_uring_setup: Operation not permitted)" || fail "version -v: $(engine)"
load
same_by_another_way
wait_until 10 dmctl remove v
stop_dmfs

say "direct backing leaves nothing in the page cache"
folder=$(stat -f -c %T .)
start_dmfs -o direct_backing
rm -f a
backing a 8M >/dev/null
dmctl create v --table "0 16384 linear a 0"
fio --output=fio.out --name=fill --filename=mnt/v --rw=write --bs=64k --size=8m --direct=1 --ioengine=psync
cmp <(head -c 8M mnt/v | sha256sum) <(dd if=mnt/v bs=1M status=none | sha256sum) || fail "reads differ"
if [ "$folder" = tmpfs ]; then
  say "not looked at: tmpfs is page cache"
else
  expect 0 sh -c "fincore -n -b -o PAGES a | tr -d ' '"
fi
wait_until 10 dmctl remove v
stop_dmfs

if [ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1; then
  say "a disk with sectors of 4096 bytes"
  backing disk 16M >/dev/null
  LOOP=$(losetup -f --show -b 4096 disk)
  LOOPS+=("$LOOP")
  start_dmfs -o direct_backing
  dmctl create v --table "0 32000 linear $LOOP 3"
  for size in 512 1536 20k; do
    fio --output=fio.out --name="b$size" --filename=mnt/v --rw=randwrite --bs=$size --io_size=2m \
      --blockalign=512 --serialize_overlap=1 --size=$((32000 * 512)) --iodepth=16 --ioengine=libaio \
      --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --fallocate=none --randrepeat=1 \
      2>fio.err || { cat fio.out fio.err; fail "fio $size"; }
    grep -q 'err= 0' fio.out || fail "fio $size did not run"
  done
  cmp <(dd if=mnt/v bs=1M status=none) <(dd if="$LOOP" bs=512 skip=3 count=32000 status=none) ||
    fail "volume and disk differ"
  wait_until 10 dmctl remove v
  stop_dmfs
  detach "$LOOP"
fi

say "words that are no engine"
refused "-o engine: 'fast' is none of auto, inline, threads, io_uring" start_dmfs -o engine=fast
refused "-o direct_backing: takes no value" start_dmfs -o direct_backing=1
