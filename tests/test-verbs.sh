#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Verbs that copy, compare, measure and change disks, with qemu-img, coreutils and nbdkit as referees.
. "${top_srcdir:?is set by make check}/tests/lib.sh"

# make_image FILE [MIB]: data, holes, zeroes that are allocated, odd places; by default of 24 MiB, at least of 8.
make_image() {
  local mib=${2:-24}
  truncate -s "${mib}M" "$1"
  head -c $((mib / 8))M /dev/urandom 1<>"$1"
  dd if=/dev/zero of="$1" bs=1M seek=$((mib / 4)) count=$((mib / 4)) conv=notrunc status=none
  put "$1" $((mib * 262144 + 300000)) zeroes
  head -c 70000 /dev/urandom | dd of="$1" bs=512 seek=$((mib * 1200 + 1)) conv=notrunc status=none
  put "$1" $((mib * 1048576 - 3)) end
}

# put FILE OFFSET TEXT: in the place of what is there.
put() { printf %s "$3" | dd of="$1" bs=64K oflag=seek_bytes seek="$2" conv=notrunc status=none; }

# first_difference A B: the first byte that differs, from 0.
first_difference() { cmp "$1" "$2" 2>/dev/null | awk '{ print $5 - 1 }'; }

allocated() { echo $(($(stat -c '%b * %B' "$1"))); }

same_to_qemu() {
  need qemu-img qemu-utils
  qemu-img compare -f raw -F raw "$1" "$2"
}

# nothing_left: no temporary file of a copy is here.
nothing_left() { [[ -z $(find . -name '.*.??????' -type f) ]] || { find . -type f; return 1; }; }

# ------------------------------------------------------------------ convert

test_convert() {
  make_image a.img
  exits 0 "$platter" convert --verify a.img b.img
  cmp a.img b.img
  same_to_qemu a.img b.img
  [[ ! -s out && ! -s err ]]
  nothing_left
}

# What is zero takes no space, whether the source says so or not.
test_convert_sparse() {
  make_image a.img
  exits 0 "$platter" convert a.img b.img
  [[ $(allocated a.img) -gt $((8 * 1048576)) && $(allocated b.img) -lt $((7 * 524288)) ]]
  exits 0 "$platter" convert --sparse 0 a.img c.img
  [[ $(allocated c.img) -gt $((8 * 1048576)) ]]
  cmp a.img c.img
  exits 0 "$platter" convert --sparse 5000 --jobs 1 a.img d.img
  cmp a.img d.img
}

test_convert_kinds() {
  make_image a.img
  exits 0 "$platter" convert a.img sql:b.db
  exits 0 "$platter" convert sql:b.db c.img
  cmp a.img c.img
  exits 0 "$platter" convert 'sql:b.db' 'file:d.img;block=4096'
  cmp a.img d.img
  # What is data ends in the middle of a larger block.
  exits 0 "$platter" convert slice:512,12M:a.img 'file:odd.img;block=4096'
  cmp odd.img <("$platter" read slice:512,12M:a.img)
  exits 0 "$platter" convert slice:1M,3M:a.img e.img
  cmp e.img <(dd if=a.img bs=1M skip=1 count=3 status=none)
  nothing_left
}

# A chain becomes one disk.
test_convert_chain() {
  make_image a.img
  exits 0 "$platter" create sqldiff:d.db:a.img
  printf changed >piece
  exits 0 "$platter" write --offset 7000000 sqldiff:d.db:a.img <piece
  exits 0 "$platter" convert --verify sqldiff:d.db:a.img flat.img
  [[ $(cmp -l a.img flat.img | wc -l) -le 7 ]]
  [[ $(tail -c +7000001 flat.img | head -c 7) = changed ]]
}

# A new disk has the source's blocks where its spec leaves that open.
test_convert_blocks() {
  exits 0 "$platter" convert 'mem:1M;block=4096' sql:b.db
  exits 0 "$platter" info sql:b.db
  grep -q '^block  *4 KiB' out
}

