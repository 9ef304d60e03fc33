#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The unit tests make no memory error and leak nothing under valgrind. VALGRIND_TESTS="NAME..." picks some.
. "${top_srcdir:?is set by make check-valgrind}/tests/lib.sh"

test_valgrind() {
  local status=0
  valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect \
    --errors-for-leak-kinds=definite,indirect --fair-sched=yes --track-fds=no \
    "$top_builddir/$1" || status=$?
  [[ $status = 0 ]]
}

[[ $SANITIZERS = no ]] || skip_test "valgrind cannot run programs built with sanitizers"
need valgrind valgrind
for test in $UNIT_TESTS; do
  [[ -z ${VALGRIND_TESTS:-} || " $VALGRIND_TESTS " == *" ${test##*/test-} "* ]] || continue
  run_test "${test##*/} under valgrind" test_valgrind "$test"
done
t_done
