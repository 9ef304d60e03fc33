/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where a leaf has the memory of its pages
 *
 *     pool     each page has one from the pool, anywhere; its entry says where; all leaves begin so
 *
 *     window   page i is the i-th of the leaf's window, 2 MiB of address space that take memory where touched
 *
 *     flat     a window whose pages are all full: a byte is found without an entry, a transfer is one copy
 *
 * In a large disk an entry is as far away as the page itself and has to be there first, so a flat leaf
 * answers in two thirds of the time. But a window takes a page of page tables however little it holds, which
 * is much for a few pages. So a leaf that is written in order, or LEAF_OWN pages at once, moves into a window
 * when it has SHARE_OF_ONE pages, and before if there are no more windows than one for each SHARE_OF_ALL
 * pages in the store, which is nearly from the beginning. One whose pages come one by one in any order stays
 * in the pool: to give the copied ones back, each by itself, would take longer than to store them did.
 *
 * Pages of a window that are freed keep their memory while there are few of them in all. Then it is given
 * back; or the leaf moves back to the pool, if it has few pages left. So does one that was written many pages at
 * once of which nearly all were zeroes.
 *
 * A leaf's memory is all in the pool or all in its window. Where no window is to be had, a leaf stays as it
 * is.
 *
 * Huge pages are forbidden: one that is touched once takes 2 MiB. Access to them is faster by a fifth at
 * best, and slower by half and more in a virtual machine that shadows page tables, since that has to look up
 * every 4 KiB of them on its own.
 */
#include "layers/leaf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SHARE_OF_ONE 160u
#define SHARE_OF_ALL 400u
#define MISSING 64u
#define FEW (SHARE_OF_ONE / 2u) /* pages with which a leaf may go back to the pool */
#define FREED_MAX 128u          /* pages that may be kept on top of the share, for small disks */

