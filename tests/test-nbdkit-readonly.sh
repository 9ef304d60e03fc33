#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# nbdkit -r opens read-only, however -r is written.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_plugin
need nbdinfo libnbd-bin

# try_nbdkit ARG...: starts it and stops it at once, if it starts.
try_nbdkit() { (nbdkit_with_plugin -U try.sock "$@" --run true) </dev/null; }

# opened_how FILE: "r" or "w", as the server has it open.
opened_how() {
  local fd flags
  for fd in /proc/"$nbd_pid"/fd/*; do
    [[ $fd -ef $1 ]] || continue
    flags=$(awk '/^flags/ { print $2 }' "/proc/$nbd_pid/fdinfo/${fd##*/}")
    case $((8#$flags & 3)) in
      0) echo r ;;
      *) echo w ;;
    esac
    return
  done
  echo "not open"
}

# opens HOW ARG...
opens() {
  local how=$1
  shift
  start_nbdkit "$@"
  [[ $(opened_how disk.img) = "$how" ]] || { echo "$*: opened $(opened_how disk.img), expected $how"; return 1; }
  stop_nbdkit
}

test_forms() {
  truncate -s 1M disk.img
  opens w file:disk.img
  opens r -r file:disk.img
  opens r --readonly file:disk.img
  opens r --read-only file:disk.img
  opens r --re file:disk.img
  opens r -vr file:disk.img
  opens r -rn file:disk.img
  opens r file:disk.img -r
  opens r -t 4 -r file:disk.img
  opens r -t4 -nr file:disk.img
}

test_not_r() {
  truncate -s 1M disk.img
  opens w -e -r file:disk.img
  opens w -err file:disk.img
  opens w --export -r file:disk.img
  opens w --export=--readonly file:disk.img
  opens w -D nbdkit.r=1 file:disk.img
  opens w disk=file:disk.img -- r=mem:1M
}

test_client_sees() {
  need jq jq
  truncate -s 1M disk.img
  start_nbdkit -r file:disk.img
  [[ $(nbdinfo --json "$nbd_uri" | jq '.exports[0].is_read_only') = true ]]
  [[ $(nbdinfo --json "$nbd_uri" | jq '.exports[0].description') = '"file, 1 MiB, read-only"' ]]
}

# A reader stands beside a writer, and many beside each other.
test_no_lock() {
  truncate -s 1M disk.img
  start_nbdkit file:disk.img
  start_nbdkit -r file:disk.img
  start_nbdkit -r file:disk.img
  [[ $(nbdinfo --size "$nbd_uri") = 1048576 ]]
}

test_file_is_read_only() {
  [[ $(id -u) = 0 ]] || {
    truncate -s 1M disk.img
    chmod 444 disk.img
    fails try_nbdkit file:disk.img >out 2>&1
    cat out
    start_nbdkit -r file:disk.img
    [[ $(nbdinfo --size "$nbd_uri") = 1048576 ]]
    return
  }
  # Nothing is read-only for root but a file system that is.
  mkdir here
  truncate -s 1M disk.img
  mount -t tmpfs -o size=2M platter-test here || skip_test "mount does not work here"
  at_exit umount "$tmp/here"
  cp --sparse=always disk.img here/
  mount -o remount,ro here
  fails try_nbdkit file:here/disk.img >out 2>&1
  cat out
  grep -q 'Read-only file system' out
  start_nbdkit -r file:here/disk.img
  [[ $(nbdinfo --size "$nbd_uri") = 1048576 ]]
  stop_nbdkit
}

test_create() {
  fails try_nbdkit -r 'file:disk.img;create=1M' >out 2>&1
  cat out
  [[ ! -e disk.img ]]
}

# nbdkit-cow-filter writes nothing to the plugin: with ro: the file need not be writable.
test_ro_beside_filter() {
  need qemu-io qemu-utils
  truncate -s 1M disk.img
  sum=$(sha256sum <disk.img)
  start_nbdkit --filter=cow ro:file:disk.img
  [[ $(opened_how disk.img) = r ]]
  qemu-io -f raw -c "write -P 0x11 0 64k" -c "read -P 0x11 0 64k" "$nbd_uri" | tee out
  fails grep failed out
  [[ $(sha256sum <disk.img) = "$sum" ]]
}

# The same options as nbdkit itself has, as far as it tells.
test_table() {
  nbdkit --short-options >short
  cat short
  local letter source=$top_srcdir/nbdkit-plugin/command-line.c
  for letter in D e g i p P t u U; do
    grep -qx -e "-$letter" short
    grep -q "short_with_argument.*$letter" "$source"
  done
  # Those without an argument, and no others.
  grep -vxE -e '-[DegipPtuU]' short | tr -d '\n' >plain
  [[ $(cat plain) = "-4-6-f-n-o-r-s-v-V" ]] || skip_test "this nbdkit has other short options: $(cat plain)"
}

run_test "-r in all its forms opens the file read-only" test_forms
run_test "what only looks like -r does not" test_not_r
run_test "clients see a read-only disk" test_client_sees
run_test "-r takes no lock" test_no_lock
run_test "-r serves a file that cannot be written" test_file_is_read_only
run_test "-r creates nothing" test_create
run_test "ro: opens a single disk read-only, under a filter too" test_ro_beside_filter
run_test "nbdkit's short options are the known ones" test_table
t_done
