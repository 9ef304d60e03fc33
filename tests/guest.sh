# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: BSD-3-Clause
# What tests share that boot a guest. Sourced, after tests/lib.sh.

# need_guest: skips the script where none can be booted.
need_guest() {
  need_shared guest/run-guest
  need qemu-system-x86_64 qemu-system-x86
  need depmod kmod
  need cpio cpio
  need xz xz-utils
  need busybox busybox-static
  [[ $SANITIZERS = no ]] || skip_test "the guest would take too long with sanitizers"
}

: "${GUEST_SECONDS:=1500}"

# boot_guest MODULES SCRIPT ARG... : runs SCRIPT in a guest with these kernel modules; ARG are QEMU's. What the script leaves in
# /share is in ./share then. guest_qemu is the QEMU to take, if not that of the system, guest_append what the kernel is told besides;
# GUEST_SECONDS is the longest it may take: enough for a busy machine without KVM.
boot_guest() {
  local kernel initramfs=$tmp/guest.cpio
  kernel=$("$SHARED/guest/get-kernel") || skip_test "there is no kernel for the guest (get-kernel failed)"
  "$SHARED/guest/make-initramfs" -o "$initramfs" -k "$kernel" --9p -m "$1"
  mkdir -p share
  "$SHARED/guest/run-guest" -k "$kernel" -i "$initramfs" --host-root --share "$PWD/share" -t "$GUEST_SECONDS" \
    ${guest_qemu:+--qemu "$guest_qemu"} ${guest_append:+--append "$guest_append"} -c "$2" -- "${@:3}"
}

# need_newer_qemu: sets guest_qemu to one that is a client of vfio-user.
need_newer_qemu() {
  need_shared guest/newer-qemu
  guest_qemu=$("$SHARED/guest/newer-qemu" 2>/dev/null) ||
    skip_test "there is no QEMU that is a client of vfio-user (newer-qemu failed; 10.1 or later is)"
}

# For scripts of guests: `work DEVICE NAME` makes a file system there, with one file, and another that is trimmed
# away again, and adds "SUM NAME" of the file to /share/sums.
# shellcheck disable=SC2016,SC2034 # the guest's shell expands it; for the tests
guest_ext4='
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
'

need_ext4() {
  need mkfs.ext4 e2fsprogs
  need e2fsck e2fsprogs
  need debugfs e2fsprogs
}

# check_ext4 IMAGE NAME: there is a clean file system with the file that work() made.
check_ext4() {
  e2fsck -fn "$1"
  debugfs -R "dump file out" "$1"
  grep -qx "$(sha256sum <out | cut -d ' ' -f 1) $2" share/sums
}

# For scripts of guests. verify NAME DEVICE SIZE JOBS: fio writes SIZE at random in each of JOBS parts of 16 MiB, and reads it again.
# shellcheck disable=SC2016,SC2034 # the guest's shell expands it; for the tests
guest_verify='
  set -e
  verify() {
    fio --name="$1" --filename="$2" --direct=1 --rw=randwrite --bsrange=4k-128k --size="$3" --offset_increment=16M --numjobs="$4" \
      --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --group_reporting >/tmp/fio.$1 2>&1 || { cat /tmp/fio.$1; exit 1; }
  }
  is_zero() { # DEVICE OFFSET LENGTH, whole MiB
    dd if="$1" bs=1M skip="$2" count="$3" iflag=direct 2>/dev/null | cmp -n $(($3 * 1048576)) - /dev/zero
  }
  # A command that the driver itself takes back, when it resets the controller while it looks for namespaces, has failed with -4, EINTR.
  controller_is_well() { ! dmesg | grep -iE "nvme.*(timeout|error|fail)" | grep -vE "failed [(]-4[)]|status=0xfffffffc[)]"; }
'

# In the long form of tests with two disks, before the rest: both are written to at random from four jobs at once, again and again.
# shellcheck disable=SC2016,SC2034 # the guest's shell expands it; for the tests
guest_two_disks='
  wait-for /dev/vda
  wait-for /dev/nvme0n1
  for i in $(seq 5); do
    verify v-$i /dev/vda 16M 4 &
    verify n-$i /dev/nvme0n1 16M 4
    wait $!
  done
  blkdiscard /dev/vda
  blkdiscard /dev/nvme0n1
'
