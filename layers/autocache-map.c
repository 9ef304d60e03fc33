/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading what is in the page cache already, without the kernel
 *
 * Each unit has to be checked after it has come to the caller's memory. Behind a read(2) of a MiB its bytes have left the
 * processor's first cache by then, and checking costs a third of the copy. From a mapping of the data file they are copied
 * and hashed in one pass (autocache-copy.c), which costs no more than the copy; and the kernel does not look up each page anew.
 *
 * A page that is not in memory would be read in alone, or with few neighbours, while who touches it waits. So the first read
 * of a unit is a read(2), with its read-ahead, and a bit remembers it (in the index page, with which it is forgotten). In a
 * fiber it is always a read: a page fault would hold up the loop. A page that has left the memory since costs a
 * fault, and that is all: the bit is a guess, not a promise.
 *
 * The file is as long as what was filled, and another process may shorten it: what is not there raises SIGBUS, which
 * core/safe-copy.h turns into an error, and the way is read(2) again.
 */
#include "layers/autocache.h"

#include <sys/mman.h>

#include "core/loop.h"

static size_t map_size(const struct autocache *c)
{
	return (size_t)((c->size + UNIT - 1) & ~(uint64_t)(UNIT - 1));
}

/* Made by the first who wants it; NULL where there is no room for it in the address space. */
static const char *get_map(struct autocache *c)
{
	const char *map = atomic_load_explicit(&c->map, memory_order_acquire), *other = NULL;

	if (map || atomic_load_explicit(&c->no_map, memory_order_relaxed))
		return map;
	map = mmap(NULL, map_size(c), PROT_READ, MAP_SHARED | MAP_NORESERVE, c->store.data, 0);
	if (map == MAP_FAILED) {
		atomic_store_explicit(&c->no_map, true, memory_order_relaxed);
		return NULL;
	}
	if (atomic_compare_exchange_strong(&c->map, &other, map))
		return map;
	munmap((void *)(uintptr_t)map, map_size(c));
	return other;
}

void map_close(struct autocache *c)
{
	const char *map = atomic_load(&c->map);

	if (map)
		munmap((void *)(uintptr_t)map, map_size(c));
}

/* The bits of one word for `count` units from `first` on, as far as they are in it; *next: the first one behind. */
static uint64_t bits_of(unsigned first, unsigned count, unsigned *next)
{
	unsigned shift = first % 64, here = 64 - shift < count ? 64 - shift : count;

	*next = first + here;
	return (here == 64 ? UINT64_MAX : (UINT64_C(1) << here) - 1) << shift;
}

static bool are_near(const struct index_page *page, uint64_t unit, unsigned units)
{
	unsigned first = (unsigned)(unit % CHUNK_UNITS), end = first + units;

	for (unsigned at = first, next; at < end; at = next) {
		uint64_t bits = bits_of(at, end - at, &next);
		if (bits & ~atomic_load_explicit(&page->near[at / 64], memory_order_relaxed))
			return false;
	}
	return true;
}

void map_note(struct index_page *page, uint64_t unit, unsigned units)
{
	unsigned first = (unsigned)(unit % CHUNK_UNITS), end = first + units;

	for (unsigned at = first, next; at < end; at = next) {
		uint64_t bits = bits_of(at, end - at, &next);
		if (bits & ~atomic_load_explicit(&page->near[at / 64], memory_order_relaxed))
			atomic_fetch_or_explicit(&page->near[at / 64], bits, memory_order_relaxed);
	}
}

unsigned map_read(struct autocache *c, struct index_page *page, uint64_t unit, unsigned units, const uint64_t *entries,
		  char *to)
{
	const char *map;
	uint64_t hash;
	unsigned i = 0;

	if (!are_near(page, unit, units) || loop_current())
		return 0;
	map = get_map(c);
	if (!map)
		return 0;
	for (map += unit << UNIT_SHIFT; i < units; i++, map += UNIT, to += UNIT)
		if (sum_copy(to, map, &hash) || entries[i] != sum_entry(&c->sums, unit + i, ALL_SECTORS, hash))
			break;
	return i;
}
