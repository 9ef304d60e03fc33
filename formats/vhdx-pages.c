/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pages of the block allocation table and of sector bitmaps in memory
 *
 * They are loaded when they are first looked at, and unloaded, those first that were not looked at for long, when more than
 * `limit` are there. Where they are is told by slots, in groups that are made with the first page in them and stay; the array of groups
 * is as long as the largest disk would need, at most 64 KiB, since a disk can grow while others look.
 *
 *   looking up   inside x->grace: two atomic loads for the page, one for the word. No lock
 *   loading      one at a time for a page (load_locks), from outside x->grace
 *   changing     words are atomics, changed under `lock` shared, and the page is marked dirty under the same: it cannot be unloaded
 *                or copied in between
 *   unloading    under `lock` exclusive, and only pages that are neither dirty nor committing: the file has what they hold.
 *                The memory is freed when everybody is out who may have found it before
 */
#include "formats/vhdx-file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/endian.h"

#define PAGES_LIMIT 4096u /* 16 MiB: the table of 4 TiB in blocks of 2 MiB */
#define UNLOAD_AT_ONCE 64u

static uint64_t nr_groups(const struct vhdx_pages *p)
{
	return (p->end + VHDX_GROUP - 1) / VHDX_GROUP;
}

int vhdx_pages_init(struct vhdx *x)
{
	struct vhdx_pages *p = &x->pages;
	struct vhdx_metadata largest = x->meta;
	uint64_t entries = vhdx_bat_entries(&largest, VHDX_MAX_SIZE);
	uint64_t sectors = x->meta.has_parent ? VHDX_MAX_SIZE >> x->sector_shift : 0;

	p->first_bitmap = (entries + VHDX_WORDS - 1) / VHDX_WORDS;
	p->end = p->first_bitmap + (sectors + VHDX_PAGE_SECTORS - 1) / VHDX_PAGE_SECTORS;
	p->limit = PAGES_LIMIT;
	p->groups = calloc(nr_groups(p), sizeof(*p->groups));
	return p->groups ? 0 : -ENOMEM;
}

void vhdx_pages_free(struct vhdx *x)
{
	struct vhdx_pages *p = &x->pages;

	for (size_t i = 0; i < p->count; i++)
		free(p->loaded[i]);
	free(p->loaded);
	for (uint64_t i = 0; p->groups && i < nr_groups(p); i++)
		free(atomic_load(&p->groups[i]));
	free((void *)p->groups);
}

/* ------------------------------------------------------------------ unloading */

/* Of a page whose group is there. */
static struct vhdx_page *_Atomic *slot_of(struct vhdx_pages *p, uint64_t number)
{
	return &atomic_load(&p->groups[number / VHDX_GROUP])->slots[number % VHDX_GROUP];
}

/* Takes a page out that was not used of late; NULL when this one stays. Under list_lock and `lock` exclusive. */
static struct vhdx_page *unload_one(struct vhdx_pages *p)
{
	struct vhdx_page *page = p->loaded[p->hand];

	if (atomic_exchange(&page->used, false) || atomic_load(&page->dirty) || atomic_load(&page->committing)) {
		p->hand = (p->hand + 1) % p->count;
		return NULL;
	}
	atomic_store(slot_of(p, page->number), NULL);
	p->loaded[p->hand] = p->loaded[--p->count];
	if (p->hand >= p->count)
		p->hand = 0;
	return page;
}

/* Twice around at most: then all that is left is in use. Under list_lock. */
static void unload_some(struct vhdx *x)
{
	struct vhdx_page *out[UNLOAD_AT_ONCE];
	struct vhdx_pages *p = &x->pages;
	size_t n = 0, most = 2 * p->count;

	short_lock_exclusive(&p->lock);
	while (n < UNLOAD_AT_ONCE && most-- && p->count) {
		out[n] = unload_one(p);
		n += out[n] != NULL;
	}
	short_unlock_exclusive(&p->lock);
	if (n)
		grace_wait(&x->grace);
	while (n)
		free(out[--n]);
}

/* ------------------------------------------------------------------ loading */

/* Of a sector bitmap page -EAGAIN when a page of the table is to be loaded first: *number. */
static int page_offset(struct vhdx *x, uint64_t *number, uint64_t *offset)
{
	uint64_t chunk, index, entry, n = *number;
	struct vhdx_page *page;

	if (n < x->pages.first_bitmap) {
		*offset = atomic_load(&x->bat_offset) + n * VHDX_PAGE;
		return 0;
	}
	n -= x->pages.first_bitmap;
	chunk = n / VHDX_BITMAP_PAGES;
	index = vhdx_bitmap_index(chunk, x->ratio_shift);
	page = vhdx_page_find(x, vhdx_index_page(index));
	if (!page) {
		*number = vhdx_index_page(index);
		return -EAGAIN;
	}
	entry = atomic_load(&page->words[vhdx_index_word(index)]);
	if (VHDX_STATE(entry) != VHDX_FULL && VHDX_STATE(entry) != VHDX_PARTIAL)
		return -ENOENT;
	*offset = VHDX_OFFSET(entry) + n % VHDX_BITMAP_PAGES * VHDX_PAGE;
	return vhdx_bitmap_fault(x, entry) ? -EINVAL : 0;
}

