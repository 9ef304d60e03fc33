/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The RAM layer: a radix tree of blocks in memory
 *
 * Space is cut into pages of 4 KiB, 512 of them to a leaf (2 MiB). A tree of nodes with 64 slots leads to the
 * leaves. There is not one tree but one for each power of 64 leaves, as large as that: the tree of level k
 * holds the leaves whose number needs k digits to the base of 64. So a small disk has short ways, a disk of 8
 * EiB costs nothing, and growing moves nothing.
 *
 *     slot      0        everything below it is absent
 *               1        everything below it is zero
 *               pointer  a node, or at the last level a leaf
 *     leaf      entries of those pages that differ from `background` (absent or zero), in order, found by a
 * bit map with the number of bits before each word. A few have room in the leaf itself, where they are found
 *               without one more cache miss; in a deep stack most leaves have few. A leaf that is full of
 * data needs no entries to be read or written if its pages lie in order (leaf.c) entry     the address of the
 * page's memory (0: none) and two bits for each of its eight 512-byte sectors: data, zero; neither is absent
 *
 * Invariants
 *   a slot goes from 0 or 1 to a pointer, or between 0 and 1, by compare-and-swap; a pointer stays until the
 * layer is closed. So ways are walked without a lock, and nodes are never freed under a reader. a leaf's lock
 * protects everything in the leaf and the bytes of its pages: shared to read, exclusive to change. Only
 *     memory is copied, mapped and given back under it. No two leaf locks are held at once; the page pool's
 * locks are taken under it. a page has memory exactly when one of its sectors is data; an entry without
 * either bit and memory is taken out. in the bottom layer nothing is recorded as zero: absent is as good and
 * takes no space. `size` is lowered before what lies beyond is dropped, and writers check it under the leaf's
 * lock: nothing is left beyond the end for a later growth to show.
 *
 * A write that is all zero within a page is recorded as zero (map speaks of whole blocks all the same);
 * within a page that has memory, zero sectors written together with others are data, so that runs do not
 * break into sectors.
 *
 * Memory over the bytes stored: 8 bytes an entry, a quarter of a KiB a leaf, and one page in 512 in the page
 * pool or, of page tables, for a leaf with a window.
 */
#include "layers/layer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/hot.h"
#include "layers/leaf.h"

#define CACHE_LINE 64u
#define NODE_SHIFT 6
#define NODE_SLOTS (1u << NODE_SHIFT)
#define LEVELS 7u /* 64 to the 7th leaves are 2^63 bytes */

#define SLOT_ABSENT ((uintptr_t)LAYER_ABSENT)
#define SLOT_ZERO ((uintptr_t)LAYER_ZERO)

_Static_assert(LAYER_ABSENT == 0 && LAYER_ZERO == 1, "slots without a pointer are presences");
struct node {
	_Atomic uintptr_t slots[NODE_SLOTS];
};

struct ram {
	struct layer layer;
	_Atomic uintptr_t roots[LEVELS];
	_Atomic uint64_t size;
	struct leaf_store store;
	_Atomic uint64_t nr_nodes, nr_leaves; /* allocated, for ram_layer_usage() */
};

