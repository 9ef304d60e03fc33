/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether one disk is written to where another one is read from: the files behind both, by device and inode. */
#ifndef PLATTER_CLI_SAME_FILES_H
#define PLATTER_CLI_SAME_FILES_H

#include "core/disk.h"
#include "core/spec.h"

/*
 * -EINVAL with the file named when a write to `to` changes bytes that `from` reads: a file or block device of both, by whatever names, also a
 * parent of an image. Windows on other parts of the same file are apart. A file whose name is not UTF-8 is not seen.
 */
int check_files_apart(struct disk *from, struct disk *to, struct error *err);

/* Why `to` cannot be opened, which `err` has as -EBUSY, when that is because a file that it names is one of `from`: says so instead. */
int explain_busy_file(struct disk *from, const struct spec *to, struct error *err);

#endif