test_convert_into() {
  make_image a.img
  head -c 28M /dev/urandom >b.img
  cp b.img before
  exits 0 "$platter" convert --into --verify a.img b.img
  cmp -n $((24 * 1048576)) a.img b.img
  cmp <(tail -c 4M before) <(tail -c 4M b.img)
  exits 0 "$platter" convert -n a.img 'striped:64K:[mem:12M,mem:12M]'
  exits 0 "$platter" convert -n --verify a.img memdiff:b.img
  exits 0 "$platter" convert -n --verify slice:0,1M:a.img slice:1M,1M:a.img # another part of the same file
}

test_convert_refuses() {
  make_image a.img 8
  echo precious >b.img
  exits 1 "$platter" convert a.img b.img
  [[ $(cat b.img) = precious ]]
  exits 1 "$platter" convert slice:0,512:a.img 'file:c.img;block=4096'
  grep -q 'not a multiple of the block size' err
  nothing_left
}

test_convert_force() {
  make_image a.img
  echo old >b.img
  ln -s b.img link.img
  exits 0 "$platter" convert --force a.img link.img
  cmp a.img b.img
  [[ -L link.img ]]
  nothing_left
}

# What somebody writes to is not taken away.
test_convert_in_use() {
  need_plugin
  make_image a.img
  truncate -s 1M b.img
  start_nbdkit file:b.img
  exits 1 "$platter" convert --force a.img b.img
  grep -q "/b.img' is locked by another writer" err
  nothing_left
}

test_convert_jobs() {
  local jobs
  make_image a.img
  for jobs in 1 3 64; do
    exits 0 "$platter" convert -f --jobs "$jobs" a.img b.img
    cmp a.img b.img
  done
}

# The destination fills up: nothing is left of it.
test_convert_full() {
  make_image a.img
  exits 1 bash -c 'ulimit -f 2048; trap "" XFSZ; exec "$@"' - "$platter" convert a.img b.img
  grep -q 'File too large' err
  [[ ! -e b.img ]]
  nothing_left
}

# ------------------------------------------------------------------ being stopped

# Slow enough to be met: 24 MiB, each read of which takes 80 ms, one at a time.
slow_convert() { exec env --default-signal=INT,TERM,HUP "$platter" convert --jobs 1 --sparse 0 "$@" delay:80ms:file:a.img b.img; }

# wait_for_copy: until the copy has begun, from when on signals are its own.
wait_for_copy() {
  local i
  for ((i = 0; i < 400; i++)); do
    ! compgen -G '.b.img.??????' >/dev/null || return 0
    pause 0.05
  done
  return 1
}

# stopped_by SIGNAL: it ends by that, not by itself.
stopped_by() {
  local signal=$1 status=0
  slow_convert >out 2>err &
  wait_for_copy
  kill "-$signal" $!
  wait $! || status=$?
  cat err
  [[ $status = $((128 + $(kill -l "$signal"))) ]] || { echo "exit status $status"; return 1; }
}

test_stop() {
  local signal
  head -c 24M /dev/urandom >a.img
  for signal in INT TERM HUP; do
    stopped_by "$signal"
    says 'platter convert: stopped by a signal'
    rm err
    [[ ! -e b.img ]]
    nothing_left
  done
}

# Whenever it is killed: the old file is whole, or the new one is.
test_kill() {
  local status
  head -c 16M /dev/urandom >a.img
  head -c 1M /dev/urandom >old.img
  for _ in {1..15}; do
    cp old.img b.img
    "$platter" convert --force --sparse 0 --jobs 2 delay:1ms:file:a.img b.img &
    pause "0.0$((RANDOM % 90 + 10))"
    kill -KILL $! 2>/dev/null || true
    status=0
    wait $! || status=$?
    cmp -s b.img old.img || cmp b.img a.img
    [[ $status = 137 ]] || cmp b.img a.img
    rm -f .b.img.??????
  done
}

