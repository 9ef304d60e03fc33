# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Shell tests that print TAP. Sourced:
#
#     . "${top_srcdir:-.}/tests/lib.sh"
#     test_reads() {
#       need nbdinfo libnbd-bin
#       start_nbdkit mem:1M
#       [ "$(nbdinfo --size "$nbd_uri")" = 1048576 ]
#     }
#     run_test "the size arrives at the client" test_reads
#     t_done
#
# run_test runs the function in a subshell under `set -e -o pipefail`, in a private folder $tmp; what it prints is
# shown only when it fails. Register the undo of a thing with at_exit before you make the thing. TEST=substring
# runs only the tests whose name contains it.

set -u
export LC_ALL=C
: "${top_srcdir:=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}"
: "${top_builddir:=$top_srcdir}" "${SHARED:=}" "${SANITIZERS:=no}" "${SANITIZER_PRELOAD:=}" "${CC:=cc}"
export top_srcdir top_builddir SHARED
PATH=$PATH:/usr/sbin:/sbin
# Where ./platter and ./plugin.so are.
# shellcheck disable=SC2034 # for the tests
platter=$top_builddir/platter

t_count=0 t_failed=0 t_what='' t_inside='' t_undo=()
t_tmp=$(mktemp -d "${TMPDIR:-/tmp}/platter-test.XXXXXX") || exit 99
tmp=$t_tmp

# at_exit COMMAND ARG... : runs it when the test (or the script) ends, last registered first.
at_exit() { printf -v "t_undo[${#t_undo[@]}]" '%q ' "$@"; }

