#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A guest's kernel works on two of our disks at once, virtio-blk and NVMe, over NBD: file system, trim, sync. Then
# this machine looks at what is left.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/guest.sh"
need_guest
need_ext4
[[ ! ${GUEST_LONG:-} ]] || need fio fio
need_plugin
need nbdcopy libnbd-bin
need blkdiscard util-linux

# shellcheck disable=SC2154 # guest.sh sets it
guest_script=$guest_ext4$guest_verify${GUEST_LONG:+$guest_two_disks}'
  wait-for /dev/vda
  wait-for /dev/nvme0n1
  work /dev/vda virtio
  blkdiscard -o 67108864 -l 33554432 /dev/nvme0n1
  work /dev/nvme0n1 nvme
'

boot() {
  boot_guest virtio_pci,virtio_blk,nvme,ext4 "$guest_script" \
    -drive "if=none,id=v,format=raw,discard=unmap,file=nbd+unix:///virtio?socket=$nbd_socket" \
    -device virtio-blk-pci,drive=v \
    -drive "if=none,id=n,format=raw,discard=unmap,file=nbd+unix:///nvme?socket=$nbd_socket" \
    -device nvme,serial=1,drive=n
}

# check_disk EXPORT: what the guest left there.
check_disk() {
  nbdcopy "nbd+unix:///$1?socket=$nbd_socket" copy.img
  check_ext4 copy.img "$1"
}

test_guest() {
  start_nbdkit virtio=mem:192M 'nvme=file:disk.img;create=192M'
  boot
  cat share/sums
  check_disk virtio
  check_disk nvme
  # Of 192 MiB the file system and one file are left: the other one was trimmed.
  local disk
  for disk in virtio nvme; do
    nbdinfo --map --totals "nbd+unix:///$disk?socket=$nbd_socket" | tee totals
    awk '$3 == 0 { data = $1 } END { exit !(data > 16000000 && data < 25000000) }' totals
  done
}

run_test "a guest's ext4 on virtio-blk and NVMe through NBD" test_guest
t_done
