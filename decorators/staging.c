/* SPDX-License-Identifier: BSD-3-Clause */
/* A place is its processor's by habit, not by right: every exchange is atomic, so a thread that moves on finds what it finds. */
#include "decorators/staging.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

static struct staging_place *place_here(struct staging *s)
{
	int processor = sched_getcpu();

	return &s->places[processor < 0 ? 0 : (unsigned)processor % STAGING_PLACES];
}

void *staging_take(struct staging *s)
{
	struct staging_place *p = place_here(s);

	for (unsigned i = 0; i < STAGING_SPARE; i++) {
		void *buffer = atomic_load_explicit(&p->spare[i], memory_order_relaxed);
		if (!buffer)
			continue;
		buffer = atomic_exchange_explicit(&p->spare[i], NULL, memory_order_acquire);
		if (buffer)
			return buffer;
	}
	return aligned_alloc(4096, STAGING_BYTES);
}

void staging_give(struct staging *s, void *buffer)
{
	struct staging_place *p = place_here(s);

	for (unsigned i = 0; i < STAGING_SPARE && buffer; i++) {
		void *expected = NULL;
		if (atomic_compare_exchange_strong_explicit(&p->spare[i], &expected, buffer, memory_order_release,
							    memory_order_relaxed))
			return;
	}
	free(buffer);
}

void staging_drop(struct staging *s)
{
	for (unsigned p = 0; p < STAGING_PLACES; p++)
		for (unsigned i = 0; i < STAGING_SPARE; i++)
			free(atomic_exchange(&s->places[p].spare[i], NULL));
}
