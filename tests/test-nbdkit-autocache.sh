#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# autocache through the doors: what was copied once comes from the cache the second time.
. "${top_srcdir:?is set by make check}/tests/lib.sh"

# make_image FILE: data at the beginning and the end, zeroes and a hole between; not whole units.
make_image() {
  truncate -s $((9 * 1048576 + 1536)) "$1"
  head -c 3000000 /dev/urandom | dd of="$1" conv=notrunc status=none
  head -c 1000000 /dev/urandom | dd of="$1" bs=512 seek=16000 conv=notrunc status=none
  dd if=/dev/zero of="$1" bs=64k seek=60 count=20 conv=notrunc status=none
}

# told NAME SPEC: a number of the layer at the top.
told() { "$platter" info --json "$2" | jq ".. | .layers? // empty | .[0].$1" | head -n 1; }

test_nbdcopy_twice() {
  need nbdcopy libnbd-bin
  need jq jq
  export PLATTER_AUTO_CACHE_PATH=$tmp/caches
  make_image image
  start_nbdkit "autocache::file:$tmp/image"
  nbdcopy "$nbd_uri" first
  cmp first image
  nbdcopy "$nbd_uri" again
  cmp again image
  stop_nbdkit
  [[ $(told cached_bytes "autocache::file:$tmp/image") -ge 3900000 ]]
  start_nbdkit "autocache::file:$tmp/image"
  nbdcopy "$nbd_uri" second
  cmp second image
}

# Several connections at once.
test_killed() {
  need nbdcopy libnbd-bin
  export PLATTER_AUTO_CACHE_PATH=$tmp/caches
  make_image image
  for i in 1 2 3; do
    (
      start_nbdkit "autocache:k;max=4M:file:$tmp/image"
      (sleep 0.0$i; kill -KILL "$nbd_pid") &
      nbdcopy --connections=4 "$nbd_uri" "copy-$i" || true
      wait || true
      : >"$nbd_log.stopped"
    )
  done
  start_nbdkit "autocache:k;max=4M:file:$tmp/image"
  nbdcopy --connections=4 "$nbd_uri" last
  cmp last image
  stop_nbdkit
  ! compgen -G "$tmp/caches/.platter-*"
}

test_writable_form() {
  need qemu-io qemu-utils
  export PLATTER_AUTO_CACHE_PATH=$tmp/caches
  make_image image
  cp image before
  start_nbdkit "memdiff:autocache::file:$tmp/image"
  qemu-io -f raw -c 'write -P 7 4096 65536' -c 'read -P 7 4096 65536' "$nbd_uri" >out
  cat out
  ! grep -q 'verification failed' out
  stop_nbdkit
  cmp image before
  start_nbdkit "autocache::file:$tmp/image"
  qemu-io -r -f raw -c 'read -P 7 4096 65536' "$nbd_uri" >out || true
  cat out
  grep -q 'verification failed' out
}

test_errors() {
  unset PLATTER_AUTO_CACHE_PATH OPENVMM_AUTO_CACHE_PATH XDG_CACHE_HOME HOME
  fails "$platter" info autocache::null:1M 2>err
  cat err
  grep -q 'PLATTER_AUTO_CACHE_PATH' err
  grep -q 'root=PATH' err
  fails "$platter" info "autocache:;root=$tmp/r:mem:1M" 2>err
  cat err
  grep -q 'autocache:KEY:SPEC' err
  fails "$platter" info "autocache:;root=$tmp/r;max=5:null:1M" 2>err
  cat err
}

run_test "nbdcopy twice, and once more from a new server" test_nbdcopy_twice
run_test "a server killed in the middle, several times" test_killed
run_test "the writable form keeps source and cache as they are" test_writable_form
run_test "errors say what to do" test_errors
t_done
