#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The platter command: verbs, help, errors, exit statuses.
. "${top_srcdir:?is set by make check}/tests/lib.sh"

# Every verb, as the command itself lists them.
verbs() { "$platter" --help | sed -n 's/^  \([a-z]*\) .*/\1/p'; }

test_help() {
  local verb
  exits 0 "$platter" --help
  for verb in info convert kinds version help; do grep -q "^  $verb" out; done
  cp out first
  exits 0 "$platter" -h
  cmp out first
  exits 0 "$platter" help
  cmp out first
}

test_help_verb() {
  local verb
  [[ $(verbs | wc -l) -gt 10 ]]
  for verb in $(verbs); do
    exits 0 "$platter" "$verb" --help
    grep -q "^usage: platter $verb" out
    cp out first
    exits 0 "$platter" "$verb" -h
    cmp out first
    exits 0 "$platter" help "$verb"
    cmp out first
  done
}

test_no_verb() {
  exits 2 "$platter"
  grep -q 'platter --help' err
  [[ ! -s out ]]
}

test_unknown_verb() {
  exits 2 "$platter" inof
  grep -q "no verb 'inof' (did you mean 'info'?)" err
  exits 2 "$platter" help inof
  exits 2 "$platter" zzzzzzzz
  fails grep 'did you mean' err
  exits 2 "$platter" --json info
}

test_unknown_option() {
  exits 2 "$platter" info --jsn mem:1M
  grep -q "no option '--jsn' (did you mean '--json'?)" err
  exits 2 "$platter" info -x mem:1M
  grep -q "no option '-x'" err
  exits 2 "$platter" info --json=yes mem:1M
  grep -q "takes no argument" err
  [[ ! -s out ]]
}

test_operands() {
  exits 2 "$platter" info
  grep -q 'SPEC is missing' err
  exits 2 "$platter" info mem:1M mem:2M
  grep -q "too many: 'mem:2M'" err
  exits 2 "$platter" version 1
}

test_version() {
  exits 0 "$platter" version
  grep -qx "platter $PACKAGE_VERSION" out
  cp out first
  exits 0 "$platter" --version
  cmp out first
}

test_version_json() {
  need jq jq
  exits 0 "$platter" version --json
  [[ $(jq -r .version out) = "$PACKAGE_VERSION" ]]
  jq -e '.features.io_uring | type == "boolean"' out
  jq -e '.kinds | index("mem")' out
}

test_info() {
  exits 0 "$platter" info mem:1G
  grep -qx 'spec       mem:1G' out
  grep -qx 'size       1 GiB (1073741824 bytes)' out
  grep -q '^block      512 bytes logical' out
  grep -q '^discard    .*reads as zeroes' out
  grep -q '^is         opened read-only, volatile' out
  grep -q '^mem  1 GiB' out
}

test_info_tree() {
  truncate -s 1M disk.img
  exits 0 "$platter" info memdiff:slice:4K,64K:file:disk.img
  grep -q '^memdiff  64 KiB' out
  grep -q '^└─ slice  64 KiB' out
  grep -q '^   └─ file  1 MiB' out
  grep -q 'disk.img' out
}

test_info_json() {
  need jq jq
  truncate -s 1M disk.img
  exits 0 "$platter" info --json memdiff:disk.img
  [[ $(jq -r .spec out) = memdiff:file:disk.img ]]
  [[ $(jq -r .disk.kind out) = memdiff ]]
  [[ $(jq .disk.size out) = 1048576 ]]
  [[ $(jq -r '.disk.children[0].kind' out) = file ]]
  # Options may stand behind the spec.
  cp out first
  exits 0 "$platter" info memdiff:disk.img --json
  cmp first out
}

# The canonical spec opens the same disk.
test_info_spec() {
  truncate -s 1M 'a disk;with "all".img'
  exits 0 "$platter" info 'memdiff:file:"a disk;with \"all\".img"'
  cp out first
  exits 0 "$platter" info "$(sed -n 's/^spec  *//p' first)"
  cmp first out
}