static struct ram *ram_of(struct layer *l)
{
	return (struct ram *)l;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ------------------------------------------------------------------ the way to a leaf */

/* How many digits to the base of 64 the leaf's number has, at least 1: its tree is roots[that - 1]. */
static inline unsigned level_of(uint64_t leaf_number)
{
	return (63 - (unsigned)__builtin_clzll(leaf_number | 1)) / NODE_SHIFT + 1;
}

/*
 * Walks to the leaf with this number as far as the way goes. Returns the slot's value; *shift: it stands for
 * 1 << *shift leaves.
 */
HOT static uintptr_t find_slot(struct ram *r, uint64_t leaf_number, unsigned *shift)
{
	unsigned level = level_of(leaf_number);
	uintptr_t value = atomic_load_explicit(&r->roots[level - 1], memory_order_acquire);

	*shift = level * NODE_SHIFT;
	while (value > SLOT_ZERO && *shift) {
		struct node *n = (struct node *)value;
		*shift -= NODE_SHIFT;
		value = atomic_load_explicit(&n->slots[leaf_number >> *shift & (NODE_SLOTS - 1)],
					     memory_order_acquire);
	}
	return value;
}

static uintptr_t new_leaf(struct ram *r, uintptr_t background)
{
	struct leaf *f = leaf_create((enum presence)background);

	if (f)
		atomic_fetch_add_explicit(&r->nr_leaves, 1, memory_order_relaxed);
	return (uintptr_t)f;
}

static uintptr_t new_node(struct ram *r, uintptr_t background)
{
	struct node *n = malloc(sizeof(*n));

	if (!n)
		return 0;
	for (unsigned i = 0; i < NODE_SLOTS; i++)
		atomic_init(&n->slots[i], background);
	atomic_fetch_add_explicit(&r->nr_nodes, 1, memory_order_relaxed);
	return (uintptr_t)n;
}

static void undo_new(struct ram *r, uintptr_t value, bool is_leaf)
{
	atomic_fetch_sub_explicit(is_leaf ? &r->nr_leaves : &r->nr_nodes, 1, memory_order_relaxed);
	free((void *)value); /* a new leaf holds nothing */
}

/*
 * The node or leaf behind a slot, made if there is none yet; what it stood for becomes its background. 0: no memory.
 * Sequentially consistent, for the size check (see the invariants).
 */
HOT static uintptr_t slot_enter(struct ram *r, _Atomic uintptr_t *slot, bool is_leaf)
{
	uintptr_t value = atomic_load(slot);

	while (value <= SLOT_ZERO) {
		uintptr_t fresh = is_leaf ? new_leaf(r, value) : new_node(r, value);
		if (!fresh)
			return 0;
		if (atomic_compare_exchange_strong(slot, &value, fresh))
			return fresh;
		undo_new(r, fresh, is_leaf);
	}
	return value;
}

static struct leaf *find_or_make_leaf(struct ram *r, uint64_t leaf_number)
{
	unsigned level = level_of(leaf_number), shift = level * NODE_SHIFT;
	uintptr_t value = slot_enter(r, &r->roots[level - 1], false);

