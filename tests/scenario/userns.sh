#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All of it without privileges: as uid 65534, root only in a user namespace of its own, no loop.
. "$(dirname "$0")/lib.sh"
requires fio mkfs.ext4 e2fsck setpriv unshare
if [ "${1:-}" != inside ]; then
  requires_userns
  if [ "$(id -u)" = 0 ]; then
    # This uid may not open the machine's /dev/fuse: it gets a node of its own to see there, in a
    # mount namespace that nobody else sees.
    chmod 711 "$W"
    mkdir "$W/home" "$W/programs" "$W/dev"
    # The built programs may lie where this uid cannot go.
    cp "$DMFS_BUILD/dmctl" "$DMFS_BUILD/dmfs" "$0" "$(dirname "$0")/lib.sh" "$W/programs/"
    chown -R 65534:65534 "$W/home"
    export DMFS_BUILD=$W/programs
    # shellcheck disable=SC2016
    unshare -m --propagation private bash -c '
      mount -t tmpfs -o mode=755,dev tmpfs "$W/dev" && mknod -m 666 "$W/dev/fuse" c 10 229 &&
        mount --bind "$W/dev/fuse" /dev/fuse || exit 77
      cd "$W/home"
      export W=$W/home
      exec setpriv --reuid=65534 --regid=65534 --clear-groups unshare -Urm bash "$1" inside
    ' - "$W/programs/$(basename "$0")" && status=0 || status=$?
    [ $status != 77 ] || skip "uid 65534 cannot be given a /dev/fuse here"
    exit $status
  fi
  exec unshare -Urm bash "$0" inside
fi

requires_fuse
expect 0 id -u
if [ -e /proc/self/uid_map ]; then
  [ "$(awk '{ print $3 }' /proc/self/uid_map)" = 1 ] || fail "more than one uid: not a namespace of our own"
fi
start_dmfs
if losetup -f --show /dev/zero 2>/dev/null; then fail "this is the machine's root"; fi

say "a file system on the volume file"
sectors=$((48 * 2048))
for file in a b c; do backing $file 24M >/dev/null; done
printf '%s\n' "0 65536 striped 2 64 a 0 b 0" "65536 $((sectors - 65536)) linear c 16" | dmctl create v
expect $((sectors * 512)) stat -c %s mnt/v
mkdir tree
for i in $(seq 50); do head -c $((i * 4000)) /dev/urandom >"tree/file$i"; done
mkfs.ext4 -q -d tree mnt/v
e2fsck -fn mnt/v >fsck.out 2>&1 || { cat fsck.out; fail "e2fsck"; }
mkdir back
if command -v debugfs >/dev/null; then
  debugfs -R "dump /file50 $W/back/file50" mnt/v 2>/dev/null
  cmp tree/file50 back/file50 || fail "the file system's file"
fi

say "the table swapped below it"
cp a a2
cp b b2
cp c c2
dmctl suspend v
printf '%s\n' "0 65536 striped 2 64 a2 0 b2 0" "65536 $((sectors - 65536)) linear c2 16" | dmctl load v
dmctl resume v
e2fsck -fn mnt/v >fsck.out 2>&1 || { cat fsck.out; fail "e2fsck after the swap"; }

say "restart"
stop_dmfs
start_dmfs
e2fsck -fn mnt/v >fsck.out 2>&1 || { cat fsck.out; fail "e2fsck after the restart"; }

say "fio with checksums"
fio --output=fio.out --filename=mnt/v --verify=crc32c --do_verify=1 --verify_fatal=1 --size=100% \
  --fallocate=none --verify_state_save=0 --name=random --rw=randwrite --bs=4k --io_size=8m \
  --iodepth=32 --ioengine=libaio --direct=1 || { cat fio.out; fail "fio"; }
grep -q 'err= 0' fio.out || { cat fio.out; fail "fio did not run"; }
if e2fsck -fn mnt/v >fsck.out 2>&1; then fail "e2fsck finds nothing in what fio has overwritten"; fi

say "files of others are not opened for us"
refused "Permission denied" dmctl create x --table "0 8 linear /etc/shadow 0"
wait_until 10 dmctl remove v
stop_dmfs
if mountpoint -q mnt; then fail "mounted after umount"; fi
