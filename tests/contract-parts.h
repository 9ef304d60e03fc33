/* SPDX-License-Identifier: BSD-3-Clause */
/* Between the files of the contract suite; tests use contract.h. */
#ifndef PLATTER_TESTS_CONTRACT_PARTS_H
#define PLATTER_TESTS_CONTRACT_PARTS_H

#include "tests/contract.h"
#include "tests/model.h"

/* `n` for a quick machine, fewer where contract_slowness() says so; at least 1. */
unsigned contract_rounds(unsigned n);

bool contract_is_writable(struct disk *d);

/* Zeroed memory; exits when there is none. */
void *must_have(size_t size);

/* ------------------------------------------------------------------ contract-range.c */

enum op {
	OP_READ,
	OP_EXTENTS,
	OP_PREFETCH,
	OP_WRITE,
	OP_DISCARD,
	OP_ZEROES,
	OPS
};

/* One operation. For read and write the length is that of a window over `memory`. */
int call_op(struct disk *d, enum op op, uint64_t offset, uint64_t length, void *memory, const struct io *io);

/* Each operation gives `expected`; but those that change, on a read-only disk, -EROFS where 0 is expected. */
void expect_all(struct disk *d, uint64_t offset, uint64_t length, int expected, void *memory);

/* ------------------------------------------------------------------ contract-content.c */

/* A disk and what it must read as. Each do_...() checks what it does, and keeps the model true. */
struct trial {
	const struct contract *c;
	struct disk *disk;
	struct model model;
	struct random random;
};

/* Learns what is there; false when it cannot. trial_end() comes in either case, and compares all of it. */
bool trial_begin(struct trial *t, const struct contract *c, struct disk *d, uint64_t stream);
void trial_end(struct trial *t);

void do_read(struct trial *t, uint64_t offset, uint64_t length);
void do_write(struct trial *t, uint64_t offset, uint64_t length);
void do_zeroes(struct trial *t, uint64_t offset, uint64_t length, unsigned flags);
void do_discard(struct trial *t, uint64_t offset, uint64_t length, unsigned flags);
void fill_all(struct trial *t);
void check_extents(struct trial *t, uint64_t offset, uint64_t length, size_t max);

/* ------------------------------------------------------------------ the parts */

typedef void part_function(const struct contract *c, struct disk *d);

part_function part_range, part_content, part_zeroes, part_discard, part_extents, part_threads, part_fibers,
	part_resize;

#endif
