#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What clients see of a disk that fails: errors with the right errno and text through nbdkit, bad blocks that badblocks
# finds and rewriting heals, and power cuts through the control file.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/mount.sh"
need_mount
client=$top_builddir/tests/nbd-client

need_client() {
  [[ -x $client ]] || skip_test "there is no tests/nbd-client (apt-get install libnbd-dev)"
}

# say LINE: writes it to the control file, and waits until it was taken.
say() {
  local i
  rm -f control.reply
  echo "$1" >control
  for ((i = 0; i < 600; i++)); do
    [[ ! -s control.reply ]] || break
    pause 0.05
  done
  grep -q '^ok' control.reply || { cat control.reply; return 1; }
}

# ------------------------------------------------------------------ errors through nbdkit

test_errno() {
  need_client
  local rules="write=nospace,at=0,len=4K+write=io,at=4K,len=4K+read=medium,at=8K,len=4K+zeroes=readonly+flush=io,nth=2"
  start_nbdkit "fault:$rules:mem:1M"
  "$client" "$nbd_uri" "fails ENOSPC write 0 4K 0x11" "fails EIO write 4K 512 0x11" "fails EIO read 10K 512 0" \
    "fails EPERM zero 64K 4K" "write 12K 4K 0x22" "read 12K 4K 0x22" "flush" "fails EIO flush" "flush"
  cat "$nbd_log"
  grep -q "fault: rule 1 (write=nospace,at=0,len=4K): request 1" "$nbd_log"
  grep -q "fault: rule 3 (read=medium,at=8K,len=4K): request 1, block 20" "$nbd_log"
  grep -q "fault: rule 5 (flush=io,nth=2): request 2" "$nbd_log"
}

test_qemu_io() {
  need qemu-io qemu-utils
  start_nbdkit "fault:write=io,every=3:mem:1M"
  qemu-io -f raw -c "write 0 512" -c "write 512 512" -c "write 1k 512" -c "write 2k 512" "$nbd_uri" >out 2>&1 || true
  cat out
  [[ $(grep -c "wrote 512/512" out) -eq 3 ]]
  [[ $(grep -c "write failed: Input/output error" out) -eq 1 ]]
}

# A copy fails at the bad spot, and works when that is not asked for. One connection: nbdkit itself does not survive it
# when a client leaves with answers under way on several.
test_nbdcopy() {
  need nbdcopy libnbd-bin
  head -c 8M /dev/urandom >in.img
  start_nbdkit "fault:read=medium,at=4M,len=512,after=1:file:in.img"
  nbdcopy --connections=1 "$nbd_uri" out.img
  cmp in.img out.img
  (fails nbdcopy --connections=1 --requests=1 "$nbd_uri" out.img) 2>&1 | tee err
  grep -qi "input/output error" err
}

# fio sees each hundredth write fail, and goes on.
test_fio() {
  need fio fio
  fio --enghelp 2>/dev/null | grep -qw nbd || skip_test "this fio was built without its nbd engine"
  start_nbdkit "fault:write=io,every=100:mem:16M"
  fio --name=faults --ioengine=nbd --uri="$nbd_uri" --rw=write --bs=4k --size=4m --continue_on_error=io \
    --output-format=json --output=out || true
  grep -q '"total_err" : 10' out
}

# Found by checksums, since no request fails.
test_corruption_is_found() {
  need fio fio
  fio --enghelp 2>/dev/null | grep -qw nbd || skip_test "this fio was built without its nbd engine"
  start_nbdkit "$1"
  fio --name=verify --ioengine=nbd --uri="$nbd_uri" --rw=randwrite --bs=4k --size=4m --verify=crc32c --do_verify=1 \
    --verify_fatal=1 >out 2>&1 && { cat out; return 1; }
  grep -qiE "verify" out
}

test_limit() {
  need_client
  start_nbdkit "fault:;write-rate=1M:mem:16M"
  local begin=$EPOCHREALTIME end
  "$client" "$nbd_uri" "write 0 512K 0x11" "write 512K 512K 0x11" "write 1M 512K 0x11"
  end=$EPOCHREALTIME
  [[ $((${end/./} - ${begin/./})) -ge 990000 ]]
}

# ------------------------------------------------------------------ bad blocks

# bad: the blocks of 4 KiB that badblocks finds, in one line.
bad() { badblocks -b 4096 disks/d 2>/dev/null | xargs; }