static int fail_bitmap(struct vhdx *x, uint64_t number, int status, const struct io *io)
{
	uint64_t chunk = (number - x->pages.first_bitmap) / VHDX_BITMAP_PAGES;

	return io_fail(io, -EIO, "'%s': block allocation table: the sector bitmap of chunk %" PRIu64 " %s", x->file->name, chunk,
		       status == -ENOENT ? "is needed and not there" : "lies where it cannot be");
}

/* Finds where the page lies, with the page of the table that says so. */
int vhdx_page_place(struct vhdx *x, uint64_t number, uint64_t *offset, const struct io *io)
{
	for (;;) {
		uint64_t wanted = number;
		_Atomic uint32_t *place = grace_enter(&x->grace);
		int status = page_offset(x, &wanted, offset);
		grace_leave(&x->grace, place);
		if (status && status != -EAGAIN)
			return fail_bitmap(x, number, status, io);
		if (!status)
			return 0;
		status = vhdx_page_load(x, wanted, io);
		if (status)
			return status;
	}
}

static int read_page(struct vhdx *x, struct vhdx_page *page, const struct io *io)
{
	uint64_t offset;
	int status = vhdx_page_place(x, page->number, &offset, io);

	if (!status)
		status = container_read(x->file, (void *)page->words, VHDX_PAGE, offset, io);
	for (unsigned i = 0; i < VHDX_WORDS && !status; i++)
		atomic_store_explicit(&page->words[i], le64_get((const void *)&page->words[i]), memory_order_relaxed);
	return status;
}

/* For one more page, of this number. Under list_lock. */
static int make_room(struct vhdx_pages *p, uint64_t number)
{
	struct vhdx_group *_Atomic *group = &p->groups[number / VHDX_GROUP];
	struct vhdx_page **grown;

	if (!atomic_load(group))
		atomic_store(group, calloc(1, sizeof(**group)));
	if (!atomic_load(group))
		return -ENOMEM;
	if (p->count < p->room)
		return 0;
	grown = reallocarray(p->loaded, p->room ? 2 * p->room : 64, sizeof(*p->loaded));
	if (!grown)
		return -ENOMEM;
	p->loaded = grown;
	p->room = p->room ? 2 * p->room : 64;
	return 0;
}

/* Under the page's load lock. */
static int add_page(struct vhdx *x, struct vhdx_page *page)
{
	struct vhdx_pages *p = &x->pages;
	int status;

	wait_mutex_lock(&p->list_lock);
	if (p->count >= p->limit)
		unload_some(x);
	status = make_room(p, page->number);
	if (!status) {
		p->loaded[p->count++] = page;
		atomic_store(slot_of(p, page->number), page);
	}
	wait_mutex_unlock(&p->list_lock);
	return status;
}

static int load(struct vhdx *x, uint64_t number, const struct io *io)
{
	struct vhdx_page *page = aligned_alloc(64, (sizeof(*page) + 63) & ~(size_t)63);
	int status;

	if (!page)
		return io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);
	memset(page, 0, sizeof(*page));
	page->number = number;
	atomic_store(&page->used, true);
	status = read_page(x, page, io);
	if (!status && add_page(x, page))
		status = io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);
	if (status)
		free(page);
	return status;
}

/*
 * A page of a sector bitmap needs one of the table: that one is loaded with the first one's lock held. Locks are taken in that
 * order only, and those of the two kinds are different ones.
 */
static struct wait_mutex *load_lock(struct vhdx_pages *p, uint64_t number)
{
	unsigned half = VHDX_LOAD_LOCKS / 2;

	return &p->load_locks[number % half + (number >= p->first_bitmap ? half : 0)];
}

int vhdx_page_load(struct vhdx *x, uint64_t number, const struct io *io)
{
	struct wait_mutex *lock = load_lock(&x->pages, number);
	int status = 0;

	wait_mutex_lock(lock);
	if (!vhdx_page_peek(x, number))
		status = load(x, number, io);
	wait_mutex_unlock(lock);
	return status;
}

/* ------------------------------------------------------------------ changing */

void vhdx_page_touch(struct vhdx *x, struct vhdx_page *page)
{
	struct vhdx_pages *p = &x->pages;

	if (atomic_exchange(&page->dirty, true))
		return;
	page->next_dirty = atomic_load(&p->dirty);
	while (!atomic_compare_exchange_weak(&p->dirty, &page->next_dirty, page))
		;
	atomic_fetch_add(&p->nr_dirty, 1);
}
