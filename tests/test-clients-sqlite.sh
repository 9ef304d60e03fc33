#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# sql: and sqldiff: through nbdkit, with sqlite3 beside it, and what the documentation says of the file.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need sqlite3 sqlite3
need_plugin
document=$top_srcdir/docs/formats/sqlite-layer.md

# io COMMAND...: qemu-io on what is served.
io() {
  local command args=()
  need qemu-io qemu-utils
  for command in "$@"; do args+=(-c "$command"); done
  qemu-io -f raw "${args[@]}" "$nbd_uri" >io.log 2>&1 || { cat io.log; return 1; }
  lacks "fail\|error" io.log
}

# refused SPEC: nbdkit does not start.
refused() { fails try_nbdkit "$1"; }
try_nbdkit() { (nbdkit_with_plugin -U refused.sock "$1" --run true) </dev/null; }

# lacks PATTERN FILE
lacks() { ! grep -i "$1" "$2"; }

is_sound() {
  [[ $(sqlite3 "$1" 'PRAGMA integrity_check') = ok ]]
}

test_keeps() {
  start_nbdkit "sql:disk.db;create=64M"
  io "write -P 17 1M 3M" "write -P 18 10M 5k" "write -z 2M 512k" "discard 3M 64k" flush
  stop_nbdkit
  [[ ! -e disk.db-wal && ! -e disk.db-shm ]]
  is_sound disk.db
  start_nbdkit sql:disk.db
  io "read -P 0 0 1M" "read -P 17 1M 1M" "read -P 0 2M 512k" "read -P 0 3M 64k" "read -P 18 10M 5k" "read -P 0 20M 1M"
  stop_nbdkit
}

# Without a clean end: what was flushed is in the log.
test_killed() {
  start_nbdkit "sql:disk.db;create=64M"
  io "write -P 33 1M 3M" flush
  kill -KILL "$nbd_pid"
  wait "$nbd_pid" || true
  : >"$nbd_log.stopped"
  [[ -s disk.db-wal ]]
  cp disk.db before.db
  start_nbdkit "sql:disk.db;ro"
  need qemu-io qemu-utils
  qemu-io -r -f raw -c "read -P 33 1M 3M" "$nbd_uri" | tee io.log
  lacks fail io.log
  stop_nbdkit
  cmp disk.db before.db
  start_nbdkit sql:disk.db
  io "read -P 33 1M 3M"
  stop_nbdkit
  [[ ! -e disk.db-wal ]]
  is_sound disk.db
}

test_diff() {
  head -c 8M /dev/urandom >base.img
  cp base.img base.copy
  cp base.img expected.img
  start_nbdkit "sqldiff:diff.db;create:file:base.img"
  io "write -P 1 1M 64k" "write -z 2M 64k" flush
  stop_nbdkit
  cmp base.img base.copy
  head -c 64K /dev/zero | tr '\0' '\1' | dd of=expected.img bs=64K seek=16 conv=notrunc status=none
  dd if=/dev/zero of=expected.img bs=64K seek=32 count=1 conv=notrunc status=none
  need nbdcopy libnbd-bin
  start_nbdkit "sqldiff:diff.db:file:base.img"
  nbdcopy "$nbd_uri" copy.img
  cmp copy.img expected.img
  stop_nbdkit
  is_sound diff.db
}

test_locked() {
  start_nbdkit "sql:disk.db;create=1M"
  io "write -P 1 0 4k"
  fails sqlite3 disk.db 'SELECT count(*) FROM blocks' 2>&1 | tee out
  grep -q "locked" out
  refused sql:disk.db 2>&1 | tee out
  grep -q "in use by another disk.*nbdkit" out
  refused "sql:disk.db;ro" 2>&1 | tee out
  grep -q "locked by another writer.*nbdkit" out
  stop_nbdkit
}

# sqlite3 has it open: the disk is refused, and who has it is named.
test_locked_by_sqlite() {
  local i
  start_nbdkit "sql:disk.db;create=1M"
  io "write -P 1 0 4k" flush
  stop_nbdkit
  mkfifo commands
  sqlite3 disk.db <commands >sqlite.log 2>&1 &
  exec 9>commands
  echo "BEGIN IMMEDIATE; UPDATE meta SET value=value; SELECT 'ready';" >&9
  for ((i = 0; i < 200; i++)); do
    ! grep -q ready sqlite.log || break
    pause 0.05
  done
  refused sql:disk.db 2>&1 | tee out
  grep -q "sqlite3" out
  refused "sql:disk.db;ro" 2>&1 | tee out
  grep -q "open in another process.*sqlite3" out
}

