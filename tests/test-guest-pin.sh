#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A guest whose kernel knows no messages drives the NVMe controller by INTx; others put it to sleep and wake it, and reset the function under
# load, with very many vectors and with one.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/guest.sh"
. "$top_srcdir/tests/guest-nvme.sh"
need_device

# shellcheck disable=SC2016 # the guest's shell expands it
pin_script=$guest_ext4$guest_verify'
  wait-for /dev/nvme0n1
  grep "IO-APIC.*nvme0q" /proc/interrupts
  ! grep "MSI.*nvme0q" /proc/interrupts
  work /dev/nvme0n1 pin
  verify pin /dev/nvme0n2 2M 2 &
  for i in 1 2 3; do
    sleep 0.5
    echo 1 >/sys/class/nvme/nvme0/reset_controller
  done
  wait $!
  # nobody was left with a pin that is up for nothing
  ! dmesg | grep -i "nobody cared"
  controller_is_well
  cat /proc/interrupts
'

test_pin() {
  truncate -s 128M disk.img
  mkdir share
  start_device "$@" file:disk.img mem:64M
  guest_append=pci=nomsi boot "$pin_script"
  stop_device
  check_ext4 disk.img pin
}

# shellcheck disable=SC2016
power_script=$guest_verify'
  wait-for /dev/nvme0n1
  device=$(readlink -f /sys/class/nvme/nvme0/device)
  address=${device##*/}
  verify before /dev/nvme0n1 2M 2
  # D3hot and back, by the register: the capability of power management is at 40h
  power() { dd if=$device/config bs=1 skip=68 count=1 2>/dev/null | od -An -tu1 | tr -d " "; }
  echo $address >/sys/bus/pci/drivers/nvme/unbind
  printf "\003" | dd of=$device/config bs=1 seek=68 2>/dev/null
  [ $(($(power) & 3)) = 3 ]
  printf "\000" | dd of=$device/config bs=1 seek=68 2>/dev/null
  [ $(($(power) & 3)) = 0 ]
  echo $address >/sys/bus/pci/drivers/nvme/bind
  wait-for /dev/nvme0n1
  # a function level reset, by the capability, under load
  grep -q flr $device/reset_method
  verify reset /dev/nvme0n1 8M 2 &
  for i in 1 2 3; do
    sleep 0.4
    echo 1 >$device/reset
  done
  wait $!
  verify after /dev/nvme0n1 2M 2
'

test_power() {
  mkdir share
  start_device "$@" mem:64M
  boot "$power_script"
  stop_device
}

run_test "interrupts by the pin" test_pin
run_test "... with polled doorbells and two threads" test_pin --doorbells poll --threads 2
run_test "sleep, and resets of the function" test_power --vectors 2048
run_test "... with a single vector" test_power --vectors 1 --queues 1
t_done
