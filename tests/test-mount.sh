#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What files of a mount are to programs: sizes, modes, times, names, attributes, holes, and every option.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
. "$top_srcdir/tests/mount.sh"
need_mount
need jq jq
need getfattr attr

# ------------------------------------------------------------------ what stat(2) says

test_sizes() {
  mkdir m
  truncate -s 5M five.img
  start_mount m small=mem:1536 'big=mem:64T;block=4096' five=five.img slice=slice:1M,512K:mem:4M
  gives 1536 stat -c %s m/small
  gives 70368744177664 stat -c %s m/big
  gives 5242880 stat -c %s m/five
  gives 524288 stat -c %s m/slice
  gives "regular file 1" stat -c '%F %h' m/big
  gives "directory 2" stat -c '%F %h' m
  gives 4096 stat -c %o m/small
  # The last byte of a large disk is there, and the one behind it is not.
  gives 1 "$call" write m/big 70368744177663 1 65
  gives 1 "$call" read m/big 70368744177663 10
  gives 0 "$call" read m/big 70368744177664 1
  gives ENOSPC "$call" write m/big 70368744177664 1 65
}

test_content() {
  mkdir m
  head -c 3M /dev/urandom >image
  cp image copy
  start_mount m d=image
  cmp m/d copy
  head -c 3M /dev/urandom >new
  dd if=new of=m/d bs=1M conv=notrunc,fsync 2>/dev/null
  cmp m/d new
  stop_mount
  cmp image new
}

test_modes() {
  mkdir m
  : >empty.img && truncate -s 1M empty.img
  start_mount m rw=mem:1M ro=ro:mem:1M too='file:empty.img;ro'
  gives 600 stat -c %a m/rw
  gives 400 stat -c %a m/ro
  gives 400 stat -c %a m/too
  gives 700 stat -c %a m
  gives "$(id -u) $(id -g)" stat -c '%u %g' m/rw
  stop_mount
  [[ $is_root ]] || return 0 # who is shut out by what he says
  start_mount m -o uid=1234,gid=56 -o mode=640 rw=mem:1M ro=ro:mem:1M --control
  gives "640 1234 56" stat -c '%a %u %g' m/rw
  gives "440 1234 56" stat -c '%a %u %g' m/ro
  gives "550 1234 56" stat -c '%a %u %g' m/.platter
  gives "440 1234 56" stat -c '%a %u %g' m/.platter/tree.txt
}

# What the mode says holds, for everybody but root.
test_modes_hold() {
  mkdir m
  chmod 711 .
  start_mount m -o allow_other,uid=$user,mode=640 rw=mem:1M
  gives 0 setpriv --reuid=$user --regid=1 --clear-groups "$call" open m/rw write
  gives EACCES setpriv --reuid=1 --regid=1 --clear-groups "$call" open m/rw read
  stop_mount
  start_mount m -o uid=1,mode=666 rw=mem:1M
  # Without allow_other nobody else comes in, whatever the mode says.
  gives EACCES setpriv --reuid=1 --regid=1 --clear-groups "$call" open m/rw read
}

test_read_only_disk() {
  mkdir m
  truncate -s 1M image
  start_mount m d=file:image\;ro e=ro:mem:1M
  gives "$read_only_error" "$call" open m/d write
  gives "$read_only_error" "$call" open m/d read trunc
  gives "$read_only_error" "$call" open m/e write
  gives "$read_only_error" "$call" truncate m/e 2M
  gives 1048576 stat -c %s m/e
  gives 4096 "$call" read m/e 0 4096
  fails chmod 600 m/d
  chmod 444 m/d
  gives 444 stat -c %a m/d
  gives 0 "$call" open m/d read
}

test_ro_option() {
  mkdir m
  head -c 1M /dev/urandom >image
  start_mount m -o ro d=image e=mem:1M
  gives 400 stat -c %a m/d
  gives EROFS "$call" open m/d write
  gives EROFS "$call" open m/e write
  cmp m/d image
  fails touch m/d
  # What nobody has for writing can be had for reading by others.
  "$platter" info file:image
}

# now FORMAT FILE: a time of it is less than 10 seconds ago.
now() { (($(date +%s) - $(stat -c "$1" "$2") < 10)); }

test_times() {
  mkdir m
  start_mount m d=mem:1M
  now %X m/d
  now %Y m/d
  now %Z m/d
  touch -m -d '1999-12-31 23:59:59.123456789 UTC' m/d
  gives 946684799.123456789 stat -c %.9Y m/d
  touch -a -d '1960-01-01 00:00:00.5 UTC' m/d
  gives -315619199.500000000 stat -c %.9X m/d
  gives 946684799.123456789 stat -c %.9Y m/d
  now %Z m/d
  "$call" write m/d 0 1 65
  now %Y m/d
  touch -d @1 m/d
  "$call" read m/d 0 1
  gives 1 stat -c %Y m/d
  "$call" truncate m/d 2M
  now %Y m/d
}

