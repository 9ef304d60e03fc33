# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# What tests of mounts share; sourced after tests/lib.sh:
#
#     need_mount                         # skips where nothing can be mounted; also does what the next paragraph tells
#     test_size() {
#       mkdir folder
#       start_mount folder d=mem:1M      # serves in the background; sets mount_pid and mount_log
#       gives 1048576 stat -c %s folder/d
#       stop_mount                       # SIGTERM, and it has to end well; without this the end of the test does it
#     }
#     run_test "..." test_size
#     run_user_test "..." test_size      # the same as an ordinary user
#
# As root, the script goes on in a mount namespace of its own. So nothing of what it mounts is left when it ends,
# whatever happens; and where only root may open /dev/fuse, an ordinary user of that namespace may.

: "${top_builddir:?comes from tests/lib.sh}" "${t_tmp:?}" "${tmp:?}"
# shellcheck disable=SC2034 # for the tests
call=$top_builddir/tests/mount-call fsx=$top_builddir/tests/mount-fsx crowd=$top_builddir/tests/mount-crowd
# How long what works at random does so; MOUNT_LONG in the environment: ten times as long.
# shellcheck disable=SC2034
operations=1000 seconds=1
# shellcheck disable=SC2034
[[ -z ${MOUNT_LONG:-} ]] || operations=10000 seconds=10
user=65534 is_root=1
# What root gets who opens a read-only file to write; others are stopped by its mode.
# shellcheck disable=SC2034 # for the tests
read_only_error=EROFS
# shellcheck disable=SC2034
[[ $(id -u) = 0 ]] || user=$(id -u) is_root='' read_only_error=EACCES

# need_mount: skips the script where nothing can be mounted; goes on in a namespace of its own.
need_mount() {
  "$platter" mount --help >/dev/null 2>&1 || skip_test "this platter was built without mount (apt-get install libfuse3-dev)"
  [[ -c /dev/fuse ]] || skip_test "there is no /dev/fuse"
  need fusermount3 fuse3
  need setpriv util-linux
  enter_namespace
}

# A node of its own, since rights of the machine's are not ours to change.
open_fuse_to_users() {
  [[ $(stat -c %a /dev/fuse) = *[67] ]] && return 0
  mount -t tmpfs -o size=64k,mode=755 tmpfs "$t_tmp/private" 2>/dev/null || return 1
  mknod -m 666 "$t_tmp/private/fuse" c 10 229 && mount --bind "$t_tmp/private/fuse" /dev/fuse && (exec 3<>/dev/fuse)
  local status=$?
  umount -l "$t_tmp/private"
  return "$status"
}

enter_namespace() {
  if [[ ! $is_root ]]; then
    (exec 3<>/dev/fuse) 2>/dev/null || skip_test "this user cannot open /dev/fuse"
  elif [[ ! ${PLATTER_TEST_NAMESPACE:-} ]]; then
    (exec 3<>/dev/fuse) 2>/dev/null || skip_test "root cannot open /dev/fuse here"
    unshare -m --propagation private true 2>/dev/null || skip_test "root may not make a mount namespace here"
    rm -rf "$t_tmp"
    PLATTER_TEST_NAMESPACE=1 exec unshare -m --propagation private "$BASH" "$0"
  else
    mkdir -p "$t_tmp/private"
    open_fuse_to_users || no_user="/dev/fuse cannot be opened to ordinary users here"
    # The programs under test may lie where an ordinary user cannot go.
    chmod 711 "$t_tmp"
    install -m 755 "$platter" "$t_tmp/platter"
    install -m 755 "$call" "$fsx" "$crowd" "$t_tmp/"
    platter=$t_tmp/platter call=$t_tmp/mount-call fsx=$t_tmp/mount-fsx crowd=$t_tmp/mount-crowd
  fi
}
no_user=''

# run_user_test NAME FUNCTION [ARG...]: as run_test, as an ordinary user.
run_user_test() { run_test "as an ordinary user: $1" t_as_user "${@:2}"; }

t_as_user() {
  [[ ! $no_user ]] || skip_test "$no_user"
  if [[ $is_root ]]; then
    chown "$user:$user" "$tmp"
    as=(setpriv --reuid="$user" --regid="$user" --clear-groups --)
  fi
  "$@"
}

# give_user FILE: it belongs to the user of the test.
give_user() { [[ ! ${as[*]} ]] || chown "$user:$user" "$1"; }

# allow_other_users: until the test ends, users may say allow_other.
allow_other_users() {
  if [[ $is_root ]]; then
    echo user_allow_other >"$tmp/fuse.conf"
    [[ -e /etc/fuse.conf ]] || skip_test "there is no /etc/fuse.conf"
    at_exit umount -l /etc/fuse.conf
    mount --bind "$tmp/fuse.conf" /etc/fuse.conf
  else
    grep -qx user_allow_other /etc/fuse.conf || skip_test "/etc/fuse.conf does not say user_allow_other"
  fi
}

# What stands before commands that the user of the test gives.
as=()

# start_mount POINT ARG...: starts `platter mount POINT ARG...`, and waits until it serves. Sets mount_pid and mount_log.
start_mount() {
  local dir i
  dir=$(mktemp -d "$tmp/mount.XXXXXX")
  [[ ! ${as[*]} ]] || chown "$user:$user" "$dir"
  mount_log=$dir/log
  "${as[@]}" "$platter" mount --pid-file "$dir/pid" "$@" >"$mount_log" 2>&1 &
  mount_pid=$!
  at_exit end_mount "$mount_pid" "$(realpath "$1")" "$mount_log"
  for ((i = 0; i < 1500; i++)); do
    [[ ! -s $dir/pid ]] || return 0
    kill -0 "$mount_pid" 2>/dev/null || break
    pause 0.02
  done
  echo "the mount did not come up: $*"
  cat "$mount_log"
  return 1
}