test_info_creates_nothing() {
  exits 1 "$platter" info 'file:disk.img;create=1M'
  grep -q 'create' err
  [[ ! -e disk.img ]]
}

test_info_writes_nothing() {
  truncate -s 1M disk.img
  start_nbdkit file:disk.img
  before=$(stat -c '%Y %Z %b' disk.img)
  exits 0 "$platter" info disk.img
  [[ $(stat -c '%Y %Z %b' disk.img) = "$before" ]]
}

test_info_errors() {
  exits 1 "$platter" info missing.img
  grep -q "^platter info: .*missing.img.*No such file" err
  exits 1 "$platter" info mme:1G
  grep -q 'mem' err
  exits 1 "$platter" info mem:1000
  grep -q '512' err
  [[ ! -s out ]]
}

test_kinds() {
  exits 0 "$platter" kinds
  grep -q '^mem:\[SIZE\]' out
  grep -q '^memdiff:SPEC' out
  grep -q '^file:' out
}

test_kinds_one() {
  exits 0 "$platter" kinds mem
  grep -q '^mem:\[SIZE\]' out
  grep -q '^  ;block' out
  grep -q 'default 512' out
  grep -q 'at most 64 KiB (65536 bytes)' out
  exits 0 "$platter" kinds layers
  grep -q '^  ;read_cache' out
  exits 1 "$platter" kinds mme
  grep -q "no kind 'mme' (did you mean 'mem'?)" err
}

test_kinds_json() {
  need jq jq
  exits 0 "$platter" kinds --json
  [[ $(jq -r '.[] | select(.name == "mem") | .grammar' out) = 'mem:[SIZE]'* ]]
  exits 0 "$platter" kinds --json mem
  [[ $(jq -r '.[].name' out) = mem ]]
}

# A disk that is full is a failure, not silence.
test_output_fails() {
  [[ -w /dev/full ]] || skip_test "there is no /dev/full"
  local status=0
  "$platter" kinds >/dev/full 2>err || status=$?
  cat err
  [[ $status = 1 ]]
  grep -q 'No space left' err
}

test_dash_dash() {
  exits 1 "$platter" info -- -disk.img
  grep -q -e '-disk.img' err
  exits 2 "$platter" info -disk.img
}

# Every verb but help has its man page, which names every option of it, and no other.
test_man_pages() {
  local verb page option
  for verb in $(verbs); do
    page=$top_srcdir/docs/platter-$verb.1
    [[ -e $page ]]
    "$platter" help "$verb" | grep -o -e '--[a-z][a-z-]*' | sort -u >options
    while read -r option; do
      grep -q -e "${option//-/\\\\-}" "$page" || { echo "platter-$verb.1 does not name $option"; return 1; }
    done <options
    sed -n '/^\.SH OPTIONS/,/^\.SH EXIT/p' "$page" | grep -A 1 '^\.TP' | sed 's/\\-/-/g' | grep -o -e '--[a-z][a-z-]*' |
      while read -r option; do
        grep -qxF -e "$option" options || { echo "platter-$verb.1 tells of $option, which is not there"; return 1; }
      done
    grep -q "platter-$verb" "$top_srcdir/docs/platter.1"
  done
}

