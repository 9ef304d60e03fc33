#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# `platter device` without a guest: its sockets, what is said there, its end.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need python3 python3

# start_device ARG...: on the socket ./s, with control on ./c. Sets device_pid; fails with what the device says when it does not come up.
start_device() {
  local i
  rm -f device.out
  "$platter" device nvme -U s --control c "$@" >device.out 2>device.log &
  device_pid=$!
  at_exit end_device "$device_pid"
  for ((i = 0; i < 600; i++)); do
    [[ ! -s device.out ]] || return 0
    kill -0 "$device_pid" 2>/dev/null || break
    pause 0.05
  done
  cat device.log
  return 1
}

end_device() { kill "$1" 2>/dev/null || true; }

stop_device() {
  kill "$device_pid"
  wait "$device_pid"
}

# control LINE...: sends all lines at once, prints as many answers.
control() {
  python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("c")
s.sendall("".join(line + "\n" for line in sys.argv[1:]).encode())
answers = s.makefile()
for _ in sys.argv[1:]:
    print(answers.readline(), end="")' "$@"
}

# answers EXPECTED LINE...: the answers, joined by |, match the pattern.
answers() {
  local said
  said=$(control "${@:2}" | paste -sd '|')
  # shellcheck disable=SC2053 # a pattern
  [[ $said = $1 ]] || { echo "answered '$said', expected '$1'"; return 1; }
}

test_commands() {
  start_device mem:1M
  answers 'ok 1=1048576' list
  answers 'ok 2|ok|ok 1=1048576 2=4194304' 'add mem:2M' 'resize 2 4M' list
  answers 'ok|ok 2=4194304' 'remove 1' list
  truncate -s 1M disk.img
  answers 'ok 1' 'add file:disk.img'
  answers 'ok' 'resize 1 2M'
  [[ $(stat -c %s disk.img) = 2097152 ]]
  stop_device
}

test_refusals() {
  start_device mem:1M
  answers 'error: expected list, add SPEC, *|error: expected list, *|error: expected list, *' '' dance 'list 1'
  answers 'error: *nothing.img*' 'add file:nothing.img'
  answers 'error: *|error: *|error: *|error: *' 'remove' 'remove 7' 'remove x' 'remove 1 2'
  answers 'error: *|error: *|error: *|error: *' 'resize 1' 'resize 7 1M' 'resize 1 much' 'resize -1 1M'
  answers 'ok 1=1048576' list
  stop_device
}

# Clients that are rude are sent away, or ignored, and the next one is served.
test_rude_clients() {
  start_device mem:1M
  python3 -c '
import socket
def client():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect("c")
    return s
s = client()
s.sendall(b"li")           # goes in the middle of a line
s.close()
s = client()
try:
    s.sendall(b"x" * 20000)    # a line that is too long
    assert s.recv(1) == b""
except (BrokenPipeError, ConnectionResetError):
    pass
s = client()
for byte in b"list\n":     # in pieces
    s.sendall(bytes([byte]))
assert s.recv(100) == b"ok 1=1048576\n"
first, second = client(), None
s.close()
first.sendall(b"list\n")
assert first.recv(100).startswith(b"ok")
second = client()          # waits in line
second.sendall(b"list\n")
first.close()
assert second.recv(100).startswith(b"ok")
'
  answers 'ok 1=1048576' list
  stop_device
}

test_readonly_control() {
  truncate -s 1M disk.img
  start_device --readonly mem:1M
  answers 'ok 2|error: *' 'add file:disk.img' 'resize 2 2M'
  [[ $(stat -c %s disk.img) = 1048576 ]]
  stop_device
}

# Who may open the control socket may open files as we do.
test_modes() {
  umask 022
  start_device mem:1M
  [[ $(stat -c %a s) = 755 ]]
  [[ $(stat -c %a c) = 600 ]]
  stop_device
  [[ ! -e s && ! -e c ]]
}

test_stale_sockets() {
  start_device mem:1M
  kill -KILL "$device_pid"
  wait "$device_pid" || true
  [[ -S s && -S c ]]
  start_device mem:2M
  answers 'ok 1=2097152' list
  stop_device
}

# refuses TEXT: a second device does not come up, says so, and takes nothing away.
refuses() {
  fails "$platter" device nvme "${@:2}" mem:1M >second.out 2>&1
  grep -q "$1" second.out || { cat second.out; return 1; }
}

test_live_sockets() {
  start_device mem:1M
  refuses "socket 's'.*in use" -U s --control c2
  refuses "socket 'c'.*in use" -U s2 --control c
  [[ ! -e s2 && ! -e c2 ]]
  answers 'ok 1=1048576' list
  stop_device
}

test_other_files() {
  echo precious >file
  mkdir folder
  refuses "'file'.*in use" -U file
  refuses "'file'.*in use" -U s --control file
  refuses "'folder'.*in use" -U s --control folder
  refuses "1 to 107 bytes" -U s --control "$(printf '%0200d' 0)"
  [[ $(cat file) = precious && ! -e s ]]
}

# A client that has connected and says nothing keeps nobody from ending.
test_end_with_clients() {
  start_device mem:1M
  python3 -c '
import socket, sys
c, v = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
c.connect("c")
v.connect("s")
c.sendall(b"list\n")
assert c.recv(100)
open("connected", "w")
assert c.recv(100) == b"" and v.recv(100) == b""' &
  local i client=$!
  for ((i = 0; i < 600; i++)); do [[ ! -e connected ]] || break; pause 0.05; done
  stop_device
  wait "$client"
  [[ ! -e s && ! -e c ]]
}

run_test "commands of the control socket" test_commands
run_test "commands that cannot be are refused" test_refusals
run_test "clients that are rude" test_rude_clients
run_test "a device that is read-only opens no more than that" test_readonly_control
run_test "sockets are for whom they should be, and go" test_modes
run_test "sockets of a device that was killed are replaced" test_stale_sockets
run_test "sockets that somebody listens on stay his" test_live_sockets
run_test "other files are left alone" test_other_files
run_test "a device ends while it has clients" test_end_with_clients
t_done
