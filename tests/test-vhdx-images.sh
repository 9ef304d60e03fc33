#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# VHDX files that other programs made: what they hold is what several independent readers agree on, and reading
# changes no byte of them. IMAGES_LONG in the environment: also of those of more than 2 GiB, which takes six minutes where nothing else runs.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_shared images/MANIFEST.md
need_plugin
need nbdcopy libnbd-bin
need xz xz-utils

images=$tmp/images

# Larger ones take long, and there are smaller ones of the same writers.
most_bytes=$((2 << 30))
[[ $SANITIZERS = no ]] || most_bytes=$((256 << 20))
[[ -z ${IMAGES_LONG:-} ]] || most_bytes=$((1 << 60))

# The table of the manifest: "FILE BYTES SUM".
images_wanted() {
  awk -F'|' -v most="$most_bytes" '$2 ~ /\.vhdx/ && $6 + 0 <= most && match($9, /`[0-9a-f]*`/) {
    gsub(/ /, "", $2)
    printf "%s %.0f %s\n", $2, $6, substr($9, RSTART + 1, RLENGTH - 2)
  }' "$SHARED/images/MANIFEST.md"
}

# Runs of zeroes are told apart from data, so a sparse copy takes no longer than what is there.
content_sum() {
  nbdcopy "$nbd_uri" copy
  sha256 <copy
}

test_read_only() {
  local file=$1 size=$2 sum=$3 before
  before=$(sha256 <"$images/$file")
  start_nbdkit -r "vhdx:$images/$file"
  [[ $(content_sum) = "$sum  -" ]]
  [[ $(stat -c %s copy) = "$size" ]]
  stop_nbdkit
  [[ $(sha256 <"$images/$file") = "$before" ]]
}

# Opened for writing a log is replayed in the file, after which it is empty for everybody.
test_replayed() {
  local file=$1 size=$2 sum=$3
  cp --sparse=always "$images/$file" image.vhdx
  start_nbdkit vhdx:image.vhdx
  [[ $(content_sum) = "$sum  -" ]]
  stop_nbdkit
  if command -v qemu-img >/dev/null; then
    qemu-img check -f vhdx image.vhdx | tee check
    fails grep -i log check
  fi
  start_nbdkit -r vhdx:image.vhdx
  [[ $(content_sum) = "$sum  -" ]]
  stop_nbdkit
}

while read -r file _; do unpack_image "$file" "$images/$file" || exit 1; done < <(images_wanted)
while read -r file size sum; do
  run_test "$file" test_read_only "$file" "$size" "$sum" </dev/null
  [[ $file != *log* ]] || run_test "$file, log replayed" test_replayed "$file" "$size" "$sum" </dev/null
done < <(images_wanted)
t_done
