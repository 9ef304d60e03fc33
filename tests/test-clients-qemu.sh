#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# QEMU's tools: qemu-img and qemu-io.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_plugin
need qemu-img qemu-utils
need qemu-io qemu-utils

random_file() { head -c "$2" /dev/urandom >"$1"; }

# qemu_io COMMAND...: runs them all; fails when one does, or when a pattern is not found.
qemu_io() {
  local arguments=() command
  for command in "$@"; do arguments+=(-c "$command"); done
  qemu-io -f raw -d unmap "${arguments[@]}" "$nbd_uri" >qemu-io.out 2>&1 || { cat qemu-io.out; return 1; }
  cat qemu-io.out
  ! grep -qE 'failed|error' qemu-io.out
}

test_info() {
  start_nbdkit mem:1G
  qemu-img info -f raw --output=json "$nbd_uri" | tee out
  grep -q '"virtual-size": 1073741824' out
}

test_convert_in() {
  random_file in.img 20971520
  qemu-img convert -f raw -O qcow2 in.img in.qcow2
  start_nbdkit "$1"
  qemu-img convert -n -W -f qcow2 -O raw in.qcow2 "$nbd_uri"
  qemu-img compare -f raw -F raw in.img "$nbd_uri"
}

test_convert_out() {
  random_file in.img 20971520
  start_nbdkit memdiff:file:in.img
  qemu-img convert -f raw -O qcow2 "$nbd_uri" out.qcow2
  qemu-img compare -f raw -F qcow2 in.img out.qcow2
  # And the comparison can tell.
  qemu_io "write -P 0x11 1m 512"
  fails qemu-img compare -f raw -F raw in.img "$nbd_uri"
}

test_map() {
  need jq jq
  start_nbdkit mem:64M
  qemu_io "write -P 0x11 8m 4m" "write -P 0x22 40m 1m" "discard 9m 1m"
  qemu-img map -f raw --output=json "$nbd_uri" | tee out
  [[ $(jq '[.[] | select(.data) | .length] | add' out) = 4194304 ]]
  [[ $(jq '[.[] | select(.zero) | .length] | add' out) = 62914560 ]]
  [[ $(jq '[.[] | .length] | add' out) = 67108864 ]]
}

test_patterns() {
  start_nbdkit "$1"
  qemu_io "write -P 0x01 0 1" "write -P 0x02 1 1" "write -P 0x03 511 2" "write -P 0x04 4095 4099" \
    "write -P 0x05 65535 70001" "aio_write -P 0x06 1048577 333333" "aio_write -P 0x07 2097151 3" "aio_flush" \
    "flush" "read -P 0x01 0 1" "read -P 0x02 1 1" "read -P 0 2 509" "read -P 0x03 511 2" \
    "read -P 0 513 3582" "read -P 0x04 4095 4099" "read -P 0 8194 57341" "read -P 0x05 65535 70001" \
    "read -P 0 135536 913041" "read -P 0x06 1048577 333333" "read -P 0x07 2097151 3"
}

test_zero_discard() {
  start_nbdkit "$1"
  qemu_io "write -P 0x11 0 4m" "write -z 1m 64k" "write -z -u 2m 64k" "write -z 3000001 777" "write -f -P 0x22 3m 4k" \
    "discard 1536k 64k" "read -P 0x11 0 1m" "read -P 0 1m 64k" "read -P 0 2m 64k" "read -P 0 3000001 777" \
    "read -P 0x11 3000778 1000" "read -P 0x22 3m 4k" "flush"
}

# Discarded parts of a file take no space any more.
test_discard_frees() {
  start_nbdkit 'file:disk.img;create=16M'
  qemu_io "write -P 0x11 0 16m" "flush"
  before=$(du -k disk.img | cut -f1)
  qemu_io "discard 0 8m" "flush" "read -P 0x11 8m 8m"
  after=$(du -k disk.img | cut -f1)
  echo "$before KiB before, $after KiB after"
  ((before - after >= 8000))
}

# A vectored request, more than one in flight, over a boundary of 4096-byte blocks.
test_vectors() {
  start_nbdkit "$1"
  qemu_io "writev -P 0x31 1000 512 1024 2048" "aio_write -P 0x32 20000 512 1024 512" "aio_write -P 0x33 30000 8192" \
    "aio_flush" "readv -P 0x31 1000 100 3484" "readv -P 0x32 20000 2048" "read -P 0x33 30000 8192"
}

run_test "qemu-img info" test_info
run_test "qemu-img convert to mem:, and compare" test_convert_in mem:20M
run_test "qemu-img convert to file:, and compare" test_convert_in 'file:disk.img;create=20M'
run_test "qemu-img convert from memdiff:, and compare" test_convert_out
run_test "qemu-img map tells data from zeroes" test_map
run_test "qemu-io patterns at odd offsets, mem:" test_patterns mem:8M
run_test "qemu-io patterns at odd offsets, 4096-byte blocks" test_patterns 'mem:8M;block=4096'
run_test "qemu-io patterns at odd offsets, file:" test_patterns 'file:disk.img;create=8M'
run_test "qemu-io patterns at odd offsets, memdiff:" test_patterns memdiff:mem:8M
run_test "qemu-io patterns at odd offsets, slice:" test_patterns slice:4M,8M:mem:16M
run_test "qemu-io zeroes and discards, mem:" test_zero_discard mem:8M
run_test "qemu-io zeroes and discards, file:" test_zero_discard 'file:disk.img;create=8M'
run_test "qemu-io zeroes and discards, memdiff:" test_zero_discard memdiff:mem:8M
run_test "discarding frees space of a file" test_discard_frees
run_test "vectored and overlapping requests, mem:" test_vectors mem:8M
run_test "vectored and overlapping requests, file:" test_vectors 'file:disk.img;create=8M'
t_done
