#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# make install puts everything where it is found: `nbdkit platter SPEC`, man pages, completion.
. "${top_srcdir:?is set by make check}/tests/lib.sh"
need make make
[[ -e $top_builddir/Makefile ]] || skip_test "$top_builddir is no build folder"
stage=$tmp/stage
env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -C "$top_builddir" install DESTDIR="$stage" >"$tmp/install.log" 2>&1 || {
  diag <"$tmp/install.log"
  diag "make install failed"
}

test_files() {
  local page
  find "$stage" -type f | sed "s|^$stage||" | sort | tee list
  grep -q '/bin/platter$' list
  grep -q '/nbdkit-platter-plugin\.so$' list
  grep -q '/bash-completion/completions/platter$' list
  for page in nbdkit-platter-plugin platter platter-info platter-kinds platter-version; do
    grep -q "/man/man1/$page\.1$" list
  done
}

test_path() {
  need_plugin
  [[ -z $SANITIZER_PRELOAD ]] || skip_test "a sanitized plugin needs more to be loaded"
  nbdkit "$(find "$stage" -name nbdkit-platter-plugin.so)" --version | grep platter
}

# In a mount namespace of its own the staged folder stands where nbdkit looks for plugins. In a chroot there is none to be
# had, but it is a place to install to.
test_short_name() {
  need_plugin
  need unshare util-linux
  need nbdinfo libnbd-bin
  [[ -z $SANITIZER_PRELOAD ]] || skip_test "a sanitized plugin needs more to be loaded"
  local folder plugindir installed
  folder=$(dirname "$(find "$stage" -name nbdkit-platter-plugin.so)")
  plugindir=$(nbdkit --dump-config | sed -n 's/^plugindir=//p')
  if ! unshare -m true 2>/dev/null; then
    installed=$plugindir/nbdkit-platter-plugin.so
    [[ -w $plugindir && ! -e $installed ]] || skip_test "only root can mount or install here"
    at_exit rm -f "$installed"
    cp "$folder/nbdkit-platter-plugin.so" "$installed"
    # shellcheck disable=SC2016 # nbdkit's shell expands it
    [[ $(nbdkit -U - platter mem:1G --run 'nbdinfo --size "$uri"') = 1073741824 ]]
    return
  fi
  # shellcheck disable=SC2016 # the inner shell expands it
  unshare -m bash -c 'mount --bind "$1" "$2" && exec nbdkit -U - platter mem:1G --run "nbdinfo --size \"\$uri\""' \
    - "$folder" "$plugindir" | tee out
  [[ $(cat out) = 1073741824 ]]
}

run_test "programs, plugin, man pages and completion are installed" test_files
run_test "nbdkit loads the installed plugin by its path" test_path
run_test "nbdkit platter mem:1G works once it is installed" test_short_name
t_done