test_usr1() {
  head -c 24M /dev/urandom >a.img
  slow_convert --progress none >out 2>err &
  local pid=$! i
  wait_for_copy
  pause 0.1
  kill -USR1 $pid
  for ((i = 0; i < 200; i++)); do
    [[ ! -s err ]] || break
    pause 0.02
  done
  kill $pid
  wait $pid || true
  cat err
  grep -qE '^platter convert: copy: [0-9.]+ [KM]iB of 24 MiB \([0-9]+%\), [0-9.]+ [KMG]iB/s, [0-9:]+ left$' err
}

test_progress_json() {
  need jq jq
  make_image a.img
  exits 0 "$platter" convert --verify --progress json a.img b.img
  jq -se 'map(.phase) | unique == ["compare", "copy"]' err
  jq -se 'last | .done_bytes == 25165824 and .total_bytes == 25165824 and .verb == "convert"' err
}

test_progress_bar() {
  make_image a.img
  exits 0 "$platter" convert --progress bar a.img b.img
  tr '\r' '\n' <err | grep -qE '^copy \[#{24}\] 24 MiB of 24 MiB \(100%\)'
  exits 2 "$platter" convert --progress jsn a.img c.img
  says "platter convert: --progress: 'jsn' is none of auto, bar, plain, json, none (did you mean 'json'?)" \
    "Try 'platter convert --help'."
}

# ------------------------------------------------------------------ compare

test_compare() {
  make_image a.img
  cp a.img b.img
  exits 0 "$platter" compare a.img b.img
  [[ $(cat out) = 'They are the same' ]]
  put b.img 22000001 x
  exits 1 "$platter" compare a.img b.img
  [[ $(cat out) = 'They differ, first at byte 22000001' ]]
  # The first of several, in a hole and out of it, on either side.
  put b.img 3000000 x
  exits 1 "$platter" compare b.img a.img
  grep -q "first at byte $(first_difference a.img b.img)$" out
  exits 1 "$platter" compare --quiet a.img b.img
  [[ ! -s out ]]
}

test_compare_sizes() {
  make_image a.img
  cp a.img b.img
  truncate -s 32M b.img
  exits 0 "$platter" compare a.img b.img
  grep -q 'same but for zeroes at the end' out
  exits 1 "$platter" compare --strict a.img b.img
  put b.img 30000000 x
  exits 1 "$platter" compare b.img a.img
  grep -q 'first at byte 30000000' out
}

test_compare_fails() {
  need jq jq
  make_image a.img 8
  exits 3 "$platter" compare a.img missing.img
  grep -q '^platter compare: B: file: ' err
  exits 2 "$platter" compare a.img
  exits 1 "$platter" compare --json a.img null:8M
  [[ $(jq -c '[.same, .first_difference]' out) = "[false,$(first_difference a.img /dev/zero)]" ]]
}

# ------------------------------------------------------------------ map, measure, hash

test_map() {
  need jq jq
  need qemu-img qemu-utils
  make_image a.img
  exits 0 "$platter" map --json a.img
  jq -c '.extents[] | [.offset, .length, .type == "data"]' out >ours
  qemu-img map --output=json -f raw a.img | jq -c '.[] | [.start, .length, .data]' >theirs
  diff theirs ours
  jq -e '.size == 25165824 and .file == "a.img"' out
  exits 0 "$platter" map slice:1M,2M:ro:a.img
  grep -qE '^ +0 +2097152  data +1048576$' out
  exits 0 "$platter" map memdiff:a.img
  grep -qE '^ +0 +[0-9]+  data +-$' out
  exits 2 "$platter" map --json --svg a.img
}

test_map_svg() {
  need xmllint libxml2-utils
  make_image 'a & <b>.img'
  exits 0 "$platter" map --svg 'file:"a & <b>.img"'
  xmllint --noout out
  grep -q 'a &amp; &lt;b&gt;.img' out
}

