#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A guest's kernel drives our NVMe controller over vfio-user: data, trim, resets, namespaces that come, grow and go, and either side
# killed in the middle. Then this machine looks at what is left.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/guest.sh"
. "$top_srcdir/tests/guest-nvme.sh"
need_device

# Two queues are at work; blocks that are discarded read as zeroes; the controller is reset under load, and its driver unbound and bound again.
# shellcheck disable=SC2016 # the guest's shell expands it
data_script=$guest_ext4$guest_verify'
  wait-for /dev/nvme0n1
  wait-for /dev/nvme0n2
  cat /proc/interrupts | grep nvme0q2
  printf "label: gpt\n,64M\n,\n" | sfdisk -q /dev/nvme0n1
  wait-for /dev/nvme0n1p2
  work /dev/nvme0n1p2 partition
  verify plain /dev/nvme0n2 4M 2
  blkdiscard -o 1048576 -l 1048576 /dev/nvme0n2
  is_zero /dev/nvme0n2 1 1
  blkdiscard -z -o 4194304 -l 1048576 /dev/nvme0n2
  is_zero /dev/nvme0n2 4 1
  verify reset /dev/nvme0n2 8M 2 &
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
  verify again /dev/nvme0n2 1M 2
  controller_is_well
'

# A namespace comes, grows and goes, each of which the guest sees by itself, soon.
# shellcheck disable=SC2016
change_script='
  set -e
  wait-for /dev/nvme0n1
  appears() { wait-for "$1" 5; }
  >/share/add
  wait-for /share/added 20
  appears /dev/nvme0n3
  [ $(cat /sys/block/nvme0n3/size) = 16384 ]
  >/share/resize
  wait-for /share/resized 20
  for i in $(seq 100); do [ $(cat /sys/block/nvme0n3/size) != 32768 ] || break; sleep 0.05; done
  [ $(cat /sys/block/nvme0n3/size) = 32768 ]
  >/share/remove
  wait-for /share/removed 20
  for i in $(seq 100); do [ -e /sys/block/nvme0n3 ] || break; sleep 0.05; done
  [ ! -e /sys/block/nvme0n3 ]
'

