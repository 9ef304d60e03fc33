#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A gold image behind nbdkit: the file is shortened under the server, which says so and goes on.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_plugin
need qemu-io qemu-utils

# io COMMAND...: qemu-io commands on the export; fails when one does.
io() {
  local command arguments=()
  for command in "$@"; do arguments+=(-c "$command"); done
  qemu-io -f raw "${arguments[@]}" "$nbd_uri" >out 2>&1 || { cat out; return 1; }
  cat out
  ! grep -qiE "failed|error|cannot" out
}

make_image() {
  head -c 4M /dev/zero | tr '\0' '\125' >gold.img # 0x55
}

test_shortened() {
  make_image
  start_nbdkit mmap:gold.img
  io "read -P 0x55 0 4M" "write -P 0x77 3M 64k"
  truncate -s 1000000 gold.img
  fails io "read 2M 4k"
  fails io "read 999936 512"
  grep -q "was shortened by somebody else" "$nbd_log"
  io "read -P 0x55 0 976k" "read -P 0x77 3M 64k" "write -P 0x66 2M 64k" "read -P 0x66 2M 64k"
  truncate -s 4M gold.img
  io "read -P 0x55 0 976k" "read -P 0x77 3M 64k" "read -P 0x66 2M 64k"
  [[ ! -s $nbd_log ]] || ! grep -qi "sanitizer" "$nbd_log"
}

# To the background, which forks after the image was opened.
test_background() {
  make_image
  at_exit eval '[[ ! -e pid ]] || kill "$(cat pid)"'
  (nbdkit_with_plugin -U gold.sock -P pid mmap:gold.img) </dev/null
  nbd_uri="nbd+unix:///?socket=$PWD/gold.sock"
  io "write -P 0x77 0 1M" "read -P 0x77 0 1M" "read -P 0x55 1M 3M"
  truncate -s 0 gold.img
  fails io "read 2M 4k"
  io "read -P 0x77 0 1M"
}

test_read_only_file() {
  make_image
  sum=$(sha256sum gold.img)
  chmod 0444 gold.img
  # root may write everything, unless it has given that up
  [[ $(id -u) != 0 ]] || nbdkit_prefix=(setpriv "--bounding-set=-dac_override")
  start_nbdkit mmap:gold.img
  io "write -P 0x77 0 1M" "discard 1M 1M" "write -z 2M 1M" "flush" "read -P 0x77 0 1M" "read -P 0 1M 2M"
  stop_nbdkit
  [[ $(sha256sum gold.img) = "$sum" ]]
}

run_test "a file that is shortened under the server is an error, and the server goes on" test_shortened
run_test "the same in the background" test_background
run_test "a file that may not be written is served and stays" test_read_only_file
t_done
