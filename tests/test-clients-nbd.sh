#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The tools of libnbd: nbdinfo, nbdcopy, nbdfuse; and through nbdfuse the tools of ext4.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_plugin
need nbdinfo libnbd-bin

random_file() { head -c "$2" /dev/urandom >"$1"; }

test_info() {
  start_nbdkit mem:1G
  nbdinfo "$nbd_uri" | tee out
  grep -q 'export-size: 1073741824 (1G)' out
  grep -q 'description: mem, 1 GiB' out
  grep -q 'is_read_only: false' out
  grep -q 'can_multi_conn: true' out
  grep -q 'can_fua: true' out
  grep -q 'contexts:' out
}

test_info_json() {
  need jq jq
  start_nbdkit mem:1G
  nbdinfo --json "$nbd_uri" | tee out
  [[ $(jq '.exports[0]."export-size"' out) = 1073741824 ]]
  [[ $(jq -c '.exports[0].contexts' out) = '["base:allocation"]' ]]
}

test_map() {
  need nbdcopy libnbd-bin
  truncate -s 4M sparse.img
  head -c 1M /dev/urandom | dd of=sparse.img bs=1M seek=1 conv=notrunc status=none
  start_nbdkit file:sparse.img
  nbdinfo --map "$nbd_uri" | tee out
  [[ $(awk '{ print $1, $2, $3 }' out | tr '\n' ';') = "0 1048576 3;1048576 1048576 0;2097152 2097152 3;" ]]
}

# What memdiff does not hold is as allocated as below it, and trimmed ranges are holes.
test_map_memdiff() {
  [[ -x $top_builddir/tests/nbd-client ]] || skip_test "there is no tests/nbd-client (apt-get install libnbd-dev)"
  truncate -s 4M sparse.img
  head -c 1M /dev/urandom | dd of=sparse.img bs=1M seek=1 conv=notrunc status=none
  start_nbdkit memdiff:file:sparse.img
  "$top_builddir/tests/nbd-client" "$nbd_uri" "write 3M 512K 0x11" "trim 1M 512K"
  nbdinfo --map "$nbd_uri" | tee out
  awk '$3 == 0 { data += $2 } $3 % 4 >= 2 { zero += $2 } END { exit !(data == 1048576 && zero == 3145728) }' out
}

test_copy() {
  need nbdcopy libnbd-bin
  random_file in.img 33554432
  start_nbdkit "$1"
  nbdcopy in.img "$nbd_uri"
  nbdcopy "$nbd_uri" out.img
  cmp in.img out.img
  nbdcopy --connections=8 --requests=64 --threads=4 "$nbd_uri" out2.img
  [[ $(sha256sum <in.img) = "$(sha256sum <out2.img)" ]]
}

test_copy_unaligned() {
  need nbdcopy libnbd-bin
  random_file in.img 1234432
  start_nbdkit mem:1234432
  nbdcopy --connections=4 --request-size=32768 in.img "$nbd_uri"
  nbdcopy "$nbd_uri" - | cmp - in.img
}

test_copy_between() {
  need nbdcopy libnbd-bin
  random_file in.img 8388608
  start_nbdkit from=ro:file:in.img to=mem:8M
  nbdcopy "nbd+unix:///from?socket=$nbd_socket" "nbd+unix:///to?socket=$nbd_socket"
  nbdcopy "nbd+unix:///to?socket=$nbd_socket" - | cmp - in.img
}

test_sparse_copy() {
  need nbdcopy libnbd-bin
  truncate -s 64M in.img
  head -c 100000 /dev/urandom | dd of=in.img bs=1M seek=32 conv=notrunc status=none
  start_nbdkit "file:disk.img;create=64M"
  nbdcopy --destination-is-zero in.img "$nbd_uri"
  nbdcopy "$nbd_uri" out.img
  cmp in.img out.img
  [[ $(du -k out.img | cut -f1) -lt 1024 ]]
  [[ $(du -k disk.img | cut -f1) -lt 1024 ]]
}

test_memdiff_base() {
  need nbdcopy libnbd-bin
  random_file base.img 16777216
  random_file new.img 16777216
  chmod 444 base.img
  before=$(sha256sum base.img; stat -c '%Y %s' base.img)
  start_nbdkit memdiff:file:base.img
  nbdcopy "$nbd_uri" - | cmp - base.img
  nbdcopy new.img "$nbd_uri"
  nbdcopy "$nbd_uri" - | cmp - new.img
  stop_nbdkit
  [[ $(sha256sum base.img; stat -c '%Y %s' base.img) = "$before" ]]
}

# mount_fuse URI FOLDER: FOLDER/nbd is the disk, until the test ends.
mount_fuse() {
  local i
  need nbdfuse libnbd-bin
  need fusermount3 fuse3
  [[ -w /dev/fuse ]] || skip_test "/dev/fuse cannot be used here"
  mkdir "$2"
  at_exit unmount_fuse "$2"
  nbdfuse "$2" "$1" >nbdfuse.log 2>&1 &
  fuse_pid=$!
  for ((i = 0; i < 200; i++)); do
    [[ ! -e $2/nbd ]] || return 0
    kill -0 "$fuse_pid" 2>/dev/null || break
    pause 0.05
  done
  cat nbdfuse.log
  grep -qE 'Operation not permitted|fusermount' nbdfuse.log && skip_test "FUSE cannot be mounted here"
  return 1
}

unmount_fuse() {
  ! mountpoint -q "$1" || fusermount3 -u "$1"
  [[ -z ${fuse_pid:-} ]] || wait "$fuse_pid" || true
}

test_ext4() {
  need mke2fs e2fsprogs
  need e2fsck e2fsprogs
  need debugfs e2fsprogs
  start_nbdkit "$1"
  mount_fuse "$nbd_uri" mnt
  mke2fs -q -F -t ext4 mnt/nbd
  random_file content 3000001
  debugfs -w -R "write content file" mnt/nbd
  unmount_fuse mnt
  mount_fuse_again
}
mount_fuse_again() {
  mount_fuse "$nbd_uri" again
  e2fsck -fn again/nbd
  debugfs -R "dump file out" again/nbd
  cmp content out
}

run_test "nbdinfo" test_info
run_test "nbdinfo --json" test_info_json
run_test "nbdinfo --map of a sparse file" test_map
run_test "nbdinfo --map of memdiff:" test_map_memdiff
run_test "nbdcopy to mem: and back" test_copy mem:32M
run_test "nbdcopy to mem: with 4096-byte blocks and back" test_copy 'mem:32M;block=4096'
run_test "nbdcopy to file: and back" test_copy 'file:disk.img;create=32M'
run_test "nbdcopy of a size that is no round number" test_copy_unaligned
run_test "nbdcopy from one export to another" test_copy_between
run_test "nbdcopy keeps a sparse disk sparse" test_sparse_copy
run_test "memdiff: leaves the file below untouched" test_memdiff_base
run_test "mke2fs and e2fsck on mem: through nbdfuse" test_ext4 mem:64M
run_test "mke2fs and e2fsck on file: through nbdfuse" test_ext4 'file:disk.img;create=64M'
t_done