test_measure() {
  need jq jq
  make_image a.img
  exits 0 "$platter" measure --json --scan a.img
  jq -e '.size == 25165824 and .data_bytes + .zero_bytes + .hole_bytes == .size and .scanned' out
  [[ $(jq .required_bytes out) -lt $((7 * 524288)) && $(jq .data_bytes out) -gt $((8 * 1048576)) ]]
  exits 0 "$platter" convert a.img b.img
  [[ $(jq .required_bytes out) -le $(allocated b.img) ]] || [[ $(allocated b.img) = 0 ]]
}

test_hash() {
  local algorithm
  make_image a.img
  for algorithm in sha256 sha512 sha1 md5; do
    exits 0 "$platter" hash -a "$algorithm" a.img
    diff out <("${algorithm}sum" a.img)
  done
  exits 0 "$platter" hash --jobs 1 a.img
  diff out <(sha256sum a.img)
  exits 2 "$platter" hash -a sha257 a.img
  says "platter hash: --algorithm: 'sha257' is none of sha256, sha512, sha1, md5, blake2b512 (did you mean 'sha256'?)" \
    "Try 'platter hash --help'."
}

# ------------------------------------------------------------------ read, write, zero, trim, resize, create

test_read() {
  make_image a.img
  "$platter" read --offset 5000001 --length 20000003 a.img >got
  cmp got <(tail -c +5000002 a.img | head -c 20000003)
  "$platter" read a.img | cmp - a.img
  "$platter" read --length 0 a.img | cmp - /dev/null
  exits 1 "$platter" read --offset 24M --length 1 a.img
  says "platter read: 'a.img': 1 bytes at 25165824 go past the end of the disk, which has 25165824 bytes; at most 0 are there"
  exits 1 bash -c '"$1" read a.img >/dev/full' - "$platter"
  grep -q 'cannot write the output: No space left' err
}

test_write() {
  make_image a.img 8
  cp a.img b.img
  head -c 1000003 /dev/urandom >piece
  exits 0 "$platter" write --offset 4097 a.img <piece
  dd if=piece of=b.img bs=64K oflag=seek_bytes seek=4097 conv=notrunc status=none
  cmp a.img b.img
  exits 1 "$platter" write --offset 8M a.img <piece
  grep -q 'the input is longer than the 0 bytes' err
  exits 1 "$platter" write --length 2M a.img <piece
  says "platter write: 'a.img': the input ends after 1000003 of 2097152 bytes"
  exits 1 "$platter" write ro:a.img <piece
  grep -q 'read-only' err
}

test_zero() {
  make_image a.img
  cp a.img b.img
  exits 0 "$platter" zero --offset 1000 --length 3000000 a.img
  dd if=/dev/zero of=b.img bs=1000 seek=1 count=3000 conv=notrunc status=none
  cmp a.img b.img
  exits 0 "$platter" zero --all a.img
  cmp -n $((24 * 1048576)) a.img /dev/zero
  [[ $(allocated a.img) = 0 ]]
  exits 0 "$platter" zero --all --keep a.img
  [[ $(allocated a.img) -ge $((24 * 1048576)) ]]
  exits 2 "$platter" zero a.img
  says 'platter zero: which bytes? --offset and --length tell, or --all' "Try 'platter zero --help'."
  exits 2 "$platter" zero --all --length 1 a.img
}

test_trim() {
  make_image a.img
  exits 0 "$platter" trim --length 5M a.img
  cmp -n $((5 * 1048576)) a.img /dev/zero
  exits 0 "$platter" trim --all a.img
  [[ $(allocated a.img) = 0 ]]
}

test_resize() {
  make_image a.img 8
  cp a.img b.img
  exits 0 "$platter" resize a.img +8M
  [[ $(stat -c %s a.img) = 16777216 ]]
  cmp -n 8388608 a.img b.img
  exits 1 "$platter" resize a.img 8M
  exits 0 "$platter" resize --shrink -- a.img -8M
  cmp a.img b.img
}

