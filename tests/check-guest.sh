#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A real kernel uses our disks: it boots under QEMU (no KVM, no root needed) with a disk that QEMU reaches
# through the NBD door.
. "${top_srcdir:?is set by make check-guest}/tests/lib.sh"

# Sets `kernel` and `initramfs`, made once by the scripts of the test guest.
guest() {
  kernel=$("$SHARED/guest/get-kernel")
  initramfs=$top_builddir/tests/guest.cpio
  [[ -e $initramfs ]] || {
    "$SHARED/guest/make-initramfs" -o "$initramfs.new" -k "$kernel" --9p -m virtio_pci,sd_mod,sg,virtio_scsi,ext4
    mv "$initramfs.new" "$initramfs"
  }
}

# A file system made in the guest on our disk keeps what is written, also after unmounting and checking.
test_file_system() {
  guest
  start_nbdkit mem:256M
  # shellcheck disable=SC2016 # the guest's shell expands it
  "$SHARED/guest/run-guest" -k "$kernel" -i "$initramfs" --host-root -t 300 -c '
    set -e
    wait-for /dev/sda
    mkfs.ext4 -q /dev/sda
    mkdir -p /tmp/disk
    mount -t ext4 /dev/sda /tmp/disk
    dd if=/dev/urandom of=/tmp/disk/file bs=1M count=32 2>/dev/null
    before=$(sha256sum </tmp/disk/file)
    umount /tmp/disk
    fsck.ext4 -fn /dev/sda
    echo 3 >/proc/sys/vm/drop_caches
    mount -t ext4 /dev/sda /tmp/disk
    [ "$before" = "$(sha256sum </tmp/disk/file)" ]
    umount /tmp/disk
  ' -- -drive "if=none,id=d,format=raw,discard=unmap,file=$nbd_uri" -device virtio-scsi-pci -device scsi-hd,drive=d
}

need_shared guest/run-guest
need qemu-system-x86_64 qemu-system-x86
need depmod kmod
need cpio cpio
need xz xz-utils
need mkfs.ext4 e2fsprogs
run_test "a guest's file system lives on mem: through NBD" test_file_system
t_done
