#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Mirrors as on a real kernel: what they said, what they did to their legs, and their disk logs byte
# for byte.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires python3 hexdump sha256sum
golden=$(cd "$(dirname "$0")/../golden" && pwd)
mkdir bin mirror
ln -s "$DMFS_BUILD/dmctl" bin/dmsetup
truncate -s $((2048 * 512)) mirror/ram{0,1,2,3,4,5}
start_dmfs
PATH=$W/bin:$PATH python3 "$golden/replay.py" "$golden/mirror.txt" mirror "$MNT" ||
  fail "differs from the kernel"
expect "No devices found" dmctl ls
stop_dmfs
