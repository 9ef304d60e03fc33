/* SPDX-License-Identifier: BSD-3-Clause */
/* What the bytes of a disk look like: a guess for people, never what something is opened as. */
#ifndef PLATTER_CLI_PROBE_H
#define PLATTER_CLI_PROBE_H

#include "core/disk.h"

/* In the order of how sure they are. */
enum probe_sureness {
	PROBE_POSSIBLE, /* a few bytes fit, as they may by chance */
	PROBE_LIKELY,   /* a signature of four bytes or more */
	PROBE_CERTAIN,  /* a long signature, or one with a checksum that fits */
};

extern const char *const probe_sureness_words[];

struct probe_finding {
	const char *what; /* "VHDX image" */
	enum probe_sureness sureness;
	const char *why; /* "'vhdxfile' at 0" */
};

#define PROBE_MAX 8u

/*
 * Looks at the first 128 KiB and the last block. Findings are in the order of their sureness, the surest first; more than PROBE_MAX
 * are not told. Returns how many, or a negative errno with `err` set.
 */
int probe_disk(struct disk *d, struct probe_finding out[PROBE_MAX], struct error *err);

#endif