test_owner_changes() {
  mkdir m
  start_mount m d=mem:1M
  chown 12:34 m/d
  gives "12 34" stat -c '%u %g' m/d
  chgrp 35 m/d
  gives "12 35" stat -c '%u %g' m/d
  chmod 4755 m/d
  gives 755 stat -c %a m/d
}

# ------------------------------------------------------------------ folders and names

test_thousand() {
  local i disks=()
  mkdir m
  for ((i = 0; i < 1000; i++)); do disks+=("disk-with-a-rather-long-name-$i=mem:$((i + 1))K"); done
  start_mount m "${disks[@]}" --control
  gives 1000 bash -c 'ls m | wc -l'
  gives 1003 bash -c 'ls -a m | wc -l'
  gives 1000 bash -c 'ls m | sort -u | wc -l'
  gives 1024000 stat -c %s m/disk-with-a-rather-long-name-999
  gives "stats.json tree.txt" bash -c 'echo $(ls m/.platter)'
  gives "$(for ((i = 0; i < 1000; i++)); do echo $(((i + 1) * 1024)); done | sort)" bash -c 'find m -name "disk*" -printf "%s\n" | sort'
  gives 3 stat -c %h m
  # The same numbers by readdir as by stat.
  gives "" bash -c 'cd m && diff <(ls -1i | sed "s/^ *//" | sort) <(stat -c "%i %n" disk* | sort)'
}

test_names() {
  local long
  long=$(printf 'n%.0s' {1..255})
  mkdir m
  start_mount m 'with space=mem:1M' '"a=b"=mem:2M' "$long=mem:3M" $'\xff\xfe=mem:4M' '...=mem:5M' -- '-x=mem:6M'
  gives 1048576 stat -c %s 'm/with space'
  gives 2097152 stat -c %s m/a=b
  gives 3145728 stat -c %s "m/$long"
  gives 4194304 stat -c %s $'m/\xff\xfe'
  gives 5242880 stat -c %s m/...
  gives 6291456 stat -c %s m/-x
  stop_mount
  mkdir 'dir with space'
  start_mount 'dir with space' d=mem:1M
  gives 1048576 stat -c %s 'dir with space/d'
  kill -0 "$mount_pid"
  "$platter" umount 'dir with space'
  ended_well
}

test_bad_names() {
  mkdir m
  refused 1 "a/b.*no '/'" "$platter" mount m a/b=mem:1M
  refused 1 "'\\.\\.'.*taken" "$platter" mount m ..=mem:1M
  refused 1 "'\\.'.*taken" "$platter" mount m .=mem:1M
  refused 1 "'.platter'.*taken" "$platter" mount m .platter=mem:1M
  refused 1 "at most 255 bytes" "$platter" mount m "$(printf 'n%.0s' {1..256})=mem:1M"
  refused 1 "needs\? a\? \?name\|NAME=SPEC" "$platter" mount m =mem:1M
  refused 1 "NAME=SPEC" "$platter" mount m mem:1M
  refused 1 "'a'" "$platter" mount m a=mem:1M a=mem:2M
  : >file
  refused 1 "only one disk" "$platter" mount file mem:1M mem:2M
  refused 1 "a=mem" "$platter" mount file a=mem:1M
  refused 2 "missing" "$platter" mount m
  refused 2 "missing" "$platter" mount
  gives "" ls -A m
}

test_bad_specs() {
  mkdir m
  refused 1 "a.*memm.*did you mean 'mem'" "$platter" mount m a=memm:1M
  refused 1 "b.*missing.img" "$platter" mount m a=mem:1M b=file:missing.img
  refused 1 "no-such-folder" "$platter" mount no-such-folder a=mem:1M
  gives "" ls -A m
  fails is_mounted "$PWD/m"
}

# Which files there are was said on the command line.
test_fixed_folder() {
  mkdir m
  start_mount m d=mem:1M e=mem:1M --control
  gives EPERM "$call" open m/new write create
  refused 1 'not permitted' mkdir m/new
  refused 1 'not permitted' rm -f m/d
  refused 1 'not permitted' mv -T m/d m/e
  refused 1 'not permitted' mv -T m/d m/new
  refused 1 'not permitted' ln m/d m/new
  refused 1 'not permitted' ln -s d m/new
  refused 1 'not permitted' mkfifo m/new
  refused 1 'not permitted' rmdir m/.platter
  refused 1 'not permitted\|denied' rm -f m/.platter/tree.txt
  [[ ! $is_root ]] || gives EPERM "$call" open m/.platter/new write create
  gives EEXIST "$call" open m/d write create exclusive
  gives ENOENT "$call" open m/new read
  gives ENOTDIR "$call" open m/d/x read
  gives "d e" bash -c 'echo $(ls m)'
}

