#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Each fuzz target finds nothing in FUZZ_SECONDS (default 20) seconds, beginning with its corpus.
. "${top_srcdir:?is set by make check-fuzz}/tests/lib.sh"

test_fuzz() {
  local target=$top_builddir/$1 name=${1##*/fuzz-}
  local found=$top_builddir/tests/fuzz/found/$name
  mkdir -p "$found" "$tmp/corpus"
  (cd "$tmp/corpus" &&
    "$target" -max_total_time="${FUZZ_SECONDS:-20}" -timeout=20 -rss_limit_mb=2048 -artifact_prefix="$found/" \
      "$tmp/corpus" "$top_srcdir/tests/fuzz/corpus/$name") >"$tmp/log" 2>&1 && return 0
  tail -n 60 "$tmp/log"
  echo "The input is kept in $found; put it into tests/fuzz/corpus/$name when the fault is mended."
  return 1
}

[[ ${FUZZ_TARGETS:-} ]] || skip_test "there is no fuzz target yet"
[[ ${FUZZING:-} ]] ||
  skip_test "there is no clang with libFuzzer (apt-get install clang libclang-rt-14-dev); make check runs the corpus"
for target in $FUZZ_TARGETS; do
  run_test "fuzzing ${target##*/} for ${FUZZ_SECONDS:-20} seconds" test_fuzz "$target"
done
t_done