t_run_undo() {
  local i failed=0
  for ((i = ${#t_undo[@]} - 1; i >= 0; i--)); do
    eval "${t_undo[i]}" || failed=1
  done
  t_undo=()
  return "$failed"
}

t_leave() {
  local status=$?
  trap - EXIT
  t_run_undo || { [[ $status != 0 ]] || status=1; }
  exit "$status"
}
trap t_leave EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
at_exit rm -rf "$t_tmp"

# pause SECONDS: sleeps, without a process of its own; nobody ever writes to this.
mkfifo "$t_tmp/never" || exit 99
pause() { read -rt "$1" <>"$t_tmp/never" || true; }

# diag [TEXT...]: diagnostics, from the arguments or from standard input.
diag() { if (($#)); then printf '%s\n' "$*"; else cat; fi | sed 's/^/# /'; }

t_begin() { t_what=${1//#/}; }
ok() { printf 'ok %d - %s\n' $((++t_count)) "$t_what"; }
not_ok() { t_failed=1; printf 'not ok %d - %s\n' $((++t_count)) "$t_what"; }

# skip_test REASON: in a test function, ends it as skipped; between t_begin and ok, takes the place of ok;
# outside of any test, skips the whole script.
skip_test() {
  if [[ $t_inside ]]; then
    printf '%s' "$*" >"$t_skip_file"
    exit 0
  elif [[ $t_what ]]; then
    printf 'ok %d - %s # SKIP %s\n' $((++t_count)) "$t_what" "$*"
    t_what=''
  else
    printf '1..0 # SKIP %s\n' "$*"
    exit 0
  fi
}

# need PROGRAM PACKAGE: skips when the program is not there.
need() {
  command -v "$1" >/dev/null 2>&1 || skip_test "there is no program '$1' (apt-get install $2)"
  [[ $1 != python3 ]] || t_system_python
}

# What is first in PATH may be a script that looks for an interpreter (pyenv's does), and takes ten times as long as most of what is asked.
t_system_python() {
  [[ -x /usr/bin/python3 && $PATH != "$t_tmp/bin:"* ]] || return 0
  [[ -e $t_tmp/bin ]] || { mkdir "$t_tmp/bin" && ln -s /usr/bin/python3 "$t_tmp/bin/python3"; }
  PATH=$t_tmp/bin:$PATH
}

# need_helper NAME PACKAGE: sets `helper` to the test program tests/NAME; skips when it was not built.
need_helper() {
  helper=$top_builddir/tests/$1
  [[ -x $helper ]] || skip_test "tests/$1 was not built (apt-get install $2, and configure again)"
}

# need_shared [PATH]: skips when the folder of reference images (or PATH in it) is not there.
need_shared() {
  [[ -n $SHARED && -e $SHARED/${1:-} ]] ||
    skip_test "there is no folder '../shared${1:+/$1}' beside the project, nor SHARED=DIR"
}

# unpack_image NAME FILE: a reference image, sparse. Those that a test needs alone: all of them take long.
unpack_image() {
  [[ $2 != */* ]] || mkdir -p "${2%/*}"
  xz -dc "$SHARED/images/$1.xz" | dd of="$2" bs=64K iflag=fullblock conv=sparse status=none
}

# run_test NAME FUNCTION [ARG...]
run_test() {
  [[ $1 == *"${TEST:-}"* ]] || return 0
  local status
  t_begin "$1"
  shift
  t_skip_file=$t_tmp/skip t_inside=1
  rm -rf "$t_skip_file" "$t_tmp/private"
  mkdir "$t_tmp/private"
  # The subshell must not be part of a condition: `set -e` would have no effect in it.
  (
    trap t_leave EXIT
    trap 'exit 143' TERM
    t_undo=() tmp=$t_tmp/private
    cd "$tmp" || exit 1
    set -e -o pipefail
    "$@"
  ) >"$t_tmp/output" 2>&1
  status=$?
  t_inside=''
  if [[ $status != 0 ]]; then
    diag <"$t_tmp/output"
    diag "exit status $status"
    not_ok
  elif [[ -e $t_skip_file ]]; then
    skip_test "$(cat "$t_skip_file")"
  else
    ok
  fi
  t_what=''
}

# t_done: the plan and the exit status; the last line of every script.
t_done() {
  if ((t_count)); then echo "1..$t_count"; else echo "1..0 # SKIP there is no test of the name that was asked for"; fi
  exit "$t_failed"
}

# fails COMMAND...: it exits with a failure (not a signal, nor a sanitizer's report).
fails() {
  local status=0
  "$@" || status=$?
  [[ $status -ge 1 && $status -lt 60 ]] || { echo "exit status $status, expected a failure: $*"; return 1; }
}

# exits STATUS COMMAND...: it ends with that status; what it printed is in out and err.
exits() {
  local wanted=$1 status=0 text
  shift
  "$@" >out 2>err || status=$?
  for text in out err; do # the beginning of both, shown without a process
    IFS= read -rN 4000 text <"$text" || true
    printf '%s' "$text"
  done
  [[ $status = "$wanted" ]] || { echo "exit status $status, expected $wanted: $*"; return 1; }
}

# says TEXT...: the message in err is exactly this line, or these.
says() {
  local wanted got
  printf -v wanted '%s\n' "$@"
  IFS= read -rd '' got <err || true
  [[ $got = "$wanted" ]] || { printf 'expected:\n%sgot:\n%s' "$wanted" "$got"; return 1; }
}

# SHA-256 of standard input as sha256sum prints it, by what uses the processor's instructions for it where that is there.
sha256() {
  if command -v openssl >/dev/null; then openssl dgst -sha256 -r | sed 's/ .*/  -/'; else sha256sum; fi
}

# nbdkit_with_plugin ARG...: replaces this shell by nbdkit with our plugin; only nbdkit preloads what a sanitized
# plugin needs. Use it in a subshell or in the background.
nbdkit_with_plugin() {
  if [[ $SANITIZER_PRELOAD ]]; then
    # Memory that nbdkit itself does not free at exit is not ours.
    export ASAN_OPTIONS="${ASAN_OPTIONS:-} detect_leaks=0"
    exec "${nbdkit_prefix[@]}" env LD_PRELOAD="$SANITIZER_PRELOAD $top_builddir/tests/preload.so" nbdkit "$top_builddir/plugin.so" "$@"
  fi
  exec "${nbdkit_prefix[@]}" nbdkit "$top_builddir/plugin.so" "$@"
}

# A command that nbdkit_with_plugin starts nbdkit by, such as (nice -n 5).
nbdkit_prefix=()

# need_plugin: skips where nbdkit or what it needs to load our plugin is not there.
need_plugin() {
  need nbdkit nbdkit
  [[ $SANITIZER_PRELOAD != none ]] || skip_test "nbdkit cannot load a plugin built with $CC -fsanitize=$SANITIZERS"
}

# start_nbdkit ARG...: serves `nbdkit plugin.so ARG...` on a private Unix socket until the test ends. Sets
# nbd_socket, nbd_uri, nbd_pid and nbd_log; fails with the log when nbdkit does not come up.
start_nbdkit() {
  need_plugin
  local i dir
  dir=$(mktemp -d "$tmp/nbdkit.XXXXXX")
  nbd_socket=$dir/socket nbd_log=$dir/log
  # shellcheck disable=SC2034 # for the tests
  nbd_uri="nbd+unix:///?socket=$nbd_socket"
  nbdkit_with_plugin -f --exit-with-parent -U "$nbd_socket" -P "$dir/pid" "$@" >"$nbd_log" 2>&1 &
  nbd_pid=$!
  at_exit stop_nbdkit "$nbd_pid" "$nbd_log"
  for ((i = 0; i < 1500; i++)); do
    [[ ! -s $dir/pid ]] || return 0
    kill -0 "$nbd_pid" 2>/dev/null || break
    pause 0.02
  done
  echo "nbdkit did not come up: $*"
  return 1
}

# stop_nbdkit [PID [LOG]]: ends it; fails and shows its log when it did not end well, or not within 30 seconds.
stop_nbdkit() {
  local pid=${1:-$nbd_pid} log=${2:-$nbd_log} status=0 i
  [[ -e $log && ! -e $log.stopped ]] || return 0
  : >"$log.stopped"
  kill "$pid" 2>/dev/null || true
  for ((i = 0; i < 1500; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    pause 0.02
  done
  ! kill -KILL "$pid" 2>/dev/null || echo "nbdkit did not end and was killed"
  wait "$pid" || status=$?
  [[ $status != 0 ]] || return 0
  echo "nbdkit ended with status $status and said:"
  cat "$log"
  return 1
}