	while (value && shift) {
		struct node *n = (struct node *)value;
		shift -= NODE_SHIFT;
		value = slot_enter(r, &n->slots[leaf_number >> shift & (NODE_SLOTS - 1)], !shift);
	}
	return (struct leaf *)value;
}

/* ------------------------------------------------------------------ reading */

/* A run being found: [offset, offset + length so far), of one presence. */
struct scan {
	const struct vec *v; /* NULL: only the presence is wanted */
	uint64_t offset, end;
	uint64_t position;
	enum presence presence;
	bool started;
};

/* Takes `length` bytes of one presence into the run; false when the run ends before them. */
HOT static bool scan_take(struct scan *s, enum presence presence, uint64_t length, const void *data)
{
	if (s->started && presence != s->presence)
		return false;
	s->started = true;
	s->presence = presence;
	length = min64(length, s->end - s->position);
	if (presence == LAYER_DATA && s->v)
		vec_scatter(s->v, s->position - s->offset, data, length);
	s->position += length;
	return s->position < s->end;
}

/* The end of the run of sectors like `sector`. */
static unsigned sector_run(uint64_t entry, unsigned sector)
{
	enum presence presence = entry_presence(entry, sector);

	do
		sector++;
	while (sector < 8 && entry_presence(entry, sector) == presence);
	return sector;
}

/* A page that is not all data. */
static bool scan_page(struct scan *s, uint64_t entry)
{
	unsigned at = s->position & (PAGE_BYTES - 1);
	const char *page = entry_page(entry);
	bool more = true;

	while (more && at < PAGE_BYTES) {
		unsigned sector = at >> SECTOR_SHIFT;
		unsigned end = sector_run(entry, sector) << SECTOR_SHIFT;
		more = scan_take(s, entry_presence(entry, sector), end - at, page ? page + at : NULL);
		at = end;
	}
	return more;
}

/* How many pages from `page` on have no entry. */
static unsigned bare_pages(const struct leaf *f, unsigned page)
{
	unsigned begin = page;

	while (page < LEAF_PAGES) {
		uint64_t has = f->has_entry[page / 64] >> page % 64;
		if (has)
			return page + (unsigned)__builtin_ctzll(has) - begin;
		page = (page / 64 + 1) * 64;
	}
	return LEAF_PAGES - begin;
}

/* How many pages from `page` on, whose entries begin at `entry`, are full and lie one behind the other in
 * memory. */
static unsigned full_pages(const struct scan *s, const struct leaf *f, unsigned page, const uint64_t *entry)
{
	uint64_t wanted = s->end - (s->position & ~(uint64_t)(PAGE_BYTES - 1));
	unsigned n = 0;

	if (entry_data(*entry) != 0xff)
		return 0;
	do
		n++;
	while ((uint64_t)n * PAGE_BYTES < wanted && page + n < LEAF_PAGES && leaf_has(f, page + n) &&
	       entry[n] == entry[0] + ((uint64_t)n << 16));
	return n;
}

/* Pages from `page` on that have entries, up to the first that has none. Returns where that is. */
static unsigned scan_entries(struct scan *s, const struct leaf *f, unsigned page, bool *more)
{
	const uint64_t *entry = &f->entries[leaf_rank(f, page)];

	do {
		unsigned at = s->position & (PAGE_BYTES - 1), n = full_pages(s, f, page, entry);
		if (n)
			*more = scan_take(s, LAYER_DATA, (uint64_t)n * PAGE_BYTES - at,
					  (char *)entry_page(*entry) + at);
		else
			*more = scan_page(s, *entry);
		n += !n;
		entry += n;
		page += n;
	} while (*more && page < LEAF_PAGES && leaf_has(f, page));
	return page;
}

static bool scan_leaf(struct scan *s, const struct leaf *f)
{
	unsigned page = s->position >> PAGE_SHIFT & (LEAF_PAGES - 1);
	uint64_t at = s->position & (LEAF_BYTES - 1);
	bool more = true;

	if (f->flat)
		return scan_take(s, LAYER_DATA, LEAF_BYTES - at, f->flat + at);
	while (more && page < LEAF_PAGES) {
		unsigned bare = bare_pages(f, page);
		uint64_t inside = s->position & (PAGE_BYTES - 1);
		if (bare) {
			more = scan_take(s, f->background, (uint64_t)bare * PAGE_BYTES - inside, NULL);
			page += bare;
		} else {
			page = scan_entries(s, f, page, &more);
		}
	}
	return more;
}

/* Finds, and with `v` copies, the first run of [offset, offset + length). */
HOT static void scan_run(struct ram *r, const struct vec *v, uint64_t offset, uint64_t length,
			 struct layer_run *run)
{
	struct scan s = {.v = v, .offset = offset, .end = offset + length, .position = offset};
	bool more = true;

