#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A guest's kernel drives our NVMe controller over vfio-user: data, trim, resets, namespaces that come, grow and go, and either side
# killed in the middle. Then this machine looks at what is left.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/guest.sh"
need_guest
need_newer_qemu
need_ext4
need python3 python3
need fio fio
need sfdisk fdisk
need blkdiscard util-linux

# start_device ARG...: `platter device nvme` on the socket ./s, with control on ./c. Sets device_pid.
start_device() {
  local i
  "$platter" device nvme -v -U s --control c "$@" >device.out 2>>device.log &
  device_pid=$!
  at_exit end_device "$device_pid"
  for ((i = 0; i < 200; i++)); do
    [[ ! -s device.out ]] || return 0
    kill -0 "$device_pid" || break
    sleep 0.05
  done
  cat device.log
  return 1
}

end_device() { kill "$1" 2>/dev/null || true; }

# stop_device: ends it, which must go well.
stop_device() {
  kill "$device_pid"
  wait "$device_pid"
}

# control COMMAND...: sends it; fails when the answer does not begin with ok.
control() {
  python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("c")
s.sendall((" ".join(sys.argv[1:]) + "\n").encode())
answer = s.makefile().readline()
print(answer, end="")
sys.exit(not answer.startswith("ok"))' "$@"
}

# boot SCRIPT: with the device.
boot() {
  boot_guest nvme,ext4,vfat "$1" -smp 2 -device "{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"$PWD/s\"}}"
}

# when FILE COMMAND...: as soon as the guest has made /share/FILE, in the background.
when() {
  (
    for ((i = 0; i < 2000; i++)); do
      [[ -e share/$1 ]] && { "${@:2}"; exit; }
      sleep 0.05
    done
  ) &
}

# Two queues are at work; blocks that are discarded read as zeroes; the controller is reset under load, and its driver unbound and bound again.
# shellcheck disable=SC2016 # the guest's shell expands it
data_script=$guest_ext4'
  wait-for /dev/nvme0n1
  wait-for /dev/nvme0n2
  cat /proc/interrupts | grep nvme0q2
  printf "label: gpt\n,64M\n,\n" | sfdisk -q /dev/nvme0n1
  wait-for /dev/nvme0n1p2
  work /dev/nvme0n1p2 partition
  verify() {
    fio --name="$1" --filename=/dev/nvme0n2 --direct=1 --rw=randwrite --bsrange=512-128k --size=$2M --offset_increment=16M --numjobs=2 \
      --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --group_reporting >/tmp/fio.log 2>&1 || { cat /tmp/fio.log; exit 1; }
  }
  verify plain 4
  blkdiscard -o 1048576 -l 1048576 /dev/nvme0n2
  dd if=/dev/nvme0n2 bs=64k skip=16 count=16 iflag=direct 2>/dev/null | cmp -n 1048576 - /dev/zero
  blkdiscard -z -o 4194304 -l 1048576 /dev/nvme0n2
  dd if=/dev/nvme0n2 bs=64k skip=64 count=16 iflag=direct 2>/dev/null | cmp -n 1048576 - /dev/zero
  verify reset 8 &
  for i in 1 2 3; do
    sleep 0.3
    echo 1 >/sys/class/nvme/nvme0/reset_controller
  done
  wait $!
  address=$(basename $(readlink -f /sys/class/nvme/nvme0/device))
  echo $address >/sys/bus/pci/drivers/nvme/unbind
  [ ! -e /dev/nvme0n1 ]
  [ -e /sys/bus/pci/devices/$address/reset ]
  echo 1 >/sys/bus/pci/devices/$address/reset
  echo $address >/sys/bus/pci/drivers/nvme/bind
  wait-for /dev/nvme0n2
  verify again 1
  if command -v nvme >/dev/null; then
    nvme id-ctrl /dev/nvme0
    nvme smart-log /dev/nvme0
    nvme error-log /dev/nvme0
    nvme list-ns /dev/nvme0
  fi
  dmesg | grep -iE "nvme.*(timeout|error|fail)" && exit 1
  true
'

