#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# fio writes at random and checks what it reads by checksums.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_plugin
need fio fio
fio --enghelp 2>/dev/null | grep -qw nbd || skip_test "this fio was built without its nbd engine"

# verify SPEC ARG...
verify() {
  local spec=$1
  shift
  start_nbdkit "$spec"
  fio --name=verify --ioengine=nbd --uri="$nbd_uri" --rw=randwrite --size=16m --verify=crc32c --verify_fatal=1 \
    --do_verify=1 --randseed=1 --output-format=normal --minimal "$@" >out 2>&1 || { cat out; return 1; }
  cat out
  # Field 5 is the error of the job.
  [[ $(grep '^3;' out | cut -d ';' -f 5 | sort -u) = 0 ]]
}

run_test "4 KiB blocks on mem:" verify mem:16M --bs=4k --iodepth=16
run_test "any size and place on mem:" verify mem:16M --bsrange=512-256k --blockalign=512 --iodepth=32
run_test "any size and place on 4096-byte blocks" verify 'mem:16M;block=4096' --bsrange=512-64k --blockalign=512 --iodepth=32
run_test "any size and place on file:" verify 'file:disk.img;create=16M' --bsrange=512-256k --blockalign=512 --iodepth=32
run_test "any size and place on memdiff:" verify memdiff:mem:16M --bsrange=512-256k --blockalign=512 --iodepth=32
# Trims each block and then writes it; not more than one request at a time, since those of one block have no order.
run_test "every block trimmed and then written" verify mem:16M --rw=randtrimwrite --bs=4k --iodepth=1
run_test "four clients at once, each on a part of its own" verify mem:64M --bs=4k --iodepth=8 --numjobs=4 \
  --size=16m --offset_increment=16m
t_done
