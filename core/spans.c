/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A treap: a search tree by `start` that is a heap by `priority`, which is random, so that it is about as deep as the
 * logarithm of its size. All changes are made of two steps: split at a place, and join of two trees that lie one
 * before the other.
 */
#include "core/spans.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/chance.h"

/* Spans that start before `at`, and the others. */
static void split(struct span *t, uint64_t at, struct span **before, struct span **after)
{
	if (!t) {
		*before = *after = NULL;
	} else if (t->start < at) {
		split(t->right, at, &t->right, after);
		*before = t;
	} else {
		split(t->left, at, before, &t->left);
		*after = t;
	}
}

static struct span *join(struct span *before, struct span *after)
{
	if (!before || !after)
		return before ? before : after;
	if (before->priority > after->priority) {
		before->right = join(before->right, after);
		return before;
	}
	after->left = join(before, after->left);
	return after;
}

static void free_tree(struct span *t)
{
	if (!t)
		return;
	free_tree(t->left);
	free_tree(t->right);
	free(t);
}

void spans_free(struct spans *s)
{
	free_tree(s->root);
	s->root = NULL;
}

static struct span *find(const struct spans *s, uint64_t place)
{
	struct span *best = NULL;

	for (struct span *t = s->root; t;) {
		if (t->end > place)
			best = t;
		t = t->end > place ? t->left : t->right;
	}
	return best;
}

const struct span *spans_find(const struct spans *s, uint64_t place)
{
	return find(s, place);
}

static void insert(struct spans *s, struct span *new, uint64_t start, uint64_t end, const void *what)
{
	struct span *before, *after;

	*new = (struct span){.start = start, .end = end, .what = what, .priority = chance_at(0, 0, s->made++)};
	split(s->root, start, &before, &after);
	s->root = join(join(before, new), after);
}

/* Makes `at` a place where no span goes across. True when that took the spare. */
static bool cut(struct spans *s, uint64_t at, struct span *spare)
{
	struct span *t = find(s, at);
	uint64_t end;

	if (!t || t->start >= at)
		return false;
	end = t->end;
	t->end = at;
	insert(s, spare, at, end, t->what);
	return true;
}

int spans_set(struct spans *s, uint64_t start, uint64_t end, const void *what)
{
	struct span *new = malloc(sizeof(*new)), *first = malloc(sizeof(*first)), *second = malloc(sizeof(*second));
	struct span *before, *middle, *after;

	if (!new || !first || !second) {
		free(new);
		free(first);
		free(second);
		return -ENOMEM;
	}
	if (!cut(s, start, first))
		free(first);
	if (!cut(s, end, second))
		free(second);
	split(s->root, start, &before, &middle);
	split(middle, end, &middle, &after);
	free_tree(middle);
	s->root = join(before, after);
	insert(s, new, start, end, what);
	return 0;
}

/* The tree without the spans of `what`. */
static struct span *without(struct span *t, const void *what)
{
	struct span *left, *right;

	if (!t)
		return NULL;
	left = without(t->left, what);
	right = without(t->right, what);
	if (t->what == what) {
		free(t);
		return join(left, right);
	}
	t->left = left;
	t->right = right;
	return t;
}

void spans_clear(struct spans *s, uint64_t start, uint64_t end, const void *what)
{
	struct span *before, *middle, *after;

	split(s->root, start, &before, &middle);
	split(middle, end, &middle, &after);
	s->root = join(join(before, without(middle, what)), after);
}
