#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The benchmark of mounted files runs, and cleans up behind itself. How fast anything is, is no matter here.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need python3 python3
need fio fio
need fusermount3 fuse3
[[ -r /dev/fuse && -w /dev/fuse ]] || skip_test "/dev/fuse cannot be opened"

# mounts ARG...
mounts() {
  "$top_srcdir/bench/mounts.py" --platter "$platter" --passthrough "$top_builddir/bench/passthrough" --folder . \
    --memory-folder . --output "$PWD/out" --quick --rounds 1 --seconds 0.1 --size 16M --file-size 16M --silent "$@"
}

# The first column of each table names what was measured.
test_group() {
  mounts --group "$1" --load 'random-write.*jobs4' --load 'once-read' >out 2>err || { cat out err; return 1; }
  cat out
  grep -q "^platter $1 / " out
  grep -q "^platter $1 direct / platter $1 " out
  [[ $(grep -c "4 KiB random write, 4 jobs" out) -eq $(grep -c '^platter.* / ' out) ]]
  [[ -s out.json && -s out.svg ]]
  fails grep -q "$tmp\|platter-bench-" /proc/self/mounts
}

test_again() {
  mounts --group null --load 'random-write.*jobs1-' >out
  "$top_srcdir/bench/mounts.py" --show out.json | cmp - out
}

# A server that does not start ends the run, with what it said and without what was started before it.
test_failure() {
  fails mounts --group file --options no_such_option >out 2>err
  cat err
  grep -q "platter file does not start; it said: .*no_such_option" err
  fails grep -q "platter-bench-" /proc/self/mounts
}

run_test "mem: against others" test_group mem
run_test "file: against others" test_group file
run_test "null: against others" test_group null
run_test "tables of an earlier run" test_again
run_test "a server that does not start" test_failure
t_done
