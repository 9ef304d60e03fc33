#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A guest's kernel works on two of our disks at once, virtio-blk and NVMe, over NBD: file system, trim, sync. Then
# this machine looks at what is left.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_shared guest/run-guest
need_plugin
need nbdcopy libnbd-bin
need qemu-system-x86_64 qemu-system-x86
need depmod kmod
need cpio cpio
need xz xz-utils
need busybox busybox-static
need mkfs.ext4 e2fsprogs
need e2fsck e2fsprogs
need debugfs e2fsprogs
need blkdiscard util-linux
[[ $SANITIZERS = no ]] || skip_test "the guest would take too long with sanitizers"

# Prints, for each disk, "SUM disk" of the file written to it.
# shellcheck disable=SC2016 # the guest's shell expands it
guest_script='
  set -e
  work() {
    mkfs.ext4 -q "$1"
    mkdir -p /tmp/mnt
    mount -t ext4 "$1" /tmp/mnt
    dd if=/dev/urandom of=/tmp/mnt/file bs=1M count=16 2>/dev/null
    dd if=/dev/urandom of=/tmp/mnt/gone bs=1M count=16 2>/dev/null
    sync
    rm /tmp/mnt/gone
    sync
    fstrim -v /tmp/mnt
    sha256sum </tmp/mnt/file | sed "s| .*| $2|" >>/share/sums
    umount /tmp/mnt
    e2fsck -fn "$1"
  }
  wait-for /dev/vda
  wait-for /dev/nvme0n1
  work /dev/vda virtio
  blkdiscard -o 67108864 -l 33554432 /dev/nvme0n1
  work /dev/nvme0n1 nvme
'

boot() {
  local kernel initramfs=$tmp/guest.cpio
  kernel=$("$SHARED/guest/get-kernel") || skip_test "there is no kernel for the guest (get-kernel failed)"
  "$SHARED/guest/make-initramfs" -o "$initramfs" -k "$kernel" --9p -m virtio_pci,virtio_blk,nvme,ext4
  mkdir share
  "$SHARED/guest/run-guest" -k "$kernel" -i "$initramfs" --host-root --share "$PWD/share" -t 240 -c "$guest_script" -- \
    -drive "if=none,id=v,format=raw,discard=unmap,file=nbd+unix:///virtio?socket=$nbd_socket" \
    -device virtio-blk-pci,drive=v \
    -drive "if=none,id=n,format=raw,discard=unmap,file=nbd+unix:///nvme?socket=$nbd_socket" \
    -device nvme,serial=1,drive=n
}

# check_disk EXPORT: what the guest left there is a clean file system with the file the guest saw.
check_disk() {
  nbdcopy "nbd+unix:///$1?socket=$nbd_socket" copy.img
  e2fsck -fn copy.img
  debugfs -R "dump file out" copy.img
  grep -qx "$(sha256sum <out | cut -d ' ' -f 1) $1" share/sums
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
