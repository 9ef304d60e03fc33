#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Verbs that change image files, killed at random moments: the image checks clean, perhaps after what its log holds or the end of its file was
# put right, and holds the old or the new state and nothing else. VERB_KILLS is how often each is killed (2). Verbs that are asked to
# stop in the middle end by that signal, and leave an image that checks clean as it is.
. "${top_srcdir:?is set by make check}/tests/lib.sh"

need python3 python3
kills=${VERB_KILLS:-2} stock=$tmp/stock

block_option() { case $1 in vhd) echo 'block=64K' ;; vhdx) echo 'block=1M' ;; esac; }

shows() { "$platter" read "$1" | cmp -s - "$2"; }

# clean IMAGE: a repair leaves no problem, and repairs nothing but what being killed explains.
clean() {
  local status=0
  "$platter" check "$1" >checked || status=$?
  [[ $status = 3 ]] || return "$status"
  cat checked
  ! grep -E '^  [^ ]' checked | grep -vE '^  (log: |header at |there is no footer at the end|.*like the footer|end of the file|[0-9]+ blocks)' || return 1
  "$platter" check --repair "$1" >/dev/null
}

# prepare FORMAT: in the folder $stock/FORMAT/old an image with data, a child with changes over it, and a parent to come; and what they show.
prepare() {
  local at format=$1
  mkdir -p "$stock/$format/old"
  cd "$stock/$format" || return 1
  head -c 5M /dev/urandom >raw
  truncate -s 8M raw
  "$platter" convert --sparse 0 raw "$format:old/base.$format;$(block_option "$format")"
  "$platter" zero --keep --offset 1M --length 2M "old/base.$format"
  "$platter" convert "old/base.$format" "$format:old/other.$format;$(block_option "$format")"
  head -c 300000 /dev/urandom | "$platter" write --offset 6M "old/other.$format"
  "$platter" zero --offset 4M --length 300000 "old/other.$format"
  (cd old && "$platter" create "$format:child.$format;parent=base.$format;$(block_option "$format")")
  for at in 5 1500000 3000000 7000000; do
    head -c 200000 /dev/urandom | "$platter" write --offset "$at" "old/child.$format"
  done
  for at in base child other; do "$platter" read "old/$at.$format" >"$at"; done
}

# killed DELAY VERB ARG...: in a fresh copy, called `now`.
killed() {
  local delay=$1
  shift
  rm -rf now
  cp -r "$old" now
  (cd now && exec "$platter" "$@" >/dev/null 2>&1) &
  pause "$delay"
  kill -KILL $! 2>/dev/null || true
  wait $! 2>/dev/null || true
}

# duration VERB ARG...: how many ms it takes when nobody kills it; it must succeed.
duration() {
  local begin
  rm -rf now
  cp -r "$old" now
  begin=${EPOCHREALTIME/[.,]/}
  (cd now && "$platter" "$@" >/dev/null) || return 1
  echo $(((${EPOCHREALTIME/[.,]/} - begin) / 1000 + 1))
}

# mixed GOT OLD NEW: each sector of it is that of the one or of the other.
mixed() {
  python3 - "$@" <<'EOF'
import sys
got, old, new = (open(name, "rb").read() for name in sys.argv[1:])
wrong = [at for at in range(0, len(got), 512) if got[at:at + 512] not in (old[at:at + 512], new[at:at + 512])]
if wrong or len(got) != len(old):
    sys.exit(f"{len(got)} bytes; neither old nor new: sectors at {wrong[:10]}")
EOF
}

# The states after each verb: the function fails where it is none of those. They are called where `set -e` has no effect.
state_compact() { clean "now/base.$1" && shows "now/base.$1" base; }
state_commit() {
  clean "now/base.$1" && clean "now/child.$1" && shows "now/child.$1" child || return 1
  "$platter" read "now/base.$1" >got && mixed got base child
}
state_rebase() { clean "now/child.$1" && shows "now/child.$1" child && { cmp -s old_other "now/other.$1" || return 1; }; }

# It shows what it held over the old parent, or over the new one, which `new` is taken from when nobody kills it.
state_header() {
  clean "now/child.$1" || return 1
  [[ -e new ]] || "$platter" read "now/child.$1" >new
  shows "now/child.$1" child || shows "now/child.$1" new
}

state_resize() {
  local size
  clean "now/base.$1" && "$platter" read "now/base.$1" >got || return 1
  size=$(stat -c %s got)
  [[ $size = 8388608 || $size = "$2" ]] || return 1
  cp base want && truncate -s "$size" want && cmp got want
}

# What is half-made has another name, so that it is in nobody's way.
state_convert() {
  clean "now/other.$1" && clean "now/base.$1" || return 1
  shows "now/other.$1" other || shows "now/other.$1" base || return 1
  [[ -z $(find now -type f ! -name '.other.*.??????' ! -name 'base.*' ! -name 'child.*' ! -name 'other.*') ]]
}