static uint64_t count_of(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void count(_Atomic uint64_t *counter, int64_t by)
{
	atomic_fetch_add_explicit(counter, (uint64_t)by, memory_order_relaxed);
}

static unsigned slack_of(const struct leaf *f)
{
	return f->window ? (unsigned)f->resident - f->stored : 0;
}

/* ------------------------------------------------------------------ the table of entries */

/* Moves the entries into a table of that capacity. */
static int table_grow(struct leaf_store *s, struct leaf *f, unsigned capacity)
{
	bool own = f->entries == f->own;
	uint64_t *entries;

	if (capacity > LEAF_PAGES)
		capacity = LEAF_PAGES;
	entries = reallocarray(own ? NULL : f->entries, capacity, sizeof(*entries));
	if (!entries)
		return -ENOSPC;
	if (own)
		memcpy(entries, f->own, sizeof(f->own));
	count(&s->nr_entries, (int64_t)capacity - (own ? 0 : f->capacity));
	f->entries = entries;
	f->capacity = (uint16_t)capacity;
	return 0;
}

int leaf_reserve(struct leaf_store *s, struct leaf *f)
{
	return f->count < f->capacity ? 0 : table_grow(s, f, f->capacity + f->capacity / 4u + 4);
}

static void mark(struct leaf *f, unsigned page, bool present)
{
	f->has_entry[page / 64] ^= UINT64_C(1) << page % 64;
	for (unsigned w = page / 64 + 1; w < LEAF_WORDS; w++)
		f->before[w] = (uint16_t)(f->before[w] + (present ? 1 : -1));
}

/* Adds the entry of a page that has none; there is room. */
static void insert(struct leaf *f, unsigned page, uint64_t entry)
{
	unsigned at = leaf_rank(f, page);

	memmove(f->entries + at + 1, f->entries + at, (f->count - at) * sizeof(*f->entries));
	f->entries[at] = entry;
	f->count++;
	mark(f, page, true);
}

static void take_out(struct leaf *f, unsigned page)
{
	unsigned at = leaf_rank(f, page);

	f->count--;
	memmove(f->entries + at, f->entries + at + 1, (f->count - at) * sizeof(*f->entries));
	mark(f, page, false);
}

/* Sets bits of the pages that have memory; `each`, if there is one, is called for them. */
static void walk_stored(struct leaf *f, uint64_t stored[LEAF_WORDS],
			void (*each)(void *context, unsigned page, uint64_t *entry), void *context)
{
	uint64_t *entry = f->entries;

	for (unsigned w = 0; w < LEAF_WORDS; w++) {
		stored[w] = 0;
		for (uint64_t left = f->has_entry[w]; left; left &= left - 1, entry++) {
			unsigned bit = (unsigned)__builtin_ctzll(left);
			if (!entry_page(*entry))
				continue;
			stored[w] |= UINT64_C(1) << bit;
			if (each)
				each(context, w * 64 + bit, entry);
		}
	}
}

/* ------------------------------------------------------------------ windows */

static char *window_page(const struct leaf *f, unsigned page)
{
	return f->window + (size_t)page * PAGE_BYTES;
}

static void end_window(struct leaf_store *s, struct leaf *f)
{
	window_destroy(f->window);
	f->window = f->flat = NULL;
	f->resident = 0;
	count(&s->nr_windows, -1);
}

struct moving {
	struct leaf_store *store;
	struct leaf *leaf;
	void **pages; /* of the pool, to move to */
};

static void move_to(uint64_t *entry, void *memory)
{
	memcpy(memory, entry_page(*entry), PAGE_BYTES);
	*entry = entry_make(memory, entry_data(*entry), entry_zero(*entry));
}

static void move_to_window(void *context, unsigned page, uint64_t *entry)
{
	const struct moving *m = context;
	void *memory = entry_page(*entry);

	move_to(entry, window_page(m->leaf, page));
	page_free(m->store->pool, memory);
}

static void move_to_pool(void *context, unsigned page, uint64_t *entry)
{
	struct moving *m = context;

	(void)page;
	move_to(entry, *m->pages++);
}

/* Moves into a window, if there is one to be had. */
static void enter_window(struct leaf_store *s, struct leaf *f)
{
	struct moving m = {.store = s, .leaf = f};
	uint64_t stored[LEAF_WORDS];

	if (f->entries == f->own && table_grow(s, f, 2 * LEAF_OWN))
		return;
	f->window = window_create();
	if (!f->window)
		return;
	walk_stored(f, stored, move_to_window, &m);
	memcpy(f->has_memory, stored, sizeof(stored));
	f->resident = f->stored;
	count(&s->nr_windows, 1);
}

/* Back to the pool; false when that has no memory. */
static bool leave_window(struct leaf_store *s, struct leaf *f)
{
	uint64_t stored[LEAF_WORDS];
	void *pages[FEW];
	struct moving m = {.pages = pages};
	unsigned n = 0;

	while (n < f->stored && (pages[n] = page_alloc(s->pool)))
		n++;
	if (n < f->stored) {
		while (n)
			page_free(s->pool, pages[--n]);
		return false;
	}
	walk_stored(f, stored, move_to_pool, &m);
	end_window(s, f);
	return true;
}

/* Gives back the memory of pages that are not in use, a system call for each run of them. */
static void trim_window(struct leaf *f)
{
	uint64_t stored[LEAF_WORDS];

	walk_stored(f, stored, NULL, NULL);
	for (unsigned page = 0, end; page < LEAF_PAGES; page = end + 1) {
		for (end = page; end < LEAF_PAGES; end++)
			if (!((f->has_memory[end / 64] & ~stored[end / 64]) >> end % 64 & 1))
				break;
		if (end > page)
			window_give_back(f->window, page, end - page);
	}
	memcpy(f->has_memory, stored, sizeof(stored));
	f->resident = f->stored;
}

/* The highest page with an entry; there is one. */
static unsigned last_page(const struct leaf *f)
{
	unsigned w = LEAF_WORDS - 1;

	while (!f->has_entry[w])
		w--;
	return w * 64 + 63 - (unsigned)__builtin_clzll(f->has_entry[w]);
}

/* With some pages missing, as when several requests are under way. In the second half it is too late. */
static bool written_in_order(const struct leaf *f, unsigned page)
{
	unsigned limit = f->count + MISSING;

	return f->count >= LEAF_OWN && limit < LEAF_PAGES / 2 && page < limit && last_page(f) < limit;
}

/* A page that has none is about to get memory: time for a window? */
static bool wants_window(const struct leaf_store *s, const struct leaf *f, unsigned page)
{
	uint64_t soon = f->stored + f->coming;

	if (f->coming < LEAF_OWN && !written_in_order(f, page))
		return false;
	return soon >= SHARE_OF_ONE ||
	       count_of(&s->nr_windows) < (count_of(&s->nr_stored) + f->coming) / SHARE_OF_ALL;
}

void *leaf_page_alloc(struct leaf_store *s, struct leaf *f, unsigned page)
{
	uint64_t bit = UINT64_C(1) << page % 64;

	if (!f->window && f->coming && wants_window(s, f, page))
		enter_window(s, f);
	f->coming = 0; /* asked once a write */
	if (!leaf_has(f, page) && leaf_reserve(s, f))
		return NULL;
	if (!f->window)
		return page_alloc(s->pool);
	if (!(f->has_memory[page / 64] & bit)) {
		f->has_memory[page / 64] |= bit;
		f->resident++;
	}
	return window_page(f, page);
}

/* ------------------------------------------------------------------ changing */

struct leaf *leaf_create(enum presence background)
{
	struct leaf *f = aligned_alloc(64, sizeof(*f));

	if (f) {
		*f = (struct leaf){0};
		f->background = (uint8_t)background;
		f->entries = f->own;
		f->capacity = LEAF_OWN;
	}
	return f;
}

void leaf_destroy(struct leaf *f)
{
	if (f->entries != f->own)
		free(f->entries);
	if (f->window)
		window_destroy(f->window);
	free(f);
}

/* No entries, nor anything that was allocated for them. */
static void become_empty(struct leaf_store *s, struct leaf *f)
{
	if (f->window)
		end_window(s, f);
	if (f->entries != f->own) {
		count(&s->nr_entries, -(int64_t)f->capacity);
		free(f->entries);
	}
	f->entries = f->own;
	f->capacity = LEAF_OWN;
	f->count = 0;
}

static void recount(struct leaf *f, uint64_t was, uint64_t is)
{
	f->stored = (uint16_t)(f->stored + !!entry_page(is) - !!entry_page(was));
	f->full = (uint16_t)(f->full + (entry_data(is) == 0xff) - (entry_data(was) == 0xff));
	f->flat = f->full == LEAF_PAGES ? f->window : NULL;
}

void leaf_set(struct leaf_store *s, struct leaf *f, unsigned page, uint64_t entry)
{
	uint64_t was = leaf_entry(f, page);
	bool plain = entry == background_entry(f), had = leaf_has(f, page);

	recount(f, was, entry);
	if (entry_page(was) && !entry_page(entry) && !f->window)
		page_free(s->pool, entry_page(was));
	if (had && !plain)
		f->entries[leaf_rank(f, page)] = entry;
	else if (had)
		take_out(f, page);
	else if (!plain)
		insert(f, page, entry);
	if (!f->count)
		become_empty(s, f);
}

static void free_page(void *context, unsigned page, uint64_t *entry)
{
	const struct moving *m = context;

	(void)page;
	page_free(m->store->pool, entry_page(*entry));
}

void leaf_clear(struct leaf_store *s, struct leaf *f, enum presence background)
{
	struct moving m = {.store = s};
	uint64_t stored[LEAF_WORDS];

	if (!f->window)
		walk_stored(f, stored, free_page, &m);
	become_empty(s, f);
	f->stored = f->full = 0;
	f->background = (uint8_t)background;
	memset(f->before, 0, sizeof(f->before));
	memset(f->has_entry, 0, sizeof(f->has_entry));
}

/* After pages of the window were freed: do they have to be given back? */
static bool too_much_freed(const struct leaf_store *s, const struct leaf *f)
{
	uint64_t stored = count_of(&s->nr_stored) + f->stored - f->told_stored;
	uint64_t overhead = count_of(&s->nr_windows) + count_of(&s->nr_slack) + slack_of(f) - f->told_slack;

	return slack_of(f) > f->told_slack && overhead > stored / SHARE_OF_ONE + FREED_MAX;
}

/* Few pages in a window, and more windows than the store pays for. */
static bool is_too_thin(const struct leaf_store *s, const struct leaf *f)
{
	uint64_t stored = count_of(&s->nr_stored) + f->stored - f->told_stored;

	return f->window && f->stored < FEW && count_of(&s->nr_windows) > stored / SHARE_OF_ALL;
}

void leaf_settle_slowly(struct leaf_store *s, struct leaf *f)
{
	if (is_too_thin(s, f))
		leave_window(s, f);
	if (too_much_freed(s, f) && (f->stored > FEW || !leave_window(s, f)))
		trim_window(f);
	count(&s->nr_stored, (int64_t)f->stored - f->told_stored);
	count(&s->nr_slack, (int64_t)slack_of(f) - f->told_slack);
	f->told_stored = f->stored;
	f->told_slack = (uint16_t)slack_of(f);
}
