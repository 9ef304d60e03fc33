#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Disks that other systems made: unpacked to raw, served under memdiff:, the bytes that come back are those that
# several independent readers agree on.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_shared images/MANIFEST.md
need_shared images/unpack
need nbdkit nbdkit
need nbdcopy libnbd-bin
need qemu-img qemu-utils
need qemu-io qemu-utils
need xz xz-utils

images=$tmp/images
"$SHARED/images/unpack" "$images" >"$tmp/unpack.log" 2>&1 || {
  diag <"$tmp/unpack.log"
  skip_test "the images cannot be unpacked"
}

# sum_of FILE: the hash of its content that the manifest gives, if QEMU is one of those that read it right.
sum_of() {
  awk -F'|' -v file=" $1 " '$2 == file && $10 ~ /oracle \+ qemu-img/ {
    if (match($9, /`[0-9a-f]*`/)) print substr($9, RSTART + 1, RLENGTH - 2)
  }' "$SHARED/images/MANIFEST.md"
}

format_of() {
  case $1 in
    *.vhdx) echo vhdx ;;
    *.vhd) echo vpc ;;
  esac
}

# A copy: an image whose log is not empty is repaired when QEMU opens it.
test_image() {
  local file=$1 sum=$2 before
  cp --sparse=always "$images/$file" image
  [[ $file != *log* ]] || qemu-img check -r all -f "$(format_of "$file")" image || true
  qemu-img convert -f "$(format_of "$file")" -O raw image raw
  [[ $(sha256sum <raw) = "$sum  -" ]]
  before=$(stat -c '%Y %s' raw)

  start_nbdkit memdiff:file:raw
  [[ $(nbdcopy "$nbd_uri" - | sha256sum) = "$sum  -" ]]
  qemu-io -f raw -c "write -P 0xa5 0 64k" -c "write -P 0x5a 1025 3" -c "write -z 70k 10k" -c "flush" \
    -c "read -P 0x5a 1025 3" "$nbd_uri" | tee io
  fails grep failed io
  [[ $(nbdcopy "$nbd_uri" - | sha256sum) != "$sum  -" ]]
  stop_nbdkit
  [[ $(sha256sum <raw) = "$sum  -" ]]
  [[ $(stat -c '%Y %s' raw) = "$before" ]]
}

# Over 2 GiB reading takes long: those are covered by the smaller ones of the same writers.
too_large() { [[ $(qemu-img info -f "$(format_of "$1")" --output=json "$images/$1" | sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p' | tail -n 1) -gt 2147483648 ]]; }

while IFS= read -r file; do
  sum=$(sum_of "$file")
  [[ $sum ]] || continue
  too_large "$file" && continue
  run_test "$file" test_image "$file" "$sum"
done < <(cd "$images" && find . -type f -printf '%P\n' | sort)
t_done
