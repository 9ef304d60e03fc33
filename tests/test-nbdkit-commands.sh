#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Every NBD command and flag, sent by a client made with libnbd.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
client=$top_builddir/tests/nbd-client
[[ -x $client ]] || skip_test "there is no tests/nbd-client (apt-get install libnbd-dev and configure again)"

test_advertised() {
  start_nbdkit mem:1M
  "$client" "$nbd_uri" "can read-only" "can flush" "can fua" "can trim" "can zero" "can fast-zero" \
    "can cache" "can multi-conn" "can rotational" | tee out
  [[ $(tr '\n' ' ' <out) = "read-only=0 flush=1 fua=1 trim=1 zero=1 fast-zero=1 cache=1 multi-conn=1 rotational=0 " ]]
}

test_block_size() {
  need nbdinfo libnbd-bin
  need jq jq
  start_nbdkit mem:1M
  nbdinfo --json "$nbd_uri" | tee out
  [[ $(jq '.exports[0].block_size_minimum' out) = 1 ]]
  [[ $(jq '.exports[0].block_size_preferred' out) = 4096 ]]
  [[ $(jq '.exports[0].block_size_maximum' out) = 67108864 ]]
}

# Pattern at every place where a block or page may end.
test_unaligned() {
  start_nbdkit "$1"
  "$client" "$nbd_uri" "write 0 64K 0x11" "write 1 1 0x22" "write 511 2 0x33" "write 4095 4098 0x44" \
    "write 65535 1 0x55" "write 1023 513 0x66" \
    "read 0 1 0x11" "read 1 1 0x22" "read 2 509 0x11" "read 511 2 0x33" "read 513 510 0x11" \
    "read 1023 513 0x66" "read 1536 2559 0x11" "read 4095 4098 0x44" "read 8193 57342 0x11" "read 65535 1 0x55" \
    "read 64K 64K 0"
}

test_zero() {
  start_nbdkit "$1"
  "$client" "$nbd_uri" "write 0 256K 0x77" "zero 1 3" "zero 100 10000 no-hole" "zero 65537 131071 fua" \
    "read 0 1 0x77" "read 1 3 0" "read 4 96 0x77" "read 100 10000 0" "read 10100 55437 0x77" \
    "read 65537 131071 0" "read 192K 64K 0x77"
}

test_trim_mem() {
  start_nbdkit mem:1M
  "$client" "$nbd_uri" "write 0 256K 0x77" "trim 64K 64K" "trim 128K 64K fua" \
    "read 0 64K 0x77" "read 64K 128K 0" "read 192K 64K 0x77"
}

# Of a range that does not begin and end with a block, the edges stay.
test_trim_unaligned() {
  start_nbdkit mem:1M
  "$client" "$nbd_uri" "write 0 64K 0x77" "trim 100 300" "trim 1025 2046" "read 0 512 0x77" "read 512 1024 0x77" \
    "read 3071 1000 0x77"
}

test_fast_zero_mem() {
  start_nbdkit mem:1M
  "$client" "$nbd_uri" "write 0 64K 0x77" "zero 0 32K fast" "read 0 32K 0" "read 32K 32K 0x77"
}

# An edge that would have to be written is not fast; the client hears ENOTSUP, and nothing is logged as an error.
test_fast_zero_refused() {
  start_nbdkit mem:1M
  "$client" "$nbd_uri" "write 0 64K 0x77" "fails ENOTSUP zero 1 1000 fast" "read 0 64K 0x77"
  fails grep 'error:' "$nbd_log"
}

test_flush_fua() {
  truncate -s 1M disk.img
  start_nbdkit file:disk.img
  "$client" "$nbd_uri" "write 0 4K 0x12 fua" "write 100 3 0x34 fua" "flush" "zero 8K 4K fua" "trim 16K 4K fua"
  [[ $(od -An -tx1 -j 100 -N 4 disk.img) = " 34 34 34 12" ]]
}

test_cache() {
  start_nbdkit file:disk.img\;create=1M
  "$client" "$nbd_uri" "cache 0 1M" "cache 3 5" "cache 0 64K"
}

