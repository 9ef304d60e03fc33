dnl SPDX-License-Identifier: BSD-3-Clause

dnl PLATTER_CC_FLAGS(VARIABLE, FLAGS): appends to VARIABLE those FLAGS that the compiler knows.
AC_DEFUN([PLATTER_CC_FLAGS], [
  platter_save_CFLAGS=$CFLAGS
  for platter_flag in m4_normalize([$2]); do
    AC_MSG_CHECKING([whether $CC accepts $platter_flag])
    CFLAGS="$platter_save_CFLAGS -Werror $platter_flag"
    AC_COMPILE_IFELSE([AC_LANG_PROGRAM()],
      [AC_MSG_RESULT([yes]); $1="$$1 $platter_flag"],
      [AC_MSG_RESULT([no])])
  done
  CFLAGS=$platter_save_CFLAGS
])

dnl PLATTER_FOUND(WHAT, WORDS): a line of the summary.
AC_DEFUN([PLATTER_FOUND], [platter_summary="$platter_summary
  $1: $2"])

dnl PLATTER_MISSING(WHAT, PACKAGE): a line of the summary for something that must be there.
AC_DEFUN([PLATTER_MISSING], [
  PLATTER_FOUND([$1], [MISSING: apt-get install $2])
  platter_missing="$platter_missing $2"
])

dnl PLATTER_LIBRARY(PREFIX, MODULE, MINIMUM, PACKAGE): a library that must be there, by pkg-config.
AC_DEFUN([PLATTER_LIBRARY], [
  PKG_CHECK_MODULES([$1], [$2 >= $3],
    [PLATTER_FOUND([$2], [`$PKG_CONFIG --modversion $2`])],
    [PLATTER_MISSING([$2 >= $3], [$4])])
])

dnl PLATTER_SONAME(LIBRARY, CFLAGS, LIBS, HEADER, CALL): defines LIBRARY_SONAME, by which a library is loaded that no program is
dnl linked with, and LIBRARY_PACKAGE, the Debian package that has it.
AC_DEFUN([PLATTER_SONAME], [
  AC_CHECK_TOOLS([READELF], [readelf llvm-readelf eu-readelf], [false])
  AC_MSG_CHECKING([by which name $1 is loaded])
  platter_save_CFLAGS=$CFLAGS platter_save_LIBS=$LIBS platter_soname=
  CFLAGS="$CFLAGS $2" LIBS="$3 $LIBS"
  AC_LINK_IFELSE([AC_LANG_PROGRAM([#include <$4>], [$5])],
    [platter_soname=`$READELF -d conftest$EXEEXT | sed -n 's/^.*NEEDED.*\@<:@\($1\.so@<:@^@:>@@:>@*\)@:>@.*$/\1/p'`])
  CFLAGS=$platter_save_CFLAGS LIBS=$platter_save_LIBS
  AC_MSG_RESULT([$platter_soname])
  AS_IF([test -z "$platter_soname" && test -z "$platter_missing"], [AC_MSG_FAILURE([cannot find out by which name $1 is loaded])])
  AC_DEFINE_UNQUOTED(m4_toupper([$1])[_SONAME], ["$platter_soname"], [the name by which $1 is loaded])
  platter_package=`AS_ECHO(["$platter_soname"]) | sed 's/\.so\.//'`
  AC_DEFINE_UNQUOTED(m4_toupper([$1])[_PACKAGE], ["$platter_package"], [the Debian package that has $1])
])

dnl PLATTER_TEST_LINKER: sets TEST_LINKER to what makes the compiler link with gold, where that works: of some hundred
dnl programs for tests it links each in half the time. Not where it has something to say, as it has of clang's ASan. What is
dnl installed is linked as the compiler wants it.
AC_DEFUN([PLATTER_TEST_LINKER], [
  AC_MSG_CHECKING([whether tests can be linked with gold])
  platter_save_LDFLAGS=$LDFLAGS
  LDFLAGS="$LDFLAGS $SANITIZER_FLAGS -fuse-ld=gold -Wl,--fatal-warnings"
  AC_LINK_IFELSE([AC_LANG_PROGRAM()], [AC_MSG_RESULT([yes]); TEST_LINKER=-fuse-ld=gold], [AC_MSG_RESULT([no]); TEST_LINKER=])
  LDFLAGS=$platter_save_LDFLAGS
  AC_SUBST([TEST_LINKER])
])

dnl PLATTER_SANITIZERS: --enable-sanitizers=LIST. Sets SANITIZER_FLAGS, and SANITIZER_PRELOAD to the runtime
dnl library that a program built without them needs before it can load our plugin: "none" where that is no way
dnl (clang's for threads cannot be preloaded), empty where nothing is needed.
AC_DEFUN([PLATTER_SANITIZERS], [
  AC_ARG_ENABLE([sanitizers],
    [AS_HELP_STRING([--enable-sanitizers=LIST], [build with the compiler's sanitizers, for example
      address,undefined or thread])],
    [], [enable_sanitizers=no])
  AS_IF([test "x$enable_sanitizers" = xyes], [enable_sanitizers=address,undefined])
  SANITIZER_FLAGS= SANITIZER_PRELOAD=
  AS_IF([test "x$enable_sanitizers" != xno], [
    SANITIZER_FLAGS="-fsanitize=$enable_sanitizers -fno-omit-frame-pointer"
    AS_CASE([,$enable_sanitizers,], [*,undefined,*],
      [SANITIZER_FLAGS="$SANITIZER_FLAGS -fno-sanitize-recover=undefined"])
    AC_MSG_CHECKING([whether $CC can build with $SANITIZER_FLAGS])
    platter_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS $SANITIZER_FLAGS"
    AC_LINK_IFELSE([AC_LANG_PROGRAM()], [AC_MSG_RESULT([yes])],
      [AC_MSG_RESULT([no])
       AC_MSG_ERROR([$CC cannot build with -fsanitize=$enable_sanitizers: config.log says why])])
    CFLAGS=$platter_save_CFLAGS
    dnl gcc links the undefined-behaviour runtime to the plugin itself; clang leaves that to the program.
    AS_CASE([$platter_cc:,$enable_sanitizers,],
      [gcc:*,address,*], [platter_runtime=libasan.so],
      [gcc:*,thread,*], [platter_runtime=libtsan.so],
      [clang:*,address,*], [platter_runtime=libclang_rt.asan-$host_cpu.so],
      [clang:*,thread,*], [platter_runtime=libclang_rt.tsan-$host_cpu.so],
      [clang:*,undefined,*], [platter_runtime=libclang_rt.ubsan_standalone-$host_cpu.so],
      [platter_runtime=])
    AS_IF([test -n "$platter_runtime"], [
      AC_MSG_CHECKING([whether other programs can preload $platter_runtime])
      SANITIZER_PRELOAD=`$CC -print-file-name=$platter_runtime`
      AS_IF([(LD_PRELOAD=$SANITIZER_PRELOAD; export LD_PRELOAD; exec /bin/true) >conftest.out 2>&1 &&
          test ! -s conftest.out],
        [AC_MSG_RESULT([yes])],
        [AC_MSG_RESULT([no: nbdkit cannot load the plugin]); SANITIZER_PRELOAD=none])
      rm -f conftest.out
    ])
  ])
  AC_SUBST([SANITIZER_FLAGS])
  AC_SUBST([SANITIZER_PRELOAD])
  AC_SUBST([SANITIZERS], [$enable_sanitizers])
  AM_CONDITIONAL([SANITIZERS], [test "x$enable_sanitizers" != xno])
])

dnl PLATTER_FUZZING: --enable-fuzzing. Sets FUZZING_FLAGS and FUZZING_ENGINE, what fuzz targets are linked
dnl with: libFuzzer where the compiler is clang, else our own main, which runs over files given to it.
AC_DEFUN([PLATTER_FUZZING], [
  AC_ARG_ENABLE([fuzzing],
    [AS_HELP_STRING([--enable-fuzzing], [link the fuzz targets with libFuzzer (needs clang)])],
    [], [enable_fuzzing=no])
  FUZZING_FLAGS= FUZZING_ENGINE=
  AS_IF([test "x$enable_fuzzing" != xno], [
    AS_IF([test "$platter_cc" != clang],
      [AC_MSG_ERROR([--enable-fuzzing needs clang: ./configure CC=clang --enable-fuzzing])])
    AC_MSG_CHECKING([for libFuzzer])
    FUZZING_ENGINE=`$CC -print-file-name=libclang_rt.fuzzer-$host_cpu.a`
    AS_CASE([$FUZZING_ENGINE], [/*], [AC_MSG_RESULT([$FUZZING_ENGINE])],
      [AC_MSG_ERROR([clang has no libFuzzer: apt-get install $pkg_libfuzzer])])
    FUZZING_ENGINE="$FUZZING_ENGINE -lstdc++ -lm"
    FUZZING_FLAGS=-fsanitize=fuzzer-no-link
  ])
  AC_SUBST([FUZZING_FLAGS])
  AC_SUBST([FUZZING_ENGINE])
  AM_CONDITIONAL([FUZZING], [test "x$enable_fuzzing" != xno])
])