test_single_file() {
  truncate -s 1M image
  echo "what was there" >file
  start_mount file file:image
  gives "regular file 1048576 600" stat -c '%F %s %a' file
  head -c 1M /dev/urandom >new
  dd if=new of=file bs=64K conv=notrunc 2>/dev/null
  cmp file new
  getfattr --only-values -n user.platter.spec file | grep -qx 'file:image'
  getfattr --only-values -n user.platter.pid file | grep -qx "$mount_pid"
  refused 1 "already" "$platter" mount file mem:1M
  "$platter" umount file
  ended_well
  gives "what was there" cat file
  cmp image new
}

# ------------------------------------------------------------------ attributes

test_xattrs() {
  mkdir m
  start_mount m 'd=memdiff:mem:1M;block=4096'
  getfattr --only-values -n user.platter.spec m/d >spec
  "$platter" info "$(cat spec)" --json >/dev/null
  grep -qx 'memdiff:mem:1M;block=4K' spec
  getfattr --only-values -n user.platter.info m/d | jq -e '.size == 1048576 and .block_size == 4096'
  getfattr -m - m/d | grep -c '^user.platter' | grep -qx 2
  gives "$mount_pid" getfattr --only-values -n user.platter.pid m
  refused 1 'No such attribute' getfattr -n user.other m/d
  refused 1 'not supported' setfattr -n user.platter.spec -v mem:2M m/d
  refused 1 'not supported' setfattr -n user.mine -v 1 m/d
  refused 1 'not supported' setfattr -x user.platter.spec m/d
}

test_statfs() {
  mkdir m
  truncate -s 8M image
  start_mount m a=mem:16M b=image
  gives "6144 4096 0 255" stat -f -c '%b %S %a %l' m
  "$call" truncate m/a 20M
  gives 7168 stat -f -c %b m/b
}

read_reports() {
  local i
  for ((i = 0; i < 20; i++)); do
    jq -e '.a.disk.size == 8388608 and (.a.spec == "mem:8M") and (.b | has("disk"))' m/.platter/stats.json >/dev/null
    grep -q '^a = mem:8M$' m/.platter/tree.txt
    getfattr --only-values -n user.platter.info m/a | jq -e .stats >/dev/null
  done
}

test_reports() {
  local n load=()
  mkdir m
  start_mount m a=mem:8M b=memdiff:mem:1M --control
  ls -A m >names
  grep -Fqx .platter names
  gives "$read_only_error" "$call" open m/.platter/stats.json write
  fails "$call" truncate m/.platter/stats.json 0 open
  for n in 1 2 3; do
    dd if=/dev/urandom of=m/a bs=64K count=128 conv=notrunc status=none & load+=($!)
    dd if=m/a of=/dev/null bs=64K iflag=direct status=none & load+=($!)
  done
  read_reports
  wait "${load[@]}"
  [[ $(jq '.a.disk.stats.write.bytes' m/.platter/stats.json) -ge 8388608 ]]
  # Who has it open reads on in what was there when it was opened.
  exec 8<m/.platter/tree.txt
  head -c 3 <&8 >part
  "$call" write m/b 0 4096 65 >/dev/null
  cat part - <&8 >whole
  grep -q 'b = memdiff:mem:1M' whole
  exec 8<&-
}

test_no_reports() {
  mkdir m
  start_mount m a=mem:8M
  gives a ls -A m
  fails stat m/.platter
}

# ------------------------------------------------------------------ sizes that change

test_truncate_honoured() {
  local d fds=/proc/$BASHPID/fd
  mkdir m
  head -c 1M /dev/urandom >image
  cp image copy
  start_mount m file=file:image mem=mem:1M 'four=mem:1M;block=4096'
  for d in file mem; do
    # Somebody who has it open sees it, too.
    exec 7<"m/$d"
    truncate -s 3M "m/$d"
    gives 3145728 stat -c %s "m/$d"
    gives 3145728 stat -L -c %s "$fds/7"
    gives 512 "$call" write "m/$d" 3145216 1024 65
    holds /dev/fd/7 3145216 512 A
    gives 0 "$call" truncate "m/$d" 512K open
    gives 524288 bash -c 'wc -c <&7'
    gives 524288 stat -c %s "m/$d"
    # What was cut off does not come back.
    truncate -s 2M "m/$d"
    tail -c +524289 "m/$d" | tr -d '\0' | cmp - /dev/null
    exec 7<&-
    gives EINVAL "$call" truncate "m/$d" 1000
    gives EINVAL "$call" truncate "m/$d" 0
  done
  gives EINVAL "$call" truncate m/four 1049088
  gives 0 "$call" truncate m/four 1052672
  cmp -n 524288 m/file copy
  stop_mount
  gives 2097152 stat -c %s image
}

