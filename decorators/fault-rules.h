/* SPDX-License-Identifier: BSD-3-Clause */
/* Rules by which requests fail: a little language, what it says, and which request a rule strikes. No I/O. */
#ifndef PLATTER_DECORATORS_FAULT_RULES_H
#define PLATTER_DECORATORS_FAULT_RULES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/io.h"

enum fault_op { FAULT_READ, FAULT_WRITE, FAULT_FLUSH, FAULT_DISCARD, FAULT_ZEROES, FAULT_OPS };

/* "read", "write", "flush", "discard", "zeroes". */
extern const char *const fault_op_names[FAULT_OPS];

/* What becomes of a request that was struck. */
enum fault_act {
	FAULT_ERROR,    /* it fails with `status` */
	FAULT_TORN,     /* a part of it is done, and it fails */
	FAULT_DROP,     /* nothing is done, and it succeeds */
	FAULT_CORRUPT,  /* some bits are wrong, and it succeeds */
	FAULT_MISPLACE, /* it is done at another place, and it succeeds */
	FAULT_STALL,    /* it takes long */
	FAULT_CUT,      /* the power fails while it is under way, and stays off */
	FAULT_RESET,    /* the power fails, and is back at once */
};

struct fault_rule {
	char *text; /* as it was written */
	unsigned ops; /* bit (1 << enum fault_op) */
	enum fault_act act;
	int status;
	int medium;        /* with -ENODATA: enum medium_error, or -1: what suits the operation */
	uint64_t at, end;  /* only what touches [at, end) bytes */
	bool ranged;       /* they were given: no flush touches them */
	uint64_t after;    /* so many are let through first */
	uint64_t every;    /* then only each so manyth; 0: each */
	uint64_t times;    /* strikes at most so often; 0: without end */
	uint64_t rate;     /* of 2^64 requests so many, by chance; UINT64_MAX: all */
	uint64_t time_ns;  /* stall */
	uint64_t bits;     /* corrupt: so many are flipped */
	bool heal;         /* blocks of the range are bad until they are written to */
	bool late;         /* error: the request is done all the same */
	bool quiet;        /* torn: it succeeds all the same */
	bool scatter;      /* torn: any part is done, not the first one */

	_Atomic uint64_t matched, struck;
	_Atomic uint64_t *healed; /* a bit for each 512 bytes of the range; NULL without `heal` */
};

struct fault_rules {
	struct fault_rule *list;
	unsigned count;
	unsigned ops; /* of all rules */
};

#define FAULT_RULES_MAX 1024u

/* "heal" holds a bit for each 512 bytes, so its range is no longer. */
#define FAULT_HEAL_MAX (UINT64_C(1) << 40)

/*
 * Parses rules; NULL or "" is none. On failure `out` is empty, and `err` says at which character (from 1) what was
 * expected. -EINVAL, -ENOMEM.
 */
int fault_rules_parse(const char *text, struct fault_rules *out, struct error *err);

void fault_rules_free(struct fault_rules *rules);

/* A request that was struck: by which rule, as which of those that it looked at (from 0), and where. */
struct fault_strike {
	const struct fault_rule *rule;
	unsigned number; /* of the rule, from 1 */
	uint64_t nth;
	uint64_t where; /* the first byte of the request that is in the rule's range */
};

/*
 * Asks the rules in their order about a request, which counts in each that is asked; the first that strikes ends it.
 * A flush has offset and length 0. Any thread.
 */
bool fault_rules_ask(const struct fault_rules *rules, enum fault_op op, uint64_t offset, uint64_t length, uint64_t seed,
		     struct fault_strike *out);

/* The range was written to: blocks in it that were bad are good. Any thread. */
void fault_rules_heal(const struct fault_rules *rules, uint64_t offset, uint64_t length);

/* Random number `which` of a strike: the same for the same seed, rule and nth request. */
uint64_t fault_strike_draw(const struct fault_strike *s, uint64_t seed, uint64_t which);

/*
 * Fails the request as the rule says, and says which rule it was. `block_size` is for naming the block of a medium
 * error.
 */
int fault_strike_fail(const struct fault_strike *s, enum fault_op op, uint32_t block_size, const struct io *io);

#endif
