#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A PC boots from our NVMe controller: SeaBIOS finds it, loads the boot sector from it, and reads and writes blocks for that. It cuts and joins
# RAM with its queues at work. And a kernel takes the controller over as SeaBIOS leaves it.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/guest.sh"
. "$top_srcdir/tests/guest-nvme.sh"
need_device
need as binutils
need ld binutils

runs=128 # of 64 blocks each

# make_disk: a disk of 16 MiB with one partition, tests/guest-boot.S in front of it and a text behind that. What the blocks that it reads sum
# up to is in its end.
make_disk() {
  as --32 -o boot.o "$top_srcdir/tests/guest-boot.S"
  ld -m elf_i386 -Ttext 0x7c00 -e start --oformat binary -o boot.bin boot.o
  text="block $RANDOM-$RANDOM of the disk"
  python3 - "$runs" "$text" <<'EOF'
import array, os, struct, sys
runs, text = int(sys.argv[1]), sys.argv[2].encode() + b"\n\0"
data = os.urandom(runs * 64 * 512)
boot = bytearray(open("boot.bin", "rb").read())
struct.pack_into("<III", boot, 432, runs, sum(array.array("I", data)) & 0xffffffff, 0x4711)
struct.pack_into("<8BII", boot, 446, 0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, 32767)
disk = boot + text.ljust(512, b"\0") + bytes(62 * 512) + data
open("disk.img", "wb").write(disk.ljust(16 << 20, b"\0"))
EOF
}

# firmware ARG...: a machine with nothing but SeaBIOS, the device and a serial port, whose output is in ./said.
firmware() {
  local status=0
  # shellcheck disable=SC2154 # guest.sh sets it
  timeout -k 5 60 "$guest_qemu" -accel tcg -M "${machine:-q35},memory-backend=ram" -m 128 \
    -object memory-backend-memfd,id=ram,size=128M,share=on -nodefaults -no-user-config -display none -no-reboot \
    -serial file:said -device isa-debug-exit,iobase=0xf4,iosize=1 \
    -device "{\"driver\":\"vfio-user-pci\",\"bootindex\":0,\"socket\":{\"type\":\"unix\",\"path\":\"$PWD/s\"}}" "$@" || status=$?
  cat said
  [[ $status = 3 ]] || { echo "the machine ended with $status"; return 1; }
}

# test_boot OPTION...: the device's.
test_boot() {
  make_disk
  start_device "$@" file:disk.img
  firmware
  stop_device
  grep -q "^$text" said
  grep -q '^sum is right' said
  [[ $(dd if=disk.img bs=512 skip=63 count=1 status=none | tr -d '\0') = "$text" ]]
}

test_other_machine() { machine=pc test_boot "$@"; }

# shellcheck disable=SC2016 # the guest's shell expands it
script=$guest_ext4$guest_verify'
  wait-for /dev/nvme0n1
  work /dev/nvme0n1 kernel
  verify kernel /dev/nvme0n2 2M 2
  controller_is_well
'

test_kernel() {
  truncate -s 192M disk.img
  mkdir share
  start_device "$@" file:disk.img mem:64M
  boot "$script" -bios bios-256k.bin
  stop_device
  check_ext4 disk.img kernel
}

run_test "SeaBIOS boots from a disk" test_boot
run_test "... whose doorbells are polled" test_boot --doorbells poll --threads 2
run_test "... on another machine, with small transfers" test_other_machine --mdts 3
run_test "a kernel takes over from SeaBIOS" test_kernel
t_done
