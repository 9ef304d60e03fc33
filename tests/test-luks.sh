#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What cryptsetup, QEMU and nbdkit encrypt we read, what we encrypt they read, and what is not supported is refused by name.
. "${top_srcdir:?is set by make check}/tests/lib.sh"

need cryptsetup cryptsetup-bin
need qemu-img qemu-utils

# make_passphrase: the file `pass`, without the end of a line.
make_passphrase() {
  printf 'correct horse' >pass
  chmod 600 pass
}

# format FILE SIZE ARG...: an empty volume.
format() {
  local file=$1 size=$2
  shift 2
  truncate -s "$size" "$file"
  cryptsetup luksFormat --batch-mode --key-file pass --pbkdf-force-iterations 1000 "$@" "$file"
}

# serve SPEC COMMAND: runs it with $uri set to the disk.
serve() {
  start_nbdkit "$1"
  uri=$nbd_uri bash -e -c "$2"
  stop_nbdkit
}

# read_disk SPEC FILE; write_disk FILE SPEC: all of it.
read_disk() { serve "$1" "qemu-img convert -f raw -O raw \"\$uri\" '$2'"; }
write_disk() { serve "$2" "qemu-img convert -n -f raw -O raw '$1' \"\$uri\""; }

# qemu_luks FILE: how QEMU names a volume.
qemu_luks() { echo "driver=luks,key-secret=s,file.driver=file,file.filename=$1"; }
qemu_secret=(--object "secret,id=s,file=pass")

# ---------------------------------------------------------------- others' volumes

test_qemu_writes() {
  make_passphrase
  head -c 3M /dev/urandom >plain
  qemu-img create -q "${qemu_secret[@]}" -f luks -o key-secret=s,iter-time=500 v.luks 3M ||
    skip_test "QEMU cannot measure time here" # it gives up where the processor is busy with other things
  qemu-img convert "${qemu_secret[@]}" -n -f raw --target-image-opts plain "$(qemu_luks v.luks)"
  read_disk luks:pass:v.luks copy
  cmp plain copy
}

test_qemu_reads() {
  make_passphrase
  format v.luks 8M --type luks1 --key-size "$1" --cipher aes-xts-plain64
  head -c 3M /dev/urandom >plain
  write_disk plain luks:pass:file:v.luks
  qemu-img convert "${qemu_secret[@]}" -O raw --image-opts "$(qemu_luks v.luks)" copy
  cmp -n 3M plain copy
}

test_nbdkit_reads() {
  [[ -e $(nbdkit --dump-config | sed -n 's/^filterdir=//p')/nbdkit-luks-filter.so ]] || skip_test "nbdkit has no filter luks"
  make_passphrase
  format v.luks 4M --type luks1 --key-size 512
  head -c 1M /dev/urandom >plain
  write_disk plain luks:pass:v.luks
  # shellcheck disable=SC2016 # nbdkit's $uri
  nbdkit -U - --filter=luks file v.luks passphrase=+pass \
    --run 'qemu-img convert -f raw -O raw "$uri" copy'
  cmp -n 1M plain copy
}

# cryptsetup itself encrypts a file, and what we write instead is the same to the last byte.
test_cryptsetup_encrypts() {
  make_passphrase
  head -c 4M /dev/urandom >plain
  cp plain v.luks
  truncate -s 36M v.luks
  cryptsetup reencrypt --encrypt --type luks2 --reduce-device-size 32M --batch-mode --key-file pass --pbkdf pbkdf2 \
    --pbkdf-force-iterations 1000 --key-size "$2" --sector-size "$1" v.luks >log 2>&1 ||
    skip_test "cryptsetup does not encrypt files here: $(tail -n 1 log)"
  read_disk luks:pass:v.luks copy
  cmp -n 4M plain copy
  cp v.luks ours.luks
  dd if=/dev/zero of=ours.luks bs=1M seek=16 count=4 conv=notrunc status=none
  write_disk plain luks:pass:ours.luks
  cmp v.luks ours.luks
}

# The content of a volume is that of a plain mapping with its key.
test_plain() {
  make_passphrase
  format v.luks 4M --type luks1 --key-size "$1"
  head -c 1M /dev/urandom >plain
  write_disk plain luks:pass:v.luks
  cryptsetup luksDump --batch-mode --dump-volume-key --key-file pass --volume-key-file key v.luks >/dev/null
  read_disk "crypt:xts-aes-$(($1 / 2)):key:slice:2M:v.luks" copy
  cmp -n 1M plain copy
}

# ---------------------------------------------------------------- the header

test_argon2() {
  make_passphrase
  truncate -s 20M v.luks
  cryptsetup luksFormat --batch-mode --key-file pass --type luks2 --pbkdf argon2id --pbkdf-force-iterations 4 \
    --pbkdf-memory 65536 --pbkdf-parallel 2 v.luks
  printf 'another' >second
  chmod 600 second
  cryptsetup luksAddKey --batch-mode --key-file pass --pbkdf pbkdf2 --pbkdf-force-iterations 1000 v.luks second
  "$platter" info luks:pass:v.luks | grep 'keyslot: 0'
  "$platter" info luks:second:v.luks | grep 'keyslot: 1'
}