test_truncate_refused() {
  local d
  mkdir m
  start_mount m slice=slice:0,1M:mem:2M ro=ro:mem:1M
  gives EPERM "$call" truncate m/slice 512K
  gives "$read_only_error" "$call" truncate m/ro 2M
  for d in slice ro; do
    gives 1048576 stat -c %s "m/$d"
    [[ $d = ro && ! $is_root ]] || gives 0 "$call" truncate "m/$d" 1M
  done
}

# One disk may be seen through several names only by being windows of it: what changes below has to show.
test_size_of_what_is_below() {
  mkdir m
  truncate -s 1M image
  start_mount m 'd=layers:[mem:,ro:file:image]'
  gives 1048576 stat -c %s m/d
  gives 0 "$call" truncate m/d 2M
  gives 2097152 stat -c %s m/d
}

test_open_truncates() {
  mkdir m
  head -c 2M /dev/urandom >image
  start_mount m d=image "$@"
  cmp m/d image
  : >m/d
  gives 2097152 stat -c %s m/d
  tr -d '\0' <m/d | cmp - /dev/null
  # Reading it keeps no old pages, nor does somebody who had it open.
  dd if=/dev/urandom of=m/d bs=1M count=2 conv=notrunc status=none
  exec 7<m/d
  head -c 4096 <&7 >/dev/null
  gives 0 "$call" open m/d read trunc
  tr -d '\0' <&7 | cmp - /dev/null
  exec 7<&-
  # What is written then is followed by zeroes.
  head -c 1000 /dev/zero | tr '\0' A >m/d
  gives 2097152 stat -c %s m/d
  holds m/d 0 1000 A
  holds m/d 1000 2096152 '\0'
  stop_mount
  holds image 1000 2096152 '\0'
}

test_open_truncates_not() {
  mkdir m
  head -c 2M /dev/urandom >image
  cp image copy
  start_mount m d=image -o writeback
  gives EPERM "$call" open m/d write trunc
  fails bash -c ': >m/d'
  gives 2097152 stat -c %s m/d
  cmp m/d copy
  stop_mount
  cmp image copy
}

# Names and paths are bytes; JSON is UTF-8.
test_not_utf8() {
  local name=$'\xff\xfe'
  mkdir m
  : >"$name.img"
  truncate -s 1M "$name.img"
  start_mount m --control "$name=file:$name.img" a=mem:1M
  gives 1048576 stat -c %s "m/$name"
  jq -e '.a.spec == "mem:1M" and (to_entries | length) == 2' m/.platter/stats.json
  grep -q file m/.platter/tree.txt
  getfattr --only-values -n user.platter.spec "m/$name" | cmp - <(printf 'file:%s.img' "$name")
  getfattr --only-values -n user.platter.info "m/$name" | jq -e '.kind == "file"'
}

# The windows are on the disk and not copies, and hold what they should.
test_partitions() {
  need sfdisk fdisk
  mkdir m
  truncate -s 16M image
  printf 'label: gpt\nstart=2048,size=8192\nstart=12288,size=4096\n' | sfdisk -q image
  start_mount m --partitions d=image e=mem:1M
  gives "d d.p1 d.p2 e" bash -c 'cd m && echo *'
  gives 4194304 stat -c %s m/d.p1
  gives 2097152 stat -c %s m/d.p2
  head -c 2M /dev/urandom >data
  dd if=data of=m/d.p2 bs=64K conv=notrunc status=none
  cmp -n 2097152 data m/d.p2
  cmp -n 2097152 -i 0:6291456 data m/d
  # The other way round, by somebody who had it open and had read it.
  exec 7<m/d.p1
  head -c 4096 <&7 | tr -d '\0' | cmp - /dev/null
  dd if=data of=m/d bs=1M seek=1 count=1 conv=notrunc status=none
  exec 7<&-
  cmp -n 1048576 data m/d.p1
  gives ENOSPC "$call" write m/d.p2 2M 512 65
  gives EPERM "$call" truncate m/d.p1 1M
  gives "part:2:file:image" getfattr --only-values -n user.platter.spec m/d.p2
  stop_mount
  cmp -n 2097152 -i 0:6291456 data image
}

# What cannot be shown is said, and the rest is there.
test_no_partitions() {
  mkdir m
  truncate -s 4M image
  start_mount m --partitions d=image
  gives "d" bash -c 'cd m && echo *'
  stop_mount
  : >file
  refused 1 "--partitions.*folder" "$platter" mount --partitions file mem:1M
}

