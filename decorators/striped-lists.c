/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two walks over the pieces of the request, which are the parts of it that lie in one chunk each: the first counts the entries
 * of each list, the second fills them in. The i-th piece is for list i mod count, as chunks are dealt in turn.
 */
#include "decorators/striped-lists.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

struct pieces {
	const struct stripe_map *map;
	struct vec rest;
	uint64_t offset;
	unsigned next, count; /* lists */
};

static struct pieces pieces_begin(const struct stripe_lists *l, const struct stripe_map *m, const struct vec *v,
				  uint64_t offset)
{
	return (struct pieces){.map = m, .rest = *v, .offset = offset, .count = l->count};
}

/* The next piece, which list it is for and where it begins on the member; false at the end. */
static bool pieces_next(struct pieces *p, struct vec *piece, unsigned *list, uint64_t *offset)
{
	struct stripe_place place;
	size_t size;

	if (!p->rest.size)
		return false;
	place = stripe_place(p->map, p->offset);
	size = p->rest.size < place.left ? p->rest.size : (size_t)place.left;
	*piece = vec_slice(&p->rest, 0, size);
	*list = p->next;
	*offset = place.offset;
	p->rest = vec_slice(&p->rest, size, p->rest.size - size);
	p->offset += size;
	p->next = p->next + 1 < p->count ? p->next + 1 : 0;
	return true;
}

/* How many entries of the caller's the piece touches. */
static size_t count_entries(const struct vec *piece)
{
	size_t end = piece->skip + piece->size, n = 0;

	for (size_t covered = 0; covered < end; n++)
		covered += piece->iov[n].iov_len;
	return n;
}

/* Leaves the number of entries of each list in vec.count; returns that of all. */
static size_t count_all(struct stripe_lists *l, struct pieces p)
{
	struct vec piece;
	uint64_t offset;
	unsigned list;
	size_t sum = 0;

	for (unsigned i = 0; i < l->count; i++)
		l->list[i] = (struct stripe_list){0};
	while (pieces_next(&p, &piece, &list, &offset)) {
		size_t n = count_entries(&piece);
		if (!l->list[list].vec.count)
			l->list[list].offset = offset;
		l->list[list].vec.count += n;
		sum += n;
	}
	return sum;
}

static void fill_all(struct stripe_lists *l, struct iovec *room, struct pieces p)
{
	struct vec piece;
	uint64_t offset;
	unsigned list;

	for (unsigned i = 0; i < l->count; i++) {
		l->list[i].entries = room;
		l->list[i].vec.iov = room;
		room += l->list[i].vec.count;
		l->list[i].vec.count = 0;
	}
	while (pieces_next(&p, &piece, &list, &offset)) {
		struct stripe_list *to = &l->list[list];
		size_t bytes;
		to->vec.count += vec_to_iovec(&piece, to->entries + to->vec.count, SIZE_MAX, &bytes);
		to->vec.size += bytes;
	}
}

/* Room for what does not fit into `l` itself; false when there is no memory. */
static bool get_lists(struct stripe_lists *l)
{
	l->list = l->few;
	if (l->count <= sizeof(l->few) / sizeof(*l->few))
		return true;
	l->list = l->more_lists = reallocarray(NULL, l->count, sizeof(*l->list));
	return l->list;
}

static struct iovec *get_entries(struct stripe_lists *l, size_t count)
{
	if (count <= sizeof(l->short_list) / sizeof(*l->short_list))
		return l->short_list;
	return l->more_entries = reallocarray(NULL, count, sizeof(*l->more_entries));
}

int stripe_lists_make(struct stripe_lists *l, const struct stripe_map *m, const struct vec *v, uint64_t offset)
{
	struct iovec *room;

	l->count = stripe_touched(m, offset, v->size);
	l->more_lists = NULL;
	l->more_entries = NULL;
	if (!get_lists(l))
		return -ENOMEM;
	room = get_entries(l, count_all(l, pieces_begin(l, m, v, offset)));
	if (!room) {
		stripe_lists_free(l);
		return -ENOMEM;
	}
	fill_all(l, room, pieces_begin(l, m, v, offset));
	return 0;
}

void stripe_lists_free(struct stripe_lists *l)
{
	free(l->more_lists);
	free(l->more_entries);
}
