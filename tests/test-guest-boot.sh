#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A PC boots from our NVMe controller: SeaBIOS finds it, loads the boot sector from it, and reads and writes blocks for that. It cuts and joins
# RAM with its queues at work. A kernel takes the controller over as SeaBIOS leaves it, and one comes from the disk itself.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/guest.sh"
. "$top_srcdir/tests/guest-nvme.sh"
need_device
need as binutils
need ld binutils

runs=128 # of 64 blocks each

# make_boot SOURCE: a boot sector, ./boot.bin.
make_boot() {
  as --32 -o boot.o "$top_srcdir/tests/$1"
  ld -m elf_i386 -Ttext 0x7c00 -e start --oformat binary -o boot.bin boot.o
}

# make_disk: a disk of 16 MiB with one partition, tests/guest-boot.S in front of it and a text behind that. What the blocks that it reads sum
# up to is in its end.
make_disk() {
  make_boot guest-boot.S
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

# firmware STATUS MIB ARG...: a machine with nothing but SeaBIOS, so much memory, the device and a serial port, whose output is in ./said.
# It must end with STATUS.
firmware() {
  local status=0
  # shellcheck disable=SC2154 # guest.sh sets it
  timeout -k 5 "$GUEST_SECONDS" "$guest_qemu" -accel tcg -M "${machine:-q35},memory-backend=ram" -m "$2" \
    -object "memory-backend-memfd,id=ram,size=$2M,share=on" -nodefaults -no-user-config -display none -no-reboot \
    -serial file:said -device isa-debug-exit,iobase=0xf4,iosize=1 \
    -device "{\"driver\":\"vfio-user-pci\",\"bootindex\":0,\"socket\":{\"type\":\"unix\",\"path\":\"$PWD/s\"}}" "${@:3}" || status=$?
  cat said
  [[ $status = "$1" ]] || { echo "the machine ended with $status"; return 1; }
}

# test_boot OPTION...: the device's.
test_boot() {
  make_disk
  start_device "$@" file:disk.img
  firmware 3 128
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

# make_linux KERNEL INITRAMFS: a disk with both, as tests/guest-boot-linux.S in front of it wants them.
make_linux() {
  make_boot guest-boot-linux.S
  python3 - "$@" <<'EOF'
import struct, sys

PIECE, INITRAMFS = 64 * 512, 96 << 20
kernel, initramfs = (open(name, "rb").read() for name in sys.argv[1:])
runs, pieces = b"", []

def load(address, data):
    global runs
    count = -(-len(data) // PIECE)
    runs += struct.pack("<III", 64 + 64 * len(pieces), address, count)
    pieces.extend(data[i * PIECE:][:PIECE].ljust(PIECE, b"\0") for i in range(count))

def entry_of(notes): # the address that the note XEN_ELFNOTE_PHYS32_ENTRY has
    while notes:
        name, size, kind = struct.unpack_from("<III", notes)
        start = 12 + (name + 3 & ~3)
        if kind == 18 and notes[12:16] == b"Xen\0":
            return struct.unpack_from("<I", notes, start)[0]
        notes = notes[start + (size + 3 & ~3):]

headers, = struct.unpack_from("<Q", kernel, 32)
for i in range(*struct.unpack_from("<H", kernel, 56)):
    kind, _, offset, _, address, size = struct.unpack_from("<IIQQQQ", kernel, headers + 56 * i)
    if kind == 1: # PT_LOAD
        load(address, kernel[offset:offset + size])
    elif kind == 4: # PT_NOTE
        entry = entry_of(kernel[offset:offset + size])
load(INITRAMFS, initramfs)
block = struct.pack("<IIIIQQQQQ", 0x336ec578, 1, 0, 1, 0x8000 + 64, 0x8000 + 256, 0, 0, 0).ljust(64, b"\0")
block += struct.pack("<QQQQI", INITRAMFS, len(initramfs), 0, 0, entry).ljust(48, b"\0") + runs
assert len(block) + 12 <= 256
block = block.ljust(256, b"\0") + b"console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check"
open("disk.img", "wb").write(open("boot.bin", "rb").read() + block.ljust(63 * 512, b"\0") + b"".join(pieces))
EOF
}

# What the kernel was loaded from is what it finds there itself.
test_linux() {
  local kernel
  kernel=$("$SHARED/guest/get-kernel") || skip_test "there is no kernel for the guest (get-kernel failed)"
  "$SHARED/guest/make-initramfs" -o guest.cpio -k "$kernel" -m nvme
  # shellcheck disable=SC2016 # the guest's shell expands it
  printf '%s\n' 'wait-for /dev/nvme0n1' 'echo "the disk: $(sha256sum </dev/nvme0n1)"' >run-guest.sh
  cpio -o -H newc --quiet <<<run-guest.sh >>guest.cpio
  make_linux "$kernel/vmlinux" guest.cpio
  start_device "$@" file:disk.img
  firmware 0 256 -cpu max -serial file:status
  stop_device
  grep -q "the disk: $(sha256sum <disk.img)" said
}

run_test "SeaBIOS boots from a disk" test_boot
run_test "... whose doorbells are polled" test_boot --doorbells poll --threads 2
run_test "... on another machine, with small transfers" test_other_machine --mdts 3
run_test "a kernel takes over from SeaBIOS" test_kernel
run_test "a kernel is loaded from the disk" test_linux
t_done
