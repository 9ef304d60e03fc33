#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Verbs on VHD and VHDX files: create, convert, resize, info, map, check, compact, commit, rebase, with qemu-img and libvhdi as referees.
. "${top_srcdir:?is set by make check}/tests/lib.sh"

# make_raw FILE: 12 MiB with 3 MiB of data, and a little near the end.
make_raw() {
  head -c 3M /dev/urandom >"$1"
  truncate -s 12M "$1"
  printf end | dd of="$1" bs=1 seek=12000000 conv=notrunc status=none
}

# put SPEC OFFSET TEXT
put() { printf %s "$3" | "$platter" write --offset "$2" "$1"; }

# shows SPEC FILE: it holds what the raw file does.
shows() { "$platter" read "$1" | cmp - "$2"; }

clean() { exits 0 "$platter" check "$1"; }

# block_option FORMAT: small blocks, so that a small disk has several.
block_option() { case $1 in vhd) echo "block=${vhd_block:-512K}" ;; vhdx) echo 'block=1M' ;; esac; }

qemu_name() { case $1 in vhd) echo vpc ;; vhdx) echo vhdx ;; esac; }

# make_chain FORMAT: base.FORMAT, child.FORMAT over it with changes, of whole `grain` bytes, and want, what the child shows.
# Made once, and then copied: every test runs in the same folder, so the paths in them are right.
make_chain() {
  local kept=$t_tmp/chain-$1-${vhd_block:-}-${grain:-}
  if [[ -e $kept ]]; then
    cp -a "$kept/." .
    return
  fi
  make_raw raw
  exits 0 "$platter" convert raw "$1:base.$1;$(block_option "$1")"
  exits 0 "$platter" create "$1:child.$1;parent=base.$1;$(block_option "$1")"
  cp raw want
  local at
  for at in 5 1000000 2500000 7000000; do
    at=$((at / ${grain:-1} * ${grain:-1}))
    printf "%-${grain:-1}s" "changed at $at" >piece
    "$platter" write --offset "$at" "child.$1" <piece
    dd if=piece of=want bs=64K oflag=seek_bytes seek="$at" conv=notrunc status=none
  done
  shows "child.$1" want
  mkdir "$kept"
  cp -a raw want "base.$1" "child.$1" "$kept"
}

# ------------------------------------------------------------------ create, convert, resize

test_create() {
  local spec
  for spec in 'vhd:a.vhd' 'vhd:b.vhd;type=fixed' 'vhdx:a.vhdx' 'vhdx:b.vhdx;type=fixed;block=1M' 'vhdx:c.vhdx;sector=4096;physical=4096'; do
    exits 0 "$platter" create "$spec" 8M
  done
  need qemu-img qemu-utils
  qemu-img info -f vpc --output=json a.vhd | grep -q '"virtual-size": 8388608'
  qemu-img info -f vpc --output=json b.vhd | grep -q '"virtual-size": 8388608'
  for spec in a b; do # QEMU knows no sectors of 4096 bytes
    qemu-img check -f vhdx "$spec.vhdx"
    qemu-img info -f vhdx --output=json "$spec.vhdx" | grep -q '"virtual-size": 8388608'
  done
  exits 0 "$platter" info c.vhdx
  grep -q '^block  *4 KiB' out
}