test_create() {
  exits 0 "$platter" create a.img 10M
  [[ $(stat -c %s a.img) = 10485760 ]]
  exits 0 "$platter" create 'sql:b.db;block=4096' 10M
  exits 0 "$platter" compare --strict a.img sql:b.db
  exits 0 "$platter" create sqldiff:c.db:a.img
  exits 0 "$platter" create 'file:d.img;create=1M'
}

# Numbers out of their limits, before anything is opened.
test_limits() {
  exits 2 "$platter" convert --jobs 0 a b
  says "platter convert: --jobs: '0' is less than 1" "Try 'platter convert --help'."
  exits 2 "$platter" convert --jobs 65 a b
  says "platter convert: --jobs: '65' is more than 64" "Try 'platter convert --help'."
  exits 2 "$platter" convert --sparse 1G a b
  says "platter convert: --sparse: '1G' is more than 512K" "Try 'platter convert --help'."
  exits 2 "$platter" read --offset x a
  grep -q "^platter read: --offset: 'x' is not a size" err
  exits 2 "$platter" read --offset 16E a
  grep -q "^platter read: --offset: the size '16E' does not fit" err
}

# ------------------------------------------------------------------ info: what it looks like, pictures, lint

test_probe() {
  need jq jq
  truncate -s 8M a.img
  exits 0 "$platter" info a.img
  grep -qx 'content    nothing that is known' out
  printf 'vhdxfile' | dd of=a.img conv=notrunc status=none
  exits 0 "$platter" info a.img
  grep -qx "content    certainly VHDX image ('vhdxfile' at 0)" out
  printf '\x53\xef' | dd of=a.img bs=1 seek=1080 conv=notrunc status=none
  exits 0 "$platter" info --json a.img
  [[ $(jq -r '.content[] | .sureness' out | tr '\n' ' ') = 'certainly possibly ' ]]
  exits 0 "$platter" info slice:512,1M:a.img
  fails grep -q 'VHDX' out
}

# What others make is known again.
test_probe_others() {
  need qemu-img qemu-utils
  need mkfs.ext4 e2fsprogs
  local format
  for format in qcow2 vmdk vdi vhdx; do
    qemu-img create -q -f "$format" "a.$format.img" 8M
    truncate -s %512 "a.$format.img"
    exits 0 "$platter" info "a.$format.img"
    grep -qi "^content    [a-z]* $format image" out
  done
  qemu-img create -q -f vpc a.vhd 8M
  exits 0 "$platter" info file:a.vhd
  grep -qx "content    certainly dynamic VHD image ('conectix' at 0)" out
  qemu-img create -q -f vpc -o subformat=fixed b.vhd 8M
  exits 0 "$platter" info file:b.vhd
  grep -qx "content    certainly fixed VHD image ('conectix' in the last 512 bytes)" out
  truncate -s 8M fs.img
  mkfs.ext4 -q fs.img
  exits 0 "$platter" info fs.img
  grep -q '^content    possibly ext2' out
  exits 0 "$platter" create sql:q.db 1M
  exits 0 "$platter" info file:q.db
  grep -q '^content    certainly SQLite database' out
  printf 'label: dos\n2048,2048\n' | sfdisk -q fs.img || skip_test "there is no sfdisk"
  exits 0 "$platter" info fs.img
  grep -q 'possibly MBR partition table' out
  printf 'label: gpt\n2048,2048\n' | sfdisk -q fs.img
  exits 0 "$platter" info fs.img
  grep -q '^content    certainly GPT partition table' out
  fails grep -q MBR out
}

test_info_pictures() {
  need xmllint libxml2-utils
  truncate -s 1M 'a "q" <b>&.img'
  local spec='striped:64K:[memdiff:file:"a \"q\" <b>&.img",mem:1M,null:1M]'
  exits 0 "$platter" info --svg "$spec"
  xmllint --noout out
  [[ $(grep -c 'rx="6"' out) = 5 ]]
  exits 0 "$platter" info --dot "$spec"
  [[ $(grep -c ' -> ' out) = 4 && $(grep -c 'label=' out) = 5 ]]
  grep -qF 'a \"q\" <b>&.img' out
  if command -v dot >/dev/null; then dot -Tsvg out >/dev/null; fi
  exits 2 "$platter" info --svg --dot mem:1M
  says 'platter info: --json, --dot and --svg exclude each other' "Try 'platter info --help'."
}

