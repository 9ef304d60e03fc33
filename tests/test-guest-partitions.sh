#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A guest's kernel finds the partitions that we find: the same numbers, places and sizes, on disks with both sizes of blocks.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/guest.sh"
need_guest
need jq jq
need fdisk fdisk
need sgdisk gdisk

# make_disk NAME BLOCK: from a script of sfdisk on standard input.
make_disk() {
  truncate -s 200M "$1"
  cat >script
  printf 'I\nscript\nw\n' | fdisk -b "$2" "$1" >log 2>&1
  disks+=("$1 $2")
}

# put OFFSET BYTES FILE
put() { printf '%b' "$2" | dd of="$3" bs=1 seek="$1" conv=notrunc status=none; }

make_disks() {
  local block
  for block in 512 4096; do
    make_disk "gpt$block" "$block" <<<$'label: gpt\n7: start=4096, size=1M\n3: start=9000, size=2M\n128: start=7000, size=1000\n'
    make_disk "mbr$block" "$block" <<<$'label: dos\n\nsize=3M, type=82\nsize=6M\nsize=60M, type=5\nsize=4M\nsize=3M\nsize=6M, type=82\n'
  done
  make_disk hybrid 512 <<<$'label: gpt\nsize=3M\nsize=4M\n'
  sgdisk -h 1:2 hybrid >/dev/null
  make_disk inside 512 <<<$'label: dos\nstart=1, size=100000, type=17, bootable\n'
  put 462 '\0\0\0\0\xef\0\0\0\x10\0\0\0\x20\0\0\0' inside
  # the second of two is longer than the disk
  make_disk long 512 <<<$'label: dos\nsize=60M\nsize=1M\n'
  put 474 '\xff\xff\xff\x0f' long
}

# Prints "DISK NUMBER START SIZE", the last two in units of 512 bytes.
# shellcheck disable=SC2016 # the guest's shell expands it
guest_script='
  set -e
  for disk in /sys/block/vd*; do
    wait-for /dev/${disk##*/}
    for part in $disk/*/partition; do
      [ -e $part ] || continue
      folder=${part%/*}
      echo $(cat $disk/serial) $(cat $part) $(cat $folder/start) $(cat $folder/size) >>/share/found
    done
  done
'

boot() {
  local disk block drives=()
  for disk in "${disks[@]}"; do
    read -r disk block <<<"$disk"
    drives+=(-drive "if=none,id=$disk,format=raw,read-only=on,file=$disk"
      -device "virtio-blk-pci,drive=$disk,serial=$disk,logical_block_size=$block,physical_block_size=$block")
  done
  boot_guest virtio_pci,virtio_blk "$guest_script" "${drives[@]}"
}

# ours DISK BLOCK: "NUMBER START SIZE" of all that can be opened.
ours() {
  local number
  for ((number = 1; number <= 128; number++)); do
    "$platter" info --json "part:$number:ro:file:$1;block=$2" >told 2>>errors || continue
    jq -r '.disk | "\(.number) \(.offset / 512) \(.size / 512)"' told
  done
}

test_guest() {
  local disk block disks=()
  make_disks
  boot
  cat share/found
  for disk in "${disks[@]}"; do
    read -r disk block <<<"$disk"
    # what we do not open: extended partitions, which the kernel shows with a kilobyte or a block
    sed -n "s/^$disk //p" share/found | awk -v small=$((block / 512)) '$3 > 2 && $3 > small' | sort -n >kernel
    ours "$disk" "$block" >ours
    [[ -s kernel ]]
    echo "$disk:"
    case $disk in
      # the kernel shortens it
      long) grep -v '^2 ' kernel | diff -u - ours && grep -q 'partition 2 goes past the end of the disk' errors ;;
      *) diff -u kernel ours ;;
    esac
  done
}

run_test "a guest's kernel finds the same partitions" test_guest
t_done
