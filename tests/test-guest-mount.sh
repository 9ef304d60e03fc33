#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A guest's kernel works on files of a mount, virtio-blk through the page cache and NVMe around it. Then this machine looks
# at what is left.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/mount.sh"
. "$top_srcdir/tests/guest.sh"
need_guest
need_ext4
[[ ! ${GUEST_LONG:-} ]] || need fio fio
need_mount

# shellcheck disable=SC2154 # guest.sh sets it
guest_script=$guest_ext4$guest_verify${GUEST_LONG:+$guest_two_disks}'
  wait-for /dev/vda
  wait-for /dev/nvme0n1
  work /dev/vda cached
  work /dev/nvme0n1 direct
'

boot() {
  boot_guest virtio_pci,virtio_blk,nvme,ext4 "$guest_script" \
    -drive "if=none,id=v,format=raw,discard=unmap,file=$PWD/m/cached" \
    -device virtio-blk-pci,drive=v \
    -drive "if=none,id=n,format=raw,discard=unmap,cache=none,file=$PWD/m/direct" \
    -device nvme,serial=1,drive=n
}

# check_disk FILE: it holds what the guest saw, and what was trimmed is a hole.
check_disk() {
  check_ext4 "m/$1" "$1"
  stat -c "%b blocks of $1" "m/$1"
  (($(stat -c %b "m/$1") * 512 < 25000000))
}

test_guest() {
  mkdir m
  start_mount m cached=mem:192M 'direct=file:disk.img;create=192M'
  boot
  cat share/sums
  check_disk cached
  check_disk direct
  stop_mount
  e2fsck -fn disk.img
}

run_test "a guest's ext4 on virtio-blk and NVMe in files of a mount" test_guest
t_done
