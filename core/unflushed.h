/* SPDX-License-Identifier: BSD-3-Clause */
/* What a power cut may leave of writes that were answered and not flushed: a model of volatile caches. */
#ifndef PLATTER_CORE_UNFLUSHED_H
#define PLATTER_CORE_UNFLUSHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/vec.h"

/*
 * A record of everything that was done to a medium (a disk, a file) since it was last flushed. It knows no medium:
 * whoever uses it tells it what happens, and gets told what a cut leaves, as calls that turn the medium as it was at
 * the last flush into one that may be found afterwards. Offsets and lengths are bytes and need not be whole units.
 *
 *     unflushed_create(size, 512, &u);
 *     unflushed_record_write(u, 0, data, 4096);
 *     unflushed_record_write(u, 8192, data, 512);
 *     for (k = 0; k < unflushed_count_states(u, UNFLUSHED_ANY); k++)
 *             image = a copy of the old one; unflushed_enumerate(u, UNFLUSHED_ANY, k, &sink of image); try it
 *     unflushed_flush(u, &sink);
 *
 * Calls that change a record are made one at a time; others may go on beside each other. -ENOMEM is the only failure
 * but for those of sinks, and changes nothing.
 */
struct unflushed;

/* How far apart the order of writes and the order in which they reach the medium may be. */
enum unflushed_order {
	UNFLUSHED_ANY,      /* of each unit any version since the flush, whatever became of others: caches of disks */
	UNFLUSHED_IN_ORDER, /* all up to some write, of which the first units, none of what came later */
};

/*
 * What is done to the medium; each call returns 0 or a negative errno, which ends the work and is handed up. `resize`
 * may be NULL when no sizes were recorded.
 */
struct unflushed_sink {
	int (*write)(void *to, uint64_t offset, const void *data, size_t length);
	int (*zero)(void *to, uint64_t offset, uint64_t length, unsigned tag);
	int (*resize)(void *to, uint64_t size); /* what is cut off is lost, what is added reads as zeroes */
	void *to;
};

/*
 * An empty record for a medium of `size` bytes that writes `unit` bytes (not 0) at once: after a cut a unit holds
 * what it held at some moment, never a mixture. -ENOMEM.
 */
int unflushed_create(uint64_t size, uint32_t unit, struct unflushed **out);

/* Accepts NULL. */
void unflushed_free(struct unflushed *u);

/* ------------------------------------------------------------------ what happens */

/*
 * Each returns 0, -ENOMEM, or -ERANGE when it goes past INT64_MAX. What ends past the size makes the medium larger
 * first, which is a change of size of its own.
 */
int unflushed_record_write(struct unflushed *u, uint64_t offset, const void *data, size_t length);

/* The same with the bytes of a vector. */
int unflushed_record_vec(struct unflushed *u, uint64_t offset, const struct vec *v);

/* `tag` is for the sink: what kind of zeroing it was. */
int unflushed_record_zero(struct unflushed *u, uint64_t offset, uint64_t length, unsigned tag);

int unflushed_record_resize(struct unflushed *u, uint64_t size);

/* The units of the range, as they are now, and the size survive any cut: what FUA does. */
int unflushed_record_durable(struct unflushed *u, uint64_t offset, uint64_t length);

/*
 * Brings everything to the medium and forgets it; when a call of the sink fails nothing is forgotten. `sink` may be
 * NULL.
 */
int unflushed_flush(struct unflushed *u, const struct unflushed_sink *sink);

/*
 * Brings the oldest records to the medium and forgets them, until at most `bytes` are held: what a full cache does.
 * Like flush otherwise.
 */
int unflushed_shrink(struct unflushed *u, size_t bytes, const struct unflushed_sink *sink);

/* Forgets everything: the medium is what it was at the last flush, or what a cut left of it, and `size` bytes large. */
void unflushed_forget(struct unflushed *u, uint64_t size);

/* Bytes that were changed and are still held, as they are now. */
struct unflushed_run {
	uint64_t offset, length;
	const unsigned char *data; /* NULL: zeroes */
};

/*
 * The first run that ends behind `offset`, from `offset` on; false when there is none. For who reads through the
 * record.
 */
bool unflushed_find(const struct unflushed *u, uint64_t offset, struct unflushed_run *out);

/* Records held, and about the memory that they take. */
size_t unflushed_records(const struct unflushed *u);
size_t unflushed_bytes(const struct unflushed *u);

/* ------------------------------------------------------------------ what a cut leaves */

/*
 * How many states there are; UINT64_MAX: as many or more. 0 only when memory ran out. Different numbers may be the
 * same content.
 */
uint64_t unflushed_count_states(const struct unflushed *u, enum unflushed_order order);

/* State number `k`, below that count. */
int unflushed_enumerate(const struct unflushed *u, enum unflushed_order order, uint64_t k,
			const struct unflushed_sink *sink);

/*
 * One state, chosen by the seed. Seeds differ in temper: everything by chance, little lost, little kept, whole writes
 * lost; so that a few hundred of them also come across states in which just one thing is missing.
 */
int unflushed_sample(const struct unflushed *u, enum unflushed_order order, uint64_t seed,
		     const struct unflushed_sink *sink);

/* ------------------------------------------------------------------ a medium in memory */

/* Memory from malloc(), or NULL and 0; grows and shrinks with the medium. */
struct unflushed_image {
	unsigned char *bytes;
	uint64_t size;
};

/* A sink that changes the image. -ENOMEM; -ERANGE for what is outside of it. */
struct unflushed_sink unflushed_image_sink(struct unflushed_image *image);

#endif
