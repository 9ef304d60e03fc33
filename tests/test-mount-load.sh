#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A mount under load: random operations against a model, fio, many processes at once, a file system, loop devices.
# MOUNT_LONG in the environment: each several times as long.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/mount.sh"
need_mount
job_mib=4
[[ -z ${MOUNT_LONG:-} ]] || job_mib=64

# ------------------------------------------------------------------ random operations

# random OPTIONS SPEC ARG...: then the image holds what the model does.
random() {
  local options=$1 spec=$2
  mkdir m && give_user m
  truncate -s 2M image && give_user image
  start_mount m "a=$spec" 'b=mem:1M;block=4096' -o "$options"
  "${as[@]}" "$fsx" block=4096 operations="$operations" "${@:3}" m/a m/b
  "${as[@]}" cmp m/a a.model
  "${as[@]}" cmp m/b b.model
  stop_mount
  [[ $spec != file:* ]] || cmp image a.model
}

# The sizes stay as they are.
random_fixed() {
  mkdir m
  start_mount m a=slice:512,1000K:mem:2M b=memdiff:mem:1M -o "$1"
  "$fsx" operations="$operations" "${@:2}" m/a m/b
}

# ------------------------------------------------------------------ fio

# verify OPTIONS ARG...: four jobs, each on a part of its own, write at random and check by checksums.
verify() {
  need fio fio
  mkdir m
  truncate -s "$((4 * job_mib))M" image
  start_mount m d=image -o "$1"
  fio --name=verify --filename=m/d --allow_file_create=0 --rw=randwrite --bsrange=512-128k --blockalign=512 --size="${job_mib}m" \
    --numjobs=4 --offset_increment="${job_mib}m" --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed="${seed:=$RANDOM}" \
    --thread --minimal "${@:2}" >out 2>&1 || { cat out && return 1; }
  # Field 5 is the error of the job.
  [[ $(grep '^3;' out | cut -d ';' -f 5 | sort -u) = 0 ]] || { cat out && echo "seed $seed" && return 1; }
  stop_mount
}

# ------------------------------------------------------------------ many processes

# crowd OPTIONS SPEC ARG...
crowd() {
  mkdir m && give_user m
  start_mount m "d=$2" -o "$1"
  local seed=$RANDOM
  echo "seed $seed"
  "${as[@]}" "$crowd" seed="$seed" seconds="$seconds" "${@:3}" m/d
  stop_mount
}

# More at once than there are threads, and none waits for ever.
test_more_than_threads() {
  mkdir m
  start_mount m d=mem:4M -o threads=2,direct_io
  "$crowd" processes=32 seconds="$seconds" m/d
}

# ------------------------------------------------------------------ file systems

# fill FOLDER: with something that can be compared.
fill() {
  local i
  mkdir -p "$1/sub"
  for i in {1..20}; do head -c $((i * 10000)) /dev/urandom >"$1/sub/file$i"; done
  ln -s sub/file1 "$1/link"
  truncate -s 10M "$1/sparse"
  echo end >>"$1/sparse"
}

# As a program that knows nothing of mounts makes, fills, checks and reads it.
test_ext4() {
  need mkfs.ext4 e2fsprogs
  local i
  mkdir m
  fill tree
  start_mount m 'd=file:image;create=64M' -o "$@"
  mkfs.ext4 -q -F -d tree m/d
  e2fsck -fn m/d
  for i in {1..20}; do
    echo "write tree/sub/file$i copy$i"
    ((i % 3)) || echo "rm copy$((i - 1))"
  done >commands
  debugfs -w -f commands m/d >debugfs.out 2>&1
  e2fsck -fn m/d
  mkdir out
  debugfs -R "rdump sub out" m/d
  diff -r tree/sub out/sub
  resize2fs m/d 48M
  e2fsck -fn m/d
  stop_mount
  e2fsck -fn image
  debugfs -R "dump copy20 copy20" image
  cmp copy20 tree/sub/file20
}

need_loop() {
  [[ $is_root && -c /dev/loop-control ]] || skip_test "only root has loop devices, where there are any"
  need losetup mount
  truncate -s 1M probe
  local device
  device=$(losetup -f --show probe 2>/dev/null) || skip_test "loop devices cannot be made here"
  losetup -d "$device"
}

# loop_for FILE ARG...: sets `device`, until the test ends.
loop_for() {
  device=$(losetup -f --show "$@")
  at_exit free_loop "$device"
}

free_loop() {
  ! losetup "$1" >/dev/null 2>&1 || losetup -d "$1"
}

test_losetup() {
  need_loop
  local device
  mkdir m
  head -c 8M /dev/urandom >data
  truncate -s 8M image
  start_mount m d=image
  loop_for m/d
  gives 8388608 blockdev --getsize64 "$device"
  dd if=data of="$device" bs=1M conv=fsync status=none
  cmp "$device" data
  dd if="$device" iflag=direct bs=64K status=none | cmp - data
  # The machine unmounts nothing that it uses itself.
  refused 1 "in use" "$platter" umount m
  # Trim goes through.
  blkdiscard -o 1M -l 2M "$device"
  losetup -d "$device"
  holds m/d 1M 2M '\0'
  [[ $(stat -c %b m/d) -lt 13000 ]]
  stop_mount
  cmp -n 1M image data
}