# A namespace comes, grows and goes, each of which the guest sees within a second.
# shellcheck disable=SC2016
change_script='
  set -e
  wait-for /dev/nvme0n1
  appears() { wait-for "$1" 1; }
  >/share/add
  wait-for /share/added 20
  appears /dev/nvme0n3
  [ $(cat /sys/block/nvme0n3/size) = 16384 ]
  >/share/resize
  wait-for /share/resized 20
  for i in $(seq 20); do [ $(cat /sys/block/nvme0n3/size) != 32768 ] || break; sleep 0.05; done
  [ $(cat /sys/block/nvme0n3/size) = 32768 ]
  >/share/remove
  wait-for /share/removed 20
  for i in $(seq 20); do [ -e /sys/block/nvme0n3 ] || break; sleep 0.05; done
  [ ! -e /sys/block/nvme0n3 ]
'

change() { control "${@:2}" && : >"share/$1"; }

# A controller that looks at its doorbells by itself, on two threads, moves data as well and sleeps in between.
# shellcheck disable=SC2016
poll_script='
  set -e
  wait-for /dev/nvme0n1
  for i in 1 2; do
    fio --name=poll --filename=/dev/nvme0n1 --direct=1 --rw=randwrite --bs=4k --size=2M --offset_increment=16M --numjobs=2 \
      --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --group_reporting
    sleep 0.2
  done
'

test_poll() {
  start_device --doorbells poll --threads 2 mem:64M
  boot "$poll_script"
  stop_device
}

test_data() {
  start_device 'file:disk.img;create=192M' mem:64M
  mkdir share
  when add change added add mem:8M
  when resize change resized resize 3 16M
  when remove change removed remove 3
  boot "$data_script
$change_script"
  stop_device
  # the file system lies behind the first partition
  local start
  start=$(sfdisk -d disk.img | sed -n 's/.*img2 : start= *\([0-9]*\),.*/\1/p')
  dd if=disk.img of=part.img bs=512 skip="$start" 2>/dev/null
  check_ext4 part.img partition
}

# Files are written and synced one after the other, each noted down behind its sync, until somebody is killed.
# shellcheck disable=SC2016
kill_script='
  set -e
  wait-for /dev/nvme0n1
  mkfs.ext4 -q /dev/nvme0n1
  mkdir -p /tmp/mnt
  mount -t ext4 /dev/nvme0n1 /tmp/mnt
  for n in $(seq 3000); do
    dd if=/dev/urandom of=/tmp/mnt/file-$n bs=16k count=$((n % 7 + 1)) conv=fsync 2>/dev/null
    echo "$(sha256sum </tmp/mnt/file-$n | cut -d " " -f 1) file-$n" >>/share/synced
  done
'

# pid_of_guest: of the QEMU that has our socket in its command line.
pid_of_guest() { pgrep -f "vfio-user-pci.*$PWD/s\"" | while read -r p; do [[ $(readlink "/proc/$p/exe") != */bash ]] && echo "$p"; done; }

kill_one() { # WHOM
  local pid i
  for ((i = 0; i < 2000; i++)); do
    [[ -e share/synced && $(wc -l <share/synced) -ge 30 ]] && break
    sleep 0.05
  done
  if [[ $1 = server ]]; then kill -KILL "$device_pid"; fi
  # the guest's disk is gone then, and so are its days
  for pid in $(pid_of_guest); do
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q 'ld-linux\|qemu-system' && kill -KILL "$pid"
  done
  true
}

test_kill() { # WHOM
  local sum name
  start_device 'file:disk.img;create=128M'
  mkdir share
  kill_one "$1" &
  boot "$kill_script" && return 1
  wait $!
  if [[ $1 = server ]]; then
    rm device.out
    wait "$device_pid" || true
    rm c # the control socket has nobody who would replace it
    start_device file:disk.img
  fi
  # the next client finds a controller that works, and everything that was synced
  boot 'set -e; wait-for /dev/nvme0n1; mkdir -p /tmp/mnt; mount -t ext4 /dev/nvme0n1 /tmp/mnt; umount /tmp/mnt'
  stop_device
  e2fsck -fn disk.img
  [[ $(wc -l <share/synced) -ge 30 ]]
  head -n -1 share/synced >all
  while read -r sum name; do
    debugfs -R "dump $name out" disk.img 2>/dev/null
    [[ $(sha256sum <out | cut -d ' ' -f 1) = "$sum" ]] || { echo "$name is not what was synced"; return 1; }
  done <all
}

run_test "a guest's data, resets and namespaces" test_data
run_test "a guest with doorbells that are polled" test_poll
run_test "QEMU is killed" test_kill qemu
run_test "the server is killed" test_kill server
t_done
