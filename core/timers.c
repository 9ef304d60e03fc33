/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986): a tree in which no child is due before its
 * parent. Adding is constant time, removing O(log n) amortised, and nothing is allocated.
 *
 * `prev` of a first child is its parent, of a later one the sibling before it; it is NULL only for the
 * root.
 */
#include "core/timers.h"

#include <assert.h>
#include <stddef.h>

static bool is_before(const struct timer *a, const struct timer *b)
{
	return a->deadline != b->deadline ? a->deadline < b->deadline : a->order < b->order;
}

/* Joins two trees, either of which may be NULL. */
static struct timer *meld(struct timer *a, struct timer *b)
{
	if (!a || !b)
		return a ? a : b;
	if (is_before(b, a)) {
		struct timer *swap = a;
		a = b;
		b = swap;
	}
	b->next = a->child;
	if (b->next)
		b->next->prev = b;
	b->prev = a;
	a->child = b;
	return a;
}

/* Takes the first tree off a list of siblings. */
static struct timer *take(struct timer **list)
{
	struct timer *t = *list;

	if (t) {
		*list = t->next;
		t->next = t->prev = NULL;
	}
	return t;
}

/* Joins a list of siblings into one tree: in pairs from the left, then all of those from the right. */
static struct timer *meld_siblings(struct timer *list)
{
	struct timer *pairs = NULL, *root = NULL, *t;

	while (list) {
		t = take(&list);
		t = meld(t, take(&list));
		t->next = pairs;
		pairs = t;
	}
	while (pairs) {
		t = take(&pairs);
		root = meld(root, t);
	}
	return root;
}

void timers_add(struct timers *ts, struct timer *t)
{
	assert(!t->armed);
	t->order = ts->order++;
	t->armed = true;
	t->child = t->next = t->prev = NULL;
	ts->root = meld(ts->root, t);
}

void timers_remove(struct timers *ts, struct timer *t)
{
	struct timer *below;

	if (!t->armed)
		return;
	t->armed = false;
	below = meld_siblings(t->child);
	if (t == ts->root) {
		ts->root = below;
		return;
	}
	if (t->prev->child == t)
		t->prev->child = t->next;
	else
		t->prev->next = t->next;
	if (t->next)
		t->next->prev = t->prev;
	ts->root = meld(ts->root, below);
}

void timers_run(struct timers *ts, uint64_t now)
{
	struct timer *t;

	while ((t = ts->root) && t->deadline <= now) {
		timers_remove(ts, t);
		t->fire(t);
	}
}
