#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Every error text of the verbs. tests/golden/errors.txt has commands, each with its exit status and what it says on standard error, line by
# line; UPDATE_GOLDEN=1 writes it anew from its commands, to be looked at with git diff. tests/golden/unreached.txt has texts in the source
# that no command brings about, with the reason. With VERB_ERRORS=1 every verb meets more kinds of bad files.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need python3 python3

golden=$top_srcdir/tests/golden/errors.txt stock=$tmp/stock
case $platter in /*) ;; *) platter=$PWD/$platter ;; esac

# bytes FILE OFFSET COUNT: overwrites so many with X.
bytes() { head -c "$3" /dev/zero | tr '\0' X | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

# With a log that is said to hold something and holds nothing ([MS-VHDX] 2.2.2).
dirty_log() {
  python3 - "$1" <<'EOF'
import sys

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff

with open(sys.argv[1], "r+b") as f:
    for at in 65536, 131072:
        f.seek(at)
        page = bytearray(f.read(4096))
        page[4:8] = bytes(4)
        page[48:64] = b"a log, they say."
        page[4:8] = crc32c(page).to_bytes(4, "little")
        f.seek(at)
        f.write(page)
EOF
}

make_stock() {
  mkdir "$stock" && cd "$stock" || return 1
  truncate -s 8M good.img good2.img
  truncate -s 1M small.img
  truncate -s 8389120 odd.img
  truncate -s 16M large.img
  head -c 8M /dev/urandom >data.img
  "$platter" create vhdx:good.vhdx 8M
  "$platter" create vhd:good.vhd 8M
  "$platter" create 'vhdx:4k.vhdx;sector=4096' 8M
  "$platter" create 'vhdx:child.vhdx;parent=good.vhdx'
  "$platter" create 'vhdx:grandchild.vhdx;parent=child.vhdx'
  "$platter" create 'vhd:child.vhd;parent=good.vhd'
  cp good.vhdx gone.vhdx
  cp good.vhd gone.vhd
  "$platter" create 'vhdx:orphan.vhdx;parent=gone.vhdx'
  "$platter" create 'vhd:orphan.vhd;parent=gone.vhd'
  rm gone.*
  : >empty.img
  : >empty.vhd
  : >empty.vhdx
  echo 'some text' | tee text.img text.vhd >text.vhdx
  mkdir dir dir.vhd dir.vhdx
  mkfifo fifo.img fifo.vhd fifo.vhdx
  head -c 1000 good.vhd >cut.vhd
  head -c 2500000 good.vhdx >cut.vhdx
  cp good.vhd header.vhd && bytes header.vhd 512 8
  cp good.vhd footer.vhd && bytes footer.vhd 0 8 && bytes footer.vhd $(($(stat -c %s good.vhd) - 512)) 8
  cp good.vhd table.vhd && bytes table.vhd 1536 4
  cp good.vhdx header.vhdx && bytes header.vhdx 65536 4 && bytes header.vhdx 131072 4
  cp good.vhdx regions.vhdx && bytes regions.vhdx 196608 4 && bytes regions.vhdx 262144 4
  cp good.vhdx metadata.vhdx && bytes metadata.vhdx 2097152 8
  cp good.vhdx table.vhdx && printf '\006\0\0\0\0\0\0\177' | dd of=table.vhdx bs=1 seek=3145728 conv=notrunc status=none
  cp good.vhdx log.vhdx && dirty_log log.vhdx
  cp good.img secret.img && cp good.vhd secret.vhd && cp good.vhdx secret.vhdx
  chmod 000 secret.*
  cp child.vhdx $'\xff.vhdx'
  "$platter" create sql:bad.db 8M
  bytes bad.db 12288 4096
  mkdir -m 333 blind
  printf '#!/bin/sh\nkill -KILL $$\n' >killed
  chmod 755 killed
  printf '%s\n' openssl_conf=a '[a]' providers=b '[b]' base=c '[c]' activate=1 >openssl.cnf # none of the usual algorithms
}

# Where the tests run as root, files are kept secret from nobody: the commands run as somebody else.
as_user=()
if [[ $(id -u) = 0 ]]; then
  need setpriv util-linux
  as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
  chmod 711 "$tmp"
  "${as_user[@]}" "$platter" version >/dev/null 2>&1 || skip_test "the user nobody cannot run $platter"
fi

# What differs from one run to the next.
masked() { sed -E -e 's,platter-[A-Za-z0-9]{6}\b,platter-RANDOM,g' -e "s|$PWD|HERE|g" -e "s|$stock|STOCK|g" -e 's/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/ID/g' -e 's/\.[a-z0-9]{6}\b/.RANDOM/g' -e 's/seed [0-9]+/seed N/g' -e 's/before byte [0-9]+/before byte N/' -e $'s/\xff/\\\\xff/g'; }

# answers: the golden file from standard input, with what the commands of it answer now. All of them in one shell of that user.
answers() {
  # shellcheck disable=SC2016 # that shell expands it
  PLATTER=$platter "${as_user[@]}" bash -c '
    # What is open besides, such as pipes of make, would count for ulimit.
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      ((fd < 3)) || eval "exec $fd>&-"
    done
    platter() { timeout 20 "$PLATTER" "$@"; }
    stopped() { # platter ARG... : with SIGTERM there from the beginning
      shift
      timeout 20 env --block-signal=TERM bash -c "kill -TERM \$\$; exec \"\$PLATTER\" \"\$@\"" - "$@"
    }
    while IFS= read -r line; do
      case $line in
        "\$ "*)
          printf "%s\n" "$line"
          status=0
          (eval "${line#??}") >/dev/null 2>"$1" </dev/null || status=$?
          printf "%d\n" "$status"
          while IFS= read -r line || [[ $line ]]; do printf "| %s\n" "$line"; done <"$1"
          ;;
        "#"* | "") printf "%s\n" "$line" ;;
      esac
    done' - "$err" | masked
}

# section NAME: of the golden file. Sanitizers need descriptors and threads of their own, and bear no limit.
section() { sed -n "/^## $1\$/,/^## /p" "$golden" | sed -e '1d' -e '/^## /d' | awk -v sanitized="$SANITIZERS" '/^[$#]|^$/ { skip = /ulimit/ && sanitized != "no" } !skip'; }

fresh() {
  cp -a "$stock/." .
  chmod 777 .
  [[ ${#as_user[@]} = 0 ]] || chown -R 65534:65534 .
  err=$t_tmp/err # of the user that the commands run as
  : >"$err"
  chmod 666 "$err"
}

test_section() {
  fresh
  section "$1" >wanted
  answers <wanted >"$t_tmp/got"
  diff wanted "$t_tmp/got"
  rm wanted
  diff <(ls -A "$stock") <(ls -A .) # what fails leaves nothing behind
}

# Whatever is wrong with a file, each verb says so in one line, with the file's name, and in time.
test_all_verbs() {
  local file=$1 verb line i verbs=() lines=() got
  fresh
  for verb in info map measure hash bench read commit compact rebase resize write zero trim compare convert 'info --lint=azure'; do
    case $verb in
      rebase) line="platter rebase $file good.${file#*.}" ;;
      resize) line="platter resize $file 16M" ;;
      zero | trim) line="platter $verb --all $file" ;;
      compare) line="platter compare good.img $file" ;;
      convert) line="platter convert $file new.img" ;;
      'info --lint=azure') [[ $file = absent* || $file = dir* || $file = fifo* ]] || continue; line="platter $verb $file" ;;
      *) line="platter $verb $file" ;;
    esac
    verbs+=("${verb%% *}")
    lines+=("\$ $line")
  done
  printf '%s\n' "${lines[@]}" | answers >"$t_tmp/got"
  cat "$t_tmp/got"
  mapfile -t got <"$t_tmp/got"
  for i in "${!verbs[@]}"; do # each has answered with its status and one line
    verb=${verbs[i]}
    [[ ${got[i * 3]} = "${lines[i]}" && ${got[i * 3 + 2]} = "| platter $verb: "*"$file"* ]]
    [[ ${got[i * 3 + 1]} = 1 || ($verb = compare && ${got[i * 3 + 1]} = 3) ]]
  done
  [[ ${#got[@]} = $((3 * ${#verbs[@]})) ]]
  [[ ! -e new.img && -z $(find . -name '.*.RANDOM') ]]
}

# Every text of an error in cli/ is in the golden file, or known not to be reached.
test_all_texts() {
  python3 - "$top_srcdir" <<'EOF'
import glob, re, sys

top = sys.argv[1]
golden = open(top + "/tests/golden/errors.txt").read().split("\n## known\n")[0]
said = [line[2:] for line in golden.split("\n") if line.startswith("| ")]
unreached = {}
for line in open(top + "/tests/golden/unreached.txt"):
    if line.strip() and not line.startswith("#"):
        text, reason = line.rstrip("\n").split("\t")
        unreached[text] = reason
used, missing = set(), []
call = re.compile(r'\b(error_set|error_set_errno|error_hint|verb_usage_error|fprintf)\s*\(([^;]*?)\)\s*[;:?&|]', re.S)
for path in sorted(glob.glob(top + "/cli/*.c")):
    for found in call.finditer(open(path).read()):
        if found.group(1) == "fprintf" and not found.group(2).startswith("stderr"):
            continue
        words = re.findall(r'"((?:[^"\\]|\\.)*)"|(PRI[a-z]\d+)', found.group(2).split("?")[0] if found.group(1) == "fprintf" else found.group(2))
        text = ""
        for literal, macro in words:
            text += literal if literal or not macro else "u"
        text = text.split("\\n")[0].replace('\\"', '"').strip()
        plain = re.sub(r'%[-0-9.*#]*(?:l|ll|z|h)*[a-zA-Z]', "", text)
        if not re.search("[a-z]{3}", plain) or text == "no memory":
            continue
        pattern = ".*".join(re.escape(part) for part in re.split(r'%[-0-9.*#]*(?:l|ll|z|h)*[a-zA-Z]', text))
        if any(re.search(pattern, line) for line in said):
            continue
        if text in unreached:
            used.add(text)
            continue
        missing.append(path[len(top) + 1:] + ": " + text)
for text in missing:
    print("no command of golden/errors.txt says, nor is in golden/unreached.txt:", text)
for text in set(unreached) - used:
    print("in golden/unreached.txt, but not in the source, or said by a command:", text)
sys.exit(bool(missing or set(unreached) - used))
EOF
}

make_stock || exit 1
if [[ ${UPDATE_GOLDEN:-} ]]; then
  mkdir "$tmp/update"
  cd "$tmp/update" || exit 1
  fresh
  sed -e '/^[0-9|]/d' "$golden" >commands
  answers <commands >"$tmp/answers" && cp "$tmp/answers" "$golden"
  exit
fi
while IFS= read -r name; do
  run_test "errors: $name" test_section "$name"
done < <(sed -n 's/^## //p' "$golden")
files=(absent.vhdx secret.vhd fifo.vhdx cut.vhdx)
[[ ! ${VERB_ERRORS:-} ]] || files+=(absent.vhd empty.vhd text.vhdx dir.vhd secret.vhdx fifo.vhd header.vhd regions.vhdx)
for file in "${files[@]}"; do
  run_test "every verb: $file" test_all_verbs "$file"
done
run_test "no error text is missing" test_all_texts
t_done
