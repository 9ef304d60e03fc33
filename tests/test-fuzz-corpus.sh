#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Every fuzz target survives every input that was ever of interest to it.
. "${top_srcdir:?is set by make check}/tests/lib.sh"

# Names the input that fails: all at once is fast, one by one finds it.
test_corpus() {
  local target=$top_builddir/$1 corpus=$top_srcdir/tests/fuzz/corpus/${1##*/fuzz-} input
  [[ -d $corpus ]] || { echo "there is no folder $corpus"; return 1; }
  if find "$corpus" -type f -print0 | xargs -0 "$target" >"$tmp/log" 2>&1; then return 0; fi
  for input in "$corpus"/*; do
    "$target" "$input" >"$tmp/log" 2>&1 || { echo "fails: $input"; tail -n 40 "$tmp/log"; }
  done
  return 1
}

[[ ${FUZZ_TARGETS:-} ]] || skip_test "there is no fuzz target yet"
for target in $FUZZ_TARGETS; do
  run_test "corpus of ${target##*/}" test_corpus "$target"
done
t_done
