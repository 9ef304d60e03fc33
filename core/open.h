/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening a whole tree from its spec. */
#ifndef PLATTER_CORE_OPEN_H
#define PLATTER_CORE_OPEN_H

#include "core/disk.h"
#include "core/kind.h"

/*
 * Parses and opens `text`; `flags` is enum open_flags. Either *out is a whole tree, whose root measures latency, or
 * nothing is left behind and `err` says why. The reference is given up with disk_close().
 */
int disk_open(const char *text, unsigned flags, struct disk **out, struct error *err);

/* The same from a parsed spec, which is not kept. */
int disk_open_spec(const struct spec *spec, unsigned flags, struct disk **out, struct error *err);

#endif
