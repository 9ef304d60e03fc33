#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What cannot be served is said before nbdkit goes to the background; a full storage does not end the service.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
client=$top_builddir/tests/nbd-client
need_plugin

# refused SPEC PATTERN...: nbdkit, which would go to the background, ends with a failure and says all of it.
refused() {
  local spec=$1 pattern
  shift
  rm -f pid
  (fails daemon "$spec") >out 2>&1 || { cat out; [[ ! -e pid ]] || kill "$(cat pid)"; return 1; }
  cat out
  for pattern in "$@"; do
    grep -qiE -e "$pattern" out || { echo "'$spec': expected '$pattern'"; return 1; }
  done
}
daemon() { (nbdkit_with_plugin -U refused.sock -P pid "$1") </dev/null; }

# try_nbdkit ARG...: starts it and stops it at once, if it starts.
try_nbdkit() { (nbdkit_with_plugin -U try.sock "$@" --run true) </dev/null; }

test_missing() {
  refused file:no-such-file.img "no-such-file.img" "No such file"
  refused no-such-file.img "no-such-file.img" "No such file"
}
test_directory() {
  mkdir folder
  refused file:folder "folder" "directory"
}
test_unknown_kind() { refused mme:1G "'mme'.*did you mean 'mem'"; }
test_bad_sizes() {
  refused mem:0 "size"
  refused mem:1000 "1000" "512"
  refused mem:16E "16E"
  refused mem:9999999999999999999999 "99999"
  refused mem:1X "1X"
  refused mem:-1 "-1"
  refused mem: "size"
}
test_bad_option() { refused "mem:1M;blok=4096" "'blok'.*did you mean 'block'"; }
test_no_permission() {
  # root may read everything, unless it has given that up
  [[ $(id -u) != 0 ]] || nbdkit_prefix=(setpriv "--bounding-set=-dac_override,-dac_read_search")
  truncate -s 1M disk.img
  chmod 0 disk.img
  refused file:disk.img "disk.img" "Permission denied"
}
test_failed_start() {
  (fails try_nbdkit a="file:new.img;create=1M" b=file:missing.img) 2>&1 | tee out
  grep -q "missing.img" out
  [[ ! -e new.img ]] || { echo "what the failed start created is still there"; return 1; }
}
test_create_exists() {
  truncate -s 1M disk.img
  refused "file:disk.img;create=2M" "disk.img" "exist"
  [[ $(stat -c %s disk.img) = 1048576 ]]
}

test_second_writer() {
  truncate -s 1M disk.img
  start_nbdkit file:disk.img
  refused file:disk.img "disk.img" "locked by another writer" "nbdkit"
  refused a=disk.img "export 'a'" "locked by another writer"
  stop_nbdkit
  # Gone with the first server.
  start_nbdkit file:disk.img
}

# One server cannot be two writers either.
test_twice() {
  truncate -s 1M disk.img
  fails try_nbdkit a=file:disk.img b=file:disk.img >out 2>&1
  cat out
  grep -q "export 'b'.*locked" out
}

test_enospc() {
  [[ -x $client ]] || skip_test "there is no tests/nbd-client (apt-get install libnbd-dev and configure again)"
  [[ $(id -u) = 0 ]] || skip_test "only root can mount the small file system this needs"
  mkdir small
  at_exit rmdir "$tmp/small"
  mount -t tmpfs -o size=4M platter-test small || skip_test "mount does not work here"
  at_exit umount "$tmp/small"
  truncate -s 64M small/disk.img
  start_nbdkit file:small/disk.img
  "$client" "$nbd_uri" "write 0 1M 0x11" "fails ENOSPC write 8M 16M 0x22" "read 0 1M 0x11" "read 48M 1M 0" \
    "trim 8M 16M" "write 32M 512K 0x33" "read 32M 512K 0x33" "read 0 1M 0x11" "flush"
  cat "$nbd_log"
  grep -qi "no space left" "$nbd_log"
  stop_nbdkit
}

run_test "a missing file" test_missing
run_test "a folder" test_directory
run_test "an unknown kind, with the nearest one" test_unknown_kind
run_test "sizes that are none" test_bad_sizes
run_test "an unknown option, with the nearest one" test_bad_option
run_test "a file one may not read" test_no_permission
run_test "create= does not overwrite" test_create_exists
run_test "a start that fails leaves no created file" test_failed_start
run_test "a second writer of a file is refused" test_second_writer
run_test "two exports cannot write one file" test_twice
run_test "a full file system is an error the server lives on with" test_enospc
t_done
