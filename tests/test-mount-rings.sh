#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# FUSE over io_uring: what test-mount-load.sh does through /dev/fuse, in short, and what only rings have.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/mount.sh"
switch=/sys/module/fuse/parameters/enable_uring
[[ -e $switch ]] || skip_test "this kernel has no FUSE over io_uring (Linux 6.14)"
need_mount
[[ $(cat "$switch") = Y || -w $switch ]] || skip_test "fuse.enable_uring is off, and only root may switch it on"

# mount_on_rings ARG...: as start_mount; the switch is looked at when a connection begins, until the first answer, and is then as it was.
mount_on_rings() {
  local was status=0
  was=$(cat "$switch")
  [[ $was = Y ]] || echo Y >"$switch"
  start_mount "$@" || status=$?
  "${as[@]}" stat -L "$1"/. >/dev/null || status=$?
  [[ $was = Y ]] || echo "$was" >"$switch"
  return "$status"
}

# How many threads wait at rings.
ring_threads() { cat "/proc/$mount_pid"/task/*/comm | grep -c platter-ring || true; }

test_used() {
  mkdir m
  mount_on_rings m d=mem:1M
  (($(ring_threads) >= $(nproc)))
  head -c 1M /dev/urandom >data
  cp data m/d
  cmp data m/d
  stop_mount
  mount_on_rings m d=mem:1M -o no_io_uring
  gives 0 ring_threads
  stop_mount
}

# Offered, and not wanted any more when it comes to that: the device does it.
test_switched_off_meanwhile() {
  local i off
  mkdir m
  for i in {1..9}; do
    echo Y >"$switch"
    (pause "0.0$i" && echo N >"$switch") &
    off=$!
    start_mount m d=mem:1M
    wait "$off"
    dd if=m/d of=/dev/null bs=64k status=none
    stop_mount
  done
}

random() {
  mkdir m && give_user m
  truncate -s 2M image && give_user image
  mount_on_rings m a=file:image 'b=mem:1M;block=4096' -o "$1"
  "${as[@]}" "$fsx" block=4096 operations="$operations" "${@:2}" m/a m/b
  "${as[@]}" cmp m/a a.model
  "${as[@]}" cmp m/b b.model
  stop_mount
  cmp image a.model
}

crowd() {
  mkdir m
  mount_on_rings m "d=$2" -o "$1"
  "$crowd" seconds="$seconds" "${@:3}" m/d
  stop_mount
}

# Long requests, whose data fill the payload of an entry.
test_large() {
  mkdir m
  head -c 16M /dev/urandom >data
  mount_on_rings m d=mem:16M -o direct_io
  dd if=data of=m/d bs=1M conv=notrunc,fsync status=none
  dd if=m/d bs=1M status=none | cmp - data
  dd if=m/d bs=1M iflag=direct skip=3 count=1 status=none | cmp - <(tail -c +3145729 data | head -c 1M)
  stop_mount
}

# One that takes its time does not hold up the others: together they would take over six seconds.
test_slow_disk() {
  local i begin pids=()
  mkdir m
  mount_on_rings m d=delay:400:mem:1M -o direct_io
  begin=$(date +%s%N)
  for i in {0..15}; do
    dd if=m/d of=/dev/null bs=4k skip="$i" count=1 status=none &
    pids+=($!)
  done
  wait "${pids[@]}"
  (($(date +%s%N) - begin < 4000000000))
  stop_mount
}

test_killed() {
  local reader
  mkdir m
  mount_on_rings m d=delay:20:mem:8M -o direct_io
  (while dd if=m/d of=/dev/null bs=64k status=none; do :; done) 2>/dev/null &
  reader=$!
  pause 0.2
  kill_mount
  wait_for 30 has_ended "$reader"
  "$platter" umount m
}

# While requests are under way: programs get errors, the server ends in order.
test_unmounted_in_use() {
  local reader
  mkdir m
  mount_on_rings m d=delay:20:mem:8M -o direct_io
  (exec 5<m/d && while dd bs=64k count=1 of=/dev/null status=none <&5; do :; done) 2>/dev/null &
  reader=$!
  pause 0.2
  umount -l m
  pause 0.1
  kill "$reader"
  ended_well
}

run_test "rings are used, and not with -o no_io_uring" test_used
[[ $(cat "$switch") = Y ]] || run_test "rings are switched off meanwhile" test_switched_off_meanwhile
run_test "random operations" random threads=4
run_test "random operations, -o parallel_direct_writes" random direct_io,parallel_direct_writes map=0
run_test "random operations, -o writeback" random writeback
run_user_test "random operations" random threads=32
run_test "many processes" crowd threads=32 mem:4M punch=1
run_test "many processes, -o parallel_direct_writes" crowd direct_io,parallel_direct_writes 'mem:1M;block=4096' punch=1 piece=300
run_test "many processes in a database" crowd threads=8 'sql:db;create=1M' piece=1000 processes=4
run_test "requests of a MiB" test_large
run_test "a slow disk" test_slow_disk
run_test "killed" test_killed
run_test "unmounted in use" test_unmounted_in_use
t_done
