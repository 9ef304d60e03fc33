#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# bench-convert: `platter convert` of raw files against qemu-img and nbdcopy
#
#     bench/bench-convert.sh [--quick] [--size MIB] [--rounds N] [--folder DIR]
#
# Images that are empty (one hole), sparse (a tenth is data, in pieces of 64 KiB), full, and full of zeroes that are allocated. All
# programs take turns in each round, in an order that moves; each copies from the page cache to a new file. Printed is
# the median time of each, and the median of what a round took platter divided by what it took the other: below 1 platter
# is faster. Once until all is durable, once without waiting for that.
set -eu -o pipefail
export LC_ALL=C

size=1024 rounds=7 folder=${TMPDIR:-/tmp}
while (($#)); do
  case $1 in
    --quick) size=64 rounds=3 ;;
    --size) size=$2; shift ;;
    --rounds) rounds=$2; shift ;;
    --folder) folder=$2; shift ;;
    *) echo "bench-convert: there is no option '$1'" >&2; exit 2 ;;
  esac
  shift
done
platter=${top_builddir:-.}/platter
dir=$(mktemp -d "$folder/platter-bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
cd "$dir" || exit 1
[[ $platter = /* ]] || platter=$OLDPWD/$platter

programs=(platter)
! command -v qemu-img >/dev/null || programs+=(qemu-img)
! command -v nbdcopy >/dev/null || ! command -v nbdkit >/dev/null || programs+=(nbdcopy-from nbdcopy-to)

# copy PROGRAM DURABLE: source.img to copy.img, which is not there.
copy() {
  local flush=()
  case $1 in
    platter)
      [[ $2 = durable ]] || flush=(--no-flush)
      "$platter" convert "${flush[@]}" --progress none source.img copy.img ;;
    qemu-img)
      flush=(-t unsafe)
      [[ $2 != durable ]] || flush=(-t writeback)
      qemu-img convert -m 16 -W "${flush[@]}" -f raw -O raw source.img copy.img ;;
    nbdcopy-from)
      [[ $2 != durable ]] || flush=(--flush)
      nbdcopy "${flush[@]}" -- [ nbdkit --exit-with-parent file source.img ] copy.img ;;
    nbdcopy-to)
      truncate -s "${size}M" copy.img
      [[ $2 != durable ]] || flush=(--flush)
      nbdcopy "${flush[@]}" --destination-is-zero -- source.img [ nbdkit --exit-with-parent file copy.img ] ;;
  esac
}

# timed PROGRAM DURABLE: prints microseconds.
timed() {
  local begin end
  rm -f copy.img
  begin=${EPOCHREALTIME/./}
  copy "$1" "$2" >/dev/null
  end=${EPOCHREALTIME/./}
  cmp source.img copy.img >&2
  echo $((end - begin))
}

make_source() {
  local i
  rm -f source.img
  truncate -s "${size}M" source.img
  case $1 in
    empty) ;;
    sparse)
      for ((i = 0; i < size * 16; i += 10)); do
        head -c 64K payload | dd of=source.img bs=64K seek="$i" conv=notrunc status=none
      done ;;
    full) for ((i = 0; i < size; i += 64)); do cat payload; done | head -c "${size}M" >source.img ;;
    zeroes) head -c "${size}M" /dev/zero >source.img ;;
  esac
  sync source.img
}

median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

head -c 64M /dev/urandom >payload
printf '%-8s %-8s' image until
for p in "${programs[@]}"; do printf ' %16s' "$p ms"; done
for p in "${programs[@]:1}"; do printf ' %16s' "/ $p"; done
printf '\n'
for image in empty sparse full zeroes; do
  make_source "$image"
  for until in durable written; do
    rm -f times.*
    for ((r = 0; r < rounds; r++)); do
      for ((i = 0; i < ${#programs[@]}; i++)); do
        p=${programs[(i + r) % ${#programs[@]}]}
        timed "$p" "$until" >>"times.$p"
      done
    done
    printf '%-8s %-8s' "$image" "$until"
    for p in "${programs[@]}"; do printf ' %16.1f' "$(awk '{ print $1 / 1000 }' "times.$p" | median)"; done
    for p in "${programs[@]:1}"; do printf ' %16.2f' "$(paste times.platter "times.$p" | awk '{ print $1 / $2 }' | median)"; done
    printf '\n'
  done
done
