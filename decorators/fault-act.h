/* SPDX-License-Identifier: BSD-3-Clause */
/* What becomes of a request to a disk that fails: it goes on, whole, in part, wrong, elsewhere, late, or not at all. */
#ifndef PLATTER_DECORATORS_FAULT_ACT_H
#define PLATTER_DECORATORS_FAULT_ACT_H

#include "core/disk.h"
#include "decorators/fault-cache.h"
#include "decorators/fault-rules.h"

/* Where requests go. */
struct fault_way {
	struct disk *below;
	struct fault_cache *cache; /* over it; NULL: none */
};

struct fault_request {
	enum fault_op op;
	const struct vec *v; /* of reads and writes */
	uint64_t offset, length;
	const struct io *io;
};

/* A strike, and where its random numbers come from. */
struct fault_blow {
	struct fault_strike strike;
	uint64_t seed;
};

/* Goes on as if nothing were. */
int fault_pass(const struct fault_way *w, const struct fault_request *r);

/* Fails with the rule's status. */
int fault_fail(const struct fault_way *w, const struct fault_request *r, const struct fault_blow *b);

/* Does to the request what the rule says, but for power cuts. Answers as the operation does. */
int fault_act(const struct fault_way *w, const struct fault_request *r, const struct fault_blow *b);

#endif
