#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The recipes of docs/tutorial.md run as they stand there. Here are the files that they begin with, and what must be so afterwards.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "${top_srcdir:?}/tests/mount.sh"
need_mount
platter=$top_builddir/platter # with the plugin beside it

tutorial=$top_srcdir/docs/tutorial.md

# recipe NUMBER: the commands of its section.
recipe() { awk -v n="$1" '/^## / { on = $2 == n "." } /^```$/ { code = 0 } on && code; /^```sh$/ { code = 1 }' "$tutorial"; }

# make_disk FILE MIB: with data in it.
make_disk() {
  head -c "$(($2 / 2))M" /dev/urandom >"$1"
  truncate -s "${2}M" "$1"
}

# run_recipe NUMBER: what it prints is in `out`.
run_recipe() {
  recipe "$1" >commands
  [[ -s commands ]] || { echo "there is no recipe $1"; return 1; }
  mkdir bin
  printf '#!/bin/sh\nexec %q "$@"\n' "$platter" >bin/platter
  if [[ -e machine ]]; then mv machine bin/qemu-system-x86_64; fi
  chmod +x bin/*
  at_exit umount_all
  PATH=$PWD/bin:$PATH XDG_RUNTIME_DIR=$PWD timeout 60 bash -eu -o pipefail commands >out 2>err || { cat out err; echo "recipe $1 has failed"; return 1; }
  cat out err
}

umount_all() { [[ ! -d disks ]] || ! mountpoint -q disks || fusermount3 -uqz disks; }

# The machine is there for a moment, with its processors stopped, and its disk is written to in its place.
test_boot() {
  need qemu-system-x86_64 qemu-system-x86
  need qemu-io qemu-utils
  need nbdkit nbdkit
  [[ $SANITIZERS = no ]] || skip_test "nbdkit would have to preload a sanitizer, which only tests/lib.sh does"
  make_disk raw 16
  "$platter" convert raw vhdx:server.vhdx
  cat >machine <<EOF
#!/bin/sh
echo quit | $(command -v qemu-system-x86_64) "\$@" -nodefaults -display none -S -monitor stdio
qemu-io -f raw -c 'write -P 7 0 64k' "\$(cat uri)" && echo written
EOF
  run_recipe 1
  grep -qx written out
  grep -qx 'server.vhdx: OK' out
}

test_crypt() {
  run_recipe 2
  grep -qx 'nobody shall read this' out
}

test_database() {
  need sqlite3 sqlite3
  run_recipe 3
  grep -q '^[0-9]* failed$' out
  [[ $(tail -n 1 out) = ok ]]
  [[ $(sqlite3 after.db 'SELECT count(*) FROM t') -ge 20 ]]
}

test_chain() {
  make_disk raw 16
  "$platter" convert raw vhdx:base.vhdx
  "$platter" create 'vhdx:first.avhdx;parent=base.vhdx'
  echo first | "$platter" write --offset 1M first.avhdx
  "$platter" create 'vhdx:checkpoint.avhdx;parent=first.avhdx'
  echo second | "$platter" write --offset 2M checkpoint.avhdx
  run_recipe 4
  rm base.vhdx first.avhdx
  [[ $("$platter" read --offset 1M --length 5 flat.vhdx) = first && $("$platter" read --offset 2M --length 6 flat.vhdx) = second ]]
}

test_shrink() {
  local before
  head -c 160M /dev/zero | tr '\0' x | "$platter" write 'vhdx:disk.vhdx;create=160M;block=8M'
  before=$(stat -c %s disk.vhdx)
  run_recipe 5
  [[ $(stat -c %s disk.vhdx) -le $((before - 64 * 1048576)) ]]
  grep -qx "'disk.vhdx': 0 problems" out
}

test_stripe() {
  make_disk source.img 64
  run_recipe 6
  grep -qx 'They are the same' out
  cmp <(head -c 64K source.img) <(head -c 64K one.img)
  cmp <(tail -c +65537 source.img | head -c 64K) <(head -c 64K two.img)
}

test_partition() {
  need sfdisk fdisk
  need mkfs.ext4 e2fsprogs
  truncate -s 24M raw
  printf 'label: gpt\n2048,32768\n' | sfdisk -q raw
  truncate -s 16M fs
  mkdir content
  echo 'from the partition' >content/hello
  mkfs.ext4 -q -d content fs
  dd if=fs of=raw bs=1M seek=1 conv=notrunc status=none
  "$platter" convert raw vhdx:machine.vhdx
  run_recipe 7
  grep -qx 'from the partition' out
}

test_overlay() {
  make_disk base.img 8
  run_recipe 8
  grep -qx changed out
  grep -qx 'base.img: OK' out
}

test_compare() {
  make_disk disk.img 8
  run_recipe 9
  grep -qx 'They are the same' out
  grep -qx 'They differ, first at byte 1234567' out || [[ $(tail -c +1234568 disk.img | head -c 1) = x ]]
  [[ $(grep -cE '^[0-9a-f]{64}  disk' out) = 2 && $(grep -E '^[0-9a-f]{64}  disk' out | cut -c -64 | sort -u | wc -l) = 1 ]]
}

test_grow() {
  run_recipe 10
  grep -qx 67108864 out
  grep -qx 'size       64 MiB (67108864 bytes)' out
}

run_test "1. boot from a Hyper-V image" test_boot
run_test "2. an encrypted scratch disk" test_crypt
run_test "3. a database on a failing disk" test_database
run_test "4. flatten a chain" test_chain
run_test "5. shrink a VHDX file" test_shrink
run_test "6. a stripe" test_stripe
run_test "7. mount a partition" test_partition
run_test "8. an overlay in SQLite" test_overlay
run_test "9. compare two images" test_compare
run_test "10. grow a disk in use" test_grow
t_done
