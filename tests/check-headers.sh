#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Every header compiles alone, with every warning as an error, and says its licence.
. "${top_srcdir:?is set by make check-headers}/tests/lib.sh"

test_header() {
  cd "$top_builddir"
  printf '#include "%s"\n#include "%s"\n' "$1" "$1" >"$tmp/alone.c"
  # shellcheck disable=SC2086 # words wanted
  $CC $CHECK_CPPFLAGS $CHECK_CFLAGS -Werror -fsyntax-only "$tmp/alone.c"
  head -n 1 "$top_srcdir/$1" | grep -q 'SPDX-License-Identifier: BSD-3-Clause'
}

cd "$top_srcdir" || exit 1
for header in */*.h; do
  [[ $header != build-* ]] || continue
  run_test "$header" test_header "$header"
done
t_done