# mends FILE: what it tells to do about it, done, makes it or a copy of it what Azure accepts.
mends() {
  sed -n 's/^ *to mend it: //p' out >mend
  rm -f NEW.vhd
  PATH=$PWD/bin:$PATH bash -e mend
  [[ -e NEW.vhd ]] || cp "$1" NEW.vhd
  exits 0 "$platter" info --lint=azure NEW.vhd
}

test_lint_azure() {
  need qemu-img qemu-utils
  need jq jq
  qemu-img create -q -f vpc -o subformat=fixed,force_size good.vhd 10M
  exits 0 "$platter" info --lint=azure good.vhd
  [[ $(cat out) = "Azure would accept 'good.vhd'" ]]
  mkdir bin
  printf '#!/bin/sh\nexec %q "$@"\n' "$platter" >bin/platter
  chmod +x bin/platter
  # Without force_size the disk has whole cylinders, not whole MiB.
  qemu-img create -q -f vpc -o subformat=fixed odd.vhd 10M
  exits 1 "$platter" info --lint=azure odd.vhd
  grep -q 'which is not whole MiB' out
  mends odd.vhd
  qemu-img create -q -f vpc -o force_size dynamic.vhd 10M
  exits 1 "$platter" info --lint=azure dynamic.vhd
  head -n 1 out | grep -qx 'it is a dynamic VHD, not a fixed one'
  mends dynamic.vhd
  cp good.vhd bad.vhd
  put bad.vhd $((10485760 + 100)) x
  exits 1 "$platter" info --lint=azure bad.vhd
  grep -q 'checksum of the VHD footer is wrong' out
  mends bad.vhd
  (head -c 1M /dev/zero && cat good.vhd) >long.vhd
  exits 1 "$platter" info --lint=azure long.vhd
  grep -q 'the file has 11534848 bytes; a disk of 10485760 bytes and the footer are 10486272' out
  mends long.vhd
  qemu-img create -q -f vhdx x.vhdx 10M
  exits 1 "$platter" info --lint=azure --json x.vhdx
  jq -e '.accepted == false and .problems[0].problem == "it is a vhdx image, not a VHD"' out
  exits 1 "$platter" info --lint=azure x.vhdx
  mends x.vhdx
  truncate -s 1000448 raw.img
  exits 1 "$platter" info --lint=azure raw.img
  grep -q 'no VHD footer' out
  mends raw.img
  : >empty.vhd
  exits 1 "$platter" info --lint=azure empty.vhd
  exits 1 "$platter" info --lint=azure missing.vhd
  says "platter info: 'missing.vhd': No such file or directory"
  exits 1 "$platter" info --lint=azure .
  says "platter info: '.' is not a regular file"
}

# ------------------------------------------------------------------ bench

test_bench() {
  need jq jq
  exits 0 "$platter" bench --time 100ms --json --reads 70 --overwrite --depth 8 --threads 2 mem:16M
  jq -e '.read.count > 0 and .write.count > 0 and .block_size == 4096 and .depth == 8' out
  jq -e '(.read.count / (.read.count + .write.count)) as $share | $share > 0.6 and $share < 0.8' out
  jq -e '.read.latency_ns | .p50 <= .p90 and .p90 <= .p99 and .["p99.9"] <= .max' out
  exits 0 "$platter" bench --time 50ms mem:1M
  grep -q '^read .* IOPS' out
  fails grep -q '^write' out
}

# A known latency is what is measured, and depth does what it says.
test_bench_latency() {
  need jq jq
  exits 0 "$platter" bench --time 300ms --json --depth 4 delay:20ms:null:1M
  jq -e '.read.latency_ns.p50 >= 20000000 and .read.count >= 8 and .read.count <= 64' out
}

