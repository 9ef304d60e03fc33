#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Which disks a server offers under which names, as nbdinfo sees them.
. "${top_srcdir:?is set by make check}/tests/lib.sh"

# name_uri NAME: the URI of that export of the server under test.
name_uri() { printf 'nbd+unix:///%s?socket=%s' "$1" "$nbd_socket"; }

# refused TEXT ARG...: nbdkit does not start with these arguments, and says TEXT.
refused() {
  local text=$1
  shift
  (fails nbdkit_started "$@") >out 2>&1
  cat out
  grep -qF -e "$text" out
}
nbdkit_started() { (nbdkit_with_plugin -f -U refused.sock "$@" --run 'echo it started') </dev/null; }

test_unnamed() {
  need nbdinfo libnbd-bin
  start_nbdkit mem:1M
  [[ $(nbdinfo --size "$nbd_uri") = 1048576 ]]
  [[ $(nbdinfo --size "$(name_uri whatever)") = 1048576 ]]
}

test_names() {
  need nbdinfo libnbd-bin
  start_nbdkit first=mem:1M second=mem:2M disk=mem:3M
  [[ $(nbdinfo --size "$(name_uri first)") = 1048576 ]]
  [[ $(nbdinfo --size "$(name_uri second)") = 2097152 ]]
  [[ $(nbdinfo --size "$nbd_uri") = 3145728 ]]
}

test_list() {
  need nbdinfo libnbd-bin
  need jq jq
  start_nbdkit first=mem:1M "export=se cond=memdiff:mem:2M" mem:3M
  nbdinfo --list --json "$nbd_uri" >list
  cat list
  [[ $(jq -r '.exports[]."export-name"' list | sort | tr '\n' ,) = ",first,se cond," ]]
  [[ $(jq -r '.exports[] | select(."export-name" == "first") | .description' list) = "mem, 1 MiB, volatile" ]]
  [[ $(jq -r '.exports[] | select(."export-name" == "se cond") | .description' list) = "memdiff over mem, 2 MiB, volatile" ]]
}

# Anybody who can connect reads the description: it is not the place for paths.
test_no_paths() {
  need nbdinfo libnbd-bin
  truncate -s 1M some-secret-name.img
  start_nbdkit "file:$PWD/some-secret-name.img"
  nbdinfo "$nbd_uri" >out
  cat out
  grep -q 'description: file, 1 MiB' out
  fails grep some-secret out
}

test_unknown_name() {
  need nbdinfo libnbd-bin
  start_nbdkit first=mem:1M second=mem:2M
  fails nbdinfo "$(name_uri third)"
  cat "$nbd_log"
  grep -F "there is no export 'third' (there is: 'first', 'second')" "$nbd_log"
}

test_only_name_is_default() {
  need nbdinfo libnbd-bin
  start_nbdkit only=mem:1M
  [[ $(nbdinfo --size "$nbd_uri") = 1048576 ]]
  fails nbdinfo --size "$(name_uri other)"
}

test_no_default() {
  need nbdinfo libnbd-bin
  start_nbdkit first=mem:1M second=mem:2M
  fails nbdinfo --size "$nbd_uri"
  grep -F "there is no export '' (there is: 'first', 'second')" "$nbd_log"
}

test_any_name() {
  need nbdinfo libnbd-bin
  start_nbdkit 'export="a=b"=mem:1M' 'export=disk=mem:2M' 'export=x:y;z=mem:3M' 'export="q\"\\"=mem:4M'
  [[ $(nbdinfo --size "$(name_uri a%3Db)") = 1048576 ]]
  [[ $(nbdinfo --size "$(name_uri disk)") = 2097152 ]]
  [[ $(nbdinfo --size "$(name_uri x%3Ay%3Bz)") = 3145728 ]]
  [[ $(nbdinfo --size "$(name_uri q%22%5C)") = 4194304 ]]
}

test_list_file() {
  need nbdinfo libnbd-bin
  printf '%s\r\n' '# disks' '' 'one mem:1M' '  two=mem:2M  ' '"th ree"   mem:3M' '"" = mem:4M' >list
  printf 'last mem:5M' >>list
  start_nbdkit exports=list six=mem:6M
  [[ $(nbdinfo --size "$(name_uri one)") = 1048576 ]]
  [[ $(nbdinfo --size "$(name_uri two)") = 2097152 ]]
  [[ $(nbdinfo --size "$(name_uri th%20ree)") = 3145728 ]]
  [[ $(nbdinfo --size "$nbd_uri") = 4194304 ]]
  [[ $(nbdinfo --size "$(name_uri last)") = 5242880 ]]
  [[ $(nbdinfo --size "$(name_uri six)") = 6291456 ]]
}

