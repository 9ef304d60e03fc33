#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A guest's kernel works on files of a mount, virtio-blk through the page cache and NVMe around it. Then this machine looks
# at what is left.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/mount.sh"
need_shared guest/run-guest
need qemu-system-x86_64 qemu-system-x86
need depmod kmod
need cpio cpio
need xz xz-utils
need busybox busybox-static
need mkfs.ext4 e2fsprogs
need e2fsck e2fsprogs
need debugfs e2fsprogs
[[ $SANITIZERS = no ]] || skip_test "the guest would take too long with sanitizers"
need_mount

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
  work /dev/vda cached
  work /dev/nvme0n1 direct
'

boot() {
  local kernel initramfs=$tmp/guest.cpio
  kernel=$("$SHARED/guest/get-kernel") || skip_test "there is no kernel for the guest (get-kernel failed)"
  "$SHARED/guest/make-initramfs" -o "$initramfs" -k "$kernel" --9p -m virtio_pci,virtio_blk,nvme,ext4
  mkdir share
  "$SHARED/guest/run-guest" -k "$kernel" -i "$initramfs" --host-root --share "$PWD/share" -t 240 -c "$guest_script" -- \
    -drive "if=none,id=v,format=raw,discard=unmap,file=$PWD/m/cached" \
    -device virtio-blk-pci,drive=v \
    -drive "if=none,id=n,format=raw,discard=unmap,cache=none,file=$PWD/m/direct" \
    -device nvme,serial=1,drive=n
}

# check_disk FILE: there is a clean file system with the file the guest saw, and what it trimmed is a hole.
check_disk() {
  e2fsck -fn "m/$1"
  debugfs -R "dump file out" "m/$1"
  grep -qx "$(sha256sum <out | cut -d ' ' -f 1) $1" share/sums
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
