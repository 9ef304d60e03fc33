/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk whose content lies encrypted in another: the object behind crypt and luks. */
#ifndef PLATTER_DECORATORS_ENCRYPTED_H
#define PLATTER_DECORATORS_ENCRYPTED_H

#include "core/node.h"
#include "decorators/staging.h"
#include "decorators/xts.h"

/* A kind's own state begins with it. */
struct encrypted {
	struct disk disk;
	struct xts *xts;
	struct xts_units units;
	uint64_t offset;  /* where the content begins in the disk below */
	uint64_t length;  /* UINT64_MAX: to the end of the disk below, wherever that is */
	bool zero_holes;
	struct staging staging;
	struct wait_mutex resizing;  /* one resize at a time */
	_Atomic uint64_t hidden_from; /* what the disk below has past it is not shown yet; UINT64_MAX: all is shown */
};

/* The row of the option that says what never-written blocks read as. */
#define HOLES_FIELD                                                                                                 \
	{.name = "holes",                                                                                           \
	 .role = SPEC_OPTION,                                                                                       \
	 .type = SPEC_WORD,                                                                                         \
	 .fallback = "decrypt",                                                                                     \
	 .words = holes_words,                                                                                      \
	 .help = "what zeroes in the disk below stand for: ciphertext like all else, or zeroes"}

extern const char *const holes_words[];

/* What is in a disk, and where. */
struct encrypted_content {
	uint64_t offset, length; /* as in struct encrypted; whole blocks of the disk below, of which some are there */
	struct xts_units units;
	bool zero_holes;
};

/*
 * Allocates a state of `state_size` bytes over `below`, its child. `describe` (NULL: encrypted_describe) as in struct
 * disk_ops. NULL when memory ran out.
 */
void *encrypted_new(size_t state_size, const char *kind, struct disk *below, void (*describe)(struct disk *d, json_t *object));

/*
 * Makes it usable with `key`, which it takes over as xts_create() does. On failure `err` says what was wrong, the state
 * is freed, and `below` is the caller's as before.
 */
int encrypted_publish(struct encrypted *e, const struct encrypted_content *content, struct secret *key, struct disk **out,
		      struct error *err);

/* Says cipher, units and what becomes of holes. */
void encrypted_describe(struct disk *d, json_t *object);

#endif