test_list_file_errors() {
  need_plugin
  printf 'one mem:1M\n\nonemem:1M\n' >list
  refused "list line 3: expected NAME=SPEC, found 'onemem:1M'" exports=list
  printf 'one mem:1M\none mem:2M\n' >list
  refused "list line 2: there is an export 'one' already, from list line 1" exports=list
  printf '"one mem:1M\n' >list
  refused 'list line 1: the name of the export lacks its closing' exports=list
  printf '=mem:1M\n' >list
  refused 'list line 1: the export has no name' exports=list
  printf 'one=\n' >list
  refused 'list line 1: no spec after the name' exports=list
  printf 'one\0 mem:1M\n' >list
  refused 'list line 1: there is a NUL byte' exports=list
  printf 'one mem:1M\ntwo mim:1M\n' >list
  refused "export 'two'" exports=list
  refused "cannot open 'no-list'" exports=no-list
  refused "cannot read '/'" exports=/
}

test_duplicates() {
  need_plugin
  refused "there is an export 'a' already, from a=" a=mem:1M a=mem:2M
  refused "there is an export 'a' already, from export=" export=a=mem:1M a=mem:2M
  refused 'there is an unnamed disk already' mem:1M mem:2M
}

test_nothing() {
  need_plugin
  refused 'there is no disk to serve'
  refused 'no spec' disk=
  refused 'no spec' a=
}

# A failure names the export, and the disks opened before it are closed again.
test_one_fails() {
  need_plugin
  truncate -s 1M good.img
  refused "export 'b'" a=file:good.img b=file:missing.img
}

test_shared() {
  need nbdinfo libnbd-bin
  need qemu-io qemu-utils
  start_nbdkit a=mem:1M b=mem:1M
  qemu-io -f raw -c "write -P 0x11 0 4k" "$(name_uri a)"
  qemu-io -f raw -c "write -P 0x22 0 4k" "$(name_uri b)"
  qemu-io -f raw -c "read -P 0x11 0 4k" "$(name_uri a)" | tee out
  qemu-io -f raw -c "read -P 0x22 0 4k" "$(name_uri b)" | tee -a out
  fails grep 'verification failed' out
}

# In the background nbdkit's working directory is another one.
test_relative_paths() {
  need_plugin
  need nbdinfo libnbd-bin
  mkdir there
  truncate -s 3M there/disk.img
  printf 'b there/disk.img;ro\n' >list
  cd there
  # Lists are read from there too, and so are the paths in them.
  refused "there/disk.img" disk=file:disk.img exports=../list
  cd ..
  truncate -s 3M there/other.img
  printf 'b there/other.img\n' >list
  (nbdkit_with_plugin -U "$tmp/sock" -P "$tmp/pid" a=file:there/disk.img exports=list)
  at_exit stop_daemon "$(cat pid)"
  [[ $(nbdinfo --size "nbd+unix:///a?socket=$tmp/sock") = 3145728 ]]
  [[ $(nbdinfo --size "nbd+unix:///b?socket=$tmp/sock") = 3145728 ]]
}

stop_daemon() {
  local i
  kill "$1" || return 1
  for ((i = 0; i < 200; i++)); do
    kill -0 "$1" 2>/dev/null || return 0
    pause 0.05
  done
  return 1
}

test_dump() {
  need_plugin
  (nbdkit_with_plugin --dump-plugin) >out
  cat out
  grep -q '^name=platter$' out
  grep -q '^magic_config_key=disk$' out
  grep -q '^max_thread_model=parallel$' out
  grep -q "^platter_version=$PACKAGE_VERSION$" out
  grep -q '^platter_kinds=.*\bmem\b.*\bmemdiff\b' out
}

test_help() {
  need_plugin
  (nbdkit_with_plugin --help) >out
  cat out
  grep -qF '[disk=]SPEC' out
  grep -qF 'exports=FILE' out
}

run_test "one unnamed disk answers to every name" test_unnamed
run_test "several disks are told apart by their names" test_names
run_test "a client can list names and descriptions" test_list
run_test "the description tells no paths" test_no_paths
run_test "an unknown name is refused, and the known ones are listed" test_unknown_name
run_test "the only named disk is the default too" test_only_name_is_default
run_test "of several named disks none is the default" test_no_default
run_test "export= takes any name" test_any_name
run_test "exports= reads a list" test_list_file
run_test "a mistake in a list is reported with its line" test_list_file_errors
run_test "no name can be given twice" test_duplicates
run_test "a missing disk or spec is an error" test_nothing
run_test "an error names the export it is about" test_one_fails
run_test "connections to one export share its disk, others do not" test_shared
run_test "relative paths work when nbdkit goes to the background" test_relative_paths
run_test "nbdkit --dump-plugin tells version and kinds" test_dump
run_test "nbdkit --help tells the parameters" test_help
t_done
