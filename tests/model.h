/* SPDX-License-Identifier: BSD-3-Clause */
/* What tests of disks share: reproducible random numbers, awkwardly cut memory, and a flat array as the truth. */
#ifndef PLATTER_TESTS_MODEL_H
#define PLATTER_TESTS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/disk.h"
#include "core/vec.h"

/* ------------------------------------------------------------------ random numbers */

/* One sequence; not shared between threads. */
struct random {
	uint64_t state;
};

/* The seed of this run: SEED in the environment, or a new one; printed at the first call as a diagnostic. */
uint64_t random_seed(void);

/* A sequence of its own for each `stream` of a run. */
struct random random_stream(uint64_t stream);

uint64_t random_next(struct random *r);

/* 0 .. limit - 1; limit > 0. */
uint64_t random_below(struct random *r, uint64_t limit);

/* True once in `n` times. */
bool random_once_in(struct random *r, unsigned n);

/* Bytes of which no aligned eight are zero. */
void random_fill(struct random *r, void *memory, size_t size);

/* ------------------------------------------------------------------ scattered memory */

/*
 * `size` bytes of memory in pieces, in the manner of a guest: single bytes, empty pieces, odd addresses, with guard bytes
 * around each piece. `vec` begins some bytes into the pieces.
 */
struct scatter {
	struct vec vec;
	struct iovec *iov;
	size_t count;
	char *memory;
	size_t memory_size;
	size_t lead; /* bytes before the window */
};

/* Exits when memory runs out. */
void scatter_make(struct scatter *s, struct random *r, size_t size);
void scatter_free(struct scatter *s);

/* Copies the window out or in, byte by byte: knows nothing of core/vec.c. */
void scatter_get(const struct scatter *s, void *out);
void scatter_put(const struct scatter *s, const void *in);

/* True while the guards, and the bytes before and after the window, are as scatter_make() left them. */
bool scatter_guarded(const struct scatter *s);

/* ------------------------------------------------------------------ the flat model */

/* What a disk must read as. */
struct model {
	uint64_t size;
	uint32_t block;
	unsigned char *bytes;
};

/* Zeroes; exits when memory runs out. */
void model_make(struct model *m, uint64_t size, uint32_t block);
void model_free(struct model *m);

/* Takes over what the disk reads as now; false when it cannot be read. */
bool model_learn(struct model *m, struct disk *d);

/* True when [offset, offset + length) of the disk reads as the model; says where not. */
bool model_agrees(const struct model *m, struct disk *d, uint64_t offset, uint64_t length);

/*
 * After a discard of the range that succeeded: checks what the disk promises of it (whole granules are zero, others old or
 * zero; or nothing changed; or anything) and takes over what it reads as. False when the promise is broken.
 */
bool model_discarded(struct model *m, struct disk *d, uint64_t offset, uint64_t length);

/* A random range of whole blocks inside the model; mostly short, sometimes up to `most` bytes. */
void model_range(const struct model *m, struct random *r, uint64_t most, uint64_t *offset, uint64_t *length);

#endif