	while (more) {
		unsigned shift;
		uint64_t number = s.position >> LEAF_SHIFT;
		uintptr_t value = find_slot(r, number, &shift);
		if (value > SLOT_ZERO) {
			struct leaf *f = (struct leaf *)value;
			__builtin_prefetch(f->has_entry); /* while the line with the lock comes */
			__builtin_prefetch(f->own);
			__builtin_prefetch(f->own + 8);
			short_lock_shared(&f->lock);
			more = scan_leaf(&s, f);
			short_unlock_shared(&f->lock);
		} else {
			uint64_t end = ((number >> shift) + 1) << shift << LEAF_SHIFT;
			more = scan_take(&s, (enum presence)value, end - s.position, NULL);
		}
	}
	*run = (struct layer_run){.presence = s.presence, .length = s.position - offset};
}

HOT static int ram_read(struct layer *l, const struct vec *v, uint64_t offset, struct layer_run *run,
			const struct io *io)
{
	(void)io;
	scan_run(ram_of(l), v, offset, v->size, run);
	return 0;
}

/* Pages of zeroes are found inside of larger blocks, too; a block that is in part data is data. */
static void keep_to_blocks(struct layer_run *run, uint32_t block)
{
	uint64_t rest = run->length % block;

	if (!rest)
		return;
	if (run->presence == LAYER_DATA || run->length < block) {
		run->presence = LAYER_DATA;
		run->length += block - rest;
	} else {
		run->length -= rest;
	}
}

static int ram_map(struct layer *l, uint64_t offset, uint64_t length, struct layer_run *run,
		   const struct io *io)
{
	(void)io;
	scan_run(ram_of(l), NULL, offset, length, run);
	keep_to_blocks(run, l->info.block_size);
	return 0;
}

/* ------------------------------------------------------------------ asking for what will be read */

/* In whole lines, up to the page's end. */
static void prefetch_page(const char *memory, uint64_t offset, uint64_t length)
{
	uint64_t inside = offset & (PAGE_BYTES - 1), end = min64(inside + length, PAGE_BYTES);

	for (; inside < end; inside += CACHE_LINE)
		__builtin_prefetch(memory + inside);
}

/*
 * In a large disk the entry is as far away as the page, and is not known before the leaf is: three misses, one behind the other. Leaves are
 * few and mostly near. One that somebody changes is left alone. What was looked up may be freed by then, which does no harm to who merely
 * names an address.
 */
static void ram_warm(struct layer *l, uint64_t offset, uint64_t length, enum warm what)
{
	unsigned shift, page = offset >> PAGE_SHIFT & (LEAF_PAGES - 1);
	uintptr_t value = find_slot(ram_of(l), offset >> LEAF_SHIFT, &shift);
	struct leaf *f = (struct leaf *)value;
	const uint64_t *entry = NULL;
	const char *memory = NULL;

	if (value <= SLOT_ZERO || !short_lock_try_shared(&f->lock))
		return;
	if (f->flat) {
		memory = what == WARM_DATA ? f->flat + (size_t)page * PAGE_BYTES : NULL;
	} else if (leaf_has(f, page)) {
		entry = &f->entries[leaf_rank(f, page)];
		memory = what == WARM_DATA ? entry_page(*entry) : NULL;
	}
	short_unlock_shared(&f->lock);
	if (what == WARM_WAY)
		__builtin_prefetch(entry);
	else if (memory)
		prefetch_page(memory, offset, length);
}

/* ------------------------------------------------------------------ writing */

/* Bits of the sectors of [begin, end) of a page. */
static uint8_t sector_bits(unsigned begin, unsigned end)
{
	unsigned first = begin >> SECTOR_SHIFT, last = end >> SECTOR_SHIFT;

	return (uint8_t)((1u << last) - (1u << first));
}

/* The sectors in `bits` become zero (or absent, which is as good in the bottom layer). */
static int page_clear(struct ram *r, struct leaf *f, unsigned page, uint8_t bits, bool forget)
{
	uint64_t entry = leaf_entry(f, page);
	uint8_t data = entry_data(entry) & (uint8_t)~bits;
	uint8_t zero = forget ? entry_zero(entry) & (uint8_t)~bits : entry_zero(entry) | bits;
	uint64_t now = entry_make(data ? entry_page(entry) : NULL, data, zero);

	if (now != background_entry(f) && !leaf_has(f, page) && leaf_reserve(&r->store, f))
		return -ENOSPC;
	leaf_set(&r->store, f, page, now);
	return 0;
}

/* Writes the part of `v` from byte `from` that lies in [begin, end) of the page. */
HOT static int page_write(struct ram *r, struct leaf *f, unsigned page, unsigned begin, unsigned end,
			  const struct vec *v, size_t from)
{
	uint64_t entry = leaf_entry(f, page);
	uint8_t bits = sector_bits(begin, end);
	char *memory;

	if (vec_is_zero(v, from, end - begin))
		return page_clear(r, f, page, bits, r->layer.bottom);
	memory = entry_page(entry);
	if (!memory)
		memory = leaf_page_alloc(&r->store, f, page);
	if (!memory)
		return -ENOSPC;
	vec_gather(v, from, memory + begin, end - begin);
	if ((entry_data(entry) & bits) != bits)
		leaf_set(&r->store, f, page,
			 entry_make(memory, entry_data(entry) | bits, entry_zero(entry) & (uint8_t)~bits));
	return 0;
}

/* As page_write for those sectors only that are absent. */
static int page_fill(struct ram *r, struct leaf *f, unsigned page, unsigned begin, unsigned end,
		     const struct vec *v, size_t from)
{
	int status = 0;

	while (begin < end && !status) {
		uint64_t entry = leaf_entry(f, page);
		unsigned sector = begin >> SECTOR_SHIFT;
		unsigned stop = sector_run(entry, sector) << SECTOR_SHIFT;
		if (stop > end)
			stop = end;
		if (entry_presence(entry, sector) == LAYER_ABSENT)
			status = page_write(r, f, page, begin, stop, v, from);
		from += stop - begin;
		begin = stop;
	}
	return status;
}

typedef int page_function(struct ram *r, struct leaf *f, unsigned page, unsigned begin,
			  unsigned end, const struct vec *v, size_t from);

/* Writes to a flat leaf up to a page of zeroes, which has to be recorded. Returns the bytes that are done. */
HOT static uint64_t flat_write(const struct leaf *f, const struct vec *v, size_t from, uint64_t offset,
			       uint64_t length)
{
	uint64_t done = 0;

	while (done < length) {
		uint64_t n = min64(PAGE_BYTES - ((offset + done) & (PAGE_BYTES - 1)), length - done);
		if (vec_is_zero(v, from + done, n))
			break;
		done += n;
	}
	if (done)
		vec_gather(v, from, f->flat + (offset & (LEAF_BYTES - 1)), done);
	return done;
}

/* As many pages as [offset, offset + length) touches, at most. */
static unsigned pages_touched(uint64_t offset, uint64_t length)
{
	return (unsigned)(((offset & (PAGE_BYTES - 1)) + length + PAGE_BYTES - 1) >> PAGE_SHIFT);
}

HOT static int leaf_write(struct ram *r, struct leaf *f, page_function *write, const struct vec *v,
			  size_t from, uint64_t offset, uint64_t length)
{
	uint64_t done = f->flat && write == page_write ? flat_write(f, v, from, offset, length) : 0;
	int status = 0;

	f->coming = (uint16_t)pages_touched(offset, length);
	while (done < length && !status) {
		unsigned begin = (offset + done) & (PAGE_BYTES - 1);
		unsigned n = (unsigned)min64(PAGE_BYTES - begin, length - done);
		unsigned page = (offset + done) >> PAGE_SHIFT & (LEAF_PAGES - 1);
		status = write(r, f, page, begin, begin + n, v, from + done);
		done += n;
	}
	leaf_settle(&r->store, f);
	return status;
}

/* Enters the leaf of `offset` for changing; checks the size as it is now. */
static int lock_leaf(struct ram *r, uint64_t offset, uint64_t length, struct leaf **out)
{
	struct leaf *f = find_or_make_leaf(r, offset >> LEAF_SHIFT);

	if (!f)
		return -ENOSPC;
	short_lock_exclusive(&f->lock);
	if (offset + length > atomic_load(&r->size)) {
		short_unlock_exclusive(&f->lock);
		return -ERANGE;
	}
	*out = f;
	return 0;
}

static int fail(struct ram *r, int status, const struct io *io)
{
	if (status == -ERANGE)
		return io_fail(io, status, "ram: past the end, %" PRIu64 " bytes", atomic_load(&r->size));
	return status ? io_fail(io, status, "ram: no memory left") : 0;
}

HOT static int write_pages(struct ram *r, page_function *write, const struct vec *v, uint64_t offset,
			   const struct io *io)
{
	int status = 0;

	for (size_t done = 0; done < v->size && !status;) {
		uint64_t at = offset + done;
		uint64_t n = min64(LEAF_BYTES - (at & (LEAF_BYTES - 1)), v->size - done);
		struct leaf *f;
		status = lock_leaf(r, at, n, &f);
		if (status)
			break;
		status = leaf_write(r, f, write, v, done, at, n);
		short_unlock_exclusive(&f->lock);
		done += n;
	}
	return fail(r, status, io);
}

HOT static int ram_write(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io)
{
	return write_pages(ram_of(l), page_write, v, offset, io);
}

static int ram_fill(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io)
{
	return write_pages(ram_of(l), page_fill, v, offset, io);
}

/* ------------------------------------------------------------------ clearing */

/* A range that becomes zero or absent. */
struct clearing {
	struct ram *r;
	uint64_t begin, end; /* bytes */
	uintptr_t to;        /* SLOT_ABSENT or SLOT_ZERO */
	bool cut;            /* the end of the disk: not bound by the size */
};

static int clear_pages(const struct clearing *c, struct leaf *f, uint64_t at, uint64_t end)
{
	int status = 0;

	while (at < end && !status) {
		unsigned begin = at & (PAGE_BYTES - 1);
		unsigned n = (unsigned)min64(PAGE_BYTES - begin, end - at);
		unsigned page = at >> PAGE_SHIFT & (LEAF_PAGES - 1);
		status = page_clear(c->r, f, page, sector_bits(begin, begin + n), c->to == SLOT_ABSENT);
		at += n;
	}
	return status;
}

static int clear_leaf(const struct clearing *c, struct leaf *f, uint64_t base)
{
	uint64_t at = c->begin > base ? c->begin : base;
	uint64_t end = min64(c->end, base + LEAF_BYTES);
	int status = 0;

	short_lock_exclusive(&f->lock);
	if (!c->cut && end > atomic_load(&c->r->size))
		status = -ERANGE;
	else if (at == base && end == base + LEAF_BYTES)
		leaf_clear(&c->r->store, f, (enum presence)c->to);
	else
		status = clear_pages(c, f, at, end);
	leaf_settle(&c->r->store, f);
	short_unlock_exclusive(&f->lock);
	return status;
}

static int slot_clear(const struct clearing *c, _Atomic uintptr_t *slot, unsigned shift, uint64_t base);

/* Goes on in those children of a node that the range touches. */
static int node_clear(const struct clearing *c, struct node *n, unsigned shift, uint64_t base)
{
	unsigned bytes_shift = shift - NODE_SHIFT + LEAF_SHIFT;
	uint64_t first = c->begin > base ? (c->begin - base) >> bytes_shift : 0;
	uint64_t last = min64((c->end - 1 - base) >> bytes_shift, NODE_SLOTS - 1);
	int status = 0;

	for (uint64_t i = first; i <= last && !status; i++)
		status = slot_clear(c, &n->slots[i], shift - NODE_SHIFT, base + (i << bytes_shift));
	return status;
}

/* `slot` stands for 1 << shift leaves from byte `base` on, of which the range touches some. */
static int slot_clear(const struct clearing *c, _Atomic uintptr_t *slot, unsigned shift, uint64_t base)
{
	uint64_t last = base + ((UINT64_C(1) << shift << LEAF_SHIFT) - 1);
	bool whole = c->begin <= base && c->end - 1 >= last;
	uintptr_t value = atomic_load(slot);

	while (value <= SLOT_ZERO) {
		if (value == c->to)
			return 0;
		if (!whole) {
			value = slot_enter(c->r, slot, !shift);
			if (!value)
				return -ENOSPC;
		} else if (atomic_compare_exchange_strong(slot, &value, c->to)) {
			return 0;
		}
	}
	return shift ? node_clear(c, (struct node *)value, shift, base)
		     : clear_leaf(c, (struct leaf *)value, base);
}

/* The first leaf of level k's tree; its slot also stands for lower numbers, which are never looked for there. */
static uint64_t level_begin(unsigned k)
{
	return k ? UINT64_C(1) << k * NODE_SHIFT << LEAF_SHIFT : 0;
}

static int clear_range(const struct clearing *whole)
{
	int status = 0;

	for (unsigned k = 0; k < LEVELS && !status; k++) {
		struct clearing c = *whole;
		uint64_t begin = level_begin(k);
		unsigned shift = (k + 1) * NODE_SHIFT;
		uint64_t end = shift + LEAF_SHIFT < 63 ? UINT64_C(1) << shift << LEAF_SHIFT : UINT64_MAX;
		c.begin = c.begin > begin ? c.begin : begin;
		c.end = min64(c.end, end);
		if (c.begin < c.end)
			status = slot_clear(&c, &c.r->roots[k], shift, 0);
	}
	return status;
}

/*
 * Where a whole slot is set the size is not checked under a lock: what is recorded past a new end is zero or absent, which is
 * what a growth must show there.
 */
static int ram_clear(struct layer *l, uint64_t offset, uint64_t length, bool below_zero,
		     const struct io *io)
{
	struct ram *r = ram_of(l);
	struct clearing c = {
		.r = r,
		.begin = offset,
		.end = offset + length,
		.to = below_zero || l->bottom ? SLOT_ABSENT : SLOT_ZERO,
	};

	return fail(r, clear_range(&c), io);
}

/* ------------------------------------------------------------------ the rest */

static int ram_flush(struct layer *l, const struct io *io)
{
	(void)l;
	(void)io;
	return 0;
}

/* What is cut off is dropped after nobody can write there any more. */
static int ram_resize(struct layer *l, uint64_t size, const struct io *io)
{
	struct ram *r = ram_of(l);
	uint64_t old = atomic_exchange(&r->size, size);
	struct clearing c = {.r = r, .begin = size, .end = old, .to = SLOT_ABSENT, .cut = true};

	return size < old ? fail(r, clear_range(&c), io) : 0;
}

static uint64_t ram_size(struct layer *l)
{
	return atomic_load(&ram_of(l)->size);
}

void ram_layer_usage(struct layer *l, struct ram_usage *usage)
{
	struct ram *r = ram_of(l);
	uint64_t stored = atomic_load(&r->store.nr_stored) * PAGE_BYTES, in_pool, pool;
	uint64_t overhead = atomic_load(&r->store.nr_slack) + atomic_load(&r->store.nr_windows);

	page_pool_usage(r->store.pool, &in_pool, &pool);
	usage->stored = stored;
	usage->total = (stored > in_pool ? stored - in_pool : 0) + pool + overhead * PAGE_BYTES + sizeof(*r) +
		       atomic_load(&r->nr_nodes) * sizeof(struct node) +
		       atomic_load(&r->nr_leaves) * sizeof(struct leaf) +
		       atomic_load(&r->store.nr_entries) * sizeof(uint64_t);
}

static void ram_describe(struct layer *l, json_t *object)
{
	struct ram_usage u;

	ram_layer_usage(l, &u);
	json_object_set_new(object, "stored_bytes", json_integer((json_int_t)u.stored));
	json_object_set_new(object, "memory_bytes", json_integer((json_int_t)u.total));
}

static void free_slot(struct ram *r, uintptr_t value, unsigned shift)
{
	if (value <= SLOT_ZERO)
		return;
	if (!shift) {
		leaf_destroy((struct leaf *)value);
		return;
	}
	for (unsigned i = 0; i < NODE_SLOTS; i++)
		free_slot(r, ((struct node *)value)->slots[i], shift - NODE_SHIFT);
	free((void *)value);
}

static int ram_close(struct layer *l, bool abandoned, struct error *err)
{
	struct ram *r = ram_of(l);

	(void)abandoned;
	(void)err;
	for (unsigned k = 0; k < LEVELS; k++)
		free_slot(r, r->roots[k], (k + 1) * NODE_SHIFT);
	page_pool_destroy(r->store.pool);
	free(r);
	return 0;
}

static const struct layer_ops ram_ops = {
	.read = ram_read,
	.map = ram_map,
	.warm = ram_warm,
	.write = ram_write,
	.fill = ram_fill,
	.write_zeroes = ram_clear,
	.discard = ram_clear,
	.flush = ram_flush,
	.resize = ram_resize,
	.size = ram_size,
	.describe = ram_describe,
	.close = ram_close,
};

struct layer *ram_layer_create(uint64_t size, uint32_t block_size, uint32_t physical_block_size)
{
	struct ram *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->store.pool = page_pool_create();
	if (!r->store.pool) {
		free(r);
		return NULL;
	}
	atomic_store(&r->size, size);
	r->layer = (struct layer){
		.ops = &ram_ops,
		.kind = "ram",
		.grows_at_once = true,
		.info = {
			.block_size = block_size,
			.physical_block_size = physical_block_size ? physical_block_size : block_size,
			.discard_granularity = block_size > PAGE_BYTES ? block_size : PAGE_BYTES,
			.discard = DISK_DISCARD_ZEROES,
			.flags = DISK_FUA | DISK_FAST_ZERO | DISK_VOLATILE | DISK_RESIZABLE,
		},
	};
	return &r->layer;
}
