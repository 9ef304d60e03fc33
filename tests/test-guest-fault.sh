#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The power fails under a guest's ext4 while it is written to. Afterwards the journal makes the file system whole again,
# and every file that was synced before the cut is there.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/guest.sh"
need_guest
need_ext4
need_plugin
need nbdcopy libnbd-bin

# Files are written and synced one after the other, each noted down behind its sync, until the disk fails; others are
# written beside them and never synced.
# shellcheck disable=SC2016 # the guest's shell expands it
script='
  set -e
  wait-for /dev/vda
  mkfs.ext4 -q /dev/vda
  mkdir -p /tmp/mnt
  mount -t ext4 /dev/vda /tmp/mnt
  set +e
  n=0
  while [ $n -lt 3000 ]; do
    dd if=/dev/urandom of=/tmp/mnt/loose-$((n % 50)) bs=16k count=$((n % 7 + 1)) 2>/dev/null
    dd if=/dev/urandom of=/tmp/file bs=4k count=$((n % 9 + 1)) 2>/dev/null
    dd if=/tmp/file of=/tmp/mnt/synced-$n bs=64k conv=fsync 2>/dev/null || break
    echo "$(sha256sum </tmp/file | cut -d " " -f 1) synced-$n" >>/share/synced
    n=$((n + 1))
  done
  [ $n -lt 3000 ]
'

# cut_behind N: cuts the power once N files are synced.
cut_behind() {
  local i
  for ((i = 0; i < GUEST_SECONDS * 20; i++)); do
    if [[ -e share/synced && $(wc -l <share/synced) -ge $1 ]]; then
      echo ";power=off" >control
      return 0
    fi
    sleep 0.05
  done
}

end_job() { kill "$1" 2>/dev/null || true; }

check_synced() {
  local sum name
  while read -r sum name; do
    rm -f out
    debugfs -R "dump $name out" copy.img 2>/dev/null
    [[ $(sha256sum <out | cut -d ' ' -f 1) = "$sum" ]] || { echo "$name is not what was synced"; return 1; }
  done <share/synced
}

# test_cut FILES OPTION...
test_cut() {
  local status=0
  start_nbdkit "fault:;cache$2;control=$PWD/control:mem:64M"
  cut_behind "$1" &
  at_exit end_job $!
  boot_guest virtio_pci,virtio_blk,ext4 "$script" \
    -drive "if=none,id=v,format=raw,file=$nbd_uri" -device virtio-blk-pci,drive=v
  wait $! || true
  rm -f control.reply
  echo ";power=on" >control
  while [[ ! -s control.reply ]]; do sleep 0.05; done
  [[ $(wc -l <share/synced) -ge $1 ]]
  nbdcopy "$nbd_uri" copy.img
  e2fsck -fy copy.img || status=$?
  [[ $status -le 1 ]]
  e2fsck -fn copy.img
  check_synced
}

run_test "a power cut that loses any blocks" test_cut 20 ""
run_test "a power cut that keeps the order" test_cut 7 ";in-order"
run_test "a power cut that loses blocks of a full cache" test_cut 40 "=256K"
for files in ${GUEST_LONG:+2 90 200}; do
  run_test "a power cut behind $files files" test_cut "$files" ""
  run_test "a power cut behind $files files that keeps the order" test_cut "$files" ";in-order"
done
t_done
