#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# QEMU reads the VHDX files that we make and write, finds nothing wrong with them, and replays logs that we leave; we read QEMU's.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_plugin
need qemu-img qemu-utils
need qemu-io qemu-utils

# some data at the beginning, over the edge of blocks, and at the end of 100 MiB
write_some() {
  qemu-io -f raw -c 'write -P 0x11 0 64k' -c 'write -P 0x22 5000k 3000k' -c 'write -P 0x33 104857088 512' \
    -c 'write -P 0x44 33554000 1024' -c 'write -z -u 6M 1M' -c 'flush' "$1" | tee io
  fails grep failed io
}

check_some() {
  qemu-io -f "$1" -r -c 'read -P 0x11 0 64k' -c 'read -P 0 64k 4936k' -c 'read -P 0x22 5000k 1144k' -c 'read -P 0 6M 1M' \
    -c 'read -P 0x22 7M 832k' -c 'read -P 0x33 104857088 512' -c 'read -P 0x44 33554000 1024' "$2" | tee io
  fails grep -i 'failed\|error' io
}

test_qemu_reads_ours() {
  start_nbdkit "vhdx:a.vhdx;create=100M;$1"
  write_some "$nbd_uri"
  check_some raw "$nbd_uri"
  stop_nbdkit
  qemu-img check -f vhdx a.vhdx
  [[ $(qemu-img info --output=json -f vhdx a.vhdx | jq '."virtual-size"') = 104857600 ]]
  check_some vhdx a.vhdx
}

test_we_read_qemu() {
  qemu-img create -f vhdx -o "$1" a.vhdx 100M
  qemu-io -f vhdx -c 'write -P 0x11 0 64k' -c 'write -P 0x22 5000k 3000k' -c 'write -P 0x33 104857088 512' \
    -c 'write -P 0x44 33554000 1024' -c 'write -z 6M 1M' a.vhdx
  start_nbdkit -r vhdx:a.vhdx
  check_some raw "$nbd_uri"
  stop_nbdkit
  start_nbdkit vhdx:a.vhdx
  check_some raw "$nbd_uri"
  qemu-io -f raw -c 'write -P 0x55 50M 1M' "$nbd_uri"
  stop_nbdkit
  qemu-img check -f vhdx a.vhdx
  check_some vhdx a.vhdx
  qemu-io -f vhdx -r -c 'read -P 0x55 50M 1M' a.vhdx | tee io
  fails grep -i 'failed\|error' io
}

# Killed after a flush: the log is not empty, and whoever opens the file next replays it.
test_killed() {
  start_nbdkit "vhdx:a.vhdx;create=100M;block=1M"
  write_some "$nbd_uri"
  kill -9 "$nbd_pid"
  wait "$nbd_pid" || true
  : >"$nbd_log.stopped"
  cp --sparse=always a.vhdx b.vhdx
  qemu-img check -r all -f vhdx a.vhdx
  check_some vhdx a.vhdx
  start_nbdkit -r vhdx:b.vhdx
  check_some raw "$nbd_uri"
  stop_nbdkit
  start_nbdkit vhdx:b.vhdx
  check_some raw "$nbd_uri"
  stop_nbdkit
  qemu-img check -f vhdx b.vhdx
}

for options in block=1M block=2M block=32M block=256M type=fixed "type=fixed;block=8M"; do
  run_test "QEMU reads ours, $options" test_qemu_reads_ours "$options"
done
for options in subformat=dynamic,block_size=1M subformat=dynamic,block_size=2M,block_state_zero=off subformat=dynamic,block_size=256M \
  subformat=fixed subformat=fixed,block_state_zero=off; do
  run_test "we read QEMU's, $options" test_we_read_qemu "$options"
done
run_test "a log that was left" test_killed
t_done