test_the_end() {
  mkdir m
  start_mount m d=mem:1M
  gives ENOSPC "$call" write m/d 1M 4096 65
  gives 2048 "$call" write m/d 1046528 4096 65
  gives ENOSPC "$call" write m/d 1G 1 65
  gives ENOSPC "$call" write m/d 1M 4096 66 direct
  # The kernel cannot tell of half a direct write; what fits is written.
  gives ENOSPC "$call" write m/d 1046528 4096 66 direct
  holds m/d 1046528 2048 B
  fails dd if=/dev/zero of=m/d bs=64K count=17 conv=notrunc
  gives 1048576 stat -c %s m/d
  gives 0 "$call" read m/d 1M 10
  gives 10 "$call" read m/d 1048566 100
}

# Who does not wait for a write hears of it when closing.
test_the_end_later() {
  mkdir m
  start_mount m -o writeback d=mem:1M
  fails dd if=/dev/zero of=m/d bs=64K count=17 conv=notrunc status=none
  fails dd if=/dev/zero of=m/d bs=64K seek=32 count=1 conv=notrunc,fsync status=none
  gives 4096 "$call" write m/d 1044480 4096 65
  holds m/d 1044480 4096 A
}

test_true_size() {
  mkdir m
  start_mount m -o writeback d=mem:1M
  fails dd if=/dev/zero of=m/d bs=64K seek=32 count=1 conv=notrunc status=none
  wait_for 5 bash -c '[ $(stat -c %s m/d) = 1048576 ]'
  gives 1048576 bash -c 'wc -c <m/d'
}

# ------------------------------------------------------------------ holes

# both COMMAND...: does the same to the file of the mount and to an ordinary file, whose name stands for @.
both() {
  "${@/@/m/d}"
  "${@/@/flat}"
}

test_fallocate() {
  local spec
  mkdir m
  head -c 1M /dev/urandom >flat
  for spec in mem:1M 'mem:1M;block=4096' file:image; do
    cp flat image
    start_mount m "d=$spec"
    cp flat m/d
    both fallocate --punch-hole --offset 4096 --length 64K @
    both fallocate --punch-hole --offset 100001 --length 54321 @
    both fallocate --punch-hole --offset 1048000 --length 64K @
    cmp m/d flat
    both fallocate --zero-range --keep-size --offset 300001 --length 70000 @
    both fallocate --zero-range --keep-size --offset 1040000 --length 1M @
    cmp m/d flat
    both fallocate --zero-range --offset 500001 --length 100000 @
    gives 1048576 stat -c %s m/d
    cmp m/d flat
    "$call" read m/d 0 1M direct
    dd if=m/d bs=64K iflag=direct status=none | cmp - flat
    # Past the end, a disk that can grow does.
    both fallocate --zero-range --offset 1M --length 64K @
    gives 1114112 stat -c %s m/d
    cmp m/d flat
    # Nobody can promise space that is not there, nor move what follows.
    gives EOPNOTSUPP "$call" allocate m/d 0 0 4096
    gives EOPNOTSUPP "$call" allocate m/d 1 0 4096
    gives EOPNOTSUPP "$call" allocate m/d 8 0 4096
    gives EOPNOTSUPP "$call" allocate m/d 32 0 4096
    gives EOPNOTSUPP "$call" allocate m/d 2 0 4096
    gives EINVAL "$call" allocate m/d 3 0 0
    stop_mount
    truncate -s 1M flat
  done
}

test_fallocate_fixed() {
  mkdir m
  start_mount m d=slice:0,1M:mem:2M r=ro:mem:1M
  gives EPERM "$call" allocate m/d 16 1M 4096
  gives 0 "$call" allocate m/d 17 1M 4096
  gives 0 "$call" allocate m/d 3 2M 4096
  gives 1048576 stat -c %s m/d
}

test_seek() {
  mkdir m
  start_mount m d=mem:1M 'n=file:image;create=1M' z=null:1M
  for d in d n; do
    gives 0 "$call" seek m/$d hole 0
    gives ENXIO "$call" seek m/$d data 0
    "$call" write m/$d 256K 64K 65 >/dev/null
    gives 262144 "$call" seek m/$d data 0
    gives 270000 "$call" seek m/$d data 270000
    gives 327680 "$call" seek m/$d hole 262144
    gives ENXIO "$call" seek m/$d data 327680
    gives 400000 "$call" seek m/$d hole 400000
    gives ENXIO "$call" seek m/$d hole 1048576
    gives ENXIO "$call" seek m/$d data 2M
    "$call" write m/$d 1044480 4096 65 >/dev/null
    gives 1048576 "$call" seek m/$d hole 1048000
    gives 1044480 "$call" seek m/$d data 400000
    fallocate --punch-hole --offset 256K --length 64K m/$d
    gives 1044480 "$call" seek m/$d data 0
  done
  gives 0 "$call" seek m/z hole 0
  gives ENXIO "$call" seek m/z data 0
}