# The first of two headers is destroyed: the second is used, and the first stays as it is.
test_header_is_never_written() {
  make_passphrase
  format v.luks 20M --type luks2 --pbkdf pbkdf2
  dd if=/dev/urandom of=v.luks bs=512 count=1 conv=notrunc status=none
  head -c 16M v.luks | sha256sum >before
  "$platter" info luks:pass:v.luks | grep 'version: 2'
  head -c 1M /dev/urandom >plain
  write_disk plain luks:pass:file:v.luks
  head -c 16M v.luks | sha256sum >after
  cmp before after
}

# refused MESSAGE SPEC
refused() {
  ! "$platter" info "$2" >out 2>&1 || { echo "it opened"; return 1; }
  grep -F -- "$1" out >/dev/null || { cat out; return 1; }
}

test_wrong_passphrase() {
  make_passphrase
  format v.luks 4M --type luks1
  printf 'correct horse\n' >newline
  chmod 600 newline
  refused "no keyslot opens with this passphrase" luks:newline:v.luks
  refused "no keyslot opens with this passphrase" luks:v.luks:v.luks
}

test_other_ciphers() {
  make_passphrase
  format cbc 4M --type luks1 --cipher aes-cbc-essiv:sha256
  refused "'aes-cbc-essiv:sha256'; only aes-xts-plain64" luks:pass:cbc
  format cbc2 20M --type luks2 --pbkdf pbkdf2 --cipher aes-cbc-plain64
  refused "'aes-cbc-plain64'; only aes-xts-plain64" luks:pass:cbc2
}

# A number of 32 bits, big-endian: put_number FILE OFFSET \\xHH\\xHH\\xHH\\xHH
put_number() { printf '%b' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

test_work_without_bounds() {
  make_passphrase
  format v.luks 4M --type luks1
  cp v.luks w.luks
  put_number w.luks 164 '\xff\xff\xff\xff'
  refused "the digest asks for 4294967295 iterations; at most" luks:pass:w.luks
  cp v.luks w.luks
  put_number w.luks 212 '\xff\xff\xff\xf0'
  refused "keyslot 0 asks for 4294967280 iterations; at most" luks:pass:w.luks
}

test_no_header() {
  make_passphrase
  truncate -s 20M empty
  refused "there is no LUKS header" luks:pass:empty
  refused "there is no LUKS header" luks:pass:mem:512
  refused "goes past the end" luks:pass:slice:0,2M:"$(format v.luks 4M --type luks1 >&2; echo v.luks)"
}

test_room_for_files() {
  make_passphrase
  format v.luks 4M --type luks1
  (ulimit -f 2048 && refused "(ulimit -f)" luks:pass:v.luks)
}

# The library is loaded when it is needed: without it all else works, and it is said what to install. Something by its name that
# is no library stands for one that is not there.
test_no_library() {
  make_passphrase
  format v.luks 4M --type luks1
  local soname
  soname=$(sed -n 's/^#define LIBCRYPTSETUP_SONAME "\(.*\)"/\1/p' "$top_builddir/config.h")
  mkdir none
  echo none >"none/$soname"
  LD_LIBRARY_PATH=$PWD/none "$platter" info file:v.luks
  LD_LIBRARY_PATH=$PWD/none refused "$soname cannot be loaded, which luks: needs: " luks:pass:v.luks
  grep -F "(apt-get install ${soname/.so./})" out
  "$platter" info luks:pass:v.luks
}

run_test "QEMU's volume is read" test_qemu_writes
run_test "QEMU reads what we write, AES-256" test_qemu_reads 512
run_test "QEMU reads what we write, AES-128" test_qemu_reads 256
run_test "nbdkit reads what we write" test_nbdkit_reads
run_test "cryptsetup encrypts, sectors of 512 bytes" test_cryptsetup_encrypts 512 512
run_test "cryptsetup encrypts, sectors of 4096 bytes" test_cryptsetup_encrypts 4096 512
run_test "cryptsetup encrypts, AES-128" test_cryptsetup_encrypts 1024 256
run_test "a plain mapping, AES-256" test_plain 512
run_test "a plain mapping, AES-128" test_plain 256
run_test "argon2, and two keyslots" test_argon2
run_test "a damaged header is not mended in place" test_header_is_never_written
run_test "a wrong passphrase" test_wrong_passphrase
run_test "other ciphers" test_other_ciphers
run_test "work without bounds" test_work_without_bounds
run_test "no header" test_no_header
run_test "limits for the size of files" test_room_for_files
run_test "no libcryptsetup" test_no_library
t_done
