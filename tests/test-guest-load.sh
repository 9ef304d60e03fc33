#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The NVMe controller under a guest's load, for minutes: four queues at once, file systems that are filled and trimmed, resets, drivers that
# go and come, namespaces that come, grow and go, and either side killed again and again. GUEST_ROUNDS is how many rounds of each.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/guest.sh"
. "$top_srcdir/tests/guest-nvme.sh"
need_device

rounds=${GUEST_ROUNDS:-10}
# shellcheck disable=SC2034 # for boot()
guest_processors=4

# Mixed reads and writes of four jobs, one a processor, in parts of their own, each block with its checksum.
# shellcheck disable=SC2016 # the guest's shell expands it
guest_load=$guest_verify'
  load() { # NAME DEVICE SIZE
    fio --name="$1" --filename="$2" --direct=1 --rw=randrw --rwmixread=40 --bsrange=4k-256k --size="$3" --offset_increment="$3" \
      --numjobs=4 --cpus_allowed=0-3 --cpus_allowed_policy=split --ioengine=libaio --iodepth=32 --verify=crc32c --verify_fatal=1 \
      --group_reporting >/tmp/fio.$1 2>&1 || { cat /tmp/fio.$1; exit 1; }
  }
  lose() { # DEVICE SIZE JOBS: until the device has gone
    fio --name=lost --filename="$1" --allow_file_create=0 --direct=1 --rw=randrw --bs=8k --size="$2" --numjobs="$3" --ioengine=libaio \
      --iodepth=32 --time_based --runtime=600 >/tmp/lost 2>&1
  }
  at_work() { # NAME of a device: until something is under way there
    for t in $(seq 400); do
      [ "$(tr -s " " <"/sys/block/$1/inflight")" = " 0 0" ] || return 0
      sleep 0.05
    done
    return 1
  }
  counts() { awk "/nvme0q[1-9]/ { for (n = i = 2; i <= 5; i++) n += \$i; print n - 2 }" /proc/interrupts; }
'

# Each processor has a queue, and each queue its interrupts.
# shellcheck disable=SC2016
load_script=$guest_load'
  wait-for /dev/nvme0n1
  [ $(grep -c "nvme0q[1-4]" /proc/interrupts) = 4 ]
  for i in $(seq '"$((rounds / 5 + 1))"'); do
    load all-$i /dev/nvme0n1 32M
    load blocks-$i /dev/nvme0n2 16M
  done
  for n in $(counts); do [ $n -gt 50 ] || { cat /proc/interrupts; exit 1; }; done
  controller_is_well
'

# A file system is filled, thinned out and trimmed, while beside it blocks are discarded and zeroed, and must read as zeroes.
# shellcheck disable=SC2016
trim_script=$guest_ext4$guest_load'
  wait-for /dev/nvme0n2
  beside() {
    for n in $(seq 1000); do
      [ ! -e /tmp/enough ] || return 0
      at=$((n * 7 % 60))
      dd if=/dev/urandom of=/dev/nvme0n2 bs=1M count=3 seek=$at oflag=direct conv=notrunc 2>/dev/null
      blkdiscard $([ $((n % 2)) = 0 ] || echo -z) -o $(((at + 1) * 1048576)) -l 1048576 /dev/nvme0n2
      is_zero /dev/nvme0n2 $((at + 1)) 1
      ! is_zero /dev/nvme0n2 $at 1 >/dev/null 2>&1
    done
  }
  beside &
  mkdir -p /tmp/mnt
  for i in $(seq '"$rounds"'); do
    if [ $((i % 5)) = 1 ]; then
      blkdiscard -f /dev/nvme0n1
      mkfs.ext4 -q /dev/nvme0n1
    fi
    mount -t ext4 $([ $((i % 2)) = 0 ] || echo -o discard) /dev/nvme0n1 /tmp/mnt
    for f in $(seq 40); do dd if=/dev/urandom of=/tmp/mnt/$i-$f bs=64k count=$((f % 13 + 1)) 2>/dev/null; done
    (cd /tmp/mnt && sha256sum $i-*[02468] >/tmp/sums)
    sync
    rm /tmp/mnt/$i-*[13579]
    fstrim /tmp/mnt
    umount /tmp/mnt
    mount -t ext4 /dev/nvme0n1 /tmp/mnt
    (cd /tmp/mnt && sha256sum --quiet -c /tmp/sums)
    rm /tmp/mnt/[0-9]*
    umount /tmp/mnt
    e2fsck -fn /dev/nvme0n1
  done
  >/tmp/enough
  wait $!
  work /dev/nvme0n1 last
  controller_is_well
'

# The controller is reset while commands are on their way: none is lost, and nobody who reads or writes sees anything of it.
# shellcheck disable=SC2016
reset_script=$guest_load'
  wait-for /dev/nvme0n2
  while [ ! -e /tmp/enough ]; do load one /dev/nvme0n1 16M; done &
  one=$!
  while [ ! -e /tmp/enough ]; do load two /dev/nvme0n2 8M; done &
  two=$!
  for i in $(seq '"$((rounds * 2))"'); do
    sleep 0.$((i % 7 + 1))
    echo 1 >/sys/class/nvme/nvme0/reset_controller
  done
  >/tmp/enough
  wait $one
  wait $two
  controller_is_well
