#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# delay, throttle and hang on a real mount: I/O that takes its time, or as long as one likes.
. "$(dirname "$0")/lib.sh"
requires_fuse
start_dmfs
backing disk 4M >/dev/null
head -c 4M /dev/zero | tr '\0' o >disk

# one_read VOLUME [SECTOR]: 4 KiB, straight from the volume
one_read() { dd if="mnt/$1" bs=4k skip="$((${2:-0} * 512))" count=1 iflag=direct,skip_bytes status=none; }
one_write() { dd if=/dev/zero of="mnt/$1" bs=4k seek="$((${2:-0} * 512))" count=1 oflag=direct,seek_bytes conv=notrunc status=none; }
# bg_read VOLUME SECTOR OUT ERR: in the background; its process is $reader
bg_read() {
  dd if="mnt/$1" bs=4k skip="$(($2 * 512))" count=1 iflag=direct,skip_bytes status=none >"$3" 2>"$4" &
  reader=$!
  PIDS+=("$reader")
}
now_ms() { date +%s%3N; }
# takes_at_least MS COMMAND...
takes_at_least() {
  local least=$1 start took
  shift
  start=$(now_ms)
  "$@" >/dev/null || fail "$*"
  took=$(($(now_ms) - start))
  [ $took -ge "$least" ] || fail "$*: took $took ms, at least $least expected"
}
status_is() { [ "$(dmctl status "$1")" = "$2" ]; }
# ends PID: in good time, with the status of the process
ends() {
  wait_until 20 sh -c "! kill -0 $1"
  wait "$1"
}

say "delay: each kind takes its time"
dmctl create d --table "0 8192 delay disk 0 200 disk 0 300 disk 0 400"
expect "0 8192 delay $W/disk 0 200 $W/disk 0 300 $W/disk 0 400" dmctl table d
expect "0 8192 delay 0 0 0" dmctl status d
takes_at_least 200 one_read d
takes_at_least 300 one_write d
takes_at_least 400 sync mnt/d
expect "0 8192 delay 0 0 0" dmctl status d

say "delay: what waits shows, goes at a suspend, and can be killed"
dmctl reload d --table "0 8192 delay disk 0 3600000 disk 0 0"
dmctl resume d
bg_read d 0 got err
wait_until 10 status_is d "0 8192 delay 1 0 0"
dmctl why d | grep -q "  delay     read of 8 sectors at sector 0, for .*asked for by dd" || fail "$(dmctl why d)"
one_write d 8
for suspend in "suspend" "suspend --noflush"; do
  # shellcheck disable=SC2086
  timeout 20 "$DMFS_BUILD/dmctl" $suspend d || fail "$suspend waits"
  ends "$reader" || fail "the reader"
  cmp -n 4096 got disk
  dmctl resume d
  bg_read d 0 got err
  wait_until 10 status_is d "0 8192 delay 1 0 0"
done
kill -KILL "$reader"
if ends "$reader" 2>/dev/null; then fail "a killed reader has ended well"; fi
wait_until 10 status_is d "0 8192 delay 0 0 0"
dmctl remove d

say "throttle: paced, and changed by message"
dmctl create t --table "0 8192 throttle disk 0 4 write_iops 10 burst_ms 0"
dmctl create free --table "0 8192 linear disk 0"
three_writes() { one_write t && one_write t && one_write t; }
takes_at_least 200 three_writes
dmctl message t 0 set write_iops 0 read_bps 1
expect "0 8192 throttle $W/disk 0 4 read_bps 1 burst_ms 0" dmctl table t
three_writes
one_read t >/dev/null # goes, and the next one has to wait for an hour
bg_read t 16 got err
wait_until 10 sh -c '"$DMFS_BUILD/dmctl" why t | grep -q "  throttle  read of 8 sectors at sector 16,"'
wait_until 10 sh -c '"$DMFS_BUILD/dmctl" status t | grep -q "^0 8192 throttle 1 0 1 "'
one_read free >/dev/null
dmctl message t 0 set read_bps 0
ends "$reader" || fail "the reader"
refused "Unrecognised setting: 'bps'" dmctl message t 0 set bps 5
dmctl message t 0 set read_bps 1
one_read t >/dev/null
bg_read t 0 got err
wait_until 10 sh -c '"$DMFS_BUILD/dmctl" status t | grep -q "^0 8192 throttle 1 0 2 "'
timeout 20 "$DMFS_BUILD/dmctl" suspend t || fail "the suspend waits"
ends "$reader" || fail "the reader"
dmctl resume t
dmctl remove t