# completes LINE WORD: bash would offer WORD at the end of LINE.
completes() {
  local offered
  offered=$(PATH=$top_builddir:$PATH bash -c '
    . "$1/cli/platter.bash-completion"
    compopt() { :; }
    COMP_LINE=$2 COMP_POINT=${#2}
    read -ra COMP_WORDS <<<"$2"
    [[ $2 != *" " ]] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _platter platter
    printf "%s\n" "${COMPREPLY[@]}"' - "$top_srcdir" "$1")
  grep -qxF -e "$2" <<<"$offered" || { echo "'$1' offers: $offered"; return 1; }
}

# All are closed, so that the disk would become one of them, and what is printed would go there.
test_closed_streams() {
  local status=0
  printf 'not zero' >disk.img
  truncate -s 1M disk.img
  timeout 20 "$platter" zero --all --progress=json disk.img <&- >&- 2>&-
  cmp -n 1048576 disk.img /dev/zero
  "$platter" info disk.img >&- 2>err || status=$?
  [[ $status = 1 && $(cat err) = 'platter: cannot write the output: Bad file descriptor' ]]
  status=0
  timeout 20 "$platter" write disk.img <&- 2>err || status=$?
  [[ $status = 1 && $(cat err) = "platter write: 'disk.img': cannot read the input: Bad file descriptor" ]]
}

# One shell for all lines: "VERB OPTION" for each that is offered.
test_completion_all() {
  local verb
  for verb in $("$platter" --help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    "$platter" "$verb" --help | grep -oE -e '^ .{0,5}--[a-z-]+' | sed "s/.*--/$verb --/"
  done | sort >wanted
  [[ $(wc -l <wanted) -gt 100 ]]
  # shellcheck disable=SC2016 # that shell expands it
  PATH=$top_builddir:$PATH bash -c '
    . "$1/cli/platter.bash-completion"
    COMP_LINE="platter " COMP_POINT=8 COMP_WORDS=(platter "") COMP_CWORD=1
    _platter platter
    for verb in "${COMPREPLY[@]}"; do
      [[ $verb != -* ]] || continue
      COMP_LINE="platter $verb --" COMP_WORDS=(platter "$verb" --) COMP_CWORD=2
      COMP_POINT=${#COMP_LINE}
      _platter platter
      printf "$verb %s\n" "${COMPREPLY[@]}"
    done' - "$top_srcdir" | sort | diff wanted -
}

test_completion() {
  touch disk.img
  completes "platter " info
  completes "platter ki" kinds
  completes "platter --he" --help
  completes "platter info --j" --json
  completes "platter info me" memdiff:
  completes "platter info dis" disk.img
  completes "platter convert disk.img sq" sql:
  completes "platter convert --ver" --verify
  completes "platter kinds me" mem
  # What an option takes: one of its words, else a file.
  completes "platter convert --progress=pl" plain
  completes "platter convert --progress pl" plain
  completes "platter hash -a bl" blake2b512
  completes "platter info --lint=" azure
  completes "platter serve --tls-psk=dis" disk.img
  completes "platter serve -U dis" disk.img
  completes "platter help ve" version
  # Behind a kind, where bash itself parts the words at ':'.
  completes "platter info memdiff:fi" file:
  completes "platter info file:dis" disk.img
}

run_test "platter --help" test_help
run_test "platter help VERB is platter VERB --help" test_help_verb
run_test "no verb is wrong usage" test_no_verb
run_test "an unknown verb, with the nearest one" test_unknown_verb
run_test "an unknown option, with the nearest one" test_unknown_option
run_test "an argument missing or too many" test_operands
run_test "platter version" test_version
run_test "platter version --json" test_version_json
run_test "platter info" test_info
run_test "standard streams that are closed are no disks" test_closed_streams
run_test "platter info draws the tree" test_info_tree
run_test "platter info --json" test_info_json
run_test "platter info prints a spec that opens the same" test_info_spec
run_test "platter info creates nothing" test_info_creates_nothing
run_test "platter info changes nothing, beside a server" test_info_writes_nothing
run_test "platter info says why a disk cannot be opened" test_info_errors
run_test "platter kinds" test_kinds
run_test "platter kinds NAME" test_kinds_one
run_test "platter kinds --json" test_kinds_json
run_test "output that cannot be written is a failure" test_output_fails
run_test "-- ends the options" test_dash_dash
run_test "man pages name every verb and option" test_man_pages
run_test "completion for bash" test_completion
run_test "completion knows all verbs and their options" test_completion_all
t_done
