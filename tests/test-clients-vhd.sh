#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# VHD images of others, and others with ours: content by independent readers, and byte for byte both ways.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need_plugin
need nbdcopy libnbd-bin
need nbdinfo libnbd-bin
need qemu-img qemu-utils

# The content of a spec, as nbdcopy reads it.
content() {
  start_nbdkit -r "$1"
  nbdcopy "$nbd_uri" -
  stop_nbdkit
}

# fill SPEC: writes here and there, in blocks and parts of them.
fill() {
  need qemu-io qemu-utils
  start_nbdkit "$1"
  qemu-io -f raw -c "write -P 1 0 64k" -c "write -P 2 3M 512" -c "write -P 3 5241344 1k" -c "write -P 4 7M 700k" \
    -c "write -z 7100k 100k" -c "discard 100k 4k" "$nbd_uri" >io
  fails grep failed io
  stop_nbdkit
}

# ---------------------------------------------------------------- images by others

# "FILE BYTES SUM" of the manifest.
images_wanted() {
  awk -F'|' '$3 ~ /VHD / && match($9, /`[0-9a-f]*`/) {
    gsub(/ /, "", $2)
    printf "%s %.0f %s\n", $2, $6, substr($9, RSTART + 1, RLENGTH - 2)
  }' "$SHARED/images/MANIFEST.md"
}

most_bytes=$((2 << 30))
[[ $SANITIZERS = no ]] || most_bytes=$((64 << 20))

test_image() {
  local file=$1 size=$2 sum=$3 options=
  case $file in
    dfvfs/image*) options=';lax' ;;                                 # edited by hand
    dfvfs/fat-differential.vhd) options=';parent=null:4M' ;;        # its parent is lost
    made-fattools/diff.vhd) options=';ignore-change' ;;             # the archive has not kept the time
    qemu/virtualpc-dynamic.vhd) size=136363130880 ;;                # by its geometry
  esac
  start_nbdkit -r "vhd:$images/$file$options"
  [[ $(nbdinfo --size "$nbd_uri") = "$size" ]]
  ((size > most_bytes)) || [[ $(nbdcopy "$nbd_uri" - | sha256) = "$sum  -" ]]
  stop_nbdkit
}

# Unpacked once, for all.
images=$tmp/images
if [[ -n $SHARED && -e $SHARED/images/MANIFEST.md ]] && command -v xz >/dev/null; then
  while read -r file _; do unpack_image "$file" "$images/$file" || exit 1; done < <(images_wanted)
  while read -r file size sum; do
    run_test "$file" test_image "$file" "$size" "$sum" </dev/null
  done < <(images_wanted)
else
  t_begin "images by others"
  skip_test "there is no folder '../shared/images' beside the project, nor SHARED=DIR"
fi

# Writing to an image of others, which they read afterwards as we do.
test_written_by_qemu() {
  local type
  for type in dynamic fixed; do
    qemu-img create -q -f vpc -o "subformat=$type,force_size=on" q.vhd 20M
    fill vhd:q.vhd
    qemu-img convert -f vpc -O raw q.vhd q.raw
    [[ $(content vhd:q.vhd | sha256) = "$(sha256 <q.raw)" ]]
    qemu-img convert -f raw -O vpc -o "subformat=$type,force_size=on" q.raw again.vhd
    [[ $(content vhd:again.vhd | sha256) = "$(sha256 <q.raw)" ]]
    rm q.vhd
  done
}

test_read_by_qemu() {
  local options
  for options in type=dynamic 'type=dynamic;block=512K' type=fixed type=full; do
    rm -f p.vhd
    fill "vhd:p.vhd;create=20M;$options"
    qemu-img info -f vpc p.vhd | tee info
    grep -q '20 MiB (20971520 bytes)' info
    qemu-img convert -f vpc -O raw p.vhd p.raw
    [[ $(content vhd:p.vhd | sha256) = "$(sha256 <p.raw)" ]]
  done
}

test_written_by_qemu_after_us() {
  fill "vhd:p.vhd;create=20M"
  qemu-io -f vpc -c "write -P 9 12M 3M" -c "write -P 8 512 512" p.vhd >io
  fails grep failed io
  qemu-img convert -f vpc -O raw p.vhd p.raw
  [[ $(content vhd:p.vhd | sha256) = "$(sha256 <p.raw)" ]]
}

# libvhdi_agrees IMAGE N: the N-th disk that vhdimount shows is what we read.
libvhdi_agrees() {
  fusermount3 -uq mnt || :
  vhdimount "$1" mnt
  [[ $(sha256 <"mnt/vhdi$2") = "$(content "vhd:$1" | sha256)" ]]
}

test_read_by_libvhdi() {
  need vhdimount libvhdi-utils
  [[ -e /dev/fuse ]] || skip_test "there is no /dev/fuse"
  fill "vhd:f.vhd;create=20M;type=fixed"
  fill "vhd:p.vhd;create=20M"
  # In part over the parent's data, in part beside it; by 8 sectors, since libvhdi 20210425 takes a run of set bits that ends within a byte of
  # the bitmap to go on to the byte's end.
  start_nbdkit "vhd:c.vhd;create;type=differencing;parent=p.vhd"
  qemu-io -f raw -c "write -P 9 4k 56k" -c "write -P 8 3M 1k" -c "write -P 7 15M 3M" -c "write -z 7100k 50k" "$nbd_uri" >io
  fails grep failed io
  stop_nbdkit
  mkdir mnt
  at_exit fusermount3 -uq mnt
  libvhdi_agrees f.vhd 1
  libvhdi_agrees p.vhd 1
  libvhdi_agrees c.vhd 2 # shows each image of a chain, the last one last
  fails cmp -s mnt/vhdi1 mnt/vhdi2
}

run_test "QEMU's images, written to by us, are read by QEMU" test_written_by_qemu
run_test "our images are read by QEMU" test_read_by_qemu
run_test "our images, written to by QEMU, are read by us" test_written_by_qemu_after_us
run_test "our images are read by libvhdi" test_read_by_libvhdi
t_done
