#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What the build hands out is what it should be.
. "${top_srcdir:?is set by make check}/tests/lib.sh"

test_symbols() {
  need nm binutils
  nm -D --defined-only "$top_builddir/plugin.so" | awk '{ print $NF }' >symbols
  grep -vE '^(__asan_|__ubsan_|__tsan_|__sanitizer_|__odr_asan|__llvm_|___asan_|mangle_path|__gcov_)' symbols >ours || true
  cat ours
  [[ $(cat ours) = plugin_init ]]
}

test_loads() {
  need_plugin
  (nbdkit_with_plugin --version) >out
  cat out
  grep -q "platter.*$PACKAGE_VERSION" out
}

test_version() {
  "$platter" version >out
  cat out
  grep -qw "$PACKAGE_VERSION" out
}

test_scripts() {
  need shellcheck shellcheck
  cd "$top_srcdir"
  shellcheck -x --severity=warning bootstrap quickstart check .ci/run build-aux/packages.sh build-aux/snapshot build-aux/sub-build \
    build-aux/run-test build-aux/coverage tests/*.sh
}

# Two tests of one name, a program and a script, have one log: the harness runs the first and takes it for both.
test_logs() {
  local script
  for script in "$top_srcdir"/tests/test-*.sh; do
    [[ ! -e ${script%.sh}.c ]] || { echo "$script has the log of ${script%.sh}.c"; return 1; }
  done
}

run_test "the plugin exports plugin_init and nothing else" test_symbols
run_test "nbdkit loads the plugin" test_loads
run_test "platter version says the version of the build" test_version
run_test "each test has a log of its own" test_logs
run_test "the scripts pass shellcheck" test_scripts
t_done