# After a commit that was cut short the same command brings all of it into the parent.
again_commit() {
  (cd now && "$platter" commit "child.$1" >/dev/null) || return 1
  shows "now/base.$1" child && shows "now/child.$1" child
}

# test_verb FORMAT NAME VERB ARG...
test_verb() {
  local format=$1 name=$2 i ms delay extra=''
  shift 2
  old=$stock/$format/old
  cp "$stock/$format"/{base,child,other} .
  cp "$old/other.$format" old_other
  [[ $name != resize ]] || extra=$(($(numfmt --from=iec "${*: -1}")))
  ms=$(duration "$@")
  state_"$name" "$format" "$extra"
  for ((i = 0; i < kills; i++)); do
    delay=$((RANDOM % (ms + ms / 8 + 1)))
    killed "$(printf '%d.%03d' $((delay / 1000)) $((delay % 1000)))" "$@"
    state_"$name" "$format" "$extra" || { echo "killed after $delay of $ms ms"; return 1; }
    [[ $name != commit ]] || again_commit "$format" || { echo "killed after $delay of $ms ms, and committed again"; return 1; }
  done
}

# ------------------------------------------------------------------ being stopped

# prepare_long FORMAT: as prepare, in old-long, with as much work that a signal can come in between.
prepare_long() {
  local format=$1
  cd "$stock/$format" || return 1
  mkdir old-long
  head -c 16M /dev/urandom >raw
  "$platter" convert --sparse 0 raw "$format:old-long/base.$format;$(block_option "$format")"
  (cd old-long && "$platter" create "$format:child.$format;parent=base.$format;$(block_option "$format")")
  "$platter" zero --keep --length 6M "old-long/base.$format"
  "$platter" rebase --header-only "old-long/child.$format" "old-long/base.$format" >/dev/null
  head -c 12M /dev/urandom | "$platter" write --offset 3M "old-long/child.$format"
  for at in base child; do "$platter" read "old-long/$at.$format" >"long-$at"; done
}

# QEMU checks VHDX only, and knows no children of either.
foreign_check() { [[ $1 != *.vhdx ]] || qemu-img check -q -f vhdx "$1"; }

stopped_compact() { shows "now/base.$1" long-base && qemu-img compare -q -f raw -F "${1/%vhd/vpc}" long-base "now/base.$1"; }
stopped_commit() { shows "now/child.$1" long-child && "$platter" read "now/base.$1" >got && mixed got long-base long-child; }

# stopped SIGNAL DELAY VERB ARG...: in a fresh copy; fails when it ended in another way than by the signal or well.
stopped() {
  local signal=$1 delay=$2 status=0
  shift 2
  rm -rf now
  cp -r "$old" now
  (cd now && exec env --default-signal=INT,TERM "$platter" "$@" >/dev/null) &
  pause "$delay"
  kill "-$signal" $! 2>/dev/null || true
  wait $! || status=$?
  [[ $status = 0 || $status = $((128 + $(kill -l "$signal"))) ]] || { echo "exit status $status after SIG$signal"; return 1; }
  [[ $status = 0 ]] || was_stopped=1
}

# By each signal, at later and later moments until one is in the middle: it was stopped, and the image is no longer what it was.
test_stopped() {
  local format=$1 verb=$2 image=$3 signal i ms delay was_stopped
  old=$stock/$format/old-long
  cp "$stock/$format"/long-{base,child} .
  need qemu-img qemu-utils
  ms=$(duration "$verb" "$image.$format")
  for signal in INT TERM; do
    for ((i = 9; i < 60; i++)); do
      was_stopped='' delay=$((ms * (i % 20) / 20))
      stopped "$signal" "$(printf '%d.%03d' $((delay / 1000)) $((delay % 1000)))" "$verb" "$image.$format"
      "$platter" check "now/base.$format"
      "$platter" check "now/child.$format"
      foreign_check "now/base.$format"
      stopped_"$verb" "$format"
      ! [[ $was_stopped ]] || cmp -s "$old/base.$format" "now/base.$format" || break
    done
    ((i < 60)) || { echo "SIG$signal was never in the middle"; return 1; }
  done
}

for format in vhd vhdx; do
  (set -e; prepare $format; prepare_long $format) || exit 1
  run_test "compact: $format" test_verb $format compact compact "base.$format"
  run_test "commit: $format" test_verb $format commit commit "child.$format"
  run_test "rebase: $format" test_verb $format rebase rebase "child.$format" "other.$format"
  run_test "rebase, the header alone: $format" test_verb $format header rebase --header-only "child.$format" "other.$format"
  run_test "larger: $format" test_verb $format resize resize "base.$format" 40M
  run_test "smaller: $format" test_verb $format resize resize --shrink "base.$format" 3M
  run_test "compact, stopped: $format" test_stopped $format compact base
  run_test "commit, stopped: $format" test_stopped $format commit child
  run_test "convert: $format" test_verb $format convert convert --force "base.$format" "other.$format"
done
t_done