# Commands of nvme-cli: what each must answer, then what the guest sees of it. On the second namespace, whose data nobody wants any more.
# shellcheck disable=SC2016
cli_script='
  set -e
  says() { # TEXT COMMAND...
    "${@:2}" >/tmp/said 2>&1 || true
    grep -q "$1" /tmp/said || { echo "this does not say $1: ${*:2}"; cat /tmp/said; exit 1; }
  }
  fails() { ! "$@" >/tmp/said 2>&1 || { echo "this does not fail: $*"; cat /tmp/said; exit 1; }; }
  c=/dev/nvme0 n=/dev/nvme0n2
  command -v nvme >/dev/null || { echo "there is no nvme (apt-get install nvme-cli)" >/share/no-cli; exit 0; }
  says "^subnqn.*nqn" nvme id-ctrl $c
  says "^nsze .*0x20000$" nvme id-ns $n
  says "0x2$" nvme list-ns $c
  says "0x2$" nvme list-ns -a $c
  says "^csi *: 0" nvme ns-descs $n
  says "num of ctrls present: 1" nvme list-ctrl $c
  says "^viprt *: 65" nvme primary-ctrl-caps $c
  says "Combination.0.:1$" nvme id-iocs $c
  says "^dmsl" nvme nvm-id-ctrl $c
  says "available_spare.*100%" nvme smart-log $c
  says "entries:64" nvme error-log $c
  says "1.0" nvme fw-log $c
  nvme effects-log $c
  nvme changed-ns-list-log $c
  says "^0000: 00 2f 01 64 0a " nvme get-log $c -i 2 -l 512
  says "NVMe specification 2.0" nvme show-regs $c -H
  for f in 1 2 4 6 7 8 9 10 11 15; do says "Current value" nvme get-feature $c -f $f -H; done
  says "Current value" nvme get-feature $c -n 2 -f 5 -H
  says "Arbitration Burst.*No limit" nvme get-feature $c -f 1 -H
  nvme set-feature $c -f 6 -v 0
  says "Current value:0*$" nvme get-feature $c -f 6
  nvme set-feature $c -f 6 -v 1
  says "Current value:0x0*1$" nvme get-feature $c -f 6
  says "Invalid Field" nvme get-feature $c -f 0x7f

  nvme flush $n
  nvme write-zeroes $n -s 8 -c 7
  nvme compare $n -s 8 -c 0 -z 512 -d /dev/zero
  head -c 512 /dev/urandom >/tmp/block
  says "Compare Failure" nvme compare $n -s 8 -c 0 -z 512 -d /tmp/block
  nvme write $n -s 16 -c 0 -z 512 -d /tmp/block
  nvme copy $n --sdlba=100 --slbs=16 --blocks=0
  nvme read $n -s 100 -c 0 -z 512 -d /tmp/copied
  cmp /tmp/block /tmp/copied
  nvme verify $n -s 0 -c 7
  nvme write-uncor $n -s 8 -c 0
  says "Unrecovered Read Error" nvme read $n -s 8 -c 0 -z 512 -d /tmp/copied
  says "Unrecovered Read Error" nvme error-log $c -e 1
  nvme write-zeroes $n -s 8 -c 0
  nvme read $n -s 8 -c 0 -z 512 -d /tmp/copied
  nvme dsm $n -d -s 0 -b 128
  says "Invalid Command Opcode" nvme admin-passthru $c --opcode=0xff
  says "Invalid Command Opcode" nvme io-passthru $n --opcode=0x7f --namespace-id=2

  says "regctl *: 0" nvme resv-report $n
  nvme resv-register $n --nrkey=0x1234 --rrega=0
  nvme resv-acquire $n --crkey=0x1234 --rtype=1 --racqa=0
  says "rkey *: 1234" nvme resv-report $n
  says "rtype *: 1" nvme resv-report $n
  says "Reservation Conflict" nvme resv-release $n --crkey=0x99 --rtype=1 --rrela=0
  nvme resv-release $n --crkey=0x1234 --rtype=1 --rrela=0
  says "rtype *: 0" nvme resv-report $n
  nvme resv-register $n --crkey=0x1234 --rrega=1
  nvme resv-notif-log $c

  nvme device-self-test $c -s 1
  for i in $(seq 100); do
    nvme self-test-log $c >/tmp/self-test
    ! grep -q "Current operation *: 0x*0*$" /tmp/self-test || break
    sleep 0.1
  done
  says "Self Test Code *: 1" nvme self-test-log $c
  nvme format $n -l 1 -f
  [ $(cat /sys/block/nvme0n2/queue/logical_block_size) = 4096 ]
  nvme format $n -l 0 -s 1 -f
  [ $(cat /sys/block/nvme0n2/queue/logical_block_size) = 512 ]
  nvme reset $c
  nvme subsystem-reset $c
  # this kernel does not look at a controller again by itself that it has reset so
  nvme reset $c
  says "Invalid Command Opcode" nvme detach-ns $c -n 2 -c 0
  nvme ns-rescan $c
  says "^/dev/nvme0n2.* 2 .* 512 .*nvme0" nvme list -v
  verify cli $n 1M 2
  nvme sanitize $c -a 2
  for i in $(seq 100); do
    nvme sanitize-log $c >/tmp/sanitize
    ! grep -q "SSTAT.*0x[0-9a-f]*1$" /tmp/sanitize || break
    sleep 0.1
  done
  says "SSTAT.*0x[0-9a-f]*1$" nvme sanitize-log $c
  is_zero $n 0 2
'

# take_partition: the file system behind the first partition, as it is on this machine.
take_partition() {
  local start
  start=$(sfdisk -d disk.img | sed -n 's/.*img2 : start= *\([0-9]*\),.*/\1/p')
  dd if=disk.img of=part.img bs=512 skip="$start" 2>/dev/null
}

test_data() {
  start_device 'file:disk.img;create=192M' prwrap:mem:64M
  mkdir share
  when add change added add mem:8M
  when resize change resized resize 3 16M
  when remove change removed remove 3
  # sanitizing wipes it
  when take eval 'take_partition && : >share/taken'
  # nvme-cli maps the registers
  guest_append=iomem=relaxed boot "$data_script
$change_script
>/share/take
wait-for /share/taken 60
$cli_script"
  stop_device
  check_ext4 part.img partition
  [[ ! -e share/no-cli ]] || { cat share/no-cli; skip_test "$(cat share/no-cli)"; }
}

# The last guest finds what the two before it had; its controller looks at its doorbells by itself, on two threads, and sleeps in between.
# shellcheck disable=SC2016
last_script=$guest_verify'
  wait-for /dev/nvme0n1
  mkdir -p /tmp/mnt
  mount -t ext4 /dev/nvme0n1 /tmp/mnt
  umount /tmp/mnt
  for i in 1 2; do
    verify poll /dev/nvme0n2 2M 2
    sleep 0.2
  done
  controller_is_well
'

test_kills() {
  truncate -s 128M disk.img
  mkfs.ext4 -q disk.img
  mkdir share
  start_device file:disk.img
  boot_and_kill qemu
  # the same controller serves the next one
  boot_and_kill server
  wait "$device_pid" || true
  [[ -S s && -S c ]] # nobody has removed them
  start_device --doorbells poll --threads 2 file:disk.img mem:64M
  boot "$last_script"
  stop_device
  e2fsck -fn disk.img
  check_synced qemu
  check_synced server
}

run_test "a guest's data, resets, namespaces and nvme-cli" test_data
run_test "QEMU and the server are killed" test_kills
t_done