# What the kernel still has to write is data, too: cp must not leave it out.
test_seek_unwritten() {
  mkdir m
  head -c 1M /dev/urandom >data
  start_mount m d=mem:1M e=mem:1M "$@"
  exec 7<>m/d
  head -c 64K data >&7
  gives 0 "$call" seek m/d data 0
  cp --sparse=auto m/d copy
  exec 7<&-
  cmp -n 64K copy data
  # A mapping keeps it longer.
  coproc "$call" map m/e 512K 4096 65 wait
  read -r status <&"${COPROC[0]}"
  [[ $status = 0 ]]
  gives 0 "$call" seek m/e data 0
  cp --sparse=auto m/e copy
  eval "exec ${COPROC[1]}>&-"
  holds copy 512K 4096 A
  # When nobody has it for writing any more, holes are told exactly.
  wait_for 10 bash -c "[ \$('$call' seek m/e data 0) = 524288 ]"
  gives 65536 "$call" seek m/d hole 0
}

blocks() { stat -c %b "$1"; }

test_sparse() {
  mkdir m
  start_mount m d=mem:16M e=mem:16M
  gives 0 blocks m/d
  dd if=/dev/urandom of=m/d bs=1M seek=3 count=1 conv=notrunc status=none
  gives 2048 blocks m/d
  dd if=/dev/urandom of=m/d bs=64K seek=200 count=1 conv=notrunc status=none
  gives 2176 blocks m/d
  # Out of the mount, into it, and inside: holes stay holes.
  cp --sparse=always m/d copy
  cmp m/d copy
  [[ $(blocks copy) -le 2200 ]]
  cp --sparse=auto m/d copy2
  [[ $(blocks copy2) -le 2200 ]]
  dd if=/dev/urandom of=m/e bs=1M count=16 conv=notrunc status=none
  cp --sparse=always copy m/e
  cmp m/e copy
  gives 2176 blocks m/e
  cp --sparse=always m/e m/d
  cmp m/d copy
  gives 2176 blocks m/d
  fallocate --punch-hole --offset 0 --length 16M m/d
  gives 0 blocks m/d
  truncate -s 32M m/e
  gives 2176 blocks m/e
  gives "1114112" bash -c 'du -B 1 m/e | cut -f 1'
}

# More runs of data than are counted: the part that is seen speaks for the rest.
test_many_holes() {
  local n
  mkdir m
  # Every second 4 KiB a hole.
  python3 -c 'import sys
for n in range(2048): sys.stdout.buffer.seek(n * 8192 + 4096), sys.stdout.buffer.write(b"A" * 4096)' >image
  start_mount m 'd=file:image'
  n=$(blocks m/d)
  echo "$n blocks"
  ((n > 15000 && n < 18000))
}

test_copy_range() {
  mkdir m
  head -c 4M /dev/urandom >data
  start_mount m a=mem:8M 'b=file:b.img;create=8M' r=ro:mem:1M
  cp data m/a
  gives 4194304 "$call" copy m/a 0 m/b 1M 4M
  cmp -n 4M -i 1M:0 m/b data
  # At any place, and inside of one file.
  gives 100000 "$call" copy m/b 1148577 m/b 7000001 100000
  cmp -n 100000 -i 7000001:100001 m/b data
  # What reads as zero becomes a hole.
  gives 1048576 "$call" copy m/a 5M m/b 1M 1M
  holds m/b 1M 1M '\0'
  gives 2097152 "$call" seek m/b data 1M
  # At the ends.
  gives 1000 "$call" copy m/a 8387608 m/b 0 5000
  gives 0 "$call" copy m/a 8M m/b 0 5000
  gives ENOSPC "$call" copy m/a 0 m/b 8M 5000
  # Between file systems it is the program that copies.
  : >out.img
  gives EXDEV "$call" copy m/a 0 out.img 0 4096
  cp m/a out.img
  cmp m/a out.img
  # Both ranges of one file that overlap: as for any file.
  gives EINVAL "$call" copy m/a 0 m/a 4096 8192
}

# A page that was read before shows what was copied over it, and what a program has not written back yet is copied.
test_copy_is_coherent() {
  mkdir m
  start_mount m "$@" a=mem:1M b=mem:1M
  "$call" write m/a 0 64K 65 >/dev/null
  cat m/b >/dev/null
  gives 65536 "$call" copy m/a 0 m/b 0 64K
  holds m/b 0 64K A
}

test_map() {
  mkdir m
  start_mount m 'd=file:image;create=1M' r=ro:mem:1M
  gives 0 "$call" map m/d 64K 128K 65 sync
  holds image 0 64K '\0'
  holds image 64K 128K A
  # What is mapped and what is read are the same, before anything is written back.
  coproc "$call" map m/d 0 4096 66 wait
  read -r status <&"${COPROC[0]}"
  [[ $status = 0 ]]
  holds m/d 0 4096 B
  "$call" write m/d 4096 4096 67 >/dev/null
  eval "exec ${COPROC[1]}>&-"
  wait "$COPROC_PID" || true
  stop_mount
  holds image 0 4096 B
  holds image 4096 4096 C
  holds image 64K 128K A
}

