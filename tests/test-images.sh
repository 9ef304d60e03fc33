#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Disks that other systems made: unpacked to raw, served under memdiff:, the bytes that come back are those that
# several independent readers agree on.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_shared images/MANIFEST.md
need_plugin
need nbdcopy libnbd-bin
need qemu-img qemu-utils
need qemu-io qemu-utils
need xz xz-utils

# Larger ones take long, and there are smaller ones of the same writers.
most_bytes=$((64 << 20))
[[ -z ${IMAGES_LONG:-} ]] || most_bytes=$((2 << 30))

# The table of the manifest, for images that QEMU reads right: "FILE BYTES SUM".
images_wanted() {
  awk -F'|' -v most="$most_bytes" '$10 ~ /oracle \+ qemu-img/ && $6 + 0 <= most && match($9, /`[0-9a-f]*`/) {
    gsub(/ /, "", $2)
    print $2, $6 + 0, substr($9, RSTART + 1, RLENGTH - 2)
  }' "$SHARED/images/MANIFEST.md"
}

format_of() {
  case $1 in
    *.vhdx) echo vhdx ;;
    *.vhd) echo vpc ;;
  esac
}

# An image whose log is not empty is repaired when QEMU opens it.
test_image() {
  local file=$1 size=$2 sum=$3 before
  unpack_image "$file" image
  [[ $file != *log* ]] || qemu-img check -r all -f "$(format_of "$file")" image || true
  qemu-img convert -f "$(format_of "$file")" -O raw image raw
  [[ $(stat -c %s raw) = "$size" ]]
  before=$(stat -c '%Y %Z %b' raw)

  start_nbdkit memdiff:file:raw
  [[ $(nbdcopy "$nbd_uri" - | sha256) = "$sum  -" ]]
  qemu-io -f raw -c "write -P 0xa5 0 64k" -c "write -P 0x5a 1025 3" -c "write -z 70k 10k" -c "flush" \
    -c "read -P 0xa5 0 1025" -c "read -P 0x5a 1025 3" -c "read -P 0 70k 10k" "$nbd_uri" | tee io
  fails grep failed io
  stop_nbdkit
  [[ $(sha256 <raw) = "$sum  -" ]]
  [[ $(stat -c '%Y %Z %b' raw) = "$before" ]]
}

while read -r file size sum; do
  run_test "$file" test_image "$file" "$size" "$sum" </dev/null
done < <(images_wanted)
t_done
