#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The NVMe controller behind an IOMMU that QEMU emulates: each buffer of the guest's kernel is mapped and unmapped by messages, and a driver
# in user space has the controller by vfio-pci, resets it and maps memory as it likes.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/guest.sh"
. "$top_srcdir/tests/guest-nvme.sh"
need_device
need_helper guest-vfio linux-libc-dev

# shellcheck disable=SC2034 # for boot()
guest_append='intel_iommu=on iommu.strict=1'
# As QEMU's documentation of VFIO has it: without the caching mode it does not hear of what the guest maps.
iommu=(-device 'intel-iommu,intremap=on,caching-mode=on')

# shellcheck disable=SC2016 # the guest's shell expands it
kernel_script=$guest_ext4$guest_verify'
  wait-for /dev/nvme0n1
  [ -e /sys/class/nvme/nvme0/device/iommu_group ]
  [ $(cat /sys/class/nvme/nvme0/device/iommu_group/type) = DMA ]
  work /dev/nvme0n1 iommu
  verify strict /dev/nvme0n2 2M 2 &
  for i in 1 2 3; do
    sleep 0.5
    echo 1 >/sys/class/nvme/nvme0/reset_controller
  done
  wait $!
  controller_is_well
'

test_kernel() {
  truncate -s 128M disk.img
  mkdir share
  start_device "$@" file:disk.img mem:64M
  boot "$kernel_script" "${iommu[@]}"
  stop_device
  check_ext4 disk.img iommu
}

# The kernel's driver has it, then one in user space, then the kernel's again.
# shellcheck disable=SC2016
user_script=$guest_verify'
  wait-for /dev/nvme0n1
  device=$(readlink -f /sys/class/nvme/nvme0/device)
  address=${device##*/}
  modprobe -a vfio vfio_iommu_type1 vfio-pci
  echo vfio-pci >$device/driver_override
  echo $address >$device/driver/unbind
  echo $address >/sys/bus/pci/drivers_probe
  group=$(basename $(readlink $device/iommu_group))
  wait-for /dev/vfio/$group
  /share/guest-vfio /dev/vfio/$group $address '"${GUEST_ROUNDS:-10}"'
  echo >$device/driver_override
  echo $address >$device/driver/unbind
  echo $address >/sys/bus/pci/drivers_probe
  wait-for /dev/nvme0n1
  verify again /dev/nvme0n1 2M 1
'

test_user() {
  mkdir share
  start_device "$@" mem:32M
  cp "$helper" share/
  guest_modules=nvme,vfio,vfio_iommu_type1,vfio-pci boot "$user_script" "${iommu[@]}"
  stop_device
}

run_test "a kernel's driver behind an IOMMU" test_kernel --threads 2
run_test "a driver in user space behind an IOMMU" test_user
run_test "... that writes to mapped doorbells" test_user --doorbells poll
t_done
