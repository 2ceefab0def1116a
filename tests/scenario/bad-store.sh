#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Stores that are none, or broken: refused with a sentence, and not one byte of them changed.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires python3
start_dmfs
backing a 4M >/dev/null
for i in $(seq 40); do dmctl create "v$i" -u "uuid-$i" --table "0 $((i * 8)) linear a 0"; done
dmctl load v1 --table "0 4096 linear a 0"
stop_dmfs
good=$(sha256sum <dmfs.db)

refuses() { # WORDS FILE: by mount, which leaves FILE and its neighbours as they were
  local words=$1 file=$2 before after out
  before=$(snapshot "$file")
  if out=$(dmctl mount "$MNT" --store "$file" 2>&1); then fail "$file was accepted"; fi
  grep -qE -- "$words" <<<"$out" || fail "$file: expected '$words' in: $out"
  grep -qF -- "$(basename "$file")" <<<"$out" || fail "the refusal does not name $file: $out"
  [ "$(wc -l <<<"$out")" -le 2 ] || fail "$file: more than a sentence: $out"
  after=$(snapshot "$file")
  [ "$before" = "$after" ] || fail "$file: was $before, now is $after"
  if mountpoint -q mnt; then fail "$file: mounted"; fi
  echo "   $out"
}
snapshot() { # content, size and times of a file, of what SQLite keeps beside it, or of a folder
  find "$1" "$1-wal" "$1-shm" "$1-journal" -printf '%f %s %T@ ' 2>/dev/null | sort || :
  find "$1" "$1-wal" "$1-journal" -type f -exec sha256sum {} + 2>/dev/null || :
}

size=$(stat -c %s dmfs.db)
page=$(python3 -c 'd = open("dmfs.db", "rb").read(); print(int.from_bytes(d[16:18], "big"))')
say "truncated ($size bytes, pages of $page)"
for keep in 1 15 16 99 100 1000 "$page" $((size / 2 / page * page)) $((size / 2 + 7)) $((size - page)) $((size - 1)); do
  head -c "$keep" dmfs.db >cut.db
  refuses 'not a dmfs store|damaged|truncated|broken|incomplete' cut.db
done

say "garbage"
head -c 100000 /dev/urandom >garbage.db
refuses 'not a dmfs store|not a database|no SQLite' garbage.db
echo 'root:x:0:0::/root:/bin/sh' >text.db
refuses 'not a dmfs store|not a database|no SQLite' text.db
head -c "$size" /dev/zero >zeroes.db
refuses 'not a dmfs store|not a database|no SQLite' zeroes.db
(head -c 100 dmfs.db && head -c $((size - 100)) /dev/urandom) >half.db
refuses 'not a dmfs store|damaged' half.db
cp dmfs.db hole.db # every page behind the first overwritten
dd if=/dev/urandom of=hole.db bs="$page" seek=1 count=$((size / page - 1)) conv=notrunc status=none
refuses 'damaged' hole.db

say "databases of others"
python3 - <<'END'
import shutil, sqlite3
def make(path, *statements):
    db = sqlite3.connect(path)
    for s in statements:
        db.execute(s)
    db.commit()
    db.close()
make('foreign.db', 'create table t (x)', 'insert into t values (1)')
make('wal.db', 'pragma journal_mode=wal', 'create table t (x)', 'insert into t values (1)')
make('numbered.db', 'create table devices (name)', 'pragma user_version=1')
shutil.copy('dmfs.db', 'newer.db')
make('newer.db', 'pragma user_version=999')
END
refuses 'not a dmfs store' foreign.db
refuses 'not a dmfs store' wal.db
refuses 'not a dmfs store' numbered.db
refuses '999' newer.db

say "no files"
mkdir folder.db
refuses 'directory' folder.db
mkfifo fifo.db
refuses 'not a regular file' fifo.db
ln -s nowhere/at-all.db dangling.db
if dmctl mount "$MNT" --store dangling.db 2>err; then fail "mounted"; fi
grep -q 'does not exist' err || { cat err; fail "no reason"; }
if dmctl mount "$MNT" --store none/x.db 2>err; then fail "mounted"; fi
grep -qE 'No such file|does not exist' err || { cat err; fail "no reason"; }

say "the good one is as good as it was"
expect "$good" sha256sum <dmfs.db
start_dmfs
expect 40 sh -c 'ls mnt | wc -l'
stop_dmfs
