#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Partition tables that other programs make are read as these programs and libblkid's own tools read them. (What a kernel finds: test-guest-partitions.sh.)
. "${top_srcdir:?is set by make check}/tests/lib.sh"

# ours FILE BLOCK NUMBER...: "NUMBER OFFSET SIZE TYPE UUID NAME" of each, as platter tells it.
ours() {
  local file=$1 block=$2 number
  shift 2
  for number in "$@"; do
    "$platter" info --json "part:$number:file:$file;block=$block" |
      jq -r '.disk | "\(.number) \(.offset) \(.size) \(.type) \(.uuid // "-") \(.name // "-")"'
  done
}

# dump FILE BLOCK: the table as a script of sfdisk, by fdisk, which unlike sfdisk can be told the size of blocks. (It writes
# names that are not ASCII with \x.)
dump() {
  rm -f script.dump
  printf 'O\nscript.dump\nq\n' | fdisk -b "$2" "$1" >log 2>&1
  printf '%b' "$(cat script.dump)"
}

# theirs FILE BLOCK: the same of all but extended partitions, as fdisk tells it.
theirs() {
  dump "$1" "$2" | awk -v file="$1" -v block="$2" '
    function value(key) {
      if (!match($0, key "= *[^,]*")) return "-"
      text = substr($0, RSTART, RLENGTH)
      sub("^[a-z]*= *", "", text)
      return text
    }
    /^label: / { mbr = $2 == "dos" }
    /^label-id: / { id = substr($2, 3) }
    index($0, file) == 1 && / : start=/ {
      number = substr($1, length(file) + 1)
      type = tolower(value("type"))
      if (mbr && (type == "5" || type == "f" || type == "85")) next
      if (mbr) type = sprintf("0x%s", length(type) < 2 ? "0" type : type)
      name = value("name")
      gsub("\"", "", name)
      printf "%d %.0f %.0f %s %s %s\n", number, value("start") * block, value("size") * block, type,
        mbr ? sprintf("%s-%02x", id, number) : tolower(value("uuid")), name
    }'
}

# same FILE BLOCK: all three agree.
same() {
  local numbers
  theirs "$1" "$2" | sort -n >theirs
  [[ -s theirs ]]
  mapfile -t numbers < <(cut -d ' ' -f 1 theirs)
  ours "$1" "$2" "${numbers[@]}" >ours
  diff -u theirs ours
  partx --sector-size "$2" -g -r -o NR,START,SECTORS "$1" |
    awk -v skip="$(extended "$1" "$2")" '$1 != skip { printf "%d %.0f %.0f\n", $1, $2 * 512, $3 * 512 }' | sort -n >partx
  cut -d ' ' -f 1-3 ours | diff -u partx -
  echo "$2: ${#numbers[@]} partitions"
}

# extended FILE BLOCK: the number of the extended partition.
extended() { dump "$1" "$2" | sed -n "s/^$1\([0-9]*\) : .* type=\(5\|f\|85\)\(,.*\)\?\$/\1/p"; }

# make_table FILE BLOCK SIZE: from a script of sfdisk on standard input.
make_table() {
  rm -f "$1"
  truncate -s "$3" "$1"
  cat >script.make
  printf 'I\nscript.make\nw\n' | LC_ALL=C.UTF-8 fdisk -b "$2" "$1" >log 2>&1
}

need_tools() {
  need jq jq
  need fdisk fdisk
  need partx util-linux
}

gpt_script=$'label: gpt\nsize=3M, name="EFI system", type=uefi\nsize=4M, name="röot € x"\n'
mbr_script=$'label: dos\nsize=5M, bootable\nsize=3M, type=82\nsize=60M, type=5\nsize=4M, type=7\nsize=3M\nsize=6M, type=82\nsize=3M\n'

test_fdisk_gpt() {
  local block
  need_tools
  for block in 512 4096; do
    make_table gpt "$block" 64M <<<"$gpt_script"
    same gpt "$block"
  done
  # numbers with gaps, not in the order of the disk
  make_table gaps 512 64M <<<$'label: gpt\n7: start=40000, size=1M\n3: start=90000, size=2M\n128: start=50000, size=1000\n'
  same gaps 512
}

test_fdisk_mbr() {
  local block
  need_tools
  for block in 512 4096; do
    make_table mbr "$block" 200M <<<"$mbr_script"
    same mbr "$block"
    fails "$platter" info "part:3:file:mbr;block=$block" 2>err
    grep -q 'partition 3 is an extended partition' err
  done
}

test_full_gpt() {
  local i
  need_tools
  { echo 'label: gpt'; for ((i = 0; i < 128; i++)); do echo "start=$((2048 + 2048 * i)), size=2000"; done; } >script
  make_table gpt 512 140M <script
  same gpt 512
  [[ $(wc -l <ours) = 128 ]]
}

test_many_logical() {
  local i
  need_tools
  { echo 'label: dos'; echo 'size=140M, type=f'; for ((i = 0; i < 50; i++)); do echo 'size=1M'; done; } >script
  make_table mbr 512 200M <script
  same mbr 512
  [[ $(wc -l <ours) = 50 ]]
}

test_sgdisk() {
  need_tools
  need sgdisk gdisk
  truncate -s 64M image
  sgdisk -n 1:0:+4M -c 1:first -t 1:ef00 -n 2:0:+5M -n 9:0:0 -c 9:last image >/dev/null
  same image 512
  # a hybrid MBR beside it does not count
  sgdisk -h 1:2 image >/dev/null
  ours image 512 1 2 9 >hybrid
  diff ours hybrid
  # an array of entries at another place, and of another length
  truncate -s 64M other
  sgdisk -S 400 -j 4096 -n 1:20480:+4M -n 300:0:+5M -c 300:"three hundred" other >/dev/null
  same other 512
}