test_bench_svg() {
  need xmllint libxml2-utils
  exits 0 "$platter" bench --time 50ms --svg --reads 50 --overwrite mem:1M
  xmllint --noout out
  [[ $(grep -c '<polyline' out) = 2 ]]
}

test_bench_refuses() {
  make_image a.img 8
  cp a.img b.img
  exits 2 "$platter" bench --reads 50 a.img
  says 'platter bench: writes destroy what the disk holds: --overwrite allows them' "Try 'platter bench --help'."
  exits 1 "$platter" bench --block 1000 a.img
  says "platter bench: 'a.img': --block: 1000 bytes are not whole blocks of the disk, which are of 512 bytes"
  exits 1 "$platter" bench --block 1M slice:0,512K:a.img
  says "platter bench: 'slice:0,512K:a.img': --block: 1048576 bytes are more than the disk has"
  exits 1 "$platter" bench --reads 0 --overwrite --time 1s ro:a.img
  cmp a.img b.img
}

# ------------------------------------------------------------------ serve

need_serve() {
  need nbdkit nbdkit
  [[ $SANITIZERS = no ]] || skip_test "nbdkit would have to preload a sanitizer, which only tests/lib.sh does"
}

# start_serve ARG...: sets serve_pid and, from what it prints, serve_uri.
start_serve() {
  need_serve
  local i
  rm -f uris # of the one before
  XDG_RUNTIME_DIR=$PWD env --default-signal=INT,TERM,HUP "$platter" serve "$@" >uris 2>serve-err &
  serve_pid=$!
  at_exit kill "$serve_pid"
  for ((i = 0; i < 400; i++)); do
    [[ ! -s uris ]] || break
    kill -0 "$serve_pid" 2>/dev/null || { cat serve-err; return 1; }
    pause 0.05
  done
  read -r serve_uri <uris
}

stop_serve() {
  local status=0
  kill "-${1:-TERM}" "$serve_pid"
  wait "$serve_pid" || status=$?
  cat serve-err
  t_undo=()
  [[ $status = 0 ]]
}

