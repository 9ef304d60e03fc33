/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk for tests: flat memory that writes down every call and fails where it is told to. */
#ifndef PLATTER_TESTS_TRAP_H
#define PLATTER_TESTS_TRAP_H

#include <pthread.h>

#include "core/node.h"

enum trap_op {
	TRAP_READ,
	TRAP_WRITE,
	TRAP_FLUSH,
	TRAP_DISCARD,
	TRAP_ZEROES,
	TRAP_EXTENTS,
	TRAP_PREFETCH,
	TRAP_RESIZE,
	TRAP_EJECT,
	TRAP_RESERVE,
	TRAP_REPORT,
	TRAP_OPS
};

struct trap_call {
	enum trap_op op;
	uint64_t offset, length; /* resize: length is the new size */
	unsigned flags;
	const struct initiator *who;
};

#define TRAP_LOG 64

struct trap {
	struct disk disk;
	unsigned char *content;
	uint64_t capacity; /* bytes of `content`; what is beyond reads as zeroes and forgets */

	pthread_mutex_t lock; /* protects what follows */
	struct trap_call log[TRAP_LOG]; /* the first ones */
	unsigned count;                 /* calls in all */
	unsigned counts[TRAP_OPS];
	unsigned warms;            /* calls of disk_warm(), which are no others, */
	struct trap_call warm[TRAP_LOG]; /* and the first of them; flags: enum warm */
	int fail_status; /* what the call fails with that makes `fail_in` zero; 0: none */
	unsigned fail_ops, fail_in;
	enum medium_error fail_medium;
	int close_status;
	unsigned *closed;        /* counted up at close; NULL: nobody asks */
	bool *abandoned;         /* what close was told */
};

struct trap_options {
	uint64_t size;        /* 0: 1 MiB */
	uint64_t capacity;    /* bytes that are remembered; 0: the size, but at most 4 MiB */
	uint32_t block_size;  /* 0: 512 */
	unsigned flags;       /* enum disk_flags */
	enum disk_discard discard;
	unsigned without;     /* bit (1 << enum trap_op): the operation is left NULL */
};

/* Published, content zero; exits when memory runs out. */
struct trap *trap_create(const struct trap_options *options);

/* Forgets the calls up to now. */
void trap_reset(struct trap *t);

/* The `nth` call from now (from 1) among the operations in `ops` (bits) fails; later ones work again. */
void trap_fail(struct trap *t, unsigned ops, unsigned nth, int status);

/* Opens the outermost kind of the spec `text` over `child`, which becomes its own; exits where it cannot. */
struct disk *trap_wrap(const char *text, struct disk *child);

/* One small request of each kind but TRAP_RESERVE and TRAP_REPORT, to the disk's second block of 512 bytes; resizes to `size`. */
int trap_ask(struct disk *d, enum trap_op op, uint64_t size, const struct io *io);

/* A node above `child` that leaves every operation to it. */
struct disk *pass_create(struct disk *child);

#endif