test_parted() {
  need_tools
  need parted parted
  truncate -s 100M image
  parted -s image mklabel msdos mkpart primary 1MiB 5MiB mkpart extended 5MiB 90MiB \
    mkpart logical 6MiB 20MiB mkpart logical 30MiB 40MiB mkpart logical 41MiB 42MiB rm 6 mkpart logical 50MiB 80MiB
  same image 512
  parted -s image mklabel gpt mkpart one 1MiB 5MiB mkpart two ext4 5MiB 90MiB 2>/dev/null
  same image 512
}

test_large() {
  need_tools
  make_table huge 4096 14T <<<$'label: gpt\nsize=10T\nsize=3T\n'
  same huge 4096
  make_table huge 512 14T <<<$'label: gpt\nsize=10T\nsize=3T\n'
  same huge 512
}

# Both programs use the backup when the first header is gone; when both are, there is an error and no partition.
test_damage() {
  need_tools
  make_table gpt 512 64M <<<"$gpt_script"
  dd if=/dev/urandom of=gpt bs=512 seek=1 count=1 conv=notrunc status=none
  same gpt 512
  "$platter" info part:1:file:gpt >out
  grep -q 'note: the first GPT header or its entries are damaged; the backup' out
  fails "$platter" info part:5:file:gpt 2>err
  grep -q 'there is no partition 5 in the GPT (there is: 1, 2).*backup' err
  dd if=/dev/zero of=gpt bs=512 seek=131071 count=1 conv=notrunc status=none
  fails "$platter" info part:1:file:gpt 2>err
  grep -q 'the partition table (GPT) is damaged' err
}

# As on disks for CDs and USB sticks: one partition inside of another.
test_overlapping() {
  need_tools
  make_table iso 512 64M <<<$'label: dos\nstart=1, size=100000, type=17, bootable\n'
  printf '\0\0\0\0\xef\0\0\0\x10\0\0\0\x20\0\0\0' | dd of=iso bs=1 seek=462 conv=notrunc status=none
  "$platter" info part:2:ro:file:iso >out
  grep -q 'offset: 8 KiB' out
  start_nbdkit -r part:2:file:iso
  stop_nbdkit
  (need_plugin; nbdkit_with_plugin -U - part:2:file:iso --run true) 2>err && return 1
  grep -q 'partition 2 has blocks in common with partition 1, and can only be opened read-only (ro:part:2:...)' err
}

# Through the door: what is written to a partition is at its place, and nothing else has changed.
test_nbd() {
  need_tools
  need nbdcopy libnbd-bin
  make_table gpt 512 64M <<<"$gpt_script"
  head -c 4M /dev/urandom >content
  cp gpt expected
  dd if=content of=expected bs=1M seek=4 conv=notrunc status=none
  start_nbdkit part:2:file:gpt
  nbdcopy content "$nbd_uri"
  nbdcopy "$nbd_uri" back
  cmp content back
  stop_nbdkit
  cmp gpt expected
}

# nbdkit forks after the table was read from the database below.
test_daemon() {
  local i
  need_tools
  need_plugin
  need nbdcopy libnbd-bin
  make_table gpt 512 64M <<<"$gpt_script"
  head -c 4M /dev/urandom >content
  start_nbdkit "sql:disk.db;create=64M"
  nbdcopy gpt "$nbd_uri"
  stop_nbdkit
  for i in 1 2; do
    (nbdkit_with_plugin -U "$tmp/daemon" -P "$tmp/pid" part:2:sql:disk.db)
    at_exit kill "$(cat pid)"
    [[ $i = 2 ]] || nbdcopy content "nbd+unix:///?socket=$tmp/daemon"
    nbdcopy "nbd+unix:///?socket=$tmp/daemon" back
    cmp content back
    kill "$(cat pid)"
    while kill -0 "$(cat pid)" 2>/dev/null; do pause 0.1; done
    t_undo=()
    rm -f daemon
  done
}

# One way to write it and back.
test_spec() {
  need_tools
  make_table gpt 512 64M <<<"$gpt_script"
  [[ $("$platter" info --json 'json:{"kind": "part", "number": 2, "spec": "gpt"}' | jq -r .spec) = part:2:file:gpt ]]
  "$platter" info --json memdiff:part:0x2:ro:gpt | jq -e '.spec == "memdiff:part:2:ro:file:gpt"'
  fails "$platter" info part:0:gpt
  fails "$platter" info part::gpt
  fails "$platter" info part:32769:gpt
  fails "$platter" info part:1:mem:4M 2>err
  grep -q 'there is no partition table' err
}

run_test "GPT by fdisk" test_fdisk_gpt
run_test "MBR by fdisk" test_fdisk_mbr
run_test "GPT with 128 partitions" test_full_gpt
run_test "MBR with 50 logical partitions" test_many_logical
run_test "GPT by sgdisk" test_sgdisk
run_test "GPT and MBR by parted" test_parted
run_test "large disks" test_large
run_test "damaged GPT" test_damage
run_test "overlapping partitions" test_overlapping
run_test "a partition through nbdkit" test_nbd
run_test "a partition in a database, served by a daemon" test_daemon
run_test "specs" test_spec
t_done
