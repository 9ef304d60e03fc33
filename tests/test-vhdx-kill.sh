#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# nbdkit is killed under load, again and again on the same file: what a flush was answered for is there, for us and for QEMU.
# KILL_ROUNDS in the environment is how often (5).
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_plugin
need qemu-img qemu-utils
need qemu-io qemu-utils

# Writes pattern after pattern to blocks of 1 MiB, each with a flush, and notes those that were answered.
writer() {
  local n
  for ((n = 0; ; n++)); do
    qemu-io -f raw -c "write -P $((n % 250 + 1)) $((n % 64 * 1024 + n % 7 * 4))k 12k" -c flush "$nbd_uri" >/dev/null 2>&1 || return 0
    echo "$((n % 250 + 1)) $((n % 64 * 1024 + n % 7 * 4))" >>answered
  done
}

# Each block's last answered pattern; the next one may have got there, too.
check_answered() {
  local uri=$1 format=$2 pattern at
  local -A last=()
  while read -r pattern at; do last[$((at / 1024))]="$pattern $at"; done <answered
  for block in "${!last[@]}"; do
    [[ $block != "$(($(wc -l <answered) % 64))" ]] || continue
    read -r pattern at <<<"${last[$block]}"
    qemu-io -f "$format" -r -c "read -P $pattern ${at}k 12k" "$uri" >io 2>&1
    fails grep -i 'failed\|error' io
  done
}

test_killed_under_load() {
  local round pid
  qemu-img create -q -f vhdx -o subformat=dynamic,block_size=1M a.vhdx 64M
  for ((round = 0; round < ${KILL_ROUNDS:-5}; round++)); do
    : >answered
    start_nbdkit vhdx:a.vhdx
    writer &
    pid=$!
    pause "0.$((RANDOM % 7 + 2))"
    kill -9 "$nbd_pid"
    wait "$nbd_pid" || true
    : >"$nbd_log.stopped"
    wait "$pid"
    cp --sparse=always a.vhdx b.vhdx
    qemu-img check -q -r all -f vhdx b.vhdx
    check_answered b.vhdx vhdx
    start_nbdkit -r vhdx:a.vhdx
    check_answered "$nbd_uri" raw
    stop_nbdkit
  done
}

run_test "killed under load" test_killed_under_load
t_done
