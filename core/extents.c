/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/extents.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

void extents_init(struct extents *e, uint64_t offset, uint64_t length, size_t max)
{
	*e = (struct extents){.offset = offset, .end = offset + length, .max = max};
}

void extents_free(struct extents *e)
{
	free(e->list);
	e->list = NULL;
	e->count = e->capacity = 0;
}

uint64_t extents_next(const struct extents *e)
{
	const struct extent *last;

	if (!e->count)
		return e->offset;
	last = &e->list[e->count - 1];
	return last->offset + last->length;
}

static bool grow(struct extents *e)
{
	size_t capacity = e->capacity ? e->capacity * 2 : 8;
	struct extent *list = reallocarray(e->list, capacity, sizeof(*list));

	if (!list) {
		e->status = -ENOMEM;
		return false;
	}
	e->list = list;
	e->capacity = capacity;
	return true;
}

bool extents_add(struct extents *e, uint64_t length, unsigned flags)
{
	uint64_t offset = extents_next(e);
	struct extent *last = e->count ? &e->list[e->count - 1] : NULL;

	if (length > e->end - offset)
		length = e->end - offset;
	if (last && last->flags == flags) {
		last->length += length;
	} else if (length) {
		if (e->count == e->max || (e->count == e->capacity && !grow(e)))
			return false;
		e->list[e->count++] = (struct extent){offset, length, flags};
	}
	return offset + length < e->end;
}