# To a format, from it to the other, and back: nothing is lost on the way, and the referee reads each.
test_convert() {
  local format
  make_raw raw
  exits 0 "$platter" convert --verify raw vhd:a.vhd
  exits 0 "$platter" convert --verify a.vhd vhdx:b.vhdx
  exits 0 "$platter" convert --verify b.vhdx 'vhd:c.vhd;type=fixed'
  exits 0 "$platter" convert --verify c.vhd d.img
  cmp raw d.img
  need qemu-img qemu-utils
  for format in a.vhd b.vhdx c.vhd; do
    qemu-img compare -f raw -F "$(qemu_name "${format#*.}")" raw "$format"
  done
  # Of whatever size, and with the source's sectors.
  truncate -s 1000448 odd
  exits 0 "$platter" convert odd vhd:odd.vhd
  exits 0 "$platter" compare --strict odd odd.vhd
  exits 0 "$platter" convert 'mem:8M;block=4096' vhdx:e.vhdx
  exits 0 "$platter" info e.vhdx
  grep -q '^block  *4 KiB' out
}

test_convert_flatten() {
  local format=$1
  make_chain "$format"
  exits 0 "$platter" convert --flatten "child.$format" "$format:flat.$format"
  rm base."$format"
  shows "flat.$format" want
}

test_resize() {
  local format=$1
  make_raw raw
  exits 0 "$platter" convert raw "$format:a.$format;$(block_option "$format")"
  exits 0 "$platter" resize "a.$format" 20M
  truncate -s 20M raw
  shows "a.$format" raw
  clean "a.$format"
  exits 0 "$platter" resize --shrink "a.$format" 2M
  truncate -s 2M raw
  shows "a.$format" raw
  clean "a.$format"
  need qemu-img qemu-utils
  qemu-img compare -f raw -F "$(qemu_name "$format")" raw "a.$format"
}

# ------------------------------------------------------------------ info, map

test_info() {
  need jq jq
  make_chain vhd
  exits 0 "$platter" info --json child.vhd
  jq -e '.images[0] | .type == "differencing" and .use.full == 4 and (.parents | length) > 1 and .file == "child.vhd"' out
  jq -e '.images[0].parent_id' out >id
  exits 0 "$platter" info --json base.vhd
  jq -e '.images[0].id' out | diff id -
  make_chain vhdx
  exits 0 "$platter" info --json child.vhdx
  jq -e '.images[0] | .log.empty and .use.partial == 3 and .use.sector_bitmaps == 1 and (.headers | map(.valid) | all)' out
  jq -e '.images[0].linkage[0]' out >id
  exits 0 "$platter" info --json base.vhdx
  jq -e '.images[0].data_write_id' out | diff id -
  exits 0 "$platter" info memdiff:base.vhdx
  grep -q '^image base.vhdx$' out
  grep -q '^   block_bytes *1 MiB (1048576 bytes)$' out
}

# Where map says that bytes lie they do, in the child and in the parent.
test_map() {
  need jq jq
  local format=$1 offset length at file nr=0
  make_chain "$format"
  exits 0 "$platter" map --json "child.$format"
  jq -r '. as $all | .extents[] | select(.file_offset != null) | [.offset, .length, .file_offset, $all.files[.file]] | @tsv' out >runs
  while read -r offset length at file; do
    cmp <(tail -c +$((offset + 1)) want | head -c "$length") <(tail -c +$((at + 1)) "$file" | head -c "$length")
    nr=$((nr + 1))
  done <runs
  [[ $nr -ge 7 ]]
  # What lies nowhere is zero.
  jq -r '.extents[] | select(.file_offset == null) | [.offset, .length] | @tsv' out >runs
  while read -r offset length; do
    cmp <(tail -c +$((offset + 1)) want | head -c "$length") <(head -c "$length" /dev/zero)
  done <runs
  [[ $(jq '[.extents[].length] | add' out) = 12582912 ]]
  exits 0 "$platter" map "child.$format"
  grep -q "^file 2: .*/base.$format$" out
  exits 0 "$platter" map "slice:1M,1M:ro:base.$format"
  grep -qE "^ +0 +[0-9]+  data +[0-9]+$" out
  exits 0 "$platter" map "memdiff:base.$format"
  grep -qE "^ +0 +[0-9]+  data +-$" out
}

test_map_svg() {
  need xmllint libxml2-utils
  make_chain vhdx
  exits 0 "$platter" map --svg child.vhdx
  xmllint --noout out
  grep -q '<title>0 to [0-9]*; byte 0 at [0-9]* in child.vhdx</title>' out
}

# ------------------------------------------------------------------ check

test_check_vhd() {
  need jq jq
  make_chain vhd
  clean base.vhd
  grep -qx "'base.vhd': 0 problems" out
  # The footer at the end is lost.
  cp base.vhd bad.vhd
  truncate -s -512 bad.vhd
  cp bad.vhd before
  exits 3 "$platter" check bad.vhd
  grep -qx '  there is no footer at the end' out
  grep -qx '      repair: the copy at the front is written to the end' out
  grep -qx -- '--repair mends 1 of it' out
  cmp before bad.vhd
  exits 0 "$platter" check --repair --json bad.vhd
  jq -e '.nr_problems == 1 and .repaired and .nr_left == 0' out
  clean bad.vhd
  shows bad.vhd raw
  # An entry that points behind the end of the file.
  printf '\x7f\xff\xff\x00' | dd of=bad.vhd bs=1 seek=1536 conv=notrunc status=none
  exits 3 "$platter" check bad.vhd
  grep -q '^  BAT entry 0, ' out
  exits 0 "$platter" check -r bad.vhd
  clean bad.vhd
}

test_check_vhdx() {
  need jq jq
  make_chain vhdx
  clean base.vhdx
  cp base.vhdx bad.vhdx
  dd if=/dev/zero of=bad.vhdx bs=1K seek=64 count=4 conv=notrunc status=none
  cp bad.vhdx before
  exits 3 "$platter" check bad.vhdx
  grep -q '^  header at 64 KiB: not valid: ' out
  cmp before bad.vhdx
  exits 0 "$platter" check --repair --json bad.vhdx
  jq -e '.nr_problems == 1 and .repaired and .nr_left == 0 and .problems[0].where == "header at 64 KiB"' out
  clean bad.vhdx
  shows bad.vhdx raw
  # Not to be mended: no header is left.
  dd if=/dev/zero of=bad.vhdx bs=1K seek=64 count=68 conv=notrunc status=none
  exits 3 "$platter" check --repair bad.vhdx
  grep -qx '      cannot be repaired' out
}

# What is no image at all is a problem of it, and no failure of the check.
test_check_unusable() {
  need jq jq
  local file
  : >empty.vhd
  : >empty.vhdx
  printf 'some text' >text.vhd
  head -c 3M /dev/urandom >noise.vhdx
  head -c 3M /dev/urandom >noise.vhd
  for file in empty.vhd empty.vhdx text.vhd noise.vhd noise.vhdx; do
    exits 3 "$platter" check "$file"
    grep -q '^  file: ' out
    grep -qx '      cannot be repaired' out
    exits 3 "$platter" check --repair --json "$file"
    jq -e '.nr_left == 1 and (.repaired | not) and (.structures | last | .sound | not)' out
  done
}

# structure FILTER: there is exactly one structure for which that holds.
structure() { jq -e "[.structures[] | select($1)] | length == 1" out || { jq .structures out; return 1; }; }

test_check_structures_vhdx() {
  need jq jq
  make_chain vhdx
  exits 0 "$platter" check --json child.vhdx
  jq -e 'all(.structures[]; .sound)' out
  structure '.structure == "file identifier" and .offset == 0 and .found == "made by Platter"'
  structure '.structure == "header 1" and .offset == 65536 and .length == 4096'
  structure '.structure == "header 2" and .offset == 131072'
  structure '.structure == "log" and .found == "empty" and .offset >= 1048576'
  structure '.structure == "region table 1" and .offset == 196608'
  structure '.structure == "region table 2" and .offset == 262144'
  structure '.structure == "metadata region"'
  structure '.structure == "virtual disk size" and .found == "12582912 bytes" and .length == 8'
  structure '.structure == "parent locator" and (.found | contains("base.vhdx"))'
  structure '.structure == "block allocation table" and .offset % 1048576 == 0'
  structure '.structure == "payload blocks" and (.found | startswith("0 fully and 3 partially present"))'
  structure '.structure == "sector bitmap blocks" and .length == 1048576 and .found == "1"'
  structure ".structure == \"end of the file\" and .offset == $(stat -c %s child.vhdx)"
  # Its size is where the check says.
  jq '.structures[] | select(.structure == "virtual disk size") | .offset' out >place
  [[ $(od -An -t u8 -j "$(cat place)" -N 8 child.vhdx | tr -d ' ') = 12582912 ]]
  # What is wrong is told of the structure, too.
  dd if=/dev/zero of=child.vhdx bs=1K seek=64 count=4 conv=notrunc status=none
  exits 3 "$platter" check --json child.vhdx
  structure '.structure == "header 1" and (.sound | not) and .found == "not valid: no signature"'
  structure '.structure == "header 2" and .sound'
  exits 3 "$platter" check child.vhdx
  fails grep -q sound out
  exits 3 "$platter" check --verbose child.vhdx
  grep -q '^  header 1  *65536  *4096  NOT SOUND: not valid: no signature$' out
  grep -q '^  header 2  *131072  *4096  sound: ' out
  exits 0 "$platter" check --repair --verbose child.vhdx
  fails grep -q 'NOT SOUND' out
}

test_check_structures_vhd() {
  need jq jq
  make_chain vhd
  exits 0 "$platter" check --json child.vhd
  jq -e 'all(.structures[]; .sound)' out
  structure ".structure == \"footer\" and .offset == $(($(stat -c %s child.vhd) - 512)) and .length == 512"
  structure '.structure == "copy of the footer" and .offset == 0'
  structure '.structure == "dynamic header" and .offset == 512 and .length == 1024 and .found == "blocks of 524288 bytes"'
  structure '.structure == "block allocation table" and .found == "24 entries"'
  structure '.structure == "parent names" and (.found | contains("base.vhd"))'
  structure '.structure == "data blocks" and .found == "4 of 24" and .offset % 512 == 0'
  structure '.structure == "sector bitmaps"'
  jq -e '[.structures[] | select(.structure == "parent locator")] | length >= 2' out
  exits 0 "$platter" check --json 'base.vhd'
  exits 0 "$platter" create 'vhd:fixed.vhd;type=fixed' 8M
  exits 0 "$platter" check --json fixed.vhd
  structure '.structure == "data" and .length == 8388608'
  # An entry that points behind the end of the file.
  printf '\x7f\xff\xff\x00' | dd of=base.vhd bs=1 seek=1536 conv=notrunc status=none
  exits 3 "$platter" check --verbose base.vhd
  grep -q '^  block allocation table  *1536  *512  NOT SOUND: BAT entry 0, ' out
}

# Each tells all of the work that there is, in its phases; and says what it says on standard output alone.
test_progress() {
  local format=$1
  need jq jq
  make_chain "$format"
  whole() { jq -es --arg phases "$1" '([.[] | select(.done_bytes == .total_bytes) | .phase] | unique | join(" ")) == $phases and all(.[]; .done_bytes <= .total_bytes)' err; }
  exits 0 "$platter" check --progress=json "base.$format"
  whole check
  jq -es 'all(.[]; .total_bytes >= 1048576)' err # headers, regions and table, or all that the blocks show
  if [[ $format = vhdx ]]; then
    cp base.vhdx damaged.vhdx
    printf '\004' | dd of=damaged.vhdx bs=1 seek=3145728 conv=notrunc status=none # a block of a state that there is not
    exits 0 "$platter" check --repair --progress=json damaged.vhdx
    whole 'check repair'
  fi
  exits 0 "$platter" commit --progress=json "child.$format"
  whole commit
  exits 0 "$platter" compact --progress=json "base.$format"
  whole 'look for zeroes move blocks'
  exits 0 "$platter" compact --progress=plain "base.$format"
  grep -q '^platter compact: move blocks: .*(100%)' err
  shows "base.$format" want
}

test_check_refuses() {
  make_raw raw
  exits 1 "$platter" check raw
  says "platter check: 'raw': file: cannot be checked (vhd, vhdx can)"
  exits 1 "$platter" check memdiff:a.vhdx
  says "platter check: 'memdiff:a.vhdx': memdiff: cannot be checked (vhd, vhdx can)"
  exits 1 "$platter" check missing.vhdx
  grep -q "^platter check: .*'missing.vhdx'.*No such file" err
  exits 0 "$platter" create vhdx:a.vhdx 8M
  exits 1 "$platter" check --repair 'vhdx:a.vhdx;ro'
  says "platter check: 'a.vhdx' is to be opened read-only, says ro in its SPEC"
  exits 1 "$platter" check 'vhdx:b.vhdx;create=8M'
  says "platter check: 'vhdx:b.vhdx;create=8M': vhdx: create= is for a new disk, and this one must be there"
  [[ ! -e b.vhdx ]]
}

# ------------------------------------------------------------------ compact

test_compact() {
  local format=$1 before
  make_raw raw
  exits 0 "$platter" convert --sparse 0 raw "$format:a.$format;$(block_option "$format")"
  head -c 8M /dev/urandom | "$platter" write --offset 4M "a.$format"
  "$platter" zero --keep --offset 1M --length 9M "a.$format"
  "$platter" read "a.$format" >want
  before=$(stat -c %s "a.$format")
  need jq jq
  exits 0 "$platter" compact --json "a.$format"
  jq -e ".before_bytes == $before and .after_bytes < .before_bytes and .file == \"a.$format\"" out
  [[ $(jq .after_bytes out) = $(stat -c %s "a.$format") ]]
  [[ $(stat -c %s "a.$format") -lt $((before - 4194304)) ]]
  shows "a.$format" want
  clean "a.$format"
  exits 0 "$platter" compact "a.$format"
  grep -q ' now; 0 empty blocks dropped, 0 moved$' out
  need qemu-img qemu-utils
  qemu-img compare -f raw -F "$(qemu_name "$format")" want "a.$format"
}

test_compact_refuses() {
  exits 0 "$platter" create vhd:a.vhd 8M
  exits 1 "$platter" compact --no-scan a.vhd
  says "platter compact: 'a.vhd': --no-scan is for vhdx; of a vhd blocks are always read"
  exits 1 "$platter" compact mem:1M
  says "platter compact: 'mem:1M': mem: cannot be compacted (vhd, vhdx can)"
}

# ------------------------------------------------------------------ commit, rebase

test_commit() {
  local format=$1
  make_chain "$format"
  exits 0 "$platter" commit "child.$format"
  grep -q "/base.$format' has all that 'child.$format' holds, which is not needed any more$" out
  shows "child.$format" want
  shows "base.$format" want
  clean "base.$format"
  clean "child.$format"
  rm "child.$format"
  need qemu-img qemu-utils
  qemu-img compare -f raw -F "$(qemu_name "$format")" want "base.$format"
}

# Into the middle of a chain, whose bottom stays as it is; a child that was made larger makes the parent so.
test_commit_middle() {
  local format=$1
  make_chain "$format"
  cp "base.$format" before
  exits 0 "$platter" create "$format:top.$format;parent=child.$format"
  put "top.$format" 3000000 top
  printf top | dd of=want bs=1 seek=3000000 conv=notrunc status=none
  exits 0 "$platter" resize "top.$format" 16M
  put "top.$format" 16000000 end
  truncate -s 16M want
  printf end | dd of=want bs=1 seek=16000000 conv=notrunc status=none
  exits 0 "$platter" commit "top.$format"
  cmp before "base.$format"
  shows "child.$format" want
  shows "top.$format" want
  clean "child.$format"
}

test_commit_raw() {
  make_raw raw
  exits 0 "$platter" create 'vhd:child.vhd;parent=file:raw'
  put child.vhd 1000000 changed
  "$platter" read child.vhd >want
  exits 0 "$platter" commit child.vhd
  cmp raw want
}

test_commit_refuses() {
  make_chain vhdx
  # Not when the parent is another one by now.
  put base.vhdx 0 x
  exits 1 "$platter" commit child.vhdx
  grep -q 'it is not as it was when the child was made' err
}

# To a parent that differs here and there, by data against zeroes in both directions, and is shorter or longer.
test_rebase() {
  local format=$1 size
  make_chain "$format"
  for size in 12M 8M 16M; do
    rm -f "other.$format"
    cp raw other
    truncate -s "$size" other
    dd if=/dev/zero of=other bs=1000 seek=500 count=300 conv=notrunc status=none
    head -c 100000 /dev/urandom | dd of=other bs=1000 seek=4001 conv=notrunc status=none
    exits 0 "$platter" convert other "$format:other.$format;$(block_option "$format")"
    exits 0 "$platter" rebase "child.$format" "other.$format"
    shows "child.$format" want
    clean "child.$format"
    shows "other.$format" other
    exits 0 "$platter" info "child.$format"
    grep -q "path .*/other.$format, type" out
    exits 0 "$platter" rebase "child.$format" "base.$format"
    shows "child.$format" want
  done
}

# Parents that hold the same: nothing is copied. One that was renamed: the header is enough.
test_rebase_header() {
  need jq jq
  local format=$1
  make_chain "$format"
  cp "base.$format" same."$format"
  exits 0 "$platter" rebase --json "child.$format" "same.$format"
  jq -e '.copied_bytes == 0 and (.header_only | not)' out
  shows "child.$format" want
  mv "same.$format" renamed."$format"
  exits 1 "$platter" rebase "child.$format" "renamed.$format"
  grep -q -- '(--header-only does without the old parent)' err
  exits 0 "$platter" rebase --header-only "child.$format" "renamed.$format"
  shows "child.$format" want
  clean "child.$format"
}

# A child of the child goes on: what the child shows has not changed.
test_rebase_middle() {
  make_chain vhdx
  cp base.vhdx other.vhdx
  put other.vhdx 4000000 other
  exits 0 "$platter" create "vhdx:top.vhdx;parent=child.vhdx"
  shows top.vhdx want
  exits 0 "$platter" rebase child.vhdx other.vhdx
  shows child.vhdx want
  shows top.vhdx want
}

# What is nothing in both is not read to be compared.
test_rebase_holes() {
  exits 0 "$platter" create 'vhdx:void.vhdx;create=64T'
  exits 0 "$platter" create 'vhdx:void2.vhdx;create=64T'
  exits 0 "$platter" create 'vhdx:child.vhdx;parent=void.vhdx;block=256M'
  exits 0 timeout 60 "$platter" rebase child.vhdx void2.vhdx
}

test_rebase_raw() {
  make_chain vhd
  exits 0 "$platter" rebase child.vhd file:raw
  shows child.vhd want
  rm base.vhd
  shows child.vhd want
  clean child.vhd
}

test_rebase_refuses() {
  local format=$1
  make_chain "$format"
  cp "child.$format" before
  exits 1 "$platter" rebase "child.$format" "child.$format"
  exits 0 "$platter" create "$format:top.$format;parent=child.$format"
  exits 1 "$platter" rebase "child.$format" "top.$format"
  exits 1 "$platter" rebase --header-only "base.$format" "child.$format"
  cmp before "child.$format"
}

# libvhdi reads the chain as we do, after every verb that changed it.
test_vhdimount() {
  need vhdimount libvhdi-utils
  need fusermount fuse
  [[ -w /dev/fuse ]] || skip_test "there is no /dev/fuse to mount with"
  local format=$1 step image vhd_block=2M grain=4096 # libvhdi does not part eight sectors that share a byte of a bitmap
  make_chain "$format"
  cp "base.$format" other."$format"
  put "other.$format" 4000000 other
  for step in 'info child' 'rebase child other' 'commit child' 'compact child' 'compact other'; do
    # shellcheck disable=SC2001,SC2046 # words of the command
    exits 0 "$platter" $(sed "s/ \([a-z]*\)/ \1.$format/g" <<<"$step")
    mkdir -p mnt
    at_exit fusermount -uq "$tmp/mnt"
    vhdimount "child.$format" mnt
    for image in mnt/vhdi*; do :; done # the last one is the child
    cmp want "$image"
    fusermount -u mnt
    t_undo=()
  done
}

run_test "create" test_create
run_test "convert to and from both" test_convert
run_test "resize: vhd" test_resize vhd
run_test "resize: vhdx" test_resize vhdx
run_test "info tells what the file says of itself" test_info
run_test "map --svg tells where a cell lies" test_map_svg
run_test "check and repair: vhd" test_check_vhd
run_test "check and repair: vhdx" test_check_vhdx
run_test "check: what is no image" test_check_unusable
run_test "check tells of each structure: vhdx" test_check_structures_vhdx
run_test "check tells of each structure: vhd" test_check_structures_vhd
run_test "progress of check, commit, compact: vhd" test_progress vhd
run_test "progress of check, commit, compact: vhdx" test_progress vhdx
run_test "check refuses" test_check_refuses
run_test "compact refuses" test_compact_refuses
run_test "commit into a raw parent" test_commit_raw
run_test "commit refuses" test_commit_refuses
run_test "rebase to a raw parent" test_rebase_raw
run_test "rebase in the middle of a chain" test_rebase_middle
run_test "rebase passes over holes" test_rebase_holes
for format in vhd vhdx; do
  run_test "convert --flatten: $format" test_convert_flatten $format
  run_test "map tells where bytes lie: $format" test_map $format
  run_test "compact: $format" test_compact $format
  run_test "commit: $format" test_commit $format
  run_test "commit into the middle of a chain: $format" test_commit_middle $format
  run_test "rebase keeps what the child shows: $format" test_rebase $format
  run_test "rebase: the header alone: $format" test_rebase_header $format
  run_test "rebase refuses: $format" test_rebase_refuses $format
  run_test "libvhdi reads what verbs have changed: $format" test_vhdimount $format
done
t_done