test_direct() {
  mkdir m
  head -c 4M /dev/urandom >data
  start_mount m "$@" d=mem:4M
  dd if=data of=m/d bs=1M oflag=direct conv=notrunc status=none
  dd if=m/d bs=64K iflag=direct status=none | cmp - data
  cmp m/d data
  # Between both ways nothing is lost.
  gives 4096 "$call" write m/d 8192 4096 65
  dd if=m/d bs=4096 skip=2 count=1 iflag=direct status=none | tr -d A | cmp - /dev/null
  gives 4096 "$call" write m/d 8192 4096 66 direct
  dd if=m/d bs=4096 skip=2 count=1 status=none | tr -d B | cmp - /dev/null
  gives 4096 "$call" write m/d 0 4096 66 sync
}

test_fsync() {
  mkdir m
  start_mount m d=sql:disk.db\;create=1M r=ro:mem:1M
  "$call" write m/d 0 4096 65
  gives 0 "$call" fsync m/d
  gives 0 "$call" fdatasync m/d
  sync -f m/d
  sync m
  sync m/r
}

# ------------------------------------------------------------------ options

test_options() {
  mkdir m
  refused 1 "no mount option 'direct_oi' (did you mean 'direct_io'?)" "$platter" mount -o direct_oi m d=mem:1M
  refused 1 "no mount option 'zzzzzzzzz'" "$platter" mount -o ro,zzzzzzzzz m d=mem:1M
  refused 1 "uid wants a value" "$platter" mount -o uid m d=mem:1M
  refused 1 "ro takes no value" "$platter" mount -o ro=1 m d=mem:1M
  refused 1 "uid=no-such-user: there is no such user" "$platter" mount -o uid=no-such-user m d=mem:1M
  refused 1 "gid=no-such-group: there is no such group" "$platter" mount -o gid=no-such-group m d=mem:1M
  refused 1 "uid=4294967295" "$platter" mount -o uid=4294967295 m d=mem:1M
  refused 1 "mode=8: expected octal" "$platter" mount -o mode=8 m d=mem:1M
  refused 1 "mode=1777: expected octal" "$platter" mount -o mode=1777 m d=mem:1M
  refused 1 "threads=0: expected a number from 1 to" "$platter" mount -o threads=0 m d=mem:1M
  refused 1 "threads=5x" "$platter" mount -o threads=5x m d=mem:1M
  refused 1 "parallel_direct_writes works with direct_io only" "$platter" mount -o parallel_direct_writes m d=mem:1M
  refused 1 "exclude each other" "$platter" mount -o writeback -o direct_io m d=mem:1M
  refused 1 "grace.*abc\|abc.*number\|--grace" "$platter" mount --grace=abc m d=mem:1M
  refused 1 "--grace: 86401 seconds" "$platter" mount --grace 86401 m d=mem:1M
  refused 1 "cannot write '.*/no/pid'" "$platter" mount --pid-file no/pid m d=mem:1M
  refused 2 "no option '--deamon' (did you mean '--daemon'?)" "$platter" mount --deamon m d=mem:1M
  gives "" ls -A m
  fails is_mounted "$PWD/m"
}

test_help() {
  "$platter" mount --help >help
  for word in --daemon --options --control --pid-file --grace --partitions; do grep -q -e "$word" help; done
  "$platter" umount --help >help
  grep -q -e --lazy help
}

# works ARG...: with these options a mount writes and reads.
works() {
  mkdir m
  head -c 3M /dev/urandom >data
  start_mount m "$@" d=mem:3M
  grep " $PWD/m " /proc/self/mountinfo
  dd if=data of=m/d bs=96K conv=notrunc status=none
  cmp m/d data
  dd if=data of=m/d bs=100 count=1000 seek=1 conv=notrunc status=none
  cmp -n 100000 -i 100:0 m/d data
  "$platter" umount m
  ended_well
}

test_allow_other() {
  allow_other_users
  works -o allow_other | tee shown
  grep -q allow_other shown
}

test_kernel_options() {
  mkdir m
  start_mount m d=mem:1M
  grep " $PWD/m " /proc/self/mountinfo | tee shown
  grep -q ' - fuse.platter platter:[0-9]* .*default_permissions' shown
  grep -q nosuid,nodev shown
}

