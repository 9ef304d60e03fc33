/* SPDX-License-Identifier: BSD-3-Clause */
/* The contract of core/disk.h as code: run over every kind of disk, alone and in stacks. */
#ifndef PLATTER_TESTS_CONTRACT_H
#define PLATTER_TESTS_CONTRACT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/disk.h"

/* What may be left out where it cannot be asked of a disk. */
enum contract_part {
	CONTRACT_FACTS = 1 << 0,    /* geometry and what describe says of it */
	CONTRACT_RANGE = 1 << 1,    /* what is outside, malformed or read-only is refused and changes nothing */
	CONTRACT_CONTENT = 1 << 2,  /* random operations against a flat model */
	CONTRACT_ZEROES = 1 << 3,   /* write_zeroes with all of its flags */
	CONTRACT_DISCARD = 1 << 4,  /* discard does what info.discard says */
	CONTRACT_EXTENTS = 1 << 5,  /* extents cover, agree with each other and with reads */
	CONTRACT_THREADS = 1 << 6,  /* writers of interleaved blocks and readers, as threads */
	CONTRACT_FIBERS = 1 << 7,   /* the same as fibers of two loops */
	CONTRACT_RESIZE = 1 << 8,   /* growing, shrinking, who waits for it */
	CONTRACT_DURABLE = 1 << 9,  /* FUA, flush, and what is there after close and open again */
	CONTRACT_LIFE = 1 << 10,    /* references, close beside requests, nothing leaks */
};

/* A disk and what is expected of it. Zero-initialised fields expect nothing special. */
struct contract {
	const char *name;    /* for messages; NULL: the spec */
	const char *spec;    /* opened, and opened again */
	unsigned open_flags; /* enum open_flags */
	uint32_t block_size; /* 0: any */
	uint64_t size;       /* 0: any. All of it is read: some MiB at most, or leave out all but FACTS and RANGE */
	uint32_t resize_step; /* sizes are multiples of it; 0: of the block */
	bool forgets;        /* reads as zeroes whatever was written */
	bool may_tear;       /* a read may meet a write of the same block half done (page cache) */
	bool brief;          /* fewer random operations: a stack of what has passed alone */
	unsigned without;    /* enum contract_part */
};

/* Runs all parts, each on the disk opened anew; prints what is wrong. The number of checks that failed. */
int contract_run(const struct contract *c);

/* The same on a disk that is open already, without the parts that open it again. */
int contract_run_on(const struct contract *c, struct disk *d);

/* How much slower things go in this build and under this checker; rounds of random tests are divided by it. */
unsigned contract_slowness(void);

#endif
