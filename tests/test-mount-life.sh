#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# How a mount begins and ends: in the background, by signals, in use, under load, killed; and that what was written is
# kept.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/mount.sh"
need_mount

# ------------------------------------------------------------------ beginning

test_daemon() {
  local pid out
  mkdir m && give_user m
  # The server keeps nothing of who started it: else this would not come back.
  out=$(start_daemon m 'd=mem:1M' 2>&1 && echo "pid $mount_pid")
  [[ $out = "pid "* ]]
  pid=${out#pid }
  # It is there when the command returns.
  gives 1048576 stat -c %s m/d
  is_platter "$pid"
  [[ $(ps -o sid= -p "$pid") -eq $pid ]]
  gives /dev/null readlink "/proc/$pid/fd/2"
  gives /dev/null readlink "/proc/$pid/fd/0"
  "${as[@]}" "$platter" umount m
  has_ended "$pid"
  fails is_mounted "$PWD/m"
}

test_pid_file() {
  local pid
  mkdir m
  start_daemon m d=mem:1M
  "$platter" umount m
  "$platter" mount -d m d=mem:1M --pid-file=here.pid
  at_exit umount -l "$PWD/m"
  pid=$(cat here.pid)
  is_platter "$pid"
  gives "$pid" getfattr --only-values -n user.platter.pid m
  kill "$pid"
  wait_for 30 has_ended "$pid"
  # The name is free again.
  [[ ! -e here.pid ]]
  t_undo=("${t_undo[@]::${#t_undo[@]}-1}")
}

# What goes wrong is told before the command returns, and nothing is left behind.
test_daemon_fails() {
  mkdir m busy
  truncate -s 1M image
  mkfifo fifo
  refused 1 "did you mean 'mem'" "$platter" mount -d m d=memm:1M
  refused 1 "missing.img" "$platter" mount -d m d=file:missing.img
  refused 1 "no-such" "$platter" mount -d no-such d=mem:1M
  refused 1 "no-such" "$platter" mount -d no-such/file mem:1M
  refused 1 "neither a folder nor a regular file" "$platter" mount -d fifo mem:1M
  refused 1 "no/such/pid" "$platter" mount -d m d=mem:1M --pid-file no/such/pid
  start_daemon busy d=image
  refused 1 "image" "$platter" mount -d m e=image
  refused 1 "already" "$platter" mount -d busy d=mem:1M
  fails is_mounted "$PWD/m"
  gives "" ls -A m
  # The one that is there is not disturbed.
  gives 4096 "$call" write busy/d 0 4096 65
}

test_one_writer() {
  mkdir m n
  truncate -s 1M image
  start_mount m d=image
  refused 1 "image.*\(use\|lock\|open\)" "$platter" mount n e=image
  refused 1 "image.*\(use\|lock\|open\)" "$platter" mount n d=mem:1M e=image
  fails is_mounted "$PWD/n"
  stop_mount
  refused 1 "image" "$platter" mount n d=image e=image
  # Readers can be many.
  start_mount m 'd=file:image;ro'
  start_mount n 'd=file:image;ro' -o ro
  gives 4096 "$call" read m/d 0 4096
  gives 4096 "$call" read n/d 0 4096
}

test_over_a_mount() {
  mkdir m link-to
  : >file
  ln -s "$PWD/m" link
  start_mount m d=mem:1M
  refused 1 "is a mount of platter already.*platter umount" "$platter" mount m d=mem:1M
  refused 1 "is a mount of platter already" "$platter" mount link d=mem:1M
  gives 1048576 stat -c %s m/d
  # A file of a mount is a file like others, over which a disk can be mounted.
  start_mount file mem:2M
  refused 1 "is a mount of platter already" "$platter" mount file mem:1M
  "$platter" umount link file
}

test_notify() {
  local listener
  mkdir m
  at_exit rm -f socket
  "$call" listen socket 2 >heard &
  listener=$!
  at_exit kill "$listener"
  wait_for 10 test -S socket
  NOTIFY_SOCKET=$PWD/socket start_mount m d=mem:1M
  wait_for 10 grep -qx READY=1 heard
  gives "READY=1" cat heard
  gives 1048576 stat -c %s m/d
  kill "$mount_pid"
  ended_well
  wait_for 10 has_ended "$listener"
  t_undo=("${t_undo[@]/*kill*$listener*/true}")
  gives "READY=1 STOPPING=1" bash -c 'echo $(cat heard)'
}

# A manager that is not there is no reason not to serve.
test_notify_nobody() {
  mkdir m
  NOTIFY_SOCKET=$PWD/none start_mount m d=mem:1M
  gives 1048576 stat -c %s m/d
  kill "$mount_pid"
  ended_saying "cannot notify '$PWD/none'"
}

# ------------------------------------------------------------------ ending

# by_signal SIGNAL OPTIONS...: what was written is in the image, though nobody asked for it to be saved.
by_signal() {
  mkdir m && give_user m
  head -c 8M /dev/urandom >data
  truncate -s 8M image && give_user image
  start_mount m d=image "${@:2}"
  "${as[@]}" dd if=data of=m/d bs=256K conv=notrunc status=none
  gives 0 "$call" map m/d 4M 64K 65
  kill -s "$1" "$mount_pid"
  ended_well
  fails is_mounted "$PWD/m"
  cmp -n 4M image data
  holds image 4M 64K A
}

test_by_umount() {
  local way
  mkdir m
  head -c 1M /dev/urandom >data
  for way in "umount m" "fusermount3 -u m" "$platter umount m"; do
    rm -f image
    truncate -s 1M image
    start_mount m d=image -o writeback
    dd if=data of=m/d conv=notrunc bs=64K status=none
    $way
    ended_well
    cmp image data
  done
}

# hold FILE: opens it, and keeps it open until let_go. Sets holder.
hold() {
  "${as[@]}" bash -c 'exec sleep 60 <>"$1"' - "$1" &
  holder=$!
  at_exit let_go "$holder"
  wait_for 10 grep -q sleep "/proc/$holder/comm"
}
let_go() { kill "$1" 2>/dev/null && wait "$1" 2>/dev/null || true; }

test_waits_for_users() {
  mkdir m && give_user m
  start_mount m d=mem:1M
  hold m/d
  kill "$mount_pid"
  wait_for 10 grep -q "in use.*second signal" "$mount_log"
  # It serves as before.
  gives 4096 "$call" write m/d 0 4096 65
  gives 4096 "$call" read m/d 0 4096
  pause 0.5
  is_running "$mount_pid"
  let_go "$holder"
  ended_saying "in use"
  fails is_mounted "$PWD/m"
}

# What was written before is kept, also by a program that still has it in its hands.
test_second_signal() {
  mkdir m && give_user m
  head -c 8M /dev/urandom >data
  truncate -s 8M image && give_user image
  start_mount m d=image --grace 60 "$@"
  "${as[@]}" dd if=data of=m/d bs=1M conv=notrunc status=none
  if [[ $* = *direct_io* ]]; then
    hold m/d
  else
    coproc "${as[@]}" "$call" map m/d 0 1M 65 wait
    read -r status <&"${COPROC[0]}"
    [[ $status = 0 ]]
    holder=$COPROC_PID
    at_exit let_go "$holder"
    head -c 1M /dev/zero | tr '\0' A | dd of=data conv=notrunc status=none
  fi
  kill "$mount_pid"
  wait_for 10 grep -q "in use" "$mount_log"
  is_running "$mount_pid"
  kill "$mount_pid"
  ended_saying "errors from now on"
  fails is_mounted "$PWD/m"
  cmp image data
}

test_grace() {
  local begin
  mkdir m
  start_mount m d=mem:1M --grace 1
  hold m/d
  begin=$(date +%s%N)
  kill "$mount_pid"
  ended_saying "up to 1 seconds"
  begin=$((($(date +%s%N) - begin) / 1000000))
  echo "$begin ms"
  ((begin > 900 && begin < 5000))
  let_go "$holder"
  # Whoever is in the folder is a user, too.
  start_mount m d=mem:1M --grace=0
  (cd m && exec sleep 60) &
  holder=$!
  at_exit let_go "$holder"
  wait_for 10 bash -c "[ \$(readlink /proc/$holder/cwd) = $PWD/m ]"
  kill "$mount_pid"
  ended_saying "errors from now on"
}

# After the cut, who has a file open gets errors, and does not hang.
test_errors_after_cut() {
  mkdir m
  start_mount m d=mem:1M --control --grace=0
  exec 7<>m/d 8<m/.platter/tree.txt
  kill "$mount_pid"
  ended_saying "errors from now on"
  # Nothing is unmounted twice: who knows what is mounted there by then.
  fails grep 'fuse: failed to unmount' "$mount_log"
  exec 8<&-
  fails timeout 10 dd if=/dev/fd/7 bs=4096 count=1 iflag=direct of=/dev/null
  fails timeout 10 dd of=/dev/fd/7 if=/dev/zero bs=4096 count=1 conv=notrunc
  exec 7<&-
}

# What somebody else mounts there stays.
test_cut_takes_its_own() {
  mkdir m
  start_mount m d=mem:1M
  exec 7<>m/d
  "$platter" umount --lazy m
  mount -t tmpfs -o size=64k tmpfs m
  at_exit umount -l m
  kill "$mount_pid"
  wait_for 30 has_ended "$mount_pid"
  exec 7<&-
  mountpoint m
}

# ------------------------------------------------------------------ platter umount

test_umount_busy() {
  mkdir m
  head -c 4M /dev/urandom >data
  truncate -s 4M image
  start_mount m d=image
  exec 7<>m/d
  refused 1 "in use.*fuser -vm '$PWD/m'.*--lazy" "$platter" umount m
  is_mounted "$PWD/m"
  "$platter" umount --lazy m
  fails is_mounted "$PWD/m"
  # It is served until its last user has gone.
  cat data >&7
  is_running "$mount_pid"
  exec 7<&-
  ended_well
  cmp image data
}

test_umount_errors() {
  mkdir m n
  start_mount m d=mem:1M
  refused 1 "'$PWD/n' is no mount of platter" "$platter" umount n
  refused 1 "no-such" "$platter" umount no-such
  refused 1 "/proc.*is no mount of platter" "$platter" umount /proc
  # One that cannot be does not keep others from it.
  refused 1 "is no mount" "$platter" umount n m
  ended_well
  refused 2 "missing" "$platter" umount
}

# The image can be opened again at once, though saving it takes a while.
test_umount_waits() {
  local i
  mkdir m && give_user m
  head -c 8M /dev/urandom >data
  mkdir images && give_user images
  start_daemon m "d=sql:images/disk.db;create=8M" -o writeback
  for i in 1 2 3 4 5; do
    "${as[@]}" dd if=data of=m/d bs=1M conv=notrunc status=none
    "${as[@]}" "$platter" umount m
    has_ended "$mount_pid"
    start_daemon m d=sql:images/disk.db -o writeback
    "${as[@]}" cmp m/d data
    head -c 8M /dev/urandom >data
  done
}

test_root_umounts_for_user() {
  mkdir m && give_user m
  start_daemon m d=mem:1M
  "$platter" umount m
  has_ended "$mount_pid"
}

# Somebody else's mount is theirs.
test_user_umounts_for_root() {
  mkdir m
  local by_user=("${as[@]}")
  as=()
  start_mount m d=mem:1M -o allow_other
  as=("${by_user[@]}")
  fails "${as[@]}" "$platter" umount m
  is_mounted "$PWD/m"
}

# write_on FILE: writes until there is an error, and then ends.
write_on() {
  "${as[@]}" bash -c 'while dd if=/dev/zero of="$1" bs=64K count=64 conv=notrunc,nocreat status=none; do :; done 2>/dev/null; true' - "$1" &
  load+=($!)
}

# Many programs write while it is taken off: refused, or done, and never half.
test_umount_under_load() {
  local load=() i
  mkdir m && give_user m
  truncate -s 4M image && give_user image
  start_mount m d=image e=mem:4M --grace 0 "$@"
  for i in 1 2 3; do write_on m/d && write_on m/e; done
  pause 0.3
  for i in {1..8}; do
    "${as[@]}" "$platter" umount m 2>umount.err || grep -q 'in use' umount.err
    is_mounted "$PWD/m" || break
  done
  if is_mounted "$PWD/m"; then kill "$mount_pid"; fi
  wait_for 30 has_ended "$mount_pid"
  # Who was cut off has ended with an error, or finds no file.
  wait "${load[@]}"
  wait "$mount_pid"
}

# ------------------------------------------------------------------ killed

# killed_while SPEC IMAGE: everything fsynced is there; the dead mount can be taken off.
killed_while() {
  local writer last status=0
  mkdir m images && give_user m && give_user images
  start_mount m "d=$1" "${@:3}"
  "${as[@]}" "$call" log m/d 4000 >logged &
  writer=$!
  wait_for 30 grep -qx 40 logged
  kill_mount
  # Whoever waits gets an error.
  wait "$writer" || status=$?
  [[ $status != 0 ]]
  last=$(tail -n 1 logged)
  echo "$last blocks were durable"
  ((last >= 40 && last < 3999))
  is_mounted "$PWD/m"
  fails "${as[@]}" ls m
  refused 1 "mount of platter already, though nobody serves it ('platter umount'" "$platter" mount m d=mem:1M
  "${as[@]}" "$platter" umount m
  fails is_mounted "$PWD/m"
  start_mount m "d=$2"
  gives "" "$call" checklog m/d $((last + 1))
}

test_killed_single() {
  echo hello >file
  start_mount file mem:1M
  kill_mount
  fails cat file
  refused 1 "nobody serves it" "$platter" mount file mem:1M
  "$platter" umount file
  gives hello cat file
}

# While files are open, too.
test_killed_in_use() {
  mkdir m
  start_mount m d=mem:1M
  hold m/d
  kill_mount
  refused 1 "in use" "$platter" umount m
  "$platter" umount -l m
  fails is_mounted "$PWD/m"
  start_mount m d=mem:1M
}

# fusermount3 looks at the mount while the kernel still ends it, and when it comes just before that, it takes it for alive (1 or 2
# in 100 on a busy machine, with libfuse's own loop as well): so once in five tries is enough, and else it is left as any dead mount.
test_auto_unmount() {
  local try
  mkdir m && give_user m
  for try in {1..5}; do
    start_mount m d=mem:1M -o auto_unmount "$@"
    gives 1048576 stat -c %s m/d
    kill_mount
    if wait_for 5 has_gone "$PWD/m"; then return 0; fi
    echo "try $try: it is left"
    "$platter" umount m
  done
  return 1
}

# fusermount3 looks at the dead mount as root, who is let in by allow_other only.
test_user_auto_unmount() {
  allow_other_users
  test_auto_unmount -o allow_other
}
has_gone() { ! is_mounted "$1"; }

# ------------------------------------------------------------------ what cannot be saved

# The store below fills up: programs hear of it, and the end does, if something is lost.
test_full() {
  mkdir m small
  mount -t tmpfs -o size=2M tmpfs small
  at_exit umount -l small
  start_mount m 'd=file:small/image;create=8M' "$@"
  fails dd if=/dev/urandom of=m/d bs=1M count=8 conv=notrunc,fsync
  kill "$mount_pid"
  wait_for 30 has_ended "$mount_pid"
  : >"$mount_log.ended"
  wait "$mount_pid" || true
  grep -q "d: write.*No space left" "$mount_log"
  [[ $(wc -l <"$mount_log") -le 30 ]]
}

# A flush that fails is told to who asks for it; and what could not be saved is the exit status.
test_flush_fails() {
  need strace strace
  [[ $SANITIZERS = no ]] || skip_test "the server would run under strace and a sanitizer"
  strace -f -o /dev/null true 2>/dev/null || skip_test "strace may not trace here"
  mkdir m
  truncate -s 1M image
  start_mount m d=image
  strace -f -o trace -e inject=fdatasync,fsync:error=EIO -e trace=fdatasync,fsync -p "$mount_pid" 2>strace.err &
  tracer=$!
  at_exit kill "$tracer"
  wait_for 10 grep -q attached strace.err
  gives 4096 "$call" write m/d 0 4096 65
  gives EIO "$call" fsync m/d
  # It is final.
  gives EIO "$call" fsync m/d
  kill "$mount_pid"
  wait_for 30 has_ended "$mount_pid"
  : >"$mount_log.ended"
  status=0
  wait "$mount_pid" || status=$?
  cat "$mount_log"
  [[ $status = 1 ]]
  grep -q "d: flush.*image" "$mount_log"
  wait "$tracer" || true
  t_undo=("${t_undo[@]/*kill*$tracer*/true}")
}

# ------------------------------------------------------------------ all of them

run_test "-d returns when the mount is there" test_daemon
run_test "-d tells what went wrong" test_daemon_fails
run_test "--pid-file" test_pid_file
run_test "one writer" test_one_writer
run_test "no mount over a mount" test_over_a_mount
run_test "a service manager hears of it" test_notify
run_test "a service manager that is not there" test_notify_nobody
run_test "SIGTERM" by_signal TERM
run_test "SIGINT" by_signal INT
run_test "SIGHUP" by_signal HUP
run_test "SIGTERM with -o writeback" by_signal TERM -o writeback
run_test "any umount" test_by_umount
run_test "a signal waits for users" test_waits_for_users
run_test "a second signal cuts them off" test_second_signal
run_test "a second signal, -o writeback" test_second_signal -o writeback
run_test "a second signal, -o direct_io" test_second_signal -o direct_io
run_test "--grace" test_grace
run_test "errors after the cut" test_errors_after_cut
[[ ! $is_root ]] || run_test "what is mounted there afterwards stays" test_cut_takes_its_own
run_test "platter umount while in use" test_umount_busy
run_test "platter umount of what is none" test_umount_errors
run_test "platter umount returns when the image is free" test_umount_waits
run_test "unmounted under load" test_umount_under_load
run_test "unmounted under load, -o writeback" test_umount_under_load -o writeback
run_test "unmounted under load, -o direct_io" test_umount_under_load -o direct_io,parallel_direct_writes
run_test "killed while it writes to a file" killed_while 'file:images/image;create=16M' images/image
run_test "killed while it writes to a database" killed_while 'sql:images/db;create=16M' sql:images/db -o writeback
run_test "killed over a file" test_killed_single
run_test "killed while in use" test_killed_in_use
[[ ! $is_root ]] || run_test "killed with -o auto_unmount" test_auto_unmount
[[ ! $is_root ]] || run_test "a full store" test_full
[[ ! $is_root ]] || run_test "a full store, -o writeback" test_full -o writeback
run_test "a flush that fails" test_flush_fails
run_user_test "-d" test_daemon
run_user_test "SIGTERM" by_signal TERM -o writeback
run_user_test "a signal waits for users" test_waits_for_users
run_user_test "a second signal" test_second_signal
run_user_test "platter umount returns when the image is free" test_umount_waits
run_user_test "unmounted under load" test_umount_under_load
run_user_test "killed while it writes" killed_while 'file:images/image;create=16M' images/image
run_user_test "killed with -o auto_unmount" test_user_auto_unmount
[[ ! $is_root ]] || run_user_test "unmounted by root" test_root_umounts_for_user
[[ ! $is_root ]] || run_user_test "not unmounted by somebody else" test_user_umounts_for_root
t_done
