# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: BSD-3-Clause
# What tests share that give `platter device nvme` to a guest. Sourced, after tests/lib.sh and tests/guest.sh.

# need_device: skips the script where no guest can have our device. DEVICE_PLATTER is another build of ./platter to take, such as
# one with sanitizers.
need_device() {
  need_guest
  need_newer_qemu
  need_ext4
  need python3 python3
  need fio fio
  need sfdisk fdisk
  need blkdiscard util-linux
}

# start_device ARG...: `platter device nvme` on the socket ./s, with control on ./c. Sets device_pid.
start_device() {
  local i
  rm -f device.out
  "${DEVICE_PLATTER:-$platter}" device nvme -v -U s --control c "$@" >device.out 2>>device.log &
  device_pid=$!
  at_exit end_device "$device_pid"
  for ((i = 0; i < 600; i++)); do
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
  local status=0
  kill "$device_pid"
  wait "$device_pid" || status=$?
  [[ $status = 0 ]] || { cat device.log; return 1; }
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

# boot SCRIPT [ARG...]: with the device; ARG are more of QEMU's.
boot() {
  boot_guest "${guest_modules:-nvme,ext4,vfat}" "$1" -smp 2 \
    -device "{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"$PWD/s\"}}" "${@:2}"
}

# when FILE COMMAND...: as soon as the guest has made /share/FILE, in the background.
when() {
  (
    for ((i = 0; i < 4000; i++)); do
      [[ -e share/$1 ]] && { "${@:2}"; exit; }
      sleep 0.05
    done
  ) &
  at_exit end_device $!
}

# change FILE COMMAND...: tells the device, and the guest by /share/FILE when it is done.
change() { control "${@:2}" && : >"share/$1"; }

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
  controller_is_well() { ! dmesg | grep -iE "nvme.*(timeout|error|fail)"; }
'
