#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The documentation is well-formed, and says what the program says.
. "${top_srcdir:?is set by make check-docs}/tests/lib.sh"

test_page() {
  need groff groff-base
  groff -man -ww -z -Tutf8 -Kutf8 "$1" >"$tmp/warnings" 2>&1
  cat "$tmp/warnings"
  [[ ! -s $tmp/warnings ]]
}

# page FILE: its words, without the mark-up.
page() { sed -e '/^\.\\"/d' -e 's/\\f[A-Z]//g' -e 's/\\-/-/g' -e 's/\\&//g' -e 's/\\(dq/"/g' "$1"; }

# names: every kind that the program knows, and "KIND PARAMETER" for each of its parameters, options and marks; told apart
# by how deep they are indented.
names() {
  "$platter" kinds --json | awk -F '"' '
    $2 == "name" && !depth { depth = length($1) }
    $2 == "name" && length($1) == depth { kind = $4; print kind }
    $2 == "name" && length($1) > depth { print kind, $4 }'
}

test_kinds() {
  local kind parameter missing=0
  [[ -e $top_srcdir/docs/platter-spec.5 ]] || skip_test "there is no docs/platter-spec.5"
  names >all-names
  [[ -s all-names ]]
  page "$top_srcdir/docs/platter-spec.5" >page-text
  while read -r kind parameter; do
    if [[ $parameter ]]; then
      grep -qiw -- "$parameter" page-text || { echo "platter-spec.5: no word of '$parameter' of $kind:"; missing=1; }
    else
      grep -qE "\b$kind:" page-text || { echo "platter-spec.5: no word of $kind:"; missing=1; }
    fi
  done <all-names
  return "$missing"
}

# Every page of a verb has its verb.
test_verbs() {
  local verb missing=0
  for verb in "$top_srcdir"/docs/platter-*.1; do
    verb=${verb##*/platter-} verb=${verb%.1}
    "$platter" "$verb" --help >help || { echo "platter-$verb.1 tells of a verb that is not there"; missing=1; }
  done
  return "$missing"
}

# Relative links of the guides lead to files.
test_links() {
  local guide link broken=0
  for guide in "$top_srcdir"/*.md "$top_srcdir"/docs/*.md; do
    [[ -e $guide ]] || continue
    while read -r link; do
      [[ -e $(dirname "$guide")/$link ]] || { echo "${guide##*/}: no such file: $link"; broken=1; }
    done < <(grep -o '](\([^):#]*\))' "$guide" | sed 's/^](//; s/)$//')
  done
  return "$broken"
}

for file in "$top_srcdir"/docs/*.[1-9]; do
  [[ -e $file ]] || continue
  run_test "man page ${file##*/} has no formatting warnings" test_page "$file"
done
run_test "every kind, parameter and option is described in platter-spec.5" test_kinds
run_test "every man page of a verb has its verb" test_verbs
run_test "links between the guides lead somewhere" test_links
t_done
