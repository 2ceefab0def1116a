#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The daemon ends and another takes over the store: after umount, with a file missing, after kill -9.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires fio
# When it fails while the daemon is dead, its mount is there and does not answer.
trap 'status=$?; stat mnt >/dev/null 2>&1 || umount -l mnt 2>/dev/null; (exit $status); cleanup' EXIT

state() { dmctl info; dmctl table; dmctl table --inactive; dmctl deps; dmctl info -c; stat -c '%n %i %s %a' mnt/*; }
same_state() { # after WHAT
  state >"state.$1"
  diff state.before "state.$1" || fail "the state differs after $1"
}
# A zombie has ended; who reaps it may take its time.
lives() { grep -qs '^State:.[^ZX]' "/proc/$1/status"; }
killed() { # PID: and wait until it is gone
  kill -KILL "$1"
  wait_until 10 ended "$1"
}
ended() { ! lives "$1"; }
restart() { dmctl mount "$MNT" --store "$STORE"; } # over the mount that the dead one left
read_fails() { # EIO-TEXT FILE
  refused "$1" dd if="$2" of=/dev/null bs=512 count=1 iflag=direct
}

start_dmfs
for file in a b c d; do backing $file 4M >/dev/null; done
dmctl create plain -u UUID-plain --table "0 4096 linear a 0"
dmctl load plain --table "0 6144 linear b 0"
dmctl create -j 253 -m 40 readonly -r --table "0 2048 linear c 2048"
dmctl create on-top --table "0 1024 linear mnt/plain 1024
1024 512 linear mnt/plain 0"
dmctl create above --table "0 512 linear on-top 8"
dmctl create held --table "0 1024 striped 2 8 c 0 d 0"
dmctl suspend held
dmctl create no-table -n -u UUID-none
dmctl create 'odd\name' --table "0 8 zero"
head -c 2M /dev/urandom >data
dd if=data of=mnt/plain bs=64k conv=notrunc status=none
state >state.before
for words in '^plain: 0 6144 linear' '^State: *SUSPENDED$' 'READ-ONLY' '^Major, minor: *253, 40' 'UUID-none'; do
  grep -q -- "$words" state.before || { cat state.before; fail "the state does not show $words"; }
done

say "a second daemon is told who holds the store"
first=$(daemon_pid)
mkdir other
refused "pid $first" dmctl mount other --store "$STORE" --socket "$W/other.sock"
refused "pid $first" dmctl mount other --store "$W/../$(basename "$W")/dmfs.db" --socket "$W/other.sock"
if mountpoint -q other; then fail "the second daemon has mounted"; fi
expect "$first" daemon_pid
same_state second-daemon

say "umount and mount"
stop_dmfs
if mountpoint -q mnt; then fail "mounted after umount"; fi
if lives "$first"; then fail "the daemon lives after umount"; fi
start_dmfs
[ "$(daemon_pid)" != "$first" ] || fail "the same daemon"
same_state restart
cmp -n $((4096 * 512)) data mnt/plain || fail "the data differ after the restart"
cmp -n $((1024 * 512)) <(tail -c +$((1024 * 512 + 1)) data) mnt/on-top || fail "stacked data"
refused "Operation not permitted" dd if=data of=mnt/readonly bs=512 count=1 conv=notrunc
# Still held: a write waits until the resume.
dd if=data of=mnt/held bs=4k count=8 conv=notrunc oflag=direct status=none &
writer=$!
PIDS+=("$writer")
dmctl resume held
wait $writer
cmp -n 32768 data mnt/held || fail "the write that was held"
dmctl suspend held

say "a missing file keeps its volume, and stops nobody"
stop_dmfs
mv a a.gone
start_dmfs
expect "plain: 0 4096 linear $W/a 0" echo "$(dmctl table plain | sed 's/^0/plain: 0/')"
dmctl info plain >info
grep -q "^Not activated: .*$W/a.*No such file" info || { cat info; fail "no reason is shown"; }
grep -q '^UUID: UUID-plain' info || fail "uuid"
grep -q 'LIVE & INACTIVE' info || fail "the slots"
expect "0 512 linear on-top 8" dmctl table above
expect 1024 sh -c 'stat -c %s mnt/on-top | xargs -I{} expr {} / 768'
read_fails "Input/output error" mnt/plain
read_fails "Input/output error" mnt/on-top
read_fails "Input/output error" mnt/above
for name in readonly held no-table 'odd\name'; do
  if dmctl info "$name" | grep 'Not activated'; then fail "$name is not activated"; fi
done
dd if=mnt/readonly of=/dev/null bs=4k count=1 status=none
dmctl resume held
cmp -n 32768 data mnt/held || fail "others did not start"

say "the file is back: resume"
dmctl clear plain
refused "No such file" dmctl load plain --table "0 4096 linear $W/a 0"
if dmctl resume plain 2>err; then fail "resumed without the file"; fi
dmctl info plain | grep -q '^Not activated:' || fail "shown as activated without the file"
mv a.gone a
dmctl resume plain
if dmctl info plain | grep 'Not activated'; then fail "still not activated"; fi
cmp -n $((4096 * 512)) data mnt/plain || fail "the data differ after the file was back"
cmp -n $((512 * 512)) <(tail -c +$((1032 * 512 + 1)) data) mnt/above || fail "stacked data"

say "or another file: load and resume"
stop_dmfs
cp a copy
rm a
start_dmfs
dmctl info plain | grep -q '^Not activated:' || fail "shown as activated"
dmctl load plain --table "0 4096 linear copy 0"
dmctl info plain | grep -q '^Not activated:' || fail "load alone has activated it"
dmctl resume plain
if dmctl info plain | grep 'Not activated'; then fail "still not activated"; fi
cmp -n $((4096 * 512)) data mnt/plain || fail "the copy's data"
cmp -n $((1024 * 512)) <(tail -c +$((1024 * 512 + 1)) data) mnt/on-top || fail "stacked data"

say "kill -9: what was acknowledged is there"
dmctl create late --table "0 4096 linear b 0"
dmctl load late --table "0 2048 linear d 0"
dmctl rename held moved
dmctl suspend readonly
dmctl remove 'odd\name'
fio --output=fio.out --name=late --filename=mnt/late --size=2m --rw=randwrite --bs=4k --direct=1 \
  --verify=crc32c --do_verify=0 --verify_state_save=0 --fallocate=none || fail "fio"
state >state.before
pid=$(daemon_pid)
killed "$pid"
refused "not connected" stat mnt/late
restart
same_state kill
fio --output=fio.out --name=late --filename=mnt/late --size=2m --rw=randwrite --bs=4k --direct=1 \
  --verify=crc32c --verify_only=1 --fallocate=none || { cat fio.out; fail "data after kill -9"; }
cmp -n $((4096 * 512)) data mnt/plain || fail "data after kill -9"
expect 1 sh -c 'grep -c " $0 " /proc/mounts' "$W/mnt"

say "killed again and again while it is given commands"
for round in 1 2 3; do
  pid=$(daemon_pid)
  (
    for i in $(seq 1000); do
      "$DMFS_BUILD/dmctl" create "n$round-$i" --table "0 8 zero" 2>/dev/null || exit 0
      echo "n$round-$i" >>made
    done
  ) &
  loop=$!
  PIDS+=("$loop")
  wait_until 20 grep -q "^n$round-10\$" made
  killed "$pid"
  wait $loop || :
  restart
  ls mnt >names
  while read -r name; do
    grep -qx -- "$name" names || fail "$name was acknowledged and is gone"
  done <made
  # At most the one command that was under way has more.
  [ "$(grep -c "^n$round-" names)" -le $(($(grep -c "^n$round-" made) + 1)) ] || fail "too many"
done
say "a dead mount is cleared by umount too"
pid=$(daemon_pid)
killed "$pid"
stop_dmfs
if mountpoint -q mnt; then fail "mounted after umount"; fi