test_status() {
  start_nbdkit mem:1M
  "$client" "$nbd_uri" "write 64K 64K 0x77" "write 512K 64K 0x77" "status 0 1M" | tee out
  [[ $(tr '\n' ';' <out) = "0 65536 hole,zero;65536 65536 data;131072 393216 hole,zero;524288 65536 data;589824 458752 hole,zero;" ]]
}

test_status_one() {
  start_nbdkit mem:1M
  "$client" "$nbd_uri" "write 64K 64K 0x77" "status 0 1M one" "status 64K 1 one" "status 100K 500K one" | tee out
  [[ $(wc -l <out) = 3 ]]
  [[ $(sed -n 1p out) = "0 65536 hole,zero" ]]
  # A single run may reach past what was asked for; it begins where the question did.
  [[ $(sed -n 2p out) = "65536 "*" data" ]]
  [[ $(sed -n 3p out) = "102400 28672 data" ]]
}

# Block status at any byte never contradicts what is read.
test_status_unaligned() {
  start_nbdkit mem:1M
  "$client" "$nbd_uri" "write 1000 1 0x77" "status 0 1M" | tee out
  awk '$3 == "data" && $1 <= 1000 && $1 + $2 > 1000 { found = 1 } END { exit !found }' out
  awk '{ if ($1 != at + 0) exit 1; at = $1 + $2 } END { exit at != 1048576 }' out
}

test_out_of_range() {
  start_nbdkit mem:1M
  "$client" "$nbd_uri" "fails EINVAL read 1M 1 0" "fails ENOSPC write 1M 1 0" "fails EINVAL read 1048575 2 0" \
    "fails ENOSPC write 1048575 2 0" "write 1048575 1 0x77" "read 1048575 1 0x77"
}

test_read_only_write() {
  start_nbdkit ro:mem:1M
  "$client" "$nbd_uri" "can read-only" "fails EPERM write 0 512 0x77" "fails EPERM trim 0 512" \
    "fails EPERM zero 0 512" "read 0 1M 0" | grep -qx read-only=1
}

test_neighbours() {
  local spec
  truncate -s 1M disk.img
  for spec in mem:1M 'mem:1M;block=4K' file:disk.img memdiff:file:disk.img; do
    start_nbdkit "$spec"
    "$top_builddir/tests/nbd-neighbours" "$nbd_uri" 5 || { echo "with $spec"; return 1; }
    stop_nbdkit
  done
}


run_test "mem: advertises all commands" test_advertised
run_test "block sizes allow any request" test_block_size
run_test "single bytes and pieces across blocks, on mem:" test_unaligned mem:1M
run_test "single bytes and pieces across blocks, on 4096-byte blocks" test_unaligned 'mem:1M;block=4096'
run_test "single bytes and pieces across blocks, on file:" test_unaligned 'file:disk.img;create=1M'
run_test "single bytes and pieces across blocks, on memdiff:" test_unaligned memdiff:mem:1M
run_test "zeroing, on mem:" test_zero mem:1M
run_test "zeroing, on 4096-byte blocks" test_zero 'mem:1M;block=4096'
run_test "zeroing, on file:" test_zero 'file:disk.img;create=1M'
run_test "zeroing, on memdiff:" test_zero memdiff:mem:1M
run_test "trim on mem: reads as zeroes" test_trim_mem
run_test "trim spares the edges that are not whole blocks" test_trim_unaligned
run_test "fast zeroing works where it is fast" test_fast_zero_mem
run_test "fast zeroing is refused with ENOTSUP where it is not" test_fast_zero_refused
run_test "flush and FUA reach a file" test_flush_fua
run_test "cache requests are accepted" test_cache
run_test "block status tells data from holes" test_status
run_test "block status with REQ_ONE gives one run" test_status_one
run_test "block status covers everything, also around single bytes" test_status_unaligned
run_test "past the end: EINVAL for reads, ENOSPC for writes" test_out_of_range
run_test "a read-only disk refuses changes with EPERM" test_read_only_write
run_test "connections that write neighbouring bytes lose nothing" test_neighbours
t_done