# start_daemon POINT ARG...: the same with -d. Sets mount_pid; what a sanitizer has to say fails the test at its end.
start_daemon() {
  local dir report
  dir=$(mktemp -d "$tmp/daemon.XXXXXX")
  [[ ! ${as[*]} ]] || chown "$user:$user" "$dir"
  report=log_path=$dir/report
  at_exit end_daemon "$dir" "$(realpath "$1")"
  "${as[@]}" env ASAN_OPTIONS="${ASAN_OPTIONS:-} $report" UBSAN_OPTIONS="${UBSAN_OPTIONS:-} $report" \
    TSAN_OPTIONS="${TSAN_OPTIONS:-} $report" "$platter" mount -d --pid-file "$dir/pid" "$@"
  mount_pid=$(cat "$dir/pid")
  echo "$mount_pid" >"$dir/pid-to-end"
}

end_daemon() {
  local pid status=0
  if [[ -s $1/pid-to-end ]]; then
    pid=$(cat "$1/pid-to-end")
    if is_platter "$pid"; then
      kill "$pid"
      wait_for 30 has_ended "$pid" || { status=1 && kill -KILL "$pid"; }
    fi
  fi
  ! is_mounted "$2" || umount -l "$2"
  ! cat "$1"/report.* 2>/dev/null || return 1
  return "$status"
}

is_platter() {
  local name
  { read -r name <"/proc/$1/comm"; } 2>/dev/null && [[ $name = *platter* ]]
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
  local i
  for ((i = 0; i < $1 * 50; i++)); do
    ! "${@:2}" >/dev/null 2>&1 || return 0
    pause 0.02
  done
  echo "not within $1 seconds: ${*:2}"
  return 1
}

has_ended() { ! is_running "$1"; }
is_running() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null && [[ ${stat##*) } != Z* ]]
}
is_mounted() {
  local line
  while read -r line; do
    [[ $line != *" $1 "*" fuse.platter "* ]] || return 0
  done </proc/self/mountinfo
  return 1
}

# stop_mount [PID [LOG]]: SIGTERM; then it has to end well.
stop_mount() {
  kill "${1:-$mount_pid}"
  ended_well "$@"
}

# ended_well [PID [LOG]]: it ends by itself within 30 seconds, with status 0 and without a word.
ended_well() {
  local pid=${1:-$mount_pid} log=${2:-$mount_log} status=0
  wait_for 30 has_ended "$pid"
  : >"$log.ended"
  wait "$pid" || status=$?
  cat "$log"
  [[ $status = 0 ]] || { echo "the server ended with status $status"; return 1; }
  [[ ! -s $log ]] || { echo "the server said the above"; return 1; }
}

# ended_saying TEXT: it ends by itself within 30 seconds, with status 0, and has said TEXT.
ended_saying() {
  local status=0
  wait_for 30 has_ended "$mount_pid"
  : >"$mount_log.ended"
  wait "$mount_pid" || status=$?
  cat "$mount_log"
  [[ $status = 0 ]] || { echo "the server ended with status $status"; return 1; }
  grep -q -e "$1" "$mount_log"
}

# kill_mount: SIGKILL.
kill_mount() {
  kill -KILL "$mount_pid"
  : >"$mount_log.ended"
  wait "$mount_pid" 2>/dev/null || true
}

# At the end of a test: what it left is taken off, and a server whose end nobody looked at must not have had a bad one.
end_mount() {
  local pid=$1 point=$2 log=$3 status=0
  if [[ ! -e $log.ended ]]; then
    kill "$pid" 2>/dev/null
    wait_for 30 has_ended "$pid" || kill -KILL "$pid"
    wait "$pid" || status=$?
  fi
  ! is_mounted "$point" || umount -l "$point"
  [[ $status = 0 ]] && ! grep -q 'Sanitizer\|runtime error' "$log" && return 0
  echo "the server ended with status $status and said:"
  cat "$log"
  return 1
}

# A program that hangs is ended; a function, or what only the shell has, is run as it is.
in_time() {
  if declare -F "$1" >/dev/null || ! type -P "$1" >/dev/null; then "$@"; else timeout 30 "${as[@]}" "$@"; fi
}

# gives RESULT COMMAND...: what it prints on standard output is RESULT.
gives() {
  local got
  got=$(in_time "${@:2}") || { echo "failed and printed '$got': ${*:2}"; return 1; }
  [[ $got = "$1" ]] || { echo "expected '$1', got '$got': ${*:2}"; return 1; }
}

# holds FILE OFFSET LENGTH CHARACTER: there is nothing else in this range.
holds() {
  dd if="$1" bs=64K iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none >range
  gives "$(numfmt --from=iec "$3")" stat -c %s range
  [[ $(tr -d "$4" <range | wc -c) = 0 ]] || { echo "$1 holds something else than '$4' at $2"; return 1; }
}

# refused STATUS TEXT COMMAND...: it ends with that status, and TEXT (a basic regular expression) is in its error.
refused() {
  local status=0
  timeout 30 "${as[@]}" "${@:3}" >refused.out 2>refused.err || status=$?
  cat refused.out refused.err
  [[ $status = "$1" ]] || { echo "exit status $status, expected $1: ${*:3}"; return 1; }
  grep -q -e "$2" refused.err || { echo "does not say '$2': ${*:3}"; return 1; }
}
