#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# bench-convert: `platter convert` against qemu-img and nbdcopy
#
#     bench/bench-convert.sh [--quick] [--size MIB] [--rounds N] [--folder DIR] [--only WAY]...
#
# Ways are raw-raw, raw-vhd, vhd-raw, raw-vhdx, vhdx-raw; each with images that are empty (one hole), sparse (a tenth is data, in pieces
# of 64 KiB), full, and full of zeroes that are allocated; and big: an empty VHDX of 20 GiB to a raw file and to a VHDX. nbdcopy takes part where
# both are raw. All programs take turns in each round, in an order that moves; each copies from the page cache to a new file. Printed is
# the median time of each, and the median of what a round took platter divided by what it took the other: below 1 platter
# is faster. Once until all is durable, once without waiting for that.
set -eu -o pipefail
export LC_ALL=C

size=1024 rounds=7 folder=${TMPDIR:-/tmp} only=()
while (($#)); do
  case $1 in
    --quick) size=64 rounds=3 ;;
    --size) size=$2; shift ;;
    --rounds) rounds=$2; shift ;;
    --folder) folder=$2; shift ;;
    --only) only+=("$2"); shift ;;
    *) echo "bench-convert: there is no option '$1'" >&2; exit 2 ;;
  esac
  shift
done
((${#only[@]})) || only=(raw-raw raw-vhd vhd-raw raw-vhdx vhdx-raw big)
platter=${top_builddir:-.}/platter
dir=$(mktemp -d "$folder/platter-bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
cd "$dir" || exit 1
[[ $platter = /* ]] || platter=$OLDPWD/$platter

has_qemu() { command -v qemu-img >/dev/null; }
has_nbdcopy() { command -v nbdcopy >/dev/null && command -v nbdkit >/dev/null; }

# spec FORMAT FILE, as platter calls it; qemu_name FORMAT.
spec() { case $1 in raw) echo "file:$2" ;; *) echo "$1:$2" ;; esac; }
qemu_name() { case $1 in vhd) echo vpc ;; *) echo "$1" ;; esac; }

# copy PROGRAM DURABLE FROM TO: source.FROM to copy.TO, which is not there.
copy() {
  local flush=() options=()
  case $1 in
    platter)
      [[ $2 = durable ]] || flush=(--no-flush)
      "$platter" convert "${flush[@]}" --progress none "$(spec "$3" "source.$3")" "$(spec "$4" "copy.$4")" ;;
    qemu-img)
      flush=(-t unsafe)
      [[ $2 != durable ]] || flush=(-t writeback)
      [[ $4 != vhd ]] || options=(-o force_size=on)
      qemu-img convert -m 16 -W "${flush[@]}" -f "$(qemu_name "$3")" -O "$(qemu_name "$4")" "${options[@]}" "source.$3" "copy.$4" ;;
    nbdcopy-from)
      [[ $2 != durable ]] || flush=(--flush)
      nbdcopy "${flush[@]}" -- [ nbdkit --exit-with-parent file source.raw ] copy.raw ;;
    nbdcopy-to)
      truncate -s "${size}M" copy.raw
      [[ $2 != durable ]] || flush=(--flush)
      nbdcopy "${flush[@]}" --destination-is-zero -- source.raw [ nbdkit --exit-with-parent file copy.raw ] ;;
  esac
}

# timed PROGRAM DURABLE FROM TO: prints microseconds.
timed() {
  local begin end
  rm -f "copy.$4"
  begin=${EPOCHREALTIME/./}
  copy "$@" >/dev/null
  end=${EPOCHREALTIME/./}
  "$platter" compare --quiet --progress none "$(spec "$3" "source.$3")" "$(spec "$4" "copy.$4")" >&2
  echo $((end - begin))
}

# make_source IMAGE FORMAT
make_source() {
  local i
  rm -f source.*
  truncate -s "${size}M" source.raw
  case $1 in
    empty) ;;
    sparse)
      for ((i = 0; i < size * 16; i += 10)); do
        head -c 64K payload | dd of=source.raw bs=64K seek="$i" conv=notrunc status=none
      done ;;
    full) for ((i = 0; i < size; i += 64)); do cat payload; done | head -c "${size}M" >source.raw ;;
    zeroes) head -c "${size}M" /dev/zero >source.raw ;;
  esac
  # With zeroes as data, where they are allocated.
  [[ $2 = raw ]] || "$platter" convert --progress none --sparse 0 source.raw "$(spec "$2" "source.$2")"
  sync "source.$2"
}

median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# measure IMAGE DURABLE FROM TO PROGRAM...: one line.
measure() {
  local image=$1 until=$2 from=$3 to=$4 programs r i p
  shift 4
  programs=("$@")
  rm -f times.*
  for ((r = 0; r < rounds; r++)); do
    for ((i = 0; i < ${#programs[@]}; i++)); do
      p=${programs[(i + r) % ${#programs[@]}]}
      timed "$p" "$until" "$from" "$to" >>"times.$p"
    done
  done
  printf '%-9s %-7s %-8s' "$from-$to" "$image" "$until"
  for p in "${programs[@]}"; do
    printf '  %s %.1f ms' "$p" "$(awk '{ print $1 / 1000 }' "times.$p" | median)"
    [[ $p = platter ]] || printf ' (%.2f)' "$(paste times.platter "times.$p" | awk '{ print $1 / $2 }' | median)"
  done
  printf '\n'
}

head -c 64M /dev/urandom >payload
echo "way       image   until     median of each program (of what platter took, divided by that)"
for way in "${only[@]}"; do
  programs=(platter)
  ! has_qemu || programs+=(qemu-img)
  if [[ $way = big ]]; then
    rm -f source.*
    "$platter" create vhdx:source.vhdx 20G
    for to in raw vhdx; do measure 20GiB written vhdx "$to" "${programs[@]}"; done
    continue
  fi
  from=${way%-*} to=${way#*-}
  [[ $way != raw-raw ]] || ! has_nbdcopy || programs+=(nbdcopy-from nbdcopy-to)
  for image in empty sparse full zeroes; do
    make_source "$image" "$from"
    for until in durable written; do measure "$image" "$until" "$from" "$to" "${programs[@]}"; done
  done
done