'

# The driver is taken away from under load, whose commands fail then, and comes back: what was written before is there.
# shellcheck disable=SC2016
bind_script=$guest_load'
  wait-for /dev/nvme0n2
  address=$(basename $(readlink -f /sys/class/nvme/nvme0/device))
  kept() {
    fio --name=kept --filename=/dev/nvme0n1 --direct=1 --rw=randwrite --bs=16k --size=16M --offset=64M --ioengine=libaio --iodepth=8 \
      --verify=crc32c --verify_fatal=1 "$@" >/tmp/kept 2>&1 || { cat /tmp/kept; exit 1; }
  }
  kept --do_verify=0
  for i in $(seq '"$rounds"'); do
    lose /dev/nvme0n1 32M 4 &
    at_work nvme0n1
    sleep 0.$((i % 7 + 2))
    echo $address >/sys/bus/pci/drivers/nvme/unbind
    wait $! || true
    [ ! -e /dev/nvme0n1 ]
    [ $((i % 3)) != 0 ] || echo 1 >/sys/bus/pci/devices/$address/reset
    echo $address >/sys/bus/pci/drivers/nvme/bind
    wait-for /dev/nvme0n2
    kept --verify_only
  done
  load last /dev/nvme0n2 8M
'

# Namespaces come, grow and go while others are at work, and while they are at work themselves.
# shellcheck disable=SC2016
namespaces_script=$guest_load$guest_tell'
  wait-for /dev/nvme0n2
  sectors() { # NAME SECTORS: how soon it sees them when nothing else is at work is told elsewhere
    for t in $(seq 200); do [ "$(cat /sys/block/$1/size)" != $2 ] || return 0; sleep 0.05; done
    cat /sys/block/$1/size
    return 1
  }
  while [ ! -e /tmp/enough ]; do load one /dev/nvme0n1 8M; done &
  one=$!
  for i in $(seq '"$rounds"'); do
    n=$(tell add mem:16M)
    n=${n#ok }
    wait-for /dev/nvme0n$n 20
    sectors nvme0n$n 32768
    verify new-$i /dev/nvme0n$n 2M 1
    tell resize $n 32M
    sectors nvme0n$n 65536
    dd if=/dev/urandom of=/dev/nvme0n$n bs=1M seek=31 count=1 oflag=direct 2>/dev/null
    tell resize $n 8M
    sectors nvme0n$n 16384
    lose /dev/nvme0n$n 8M 2 &
    lost=$!
    at_work nvme0n$n
    tell remove $n
    for t in $(seq 200); do [ -e /sys/block/nvme0n$n ] || break; sleep 0.05; done
    [ ! -e /sys/block/nvme0n$n ]
    wait $lost || true
  done
  >/tmp/enough
  wait $one
'

# disk_of SIZE: an empty disk.img.
disk_of() { rm -f disk.img && truncate -s "$1" disk.img; }

# test_load SCRIPT ARG...: with the device so.
test_load() {
  disk_of 256M
  mkdir share
  start_device "${@:2}" file:disk.img 'prwrap:mem:128M'
  obey
  boot "$1"
  stop_device
}

test_trim() {
  test_load "$trim_script"
  check_ext4 disk.img last
  # what was trimmed is a hole
  (($(stat -c %b disk.img) * 512 < 60000000))
}

# Killed at another moment each time; who comes next finds a whole file system, and in the end all that was ever synced is there.
test_kills() {
  local i
  disk_of 2G
  mkfs.ext4 -q disk.img
  mkdir share
  for ((i = 0; i < rounds; i++)); do
    start_device --threads $((i % 2 + 1)) --doorbells "$( ((i % 3)) && echo messages || echo poll)" file:disk.img mem:64M
    boot_and_kill qemu "qemu-$i" $((RANDOM % 30 + 2))
    boot_and_kill server "server-$i" $((RANDOM % 30 + 2))
    wait "$device_pid" || true
    no_report
  done
  e2fsck -fy disk.img || (($? <= 1))
  e2fsck -fn disk.img
  for ((i = 0; i < rounds; i++)); do
    check_synced "qemu-$i" 2
    check_synced "server-$i" 2
  done
}

run_test "four queues with checksums" test_load "$load_script" --threads 2
run_test "four queues whose doorbells are polled" test_load "$load_script" --threads 2 --doorbells poll
run_test "file systems are filled and trimmed" test_trim
run_test "resets under load" test_load "$reset_script" --threads 2
run_test "resets under load with polled doorbells" test_load "$reset_script" --doorbells poll
run_test "the driver goes and comes under load" test_load "$bind_script" --threads 2
run_test "namespaces come, grow and go under load" test_load "$namespaces_script" --threads 2
run_test "QEMU and the server are killed again and again" test_kills
t_done