# Written in a loop-mounted file system, with one that is trimmed, grown, and mounted again.
test_mount_loop() {
  need_loop
  need mkfs.ext4 e2fsprogs
  grep -qw ext4 /proc/filesystems || skip_test "this kernel has no ext4"
  mkdir m fs
  fill tree
  start_mount m 'd=file:image;create=64M' -o "$1"
  mkfs.ext4 -q -F m/d
  mount -o loop m/d fs
  at_exit unmount_if_mounted fs
  cp -a tree fs/
  for i in 1 2 3; do fill "fs/more$i" & pids+=($!); done
  wait "${pids[@]}"
  sync -f fs
  rm -r fs/more2
  fstrim -v fs
  diff -r tree fs/tree
  umount fs
  e2fsck -fn m/d
  mount -o loop,ro m/d fs
  diff -r tree fs/tree
  umount fs
  stop_mount
  e2fsck -fn image
}
pids=()

unmount_if_mounted() { ! mountpoint -q "$1" || umount "$1" || umount -l "$1"; }

# A loop device sees a size that changes when it is told to look.
test_loop_resize() {
  need_loop
  local device
  mkdir m
  start_mount m d=mem:4M
  loop_for m/d
  truncate -s 8M m/d
  losetup -c "$device"
  gives 8388608 blockdev --getsize64 "$device"
  losetup -d "$device"
}

# ------------------------------------------------------------------ QEMU's programs, on the file

test_qemu_img() {
  need qemu-img qemu-utils
  mkdir m
  fill tree
  start_mount m a=mem:32M 'b=file:image;create=32M'
  mkfs.ext4 -q -F -d tree m/a
  qemu-img convert -f raw -O raw -n m/a m/b
  qemu-img compare -f raw -F raw m/a m/b
  qemu-img convert -f raw -O qcow2 m/b copy.qcow2
  qemu-img compare -f raw -F qcow2 m/a copy.qcow2
  # Holes are holes to it.
  qemu-img map --output=json -f raw m/b | jq -e 'map(select(.data | not) | .length) | add > 8388608'
}

run_test "random operations on mem:" random threads=8 mem:2M
run_test "random operations on 4096-byte blocks" random threads=1 'mem:2M;block=4096'
run_test "random operations on file:" random threads=32 file:image
run_test "random operations on sql:" random threads=32 'sql:db;create=2M'
run_test "random operations on windows and layers" random_fixed threads=32
run_test "random operations, -o writeback" random writeback file:image
run_test "random operations, -o direct_io" random direct_io file:image map=0
run_test "random operations, -o parallel_direct_writes" random direct_io,parallel_direct_writes mem:2M map=0
run_user_test "random operations" random writeback file:image
run_test "fio, cached" verify threads=32
run_test "fio, O_DIRECT and many at once" verify threads=32 --direct=1 --ioengine=libaio --iodepth=16
run_test "fio, -o direct_io" verify direct_io
run_test "fio, -o parallel_direct_writes" verify direct_io,parallel_direct_writes --ioengine=libaio --iodepth=16
run_test "fio, -o writeback" verify writeback
run_test "fio, shared mappings" verify writeback --ioengine=mmap --bsrange=4k-128k --blockalign=4k \
  --numjobs=1
run_test "many processes" crowd threads=32 mem:4M punch=1
run_test "many processes and shared mappings" crowd threads=32 'mem:4M;block=4096' map=1
run_test "many processes, -o writeback" crowd writeback 'file:image;create=4M' map=1 piece=700
run_test "many processes, -o direct_io" crowd direct_io mem:4M punch=1
run_test "many processes in the same blocks at the same time" crowd direct_io,parallel_direct_writes 'mem:1M;block=4096' \
  punch=1 piece=300
run_test "many processes in a database" crowd direct_io,parallel_direct_writes 'sql:db;create=1M' piece=1000
run_test "more processes than threads" test_more_than_threads
run_user_test "many processes" crowd threads=4 mem:4M piece=512
run_test "ext4 made, filled and checked" test_ext4 threads=32
run_test "ext4, -o writeback" test_ext4 writeback
run_test "ext4, -o direct_io" test_ext4 direct_io,parallel_direct_writes
run_test "losetup" test_losetup
run_test "losetup sees a new size" test_loop_resize
run_test "mount -o loop" test_mount_loop threads=32
run_test "mount -o loop, -o writeback" test_mount_loop writeback
run_test "mount -o loop, -o direct_io" test_mount_loop direct_io,parallel_direct_writes
run_test "qemu-img" test_qemu_img
t_done
