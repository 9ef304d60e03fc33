# shellcheck shell=sh disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
# The Debian packages Platter needs, and how the scripts install them. Sourced (by bootstrap, configure,
# quickstart and check), never run; plain sh. This is the only place that names packages for installing.

# What the configure script looks for.
pkg_liburing=liburing-dev
pkg_jansson=libjansson-dev
pkg_xxhash=libxxhash-dev
pkg_sqlite=libsqlite3-dev
pkg_blkid=libblkid-dev
pkg_crypto=libssl-dev
pkg_cryptsetup=libcryptsetup-dev
pkg_nbdkit=nbdkit-plugin-dev
pkg_fuse=libfuse3-dev
pkg_valgrind=valgrind
pkg_libnbd=libnbd-dev
pkg_libfuzzer=libclang-rt-14-dev

# To build from a git checkout.
build_packages="autoconf automake pkg-config make gcc libc6-dev \
$pkg_liburing $pkg_jansson $pkg_xxhash $pkg_sqlite $pkg_blkid $pkg_crypto $pkg_cryptsetup $pkg_nbdkit $pkg_fuse"

# To serve a disk and show it with clients that others wrote.
demo_packages="nbdkit libnbd-bin qemu-utils fuse3"

# To run every test.
test_packages="$demo_packages $pkg_valgrind $pkg_libnbd jq git binutils fio attr sqlite3 strace clang $pkg_libfuzzer groff-base shellcheck fdisk gdisk parted util-linux cryptsetup-bin e2fsprogs mount libvhdi-utils libxml2-utils python3"

# To boot the test guest.
guest_packages="qemu-system-x86 kmod cpio xz-utils e2fsprogs busybox-static nvme-cli"

# packages_missing PACKAGE... : prints those that are not installed.
packages_missing() {
  for package in "$@"; do
    # shellcheck disable=SC2016 # the word after $ is dpkg's
    case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in
      *" installed") ;;
      *) printf '%s ' "$package" ;;
    esac
  done
}

# packages_install PACKAGE... : installs what is missing and says so; quiet when all is there.
packages_install() {
  if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    echo "this is no Debian-like system: please see to it that you have: $*" >&2
    return 0
  fi
  # shellcheck disable=SC2046 # words wanted
  set -- $(packages_missing "$@")
  [ $# -gt 0 ] || return 0
  echo "installing what is missing: apt-get install $*"
  packages_apt install --no-install-recommends "$@" && return 0
  echo "refreshing the package lists first: apt-get update"
  packages_apt update && packages_apt install --no-install-recommends "$@"
}

# packages_apt VERB ARG... : apt-get as root, asking nothing.
packages_apt() {
  if [ "$(id -u)" = 0 ]; then
    env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" </dev/null
  elif command -v sudo >/dev/null 2>&1; then
    echo "(as root, through sudo)"
    sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@"
  else
    echo "you are not root and there is no sudo; please run as root: apt-get $*" >&2
    return 1
  fi
}