test_serve() {
  need nbdcopy libnbd-bin
  local socket
  make_image a.img
  start_serve --readonly a.img
  nbdcopy "$serve_uri" copy.img
  cmp a.img copy.img
  socket=${serve_uri#*socket=}
  [[ -S $socket ]]
  stop_serve INT
  [[ ! -e $socket && ! -e ${socket%/*} ]]
}

test_serve_exports() {
  need nbdinfo libnbd-bin
  need jq jq
  start_serve --json -U 'a socket' one=mem:1M two.x=mem:2M
  pause 0.2
  [[ $(nbdinfo --size "$(jq -r '.uris[0]' uris)") = 1048576 ]]
  [[ $(nbdinfo --size "$(jq -r '.uris[1]' uris)") = 2097152 ]]
  stop_serve
  [[ ! -e 'a socket' ]]
}

test_serve_port() {
  need nbdinfo libnbd-bin
  local port=$((20000 + RANDOM % 20000))
  start_serve --port "$port" mem:1M
  [[ $serve_uri = "nbd://localhost:$port/" && $(nbdinfo --size "$serve_uri") = 1048576 ]]
  stop_serve HUP
}

test_serve_tls() {
  need nbdinfo libnbd-bin
  printf 'me:%s\n' "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >keys.psk
  chmod 600 keys.psk
  local port=$((20000 + RANDOM % 20000))
  start_serve --tls require --tls-psk keys.psk mem:1M
  [[ $serve_uri = nbds+unix:* ]]
  fails nbdinfo --size "nbd${serve_uri#nbds}"
  [[ $(nbdinfo --size "$serve_uri") = 1048576 ]] # it says as whom, and where the key is
  stop_serve
  start_serve --port "$port" --tls require --tls-psk keys.psk disk=mem:1M
  [[ $(nbdinfo --size "$serve_uri") = 1048576 ]]
  stop_serve
}

test_serve_ready() {
  need_serve
  need python3 python3
  python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("manager"); s.settimeout(20)
open("bound", "w").close()
print(s.recv(100).decode(), s.recv(100).decode())' >told &
  while [[ ! -e bound ]]; do pause 0.05; done
  NOTIFY_SOCKET=$PWD/manager start_serve mem:1M
  stop_serve
  wait
  [[ $(cat told) = 'READY=1 STOPPING=1' ]]
}

# When the command is killed nbdkit ends as well.
test_serve_killed() {
  need jq jq
  local child i
  start_serve --json mem:1M
  pause 0.2
  child=$(jq .pid uris)
  kill -KILL "$serve_pid"
  wait "$serve_pid" || true
  t_undo=()
  for ((i = 0; i < 100; i++)); do
    [[ -d /proc/$child ]] || return 0
    pause 0.05
  done
  return 1
}

test_serve_refuses() {
  exits 1 "$platter" serve mem:1M mem:2M
  says "platter serve: 'mem:1M': expected NAME=SPEC, since there are several disks"
  exits 1 "$platter" serve a=mme:1M
  grep -q "^platter serve: a: .*did you mean" err
  touch there
  exits 1 "$platter" serve -U there mem:1M
  says "platter serve: 'there' exists already"
  exits 1 "$platter" serve --nbdkit ./no-such-nbdkit mem:1M
  says "platter serve: cannot run './no-such-nbdkit': No such file or directory (it is in the package nbdkit)" \
    'platter serve: nbdkit has failed'
  exits 2 "$platter" serve -U a -p 1 mem:1M
  exits 2 "$platter" serve --tls-psk keys mem:1M
  says 'platter serve: keys and certificates go with --tls=on or --tls=require' "Try 'platter serve --help'."
  [[ $SANITIZERS = no ]] || return 0
  need nbdkit nbdkit
  exits 1 "$platter" serve missing.img
  grep -q 'missing.img' err
}

run_test "convert copies" test_convert
run_test "convert leaves out zeroes" test_convert_sparse
run_test "convert: any kind to any kind" test_convert_kinds
run_test "convert: a chain becomes one disk" test_convert_chain
run_test "convert: blocks of the source" test_convert_blocks
run_test "convert --into: a disk that is there" test_convert_into
run_test "convert refuses" test_convert_refuses
run_test "convert --force replaces a file" test_convert_force
run_test "convert --force: not what somebody writes to" test_convert_in_use
run_test "convert --jobs" test_convert_jobs
run_test "convert: no room" test_convert_full
run_test "convert stopped by a signal leaves nothing" test_stop
run_test "convert killed leaves the old or the new" test_kill
run_test "SIGUSR1 prints how far it is" test_usr1
run_test "progress as JSON" test_progress_json
run_test "progress as a bar" test_progress_bar
run_test "compare" test_compare
run_test "compare: other sizes" test_compare_sizes
run_test "compare: failures have a status of their own" test_compare_fails
run_test "map is as qemu-img's" test_map
run_test "map --svg is a picture" test_map_svg
run_test "measure" test_measure
run_test "hash is as sha256sum's" test_hash
run_test "read" test_read
run_test "write" test_write
run_test "zero" test_zero
run_test "trim" test_trim
run_test "resize" test_resize
run_test "create" test_create
run_test "info tells what bytes look like" test_probe
run_test "info knows what others make" test_probe_others
run_test "info draws the tree" test_info_pictures
run_test "info --lint=azure" test_lint_azure
run_test "bench" test_bench
run_test "bench: a known latency" test_bench_latency
run_test "bench --svg is a picture" test_bench_svg
run_test "bench refuses" test_bench_refuses
run_test "serve: a private socket" test_serve
run_test "serve: several disks" test_serve_exports
run_test "serve: a port" test_serve_port
run_test "serve: TLS" test_serve_tls
run_test "serve tells a service manager" test_serve_ready
run_test "serve killed" test_serve_killed
run_test "serve refuses" test_serve_refuses
run_test "limits of options" test_limits
t_done