say "hang: hold, release, fail"
dmctl create h --table "0 8192 hang disk 0"
expect "0 8192 hang 0 0" dmctl status h
one_write h 100
dmctl message h 0 hold 96 16
expect "0 8192 hang 0 1" dmctl status h
dd if=/dev/zero of=mnt/h bs=2k seek=26 count=1 oflag=direct conv=notrunc status=none &
writer=$!
PIDS+=("$writer")
wait_until 10 status_is h "0 8192 hang 1 1"
one_read h 0 >/dev/null # its neighbours do not notice
one_read h 112 >/dev/null
kill -0 $writer || fail "the writer has ended"
dmctl message h 0 release
ends $writer || fail "the writer"
expect "0 8192 hang 0 0" dmctl status h
dmctl message h 0 hold 0 8192
bg_read h 0 got err
wait_until 10 status_is h "0 8192 hang 1 1"
dmctl message h 0 fail ENOSPC
if ends "$reader"; then fail "read what has failed"; fi
grep -q 'No space left' err || { cat err; fail "another errno"; }
refused "Invalid errno: 'EWHAT'" dmctl message h 0 fail EWHAT

say "hang: a suspend waits for what is held, and a message gets through to it"
dmctl message h 0 hold 0 8192
bg_read h 0 got err
wait_until 10 status_is h "0 8192 hang 1 1"
dmctl suspend h &
suspend=$!
PIDS+=("$suspend")
one_read free >/dev/null
kill -0 $suspend || fail "the suspend has not waited"
expect "0 8192 hang 1 1" timeout 10 "$DMFS_BUILD/dmctl" status h
timeout 10 "$DMFS_BUILD/dmctl" message h 0 release
ends $suspend || fail "the suspend"
ends "$reader" || fail "the reader"
cmp -n 4096 got disk
dmctl resume h

say "hang: a noflush suspend takes back what is held; it goes on with the next table"
dmctl message h 0 hold 0 8192
bg_read h 64 got err
wait_until 10 status_is h "0 8192 hang 1 1"
timeout 20 "$DMFS_BUILD/dmctl" suspend --noflush h || fail "the suspend waits"
expect "0 8192 hang 0 1" dmctl status h
dmctl resume h
wait_until 10 status_is h "0 8192 hang 1 1"
timeout 20 "$DMFS_BUILD/dmctl" suspend --noflush h
kill -0 "$reader" || fail "the reader has ended"
dmctl reload h --table "0 8192 linear disk 0"
dmctl resume h
ends "$reader" || fail "the reader"
cmp -n 4096 -i 0:32768 got disk

say "hang: who waits can be killed, also behind another volume"
dmctl reload h --table "0 8192 hang disk 0"
dmctl resume h
dmctl create above --table "0 8192 linear h 0"
dmctl message h 0 hold 0 8192
for volume in h above; do
  bg_read $volume 0 got err
  wait_until 10 status_is h "0 8192 hang 1 1"
  kill -KILL "$reader"
  if ends "$reader" 2>/dev/null; then fail "a killed reader has ended well"; fi
  wait_until 10 status_is h "0 8192 hang 0 1"
done
dmctl remove above

say "the daemon ends while a target holds I/O"
bg_read h 0 got err
wait_until 10 status_is h "0 8192 hang 1 1"
kill -TERM "$(daemon_pid)"
if ends "$reader"; then fail "read from a volume that hangs"; fi
wait_until 20 sh -c "! grep -qF ' $MNT ' /proc/self/mounts"
