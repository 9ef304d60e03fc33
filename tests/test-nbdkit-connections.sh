#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Clients that come in crowds, and clients that leave without manners.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
client=$top_builddir/tests/nbd-client
rude=$top_builddir/tests/nbd-rude
connections=$top_builddir/tests/nbd-connections
[[ -x $client ]] || skip_test "there is no tests/nbd-client (apt-get install libnbd-dev and configure again)"

# nbdkit before 1.34 itself aborts when a client leaves that several threads have answers for; with one thread it
# does not.
threads=16
version=$(nbdkit --dump-config 2>/dev/null | sed -n 's/^version_minor=//p')
((${version:-0} >= 34)) || threads=1

# count_fds: sets `now`.
count_fds() {
  local all=("/proc/$nbd_pid/fd/"*)
  now=${#all[@]}
}

# settled_fds: sets `fds`, their number once no connection is being closed any more.
settled_fds() {
  local now same=0
  fds=''
  while ((same < 6)); do
    count_fds
    [[ $now = "$fds" ]] && same=$((same + 1)) || same=0
    fds=$now
    pause 0.05
  done
}

# fds_back_to NUMBER: closing takes the server a moment.
fds_back_to() {
  local i now
  for ((i = 0; i < 200; i++)); do
    count_fds
    [[ $now != "$1" ]] || return 0
    pause 0.05
  done
  echo "nbdkit has $now descriptors open, $1 at first"
  ls -l "/proc/$nbd_pid/fd"
  return 1
}

resident_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$nbd_pid/status"; }

# The first connections are not counted: threads and buffers that stay are made then.
# test_connections IN-A-ROW AT-ONCE KIB: and the server grows by less than that.
test_connections() {
  local fds kib
  truncate -s 1M disk.img
  start_nbdkit file:disk.img
  "$connections" "$nbd_uri" 20 20
  settled_fds
  kib=$(resident_kib)
  "$connections" "$nbd_uri" "$1" "$2"
  fds_back_to "$fds"
  echo "resident before $kib KiB, after $(resident_kib) KiB"
  [[ $SANITIZERS != no ]] || (($(resident_kib) < kib + $3))
}

test_half_write() {
  local fds i
  start_nbdkit mem:64M
  "$client" "$nbd_uri" "write 0 2M 0x11"
  settled_fds
  for ((i = 0; i < 20; i++)); do "$rude" "$nbd_socket" half-write; done
  fds_back_to "$fds"
  # Nothing of a request that never came whole is written.
  "$client" "$nbd_uri" "read 0 2M 0x11"
}

# While others come and go, a client that works has its data whole.
test_beside_others() {
  local i writer
  start_nbdkit -t "$threads" mem:64M
  "$client" "$nbd_uri" "write 4M 8M 0x22" "sleep 400" "read 4M 8M 0x22" "write 12M 1M 0x33" "sleep 400" \
    "read 12M 1M 0x33" "read 4M 8M 0x22" &
  writer=$!
  for ((i = 0; i < 10; i++)); do
    for how in half-write no-reader bad-magic hello huge; do "$rude" "$nbd_socket" "$how"; done
  done
  wait "$writer"
  "$client" "$nbd_uri" "read 4M 8M 0x22" "read 12M 1M 0x33"
}

test_rude() {
  local fds i
  start_nbdkit -t "$threads" mem:64M
  "$rude" "$nbd_socket" "$1"
  settled_fds
  for ((i = 0; i < 20; i++)); do "$rude" "$nbd_socket" "$1"; done
  fds_back_to "$fds"
  "$client" "$nbd_uri" "write 0 512 0x11" "read 0 512 0x11"
}

run_test "connections in a row leave nothing behind" test_connections 800 0 8000
run_test "connections at once leave nothing behind" test_connections 0 200 20000
run_test "a client that leaves in mid-write changes nothing" test_half_write
run_test "a client that leaves without its answers harms nobody" test_rude no-reader
run_test "a request that is none harms nobody" test_rude bad-magic
run_test "leaving in mid-greeting harms nobody" test_rude hello
run_test "a request that is too large harms nobody" test_rude huge
run_test "data of others is whole beside rude clients" test_beside_others
t_done