# As an ordinary user: what only the user who mounts may do, and what nobody else may.
test_user() {
  mkdir m
  chown $user m
  start_mount m d=mem:1M
  gives "600 $user" stat -c '%a %u' m/d
  gives 4096 "$call" write m/d 0 4096 65
  gives "$(printf 'A%.0s' {1..16})" head -c 16 m/d
  # Not even root comes in.
  [[ ! $is_root ]] || { as=() && fails stat m/d; }
}

test_user_umount() {
  mkdir m
  chown $user m
  start_mount m d=mem:1M
  "${as[@]}" "$platter" umount m
  ended_well
  fails is_mounted "$PWD/m"
  start_mount m -o ro d=mem:1M
  gives EROFS "$call" open m/d write
  stop_mount
  fails is_mounted "$PWD/m"
}

test_user_refused() {
  [[ $is_root ]] || skip_test "only root can give a folder to somebody else"
  mkdir m
  chown 0:0 m
  refused 1 "cannot mount on\|may not\|not permitted\|no write access" "$platter" mount m d=mem:1M
  fails is_mounted "$PWD/m"
}

# What nobody has allowed is refused, and said by fusermount3.
test_user_allow_other() {
  mkdir m
  chown $user m
  if ! grep -qx user_allow_other /etc/fuse.conf 2>/dev/null; then
    refused 1 "user_allow_other" "$platter" mount m d=mem:1M -o allow_other
    fails is_mounted "$PWD/m"
  fi
  allow_other_users
  start_mount m d=mem:1M -o allow_other,mode=644
  as=()
  gives "644 $user" stat -c '%a %u' m/d
  "$call" read m/d 0 4096
}

run_test "sizes are those of the disks" test_sizes
run_test "content goes to the disk and comes from it" test_content
run_test "a file mounted over a file" test_single_file
run_test "modes and owners" test_modes
[[ ! $is_root ]] || run_test "modes and owners hold" test_modes_hold
run_test "a read-only disk is a read-only file" test_read_only_disk
run_test "-o ro opens all read-only" test_ro_option
run_test "times" test_times
[[ ! $is_root ]] || run_test "chown and chmod" test_owner_changes
run_test "a thousand disks" test_thousand
run_test "names" test_names
run_test "names that no file can have" test_bad_names
run_test "specs that cannot be opened" test_bad_specs
run_test "no files come, go or change their names" test_fixed_folder
run_test "extended attributes" test_xattrs
run_test "statfs" test_statfs
run_test "reports are read under load" test_reports
run_test "no reports without --control" test_no_reports
run_test "truncate is honoured by disks that resize" test_truncate_honoured
run_test "truncate is refused by those that do not" test_truncate_refused
run_test "a stack resizes, too" test_size_of_what_is_below
run_test "O_TRUNC zeroes" test_open_truncates
run_test "O_TRUNC zeroes, -o direct_io" test_open_truncates -o direct_io
run_test "names that are not UTF-8" test_not_utf8
run_test "partitions" test_partitions
run_test "a disk without partitions" test_no_partitions
run_test "O_TRUNC is refused with -o writeback" test_open_truncates_not
run_test "writes at and past the end" test_the_end
run_test "writes past the end, -o writeback" test_the_end_later
run_test "the size is true with -o writeback" test_true_size
run_test "fallocate does what it does to a flat file" test_fallocate
run_test "fallocate where the size is fixed" test_fallocate_fixed
run_test "SEEK_DATA and SEEK_HOLE" test_seek
run_test "SEEK_DATA and what is not written yet" test_seek_unwritten
run_test "SEEK_DATA and what is not written yet, -o writeback" test_seek_unwritten -o writeback
run_test "sparse copies and the blocks of a file" test_sparse
run_test "more holes than are counted" test_many_holes
run_test "copy_file_range" test_copy_range
run_test "copy_file_range and the page cache" test_copy_is_coherent
run_test "copy_file_range and -o writeback" test_copy_is_coherent -o writeback
run_test "shared mappings" test_map
run_test "O_DIRECT beside the page cache" test_direct
run_test "O_DIRECT with -o direct_io" test_direct -o direct_io
run_test "O_DIRECT with -o writeback" test_direct -o writeback
run_test "fsync, fdatasync, syncfs" test_fsync
run_test "help" test_help
run_test "wrong options" test_options
run_test "what the kernel shows" test_kernel_options
run_test "-o allow_other" test_allow_other
run_test "-o auto_unmount" works -o auto_unmount
run_test "-o direct_io" works -o direct_io
run_test "-o parallel_direct_writes" works -o direct_io,parallel_direct_writes
run_test "-o writeback" works -o writeback
run_test "-o threads=1" works -o threads=1
run_test "-o threads=1024" works -o threads=1024,,
run_user_test "write and read" test_user
run_user_test "unmount" test_user_umount
run_user_test "-o allow_other" test_user_allow_other
run_user_test "a folder of somebody else" test_user_refused
t_done
