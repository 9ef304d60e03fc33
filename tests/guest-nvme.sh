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

# start_device ARG...: `platter device nvme` on the socket ./s, with control on ./c. Sets device_pid. What a sanitizer reports in it
# ends it, so that no report goes unnoticed.
start_device() {
  local i
  rm -f device.out
  ASAN_OPTIONS="${ASAN_OPTIONS:-} exitcode=99" UBSAN_OPTIONS="${UBSAN_OPTIONS:-} halt_on_error=1 print_stacktrace=1 exitcode=99" \
    TSAN_OPTIONS="${TSAN_OPTIONS:-} halt_on_error=1 exitcode=99 suppressions=$top_srcdir/tests/tsan.supp" \
    "${device_wrap[@]}" "${DEVICE_PLATTER:-$platter}" device nvme -v -U s --control c "$@" >device.out 2>>device.log &
  device_pid=$!
  at_exit no_report
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

# ThreadSanitizer of some compilers cannot live with many random bits in addresses.
device_wrap=()
[[ ${DEVICE_PLATTER:-} != */build-tsan/* ]] || ! setarch -R true 2>/dev/null || device_wrap=(setarch -R)

# no_report: no sanitizer has said anything of the device.
no_report() { ! grep -B 2 -A 60 -E 'Sanitizer:|runtime error:' device.log; }

# stop_device: ends it, which must go well.
stop_device() {
  local status=0
  kill "$device_pid" || status=$?
  wait "$device_pid" || status=$?
  no_report
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

# boot SCRIPT [ARG...]: with the device, and guest_processors (2) processors; ARG are more of QEMU's.
boot() {
  boot_guest "${guest_modules:-nvme,ext4,vfat}" "$1" -smp "${guest_processors:-2}" "${@:2}" \
    -device "{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"$PWD/s\"}}"
}

# when FILE COMMAND...: as soon as the guest has made /share/FILE, in the background.
when() {
  (
    for ((i = 0; i < GUEST_SECONDS * 20; i++)); do
      [[ -e share/$1 ]] && { "${@:2}"; exit; }
      sleep 0.05
    done
  ) &
  at_exit end_device $!
}

# change FILE COMMAND...: tells the device, and the guest by /share/FILE when it is done.
change() { control "${@:2}" && : >"share/$1"; }

# obey: hands on what the guest tells the device, by tell() of guest_tell, in the background.
obey() {
  local n
  (
    for ((n = 1; ; n++)); do
      until [[ -e share/ask-$n ]]; do sleep 0.05; done
      # shellcheck disable=SC2046 # words wanted
      control $(cat "share/ask-$n") >share/answer || echo "it fails: $(cat "share/ask-$n")" >>device.log
      mv share/answer "share/told-$n"
    done
  ) &
  at_exit end_device $!
}

# For scripts of guests: tell COMMAND... gives the device a command of its control socket, waits until it is done, and prints what it says.
# shellcheck disable=SC2016,SC2034 # the guest's shell expands it; for the tests
guest_tell='
  tell() {
    told=1
    while [ -e /share/told-$told ]; do told=$((told + 1)); done
    echo "$*" >/share/asking
    mv /share/asking /share/ask-$told
    wait-for /share/told-$told 60
    grep ^ok /share/told-$told
  }
'

# pid_of_guest: of the QEMU that has our socket in its command line.
pid_of_guest() { pgrep -f "vfio-user-pci.*$PWD/s\"" | while read -r p; do [[ $(readlink "/proc/$p/exe") != */bash ]] && echo "$p"; done; }

# Files are written and synced one after the other, each noted down behind its sync in /share/$1, until somebody is killed.
# shellcheck disable=SC2016
guest_sync='
  set -e
  wait-for /dev/nvme0n1
  mkdir -p /tmp/mnt
  mount -t ext4 /dev/nvme0n1 /tmp/mnt
  for n in $(seq 3000); do
    dd if=/dev/urandom of=/tmp/mnt/$1-$n bs=16k count=$((n % 7 + 1)) conv=fsync 2>/dev/null
    echo "$(sha256sum </tmp/mnt/$1-$n | cut -d " " -f 1) $1-$n" >>/share/$1
  done
'

kill_one() { # WHOM FILE LINES
  local pid i
  for ((i = 0; i < GUEST_SECONDS * 20; i++)); do
    [[ -e share/$2 && $(wc -l <"share/$2") -ge $3 ]] && break
    sleep 0.05
  done
  if [[ $1 = server ]]; then kill -KILL "$device_pid"; fi
  # the guest's disk is gone then, and so are its days
  for pid in $(pid_of_guest); do
    # it may have ended by itself: without its device QEMU sometimes does
    ! tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q 'ld-linux\|qemu-system' || kill -KILL "$pid" || true
  done
}

# boot_and_kill WHOM [NAME [LINES]]: the guest syncs files, told of in share/NAME, until either it or the server is killed at so many.
boot_and_kill() {
  kill_one "$1" "${2:-$1}" "${3:-30}" &
  at_exit end_device $!
  boot "set -- ${2:-$1}; $guest_sync" && return 1
  wait $!
}

# check_synced NAME [LINES]: everything that was synced before is there. The last line may have been cut short.
check_synced() {
  local sum name
  [[ $(wc -l <"share/$1") -ge ${2:-30} ]]
  head -n -1 "share/$1" >all
  while read -r sum name; do
    debugfs -R "dump $name out" disk.img 2>/dev/null
    [[ $(sha256sum <out | cut -d ' ' -f 1) = "$sum" ]] || { echo "$name is not what was synced"; return 1; }
  done <all
}
