#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One volume is suspended with a thousand requests held; its neighbour and dmctl do not notice.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires fio
start_dmfs
backing a 64M >/dev/null
backing b 64M >/dev/null
dmctl create held --table "0 131072 linear a 0"
dmctl create free --table "0 131072 linear b 0"
FIO=(--name=global --size=4m --offset_increment=4m --numjobs=4 --bs=4k
  --rw=randwrite --ioengine=libaio --iodepth=256 --direct=1 --verify=crc32c --randrepeat=1
  --fallocate=none --verify_state_save=0)

# Suspended before the writers come, so that every one of their queues fills up.
dmctl suspend held
before=$(sha256sum <a)
fio --output=held.out "${FIO[@]}" --filename=mnt/held --do_verify=0 --name=held &
writers=$!
PIDS+=("$writers")
readers=()
for i in $(seq 30); do
  dd if=mnt/held of="read.$i" bs=64k count=1 skip="$i" status=none &
  readers+=($!)
done
PIDS+=("${readers[@]}")
# All of them wait: 1024 asynchronous requests and the readers.
waiting() { [ "$(cat /sys/fs/fuse/connections/"$connection"/waiting)" -ge 1000 ]; }
if mountpoint -q /sys/fs/fuse/connections; then
  connection=$(mountpoint -d mnt | cut -d: -f2)
  wait_until 20 waiting
else
  # As many requests as fio has queued are seen by its own files under /proc only; it is enough
  # that its jobs have the volume open: 4 jobs, perhaps their parent, and 30 readers.
  wait_until 20 sh -c '[ "$("$DMFS_BUILD/dmctl" info -c --noheadings -o open held)" -ge 34 ]'
fi

say "dmctl and a neighbour's I/O go on"
for i in $(seq 10); do
  timeout 5 "$DMFS_BUILD/dmctl" info held >/dev/null || fail "dmctl info hangs"
  timeout 5 "$DMFS_BUILD/dmctl" create "n$i" --table "0 8 zero" || fail "dmctl create hangs"
  timeout 5 ls -l mnt >/dev/null || fail "ls hangs"
  timeout 5 stat mnt/held >/dev/null || fail "stat hangs"
done
timeout -k 5 20 fio --output=free.out "${FIO[@]}" --filename=mnt/free --do_verify=1 --verify_fatal=1 \
  --name=free || { cat free.out; fail "the neighbour's fio"; }
[ "$(grep -c 'err= 0' free.out)" = 4 ] || { cat free.out; fail "the neighbour's fio"; }
for p in $writers "${readers[@]}"; do kill -0 "$p" 2>/dev/null || fail "one that should wait has ended"; done
expect "$before" sha256sum <a

say "who waits can be killed"
dd if=/dev/zero of=mnt/held bs=1M count=1 seek=63 conv=notrunc oflag=direct status=none &
victim=$!
PIDS+=("$victim")
wait_until 10 grep -q '^State:.[SD]' /proc/$victim/status
for p in $victim "${readers[0]}" "${readers[1]}"; do kill -KILL "$p"; done
end=$((SECONDS + 5))
for p in $victim "${readers[0]}" "${readers[1]}"; do
  if wait "$p" 2>/dev/null; then fail "a killed one has ended well"; fi
done
[ $SECONDS -le $end ] || fail "the killed ones took $((SECONDS - end + 5)) seconds"
expect "$before" sha256sum <a

say "resumed: every one of them completes"
dmctl resume held
wait_until 30 sh -c "! kill -0 $writers"
wait $writers || { cat held.out; fail "the writers"; }
[ "$(grep -c 'err= 0' held.out)" = 4 ] || { cat held.out; fail "the writers"; }
for p in "${readers[@]:2}"; do wait "$p" || fail "a reader"; done
for i in $(seq 3 30); do expect 65536 stat -c %s "read.$i"; done
fio --output=verify.out "${FIO[@]}" --filename=mnt/held --verify_only=1 --verify_fatal=1 --name=held ||
  { cat verify.out; fail "what was held and then written"; }
[ "$(grep -c 'err= 0' verify.out)" = 4 ] || { cat verify.out; fail "the verify"; }

say "held again, and removed by force: all of them end"
dmctl suspend held
dd if=mnt/held of=/dev/null bs=4k count=1 iflag=direct status=none 2>err &
reader=$!
PIDS+=("$reader")
wait_until 10 sh -c '[ "$("$DMFS_BUILD/dmctl" info -c --noheadings -o open held)" = 1 ]'
# Busy, unless the reader has ended by the time that it is asked for.
dmctl remove --force held 2>/dev/null || :
if wait $reader; then fail "read from an error table"; fi
grep -q 'Input/output error' err || { cat err; fail "no EIO"; }
gone() { dmctl remove --force held || ! dmctl info held; }
wait_until 10 gone
[ ! -e mnt/held ] || fail "still there"
for i in $(seq 10); do dmctl remove "n$i"; done
wait_until 10 dmctl remove free
stop_dmfs
