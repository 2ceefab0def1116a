#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Volumes on volumes, named by name, by number and by paths into the mount: never through FUSE.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires fio
start_dmfs
backing a 8M >/dev/null
backing b 8M >/dev/null
open_count() { dmctl info -c --noheadings -o open "$1"; }

say "every way to name a volume means the volume"
dmctl create base --table "0 8192 linear a 0"
ln -s mnt mount-link
ln -s "$MNT/base" file-link
ln -s file-link link-of-link
mkdir sub
for way in base mnt/base "$MNT/base" ./mnt/base sub/../mnt/base mount-link/base file-link link-of-link 253:0; do
  dmctl create up --table "0 1024 linear $way 8"
  expect "0 1024 linear base 8" dmctl table up
  expect "1 dependencies	: (253, 0)" dmctl deps up
  expect 1 open_count base
  printf '%s' "through $way" | dd of=mnt/up conv=notrunc status=none
  expect "through $way" sh -c "tail -c +4097 a | head -c $((8 + ${#way}))"
  dmctl remove up
  expect 0 open_count base
done
if mountpoint -q mnt && [ -d "/proc/$(daemon_pid)/fd" ]; then
  if find "/proc/$(daemon_pid)/fd" -lname "$MNT/*" | grep .; then fail "the daemon has its own mount open"; fi
fi
# A name that is also a file here is the volume; a path is the file.
truncate -s 1M base
dmctl create up --table "0 8 linear base 0"
expect "0 8 linear base 0" dmctl table up
dmctl remove up
dmctl create up --table "0 8 linear ./base 0"
expect "0 8 linear $W/base 0" dmctl table up
dmctl remove up
rm base

say "three levels"
printf '%s\n' "0 4096 striped 2 16 base 0 base 2048" "4096 4096 linear b 100" | dmctl create middle
dmctl create top --table "0 6000 linear mnt/middle 1000"
printf '%s\n' "0 3000 linear top 3000" "3000 3000 linear mount-link/top 0" | dmctl create roof
for name in base middle top; do
  [ "$(open_count $name)" -ge 1 ] || fail "$name is not in use"
  refused "Device or resource busy" dmctl remove $name
done
expect 0 open_count roof
grep -q middle <(dmctl ls --tree) || fail "ls --tree"
fio --output=fio.out --filename=mnt/roof --size=100% --rw=randwrite --bssplit=512/20:4k/40:20k/20:256k/20 \
  --ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --fallocate=none \
  --verify_state_save=0 --name=roof || { cat fio.out; fail "fio"; }
grep -q 'err= 0' fio.out || { cat fio.out; fail "fio"; }
# Sector 5000 of roof: 2000 of top, 3000 of middle, chunk 187 (offset 8) of two stripes: chunk 93 of
# the second one, that is sector 2048 + 93 * 16 + 8 of base and of a.
head -c 512 /dev/urandom >sector
dd if=sector of=mnt/roof bs=512 seek=5000 conv=notrunc status=none
cmp sector <(dd if=mnt/top bs=512 skip=2000 count=1 status=none) || fail "top"
cmp sector <(dd if=mnt/middle bs=512 skip=3000 count=1 status=none) || fail "middle"
cmp sector <(dd if=mnt/base bs=512 skip=3544 count=1 status=none) || fail "base"
cmp sector <(dd if=a bs=512 skip=3544 count=1 status=none) || fail "file"
dd if=/dev/urandom of=a bs=512 seek=3544 count=1 conv=notrunc status=none
cmp <(dd if=a bs=512 skip=3544 count=1 status=none) <(dd if=mnt/roof bs=512 skip=5000 count=1 status=none) || fail "down up"

say "one below is suspended: those above wait, and lose nothing"
dmctl suspend base
dd if=sector of=mnt/roof bs=512 seek=5000 count=1 conv=notrunc,fsync oflag=direct status=none &
writer=$!
PIDS+=("$writer")
wait_until 10 sh -c '[ "$("$DMFS_BUILD/dmctl" info -c --noheadings -o open roof)" = 1 ]'
cp a a2
dmctl load base --table "0 8192 linear a2 0"
kill -0 $writer || fail "written to a suspended volume"
dmctl resume base
wait $writer || fail "the writer"
cmp sector <(dd if=a2 bs=512 skip=3544 count=1 status=none) || fail "the new file"
if cmp -s sector <(dd if=a bs=512 skip=3544 count=1 status=none); then fail "the old file was written to"; fi

say "cycles"
dmctl table base >base.table
refused "cycle" dmctl load base --table "0 8 linear roof 0"
refused "cycle" dmctl load base --table "0 8192 linear mnt/base 0"
refused "cycle" dmctl load base --table "0 8192 linear file-link 0"
refused "cycle" dmctl load middle --table "0 8 linear top 0"
expect "$(cat base.table)" dmctl table base
expect "" dmctl table --inactive base
# Neither may two slots make one together.
dmctl create x --table "0 8 zero"
dmctl create y --table "0 8 linear a 0"
dmctl load x --table "0 8 linear y 0"
refused "cycle" dmctl load y --table "0 8 linear x 0"
dmctl resume x
refused "cycle" dmctl load y --table "0 8 linear x 0"
dmctl remove x y
dmctl create self --table "0 8 zero"
refused "cycle" dmctl load self --table "0 8 linear self 0"
dmctl remove self
# As deep as it goes, and no deeper; none of it is left.
refused "deep" bash -c '
  "$DMFS_BUILD/dmctl" create deep0 --table "0 8 zero" || exit
  for i in $(seq 300); do
    "$DMFS_BUILD/dmctl" create deep$i --table "0 8 linear deep$((i - 1)) 0" || exit
  done 2>&1'
last=$(find mnt -name 'deep*' | sed 's/.*deep//' | sort -n | tail -1)
[ "$last" -ge 3 ] || fail "only $last deep"
expect 4096 sh -c "cat mnt/deep$last | wc -c"
for i in $(seq "$last" -1 0); do wait_until 10 dmctl remove "deep$i"; done

say "renamed below"
dmctl rename base ground
grep -q 'striped 2 16 ground 0 ground 2048' <(dmctl table middle) || { dmctl table middle; fail "the old name in the table"; }
cmp sector <(dd if=mnt/roof bs=512 skip=5000 count=1 status=none) || fail "after the rename"
dmctl create base --table "0 8192 zero" # another one by the old name changes nothing
cmp sector <(dd if=mnt/roof bs=512 skip=5000 count=1 status=none) || fail "the old name is followed"
stop_dmfs
start_dmfs
grep -q 'striped 2 16 ground 0 ground 2048' <(dmctl table middle) || { dmctl table middle; fail "table after the restart"; }
if dmctl info | grep 'Not activated'; then fail "not activated after the restart"; fi
cmp sector <(dd if=mnt/roof bs=512 skip=5000 count=1 status=none) || fail "after the restart"

say "taken down from the top"
dmctl remove_all
expect "No devices found" dmctl ls
stop_dmfs
