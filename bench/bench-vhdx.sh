#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vhdx: against qemu-nbd's vhdx driver, and against file: for blocks that are there. fio through NBD, all on the same file system.
#
#     bench-vhdx.sh [--quick]     BENCH_DIR: where the images lie (default: a private folder in TMPDIR)
set -eu -o pipefail
: "${top_builddir:=.}"
quick=0
[[ ${1:-} != --quick ]] || quick=1
for program in nbdkit fio qemu-nbd qemu-img jq; do
  command -v "$program" >/dev/null || { echo "bench-vhdx: there is no program '$program'" >&2; exit 77; }
done
dir=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/bench-vhdx.XXXXXX")
server=
stop() { [[ -z $server ]] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; }; }
trap 'stop; rm -rf "$dir"' EXIT

# serve WHO FILE: our plugin with vhdx: or file:, or qemu-nbd.
serve() {
  stop
  rm -f "$dir/socket"
  case $1 in
    platter) nbdkit -f -U "$dir/socket" "$top_builddir/plugin.so" "vhdx:$2" >/dev/null 2>&1 & ;;
    file) nbdkit -f -U "$dir/socket" "$top_builddir/plugin.so" "file:$2" >/dev/null 2>&1 & ;;
    qemu) qemu-nbd -t -k "$dir/socket" -f vhdx --cache=writeback "$2" >/dev/null 2>&1 & ;;
  esac
  server=$!
  for ((i = 0; i < 100; i++)); do [[ ! -S $dir/socket ]] || return 0; sleep 0.05; done
  echo "bench-vhdx: $1 did not come up" >&2
  exit 1
}

# load NAME FIO-ARGUMENT... : requests a second.
load() {
  local name=$1
  shift
  fio --output-format=json --output="$dir/result" --name="$name" --ioengine=nbd --uri="nbd+unix:///?socket=$dir/socket" "$@" \
    >"$dir/said" 2>&1 || { cat "$dir/said" >&2; exit 1; }
  sed -n '/^{/,$p' "$dir/result" | jq '[.jobs[0].read.iops, .jobs[0].write.iops] | add | floor'
}

sizes=(64G 1G 256M)
((!quick)) || sizes=(64G 128M 128M)
seconds=$((quick ? 2 : 10))

new_image() {
  rm -f "$dir/image"
  qemu-img create -q -f vhdx -o "subformat=dynamic,block_size=1M" "$dir/image" "$1"
}

printf '%-44s %12s %12s %12s\n' 'requests/s' platter qemu-nbd file:
allocate() {
  new_image "${sizes[0]}"
  serve "$1" "$dir/image"
  load allocate --rw=write:1020k --bs=4k --fsync=64 --iodepth=16 --size="${sizes[0]}" --number_ios=$((quick ? 512 : 4096))
  stop
}
fill() {
  new_image "${sizes[1]}"
  serve "$1" "$dir/image"
  load fill --rw=write --bs=1M --iodepth=4 --size="${sizes[1]}" --end_fsync=1
  stop
}
# Of blocks that have space already.
random() {
  if [[ $1 = file ]]; then
    truncate -s "${sizes[2]}" "$dir/raw"
    serve file "$dir/raw"
  else
    new_image "${sizes[2]}"
    serve "$1" "$dir/image"
  fi
  load fill --rw=write --bs=1M --iodepth=4 --size="${sizes[2]}" --end_fsync=1 >/dev/null
  load "$2" --rw="$2" --bs=4k --iodepth=16 --size="${sizes[2]}" --time_based --runtime="$seconds"
  stop
}
printf '%-44s %12s %12s\n' '4 KiB to new blocks, a flush every 64' "$(allocate platter)" "$(allocate qemu)"
printf '%-44s %12s %12s\n' '1 MiB, sequential fill' "$(fill platter)" "$(fill qemu)"
for what in randread randwrite; do
  printf '%-44s %12s %12s %12s\n' "4 KiB $what, blocks that are there" "$(random platter $what)" "$(random qemu $what)" "$(random file $what)"
done

# An empty disk of 20 GiB is told, and copied, without being read.
new_image 20G
serve platter "$dir/image"
if command -v nbdinfo >/dev/null; then
  begun=$(date +%s%N)
  nbdinfo --map "nbd+unix:///?socket=$dir/socket" >/dev/null
  echo "map of an empty disk of 20 GiB: $((($(date +%s%N) - begun) / 1000000)) ms, most of them nbdinfo's own"
fi