test_readers() {
  start_nbdkit "sql:disk.db;create=1M"
  io "write -P 7 0 4k" flush
  stop_nbdkit
  chmod 444 disk.db
  mkdir shelf
  mv disk.db shelf
  chmod 555 shelf
  at_exit chmod 755 "$tmp/shelf"
  # root may write everywhere, unless it has given that up
  [[ $(id -u) != 0 ]] || nbdkit_prefix=(setpriv "--bounding-set=-dac_override,-dac_read_search")
  start_nbdkit "sql:shelf/disk.db;ro"
  need qemu-io qemu-utils
  qemu-io -r -f raw -c "read -P 7 0 4k" "$nbd_uri" | tee io.log
  lacks fail io.log
  start_nbdkit "ro:sql:shelf/disk.db"
  qemu-io -r -f raw -c "read -P 7 0 4k" "$nbd_uri" | tee io.log
  lacks fail io.log
  [[ $(ls shelf) = disk.db ]]
}

test_original() {
  sqlite3 old.dbhd >/dev/null <<'END'
PRAGMA journal_mode=WAL;
CREATE TABLE sectors(sector INTEGER NOT NULL PRIMARY KEY, data BLOB);
CREATE TABLE meta(metadata TEXT NOT NULL);
INSERT INTO meta VALUES(json('{"logically_read_only":false,"sector_count":4096,"sector_size":512}'));
INSERT INTO sectors VALUES(2, CAST(replace(printf('%0512d', 0), '0', 'A') AS BLOB)), (3, NULL);
END
  start_nbdkit sql:old.dbhd
  io "read -P 0 0 1k" "read -P 65 1k 512" "read -P 0 1536 1M" "write -P 66 3k 1k" flush "read -P 66 3k 1k"
  stop_nbdkit
  is_sound old.dbhd
  [[ $(sqlite3 old.dbhd 'SELECT group_concat(sector) FROM sectors') = 2,3,6,7 ]]
}

end_trace() {
  ! kill "$1" 2>/dev/null || wait "$1" || true
}

# Flush is answered after the log was synced: between the request and the answer there is a sync.
test_flush_is_synced() {
  need strace strace
  need qemu-io qemu-utils
  [[ ! $SANITIZER_PRELOAD ]] || skip_test "a sanitizer's runtime and strace do not go together"
  strace -f -qq -o /dev/null true 2>/dev/null || skip_test "strace does not work here"
  start_nbdkit "sql:disk.db;create=1M"
  strace -f -y -e trace=fdatasync,fsync,pwrite64 -o trace -p "$nbd_pid" 2>attached &
  local tracer=$! i
  at_exit end_trace "$tracer"
  for ((i = 0; i < 200; i++)); do
    ! grep -q attached attached || break
    pause 0.05
  done
  io "write -P 1 0 4k" flush
  # what is there by the time of the answer: after the last write to the log comes a sync of it
  grep "disk.db-wal" trace | tail -1 | tee last
  end_trace "$tracer"
  grep -q "sync(.*= 0" last
}

# The queries of the page run, and give what they say.
test_document() {
  local i
  start_nbdkit "sql:disk.db;create=8M"
  io "write -P 171 1M 64k" "write -P 5 4M 2M" flush
  stop_nbdkit
  awk '/^## Reading it/ { on = 1 } /^## While/ { on = 0 } on && /^    / { print }' "$document" >queries
  grep -q SELECT queries
  sqlite3 -bail disk.db <queries | tee answers
  grep -q '^block_size|512$' answers
  grep -q '^528|2162688$' answers
  grep -q '^256|ABABABAB' answers
  [[ $(grep -c '|0$' answers) = 4224 ]] # blocks of data: 2 MiB and 64 KiB of 512 bytes
  # a whole region of data, and none that lacks a unit
  lacks '^2$' answers
  for i in meta blocks regions zero_spans; do
    sqlite3 disk.db "SELECT sql FROM sqlite_schema WHERE name='$i'" >sql
    grep -qF "$(cat sql)" "$document"
  done
}

test_no_room() {
  [[ $(id -u) = 0 ]] || skip_test "only root can mount the small file system this needs"
  need_helper nbd-client libnbd-dev
  mkdir small
  at_exit rmdir "$tmp/small"
  mount -t tmpfs -o size=12M platter-test small || skip_test "mount does not work here"
  at_exit umount "$tmp/small"
  head -c 4M /dev/zero >small/ballast
  start_nbdkit "sql:small/disk.db;create=64M"
  "$helper" "$nbd_uri" "write 0 1M 0x11" flush "write 4M 8M 0x22" "fails ENOSPC flush" "read 0 1M 0x11" "read 4M 8M 0x22"
  rm small/ballast
  mount -o remount,size=64M small
  "$helper" "$nbd_uri" flush "read 0 1M 0x11" "read 4M 8M 0x22"
  grep -qi "full\|space" "$nbd_log"
  stop_nbdkit
  is_sound small/disk.db
}

run_test "what was written is there after closing, in one file" test_keeps
run_test "what was flushed is there after a kill" test_killed
run_test "a difference leaves its base as it is" test_diff
run_test "a disk that is open is locked" test_locked
run_test "a database that sqlite3 has open is refused" test_locked_by_sqlite
run_test "read-only from a read-only folder" test_readers
run_test "OpenVMM's schema" test_original
run_test "a flush is answered after a sync" test_flush_is_synced
run_test "the queries in the documentation" test_document
run_test "a full file system loses nothing" test_no_room
t_done