test_badblocks() {
  need badblocks e2fsprogs
  mkdir disks
  start_mount disks "d=fault:read=medium,at=1M,len=8K,heal+read=medium,at=3000K,len=512,heal:mem:8M"
  gives "256 257 750" bad
  gives "256 257 750" bad
  dd if=/dev/urandom of=disks/d bs=4096 seek=256 count=1 conv=notrunc,fsync status=none
  gives "257 750" bad
  dd if=/dev/urandom of=disks/d bs=4096 seek=750 count=1 conv=notrunc,fsync oflag=direct status=none
  gives "257" bad
  badblocks -b 4096 -w disks/d 2>/dev/null
  gives "" bad
}

# A file system that is made around them, and works.
test_ext4_on_bad_blocks() {
  need mkfs.ext4 e2fsprogs
  need e2fsck e2fsprogs
  need dumpe2fs e2fsprogs
  need debugfs e2fsprogs
  mkdir disks
  start_mount disks "d=fault:read=medium,at=20M,len=8K+read=medium,at=30M,len=4K:mem:64M"
  mkfs.ext4 -q -F -b 4096 -c disks/d
  gives "5120 5121 7680" eval 'dumpe2fs -b disks/d 2>/dev/null | xargs'
  head -c 20M /dev/urandom >content
  debugfs -w -R "write content file" disks/d
  e2fsck -fn disks/d
  debugfs -R "dump file out" disks/d
  cmp content out
}

# ------------------------------------------------------------------ power

# What was flushed is there after a cut, and the server is the same one.
test_power() {
  need_client
  start_nbdkit "fault:;cache;control=$PWD/control:file:disk.img;create=16M"
  "$client" "$nbd_uri" "write 0 1M 0x11" "flush" "write 1M 1M 0x22 fua" "write 2M 1M 0x33"
  holds disk.img 2M 1M '\0'
  say ";power=off"
  "$client" "$nbd_uri" "fails EIO read 0 512 0" "fails EIO write 0 512 0" "fails EIO flush"
  grep -q "fault: the power is off" "$nbd_log"
  say ";power=on"
  "$client" "$nbd_uri" "read 0 1M 0x11" "read 1M 1M 0x22"
  # Of the rest each block is old or new.
  nbdcopy "$nbd_uri" out.img
  dd if=out.img bs=1M skip=2 count=1 status=none | od -An -v -tx1 -w512 | sort -u | tee blocks
  [[ $(grep -vcE '^( 00)+$|^( 33)+$' blocks) -eq 0 ]]
  cmp out.img disk.img
}

# A server that is killed loses what it held, and nothing that was flushed.
test_kill() {
  truncate -s 16M disk.img
  mkdir disks
  start_mount disks "d=fault:;cache:file:disk.img"
  head -c 1M /dev/zero | tr '\0' a >full-of-a
  head -c 1M /dev/zero | tr '\0' b >full-of-b
  dd if=full-of-a of=disks/d bs=64K conv=notrunc,fsync status=none
  dd if=full-of-b of=disks/d bs=64K seek=16 conv=notrunc oflag=direct status=none
  holds disk.img 0 1M a
  holds disk.img 1M 1M '\0'
  kill_mount
  holds disk.img 0 1M a
  holds disk.img 1M 1M '\0'
}

# The power fails while a file system is made, again and again; then it is made, and is good.
test_power_under_mkfs() {
  need mkfs.ext4 e2fsprogs
  need e2fsck e2fsprogs
  local n
  mkdir disks
  start_mount disks "d=fault:;cache;control=$PWD/control:mem:64M"
  head -c 1M disks/d >/dev/null
  for n in 3 10 40; do
    say "write/zeroes=cut,after=$n"
    fails mkfs.ext4 -q -F disks/d
    fails dd if=disks/d of=/dev/null bs=4096 count=1 iflag=direct
  done
  say ";power=on"
  mkfs.ext4 -q -F disks/d
  say ";power=off"
  say ";power=on"
  e2fsck -fn disks/d
}

run_test "each errno and text arrives at the client and in the log" test_errno
run_test "qemu-io sees every third write fail" test_qemu_io
run_test "nbdcopy fails at a bad spot" test_nbdcopy
run_test "fio counts the errors" test_fio
run_test "fio finds corrupted reads" test_corruption_is_found "fault:read=corrupt,every=50:mem:16M"
run_test "fio finds corrupted writes" test_corruption_is_found "fault:write=corrupt,every=50:mem:16M"
run_test "fio finds lost writes" test_corruption_is_found "fault:write=drop,every=50:mem:16M"
run_test "fio finds misplaced writes" test_corruption_is_found "fault:write=misplace,every=50:mem:16M"
run_test "a limit of bytes a second" test_limit
run_test "badblocks finds just the bad ones, and writing heals" test_badblocks
run_test "a file system around bad blocks" test_ext4_on_bad_blocks
run_test "the power goes and comes back" test_power
run_test "a server that is killed loses what it held" test_kill
run_test "the power fails while a file system is made" test_power_under_mkfs
t_done
