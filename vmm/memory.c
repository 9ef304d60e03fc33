/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory
 *
 * A client maps pieces of its files into the guest's address space by messages, and takes them away again at any moment: QEMU does so
 * some fifteen times while firmware turns RAM into shadow RAM and back, with requests under way.
 *
 * What requests look at is a table, sorted by address, that never changes: a change makes a new one and publishes it. An entry says
 * where its first byte is in our memory, and which mapping that belongs to. A mapping is one mmap(2), made when a region is added
 * and shared by the pieces that it is cut into, so cutting is work on tables alone.
 *
 *   published  in the table: requests find it
 *   retired    in no table, or in an old one: nobody finds it, but requests that were inside when it was taken away may use it
 *   gone       unmapped and freed, by guest_memory_settle(), when all are out who were inside (core/grace.h)
 *
 * Invariants
 *
 *   1  Entries of a table are in order and apart, so a lookup is a binary search.
 *   2  Tables, and mappings that no piece refers to any more, go onto the list `retired` before they are freed, and come off it
 *      before the wait that frees them begins: who came in later cannot have found them.
 *   3  A pointer from guest_memory_map() is good until the release of the hold that it was taken in.
 *   4  Nobody who uses guest memory holds `lock`, or any other lock that the handler of SIGBUS takes.
 *
 * What is taken away may come back at once, as RAM that is cut and joined does, and a queue that lies in it must not fail for the
 * time between two messages. So an address that lately had memory is not a fault yet: guest_memory_map() has it copied, and
 * guest_memory_copy() waits, for at most LIMBO_NS, until it is there again. It may do so in a hold, which keeps guest_memory_settle()
 * waiting: who would bring the memory back after that asks guest_memory_is_missed(), and goes on.
 *
 * A client can shorten the file that its memory is. Our copies answer with an error then (core/safe-copy.h); but a disk that
 * copies by itself faults. The handler of SIGBUS puts empty memory there and marks the mapping broken, from when on it is not found
 * any more. The client has destroyed its memory and gets what it asked for; other clients, and we, go on.
 *
 * Deliberately not done: tracking of what was written (for live migration), pages other than the processor's own, joining neighbours
 * of one file to one mapping: a run ends where a region does, and whoever uses runs goes on with the next.
 */
#include "vmm/memory.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/grace.h"
#include "core/safe-copy.h"
#include "core/short-lock.h"
#include "core/wait.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

/*
 * What was taken away may come back for so long. The messages of one change come within a few milliseconds, but on a busy machine the
 * client may not run for many times that.
 */
#define LIMBO_NS UINT64_C(500000000)

/* Ranges in limbo at a time; of more, the oldest are faults at once. */
#define LIMBO_RANGES 64u

struct mapping {
	char *base;
	size_t length;
	size_t skip;         /* bytes in front of the region, where the file's pages are larger than the processor's */
	size_t pieces;       /* entries of the newest table; under `changes` */
	_Atomic bool broken; /* a page of it is gone */
	struct mapping *next_retired;
	struct mapping *previous, *next; /* of all that are mapped; under `lock` */
};

struct region {
	uint64_t first, last; /* addresses, both included */
	char *host;           /* of `first`; NULL: with the copier */
	struct mapping *mapping;
	unsigned access;
};

struct table {
	struct table *next_retired;
	size_t count;
	struct region regions[];
};

struct limbo {
	uint64_t first, last, until_ns;
};

struct guest_memory {
	struct grace inside;
	struct table *_Atomic table; /* never NULL */
	struct table *empty;         /* what it is without a region; never retired */
	struct guest_copier *copier;
	struct wait_signal changed; /* a table was published */

	struct wait_mutex changes; /* held while one is made; may be held across mmap() */
	struct table *retired_tables;
	struct mapping *retired_mappings;

	struct short_lock lock; /* protects what follows */
	struct limbo limbo[LIMBO_RANGES];
	unsigned next_limbo;
	_Atomic uint64_t limbo_until_ns; /* the latest of all; read without the lock */
	_Atomic unsigned missing;        /* copies that wait for memory to come back */
};

/* ------------------------------------------------------------------ SIGBUS */

/* Process-wide, as the handler is: all mappings of guests. `previous` is written once, before the handler is in place. */
static struct {
	pthread_once_t once;
	struct sigaction previous;
	struct short_lock lock;
	struct mapping *first;
} mapped = {.once = PTHREAD_ONCE_INIT};

/*
 * Puts empty memory where a page is gone: all of the mapping, since a part of huge pages cannot be replaced. The fault is an
 * access to guest memory, so nothing that we take here is held by who was interrupted (invariant 4), and mmap(2) is a mere
 * system call.
 */
static bool mend(char *where)
{
	bool found = false;

	short_lock_shared(&mapped.lock);
	for (struct mapping *g = mapped.first; g && !found; g = g->next) {
		if (where < g->base || where >= g->base + g->length)
			continue;
		atomic_store(&g->broken, true);
		found = mmap(g->base, g->length, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
	}
	short_unlock_shared(&mapped.lock);
	return found;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	int saved = errno;
	bool fault = info->si_code > 0 && info->si_code != BUS_MCEERR_AO && info->si_code != SI_KERNEL;
	bool mended = fault && mend(info->si_addr);

	errno = saved;
	if (mended)
		return;
	if (mapped.previous.sa_flags & SA_SIGINFO) {
		mapped.previous.sa_sigaction(number, info, context);
	} else if (mapped.previous.sa_handler == SIG_DFL || (fault && mapped.previous.sa_handler == SIG_IGN)) {
		/* what faulted faults again, and ends the process at the right place */
		sigaction(SIGBUS, &mapped.previous, NULL);
		if (!fault)
			raise(SIGBUS);
	} else if (mapped.previous.sa_handler != SIG_IGN) {
		mapped.previous.sa_handler(number);
	}
}

/* On top of that of core/safe-copy.h, which the copy brings into place: whose errors come first does not depend on who came first. */
static void install(void)
{
	struct sigaction ours = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART};
	char from = 0, to;

	safe_copy(&to, &from, 1);
	sigemptyset(&ours.sa_mask);
	sigaction(SIGBUS, NULL, &mapped.previous);
	sigaction(SIGBUS, &ours, NULL);
}

static void watch(struct mapping *g)
{
	short_lock_exclusive(&mapped.lock);
	g->next = mapped.first;
	if (g->next)
		g->next->previous = g;
	mapped.first = g;
	short_unlock_exclusive(&mapped.lock);
}

static void unwatch(struct mapping *g)
{
	short_lock_exclusive(&mapped.lock);
	if (g->next)
		g->next->previous = g->previous;
	if (g->previous)
		g->previous->next = g->next;
	else
		mapped.first = g->next;
	short_unlock_exclusive(&mapped.lock);
}

/* ------------------------------------------------------------------ mappings */

/* What lies behind the end of a file cannot be reached; devices say nothing of their size. */
static int check_file(const struct stat *st, uint64_t offset, uint64_t size)
{
	if (offset > INT64_MAX || size > INT64_MAX - offset)
		return -EINVAL;
	return S_ISREG(st->st_mode) && (uint64_t)st->st_size < offset + size ? -EINVAL : 0;
}

/* Where a mapping has to begin for one from `offset` on: files of huge pages tell their size as that of a block. */
static uint64_t whole_pages(const struct stat *st, uint64_t offset)
{
	uint64_t page = st->st_blksize > 0 ? (uint64_t)st->st_blksize : 1;

	return S_ISREG(st->st_mode) && !(page & (page - 1)) && page > GUEST_PAGE_BYTES ? offset & ~(page - 1) : offset;
}

static int map_file(int fd, uint64_t offset, uint64_t size, unsigned access, struct mapping **out)
{
	int protection = (access & GUEST_READ ? PROT_READ : 0) | (access & GUEST_WRITE ? PROT_READ | PROT_WRITE : 0);
	struct stat st;
	struct mapping *g;
	int status = fstat(fd, &st) ? -errno : check_file(&st, offset, size);

	if (status)
		return status;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->skip = offset - whole_pages(&st, offset);
	g->length = size + g->skip;
	g->base = mmap(NULL, g->length, protection, MAP_SHARED | MAP_NORESERVE, fd, (off_t)(offset - g->skip));
	if (g->base == MAP_FAILED) {
		status = -errno;
		free(g);
		return status;
	}
	madvise(g->base, g->length, MADV_DONTFORK);
	watch(g);
	*out = g;
	return 0;
}

static void unmap(struct mapping *g)
{
	unwatch(g);
	munmap(g->base, g->length);
	free(g);
}

/* ------------------------------------------------------------------ tables */

static struct table *new_table(size_t count)
{
	return malloc(sizeof(struct table) + count * sizeof(struct region));
}

/* The first region that ends at `address` or behind it. */
static size_t find(const struct table *t, uint64_t address)
{
	size_t low = 0, high = t->count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (t->regions[middle].last < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct region *region_at(const struct table *t, uint64_t address)
{
	size_t i = find(t, address);

	return i < t->count && t->regions[i].first <= address ? &t->regions[i] : NULL;
}

/* Under `changes`. The old table is retired. */
static void publish(struct guest_memory *m, struct table *t)
{
	struct table *old = atomic_exchange(&m->table, t);

	if (old != m->empty) {
		old->next_retired = m->retired_tables;
		m->retired_tables = old;
	}
	wait_signal_raise(&m->changed);
}

static int check_range(uint64_t address, uint64_t size, uint64_t *last)
{
	if (!size || address % GUEST_PAGE_BYTES || size % GUEST_PAGE_BYTES || size - 1 > UINT64_MAX - address)
		return -EINVAL;
	*last = address + (size - 1);
	return 0;
}

/* ------------------------------------------------------------------ limbo */

static void begin_limbo(struct guest_memory *m, uint64_t first, uint64_t last)
{
	uint64_t until = wait_now() + LIMBO_NS;

	short_lock_exclusive(&m->lock);
	m->limbo[m->next_limbo++ % LIMBO_RANGES] = (struct limbo){first, last, until};
	atomic_store(&m->limbo_until_ns, until);
	short_unlock_exclusive(&m->lock);
}

/* How long, in ns, somebody who misses `address` may still hope; 0: it is gone. */
static uint64_t limbo_left(struct guest_memory *m, uint64_t address)
{
	uint64_t now = wait_now(), left = 0;

	if (atomic_load(&m->limbo_until_ns) <= now)
		return 0;
	short_lock_shared(&m->lock);
	for (unsigned i = 0; i < LIMBO_RANGES; i++) {
		const struct limbo *l = &m->limbo[i];
		if (address >= l->first && address <= l->last && l->until_ns > now && l->until_ns - now > left)
			left = l->until_ns - now;
	}
	short_unlock_shared(&m->lock);
	return left;
}

/* ------------------------------------------------------------------ adding and removing */

/* Under `changes`. On success the mapping (NULL: none) belongs to the table. */
static int insert(struct guest_memory *m, const struct region *new)
{
	struct table *old = atomic_load(&m->table), *t;
	size_t at = find(old, new->first);

	if (at < old->count && old->regions[at].first <= new->last)
		return -EEXIST;
	if (old->count >= GUEST_MAX_REGIONS)
		return -ENOSPC;
	t = new_table(old->count + 1);
	if (!t)
		return -ENOMEM;
	t->count = old->count + 1;
	memcpy(t->regions, old->regions, at * sizeof(*new));
	t->regions[at] = *new;
	memcpy(t->regions + at + 1, old->regions + at, (old->count - at) * sizeof(*new));
	if (new->mapping)
		new->mapping->pieces = 1;
	publish(m, t);
	return 0;
}

int guest_memory_add(struct guest_memory *m, uint64_t address, uint64_t size, unsigned access, int fd, uint64_t offset)
{
	struct region r = {.first = address, .access = access};
	int status = check_range(address, size, &r.last);

	if (!status && (!access || access & ~(unsigned)(GUEST_READ | GUEST_WRITE) || offset % GUEST_PAGE_BYTES))
		status = -EINVAL;
	if (status)
		return status;
	wait_mutex_lock(&m->changes);
	if (fd >= 0)
		status = map_file(fd, offset, size, access, &r.mapping);
	if (!status) {
		r.host = r.mapping ? r.mapping->base + r.mapping->skip : NULL;
		status = insert(m, &r);
		if (status && r.mapping)
			unmap(r.mapping);
	}
	wait_mutex_unlock(&m->changes);
	return status;
}

/* Appends what is left of `r` in [first, last], if anything. */
static void keep(struct table *t, const struct region *r, uint64_t first, uint64_t last)
{
	struct region piece = *r;

	if (first < r->first)
		first = r->first;
	if (last > r->last)
		last = r->last;
	if (first > last)
		return;
	piece.first = first;
	piece.last = last;
	if (r->host)
		piece.host = r->host + (first - r->first);
	if (r->mapping)
		r->mapping->pieces++;
	t->regions[t->count++] = piece;
}

/* Under `changes`: `r` is in no table any more. */
static void give_up(struct guest_memory *m, const struct region *r)
{
	struct mapping *g = r->mapping;

	if (g && --g->pieces == 0) {
		g->next_retired = m->retired_mappings;
		m->retired_mappings = g;
	}
}

/* Under `changes`. */
static int cut(struct guest_memory *m, uint64_t first, uint64_t last)
{
	struct table *old = atomic_load(&m->table), *t;
	size_t at = find(old, first), end = at;

	while (end < old->count && old->regions[end].first <= last)
		end++;
	if (end == at)
		return -ENOENT;
	if (old->count - (end - at) + 2 > GUEST_MAX_REGIONS + 1u)
		return -ENOSPC;
	t = new_table(old->count + 2);
	if (!t)
		return -ENOMEM;
	t->count = at;
	memcpy(t->regions, old->regions, at * sizeof(old->regions[0]));
	for (size_t i = at; i < end; i++) {
		if (first)
			keep(t, &old->regions[i], 0, first - 1);
		if (last < UINT64_MAX)
			keep(t, &old->regions[i], last + 1, UINT64_MAX);
	}
	memcpy(t->regions + t->count, old->regions + end, (old->count - end) * sizeof(old->regions[0]));
	t->count += old->count - end;
	begin_limbo(m, first, last);
	publish(m, t);
	for (size_t i = at; i < end; i++)
		give_up(m, &old->regions[i]);
	return 0;
}

int guest_memory_remove(struct guest_memory *m, uint64_t address, uint64_t size)
{
	uint64_t last;
	int status = check_range(address, size, &last);

	if (status)
		return status;
	wait_mutex_lock(&m->changes);
	status = cut(m, address, last);
	wait_mutex_unlock(&m->changes);
	return status;
}

void guest_memory_clear(struct guest_memory *m)
{
	struct table *old;

	wait_mutex_lock(&m->changes);
	old = atomic_load(&m->table);
	atomic_store(&m->limbo_until_ns, 0);
	if (old != m->empty)
		publish(m, m->empty);
	for (size_t i = 0; i < old->count; i++)
		give_up(m, &old->regions[i]);
	wait_mutex_unlock(&m->changes);
}

void guest_memory_settle(struct guest_memory *m)
{
	struct table *tables, *next_table;
	struct mapping *mappings, *next_mapping;

	wait_mutex_lock(&m->changes);
	tables = m->retired_tables;
	mappings = m->retired_mappings;
	m->retired_tables = NULL;
	m->retired_mappings = NULL;
	wait_mutex_unlock(&m->changes);
	grace_wait(&m->inside);
	for (; tables; tables = next_table) {
		next_table = tables->next_retired;
		free(tables);
	}
	for (; mappings; mappings = next_mapping) {
		next_mapping = mappings->next_retired;
		unmap(mappings);
	}
}

bool guest_memory_is_missed(struct guest_memory *m)
{
	return atomic_load(&m->missing) > 0;
}

size_t guest_memory_regions(struct guest_memory *m)
{
	void *token = guest_memory_hold(m);
	size_t count = atomic_load(&m->table)->count;

	guest_memory_release(m, token);
	return count;
}

/* ------------------------------------------------------------------ using */

void *guest_memory_hold(struct guest_memory *m)
{
	return (void *)grace_enter(&m->inside);
}

void guest_memory_release(struct guest_memory *m, void *token)
{
	grace_leave(&m->inside, token);
}

static int map_at(struct guest_memory *m, const struct region *r, uint64_t address, size_t length, unsigned access,
		  struct iovec *run)
{
	uint64_t left;

	if (unlikely(!r))
		return limbo_left(m, address) ? -EOPNOTSUPP : -EFAULT;
	if (unlikely(access & ~r->access))
		return -EFAULT;
	if (unlikely(!r->host))
		return m->copier ? -EOPNOTSUPP : -EFAULT;
	if (unlikely(atomic_load_explicit(&r->mapping->broken, memory_order_relaxed)))
		return -EFAULT;
	left = r->last - address; /* one less */
	run->iov_base = r->host + (address - r->first);
	run->iov_len = left < length - 1 ? (size_t)left + 1 : length;
	return 0;
}

int guest_memory_map(struct guest_memory *m, uint64_t address, size_t length, unsigned access, struct iovec *run)
{
	return map_at(m, region_at(atomic_load(&m->table), address), address, length, access, run);
}

/* Copies a beginning of it; how much, or a negative errno: -EAGAIN while the memory may come back. */
static ssize_t copy_some(struct guest_memory *m, uint64_t address, char *ours, size_t length, bool write)
{
	void *token = guest_memory_hold(m);
	const struct region *r = region_at(atomic_load(&m->table), address);
	struct iovec run = {.iov_len = length};
	int status = map_at(m, r, address, length, write ? GUEST_WRITE : GUEST_READ, &run);

	if (!status) {
		status = write ? safe_copy(run.iov_base, ours, run.iov_len) : safe_copy(ours, run.iov_base, run.iov_len);
		if (atomic_load_explicit(&r->mapping->broken, memory_order_relaxed)) /* and mended meanwhile */
			status = -EFAULT;
	} else if (status == -EOPNOTSUPP && r) {
		if (r->last - address < length - 1)
			run.iov_len = (size_t)(r->last - address) + 1;
		status = m->copier->copy(m->copier, address, ours, run.iov_len, write);
	} else if (status == -EOPNOTSUPP) {
		status = -EAGAIN;
	}
	guest_memory_release(m, token);
	return status ? status : (ssize_t)run.iov_len;
}

int guest_memory_copy(struct guest_memory *m, uint64_t address, void *ours, size_t length, bool write)
{
	char *at = ours;

	if (length && length - 1 > UINT64_MAX - address)
		return -EFAULT;
	while (length) {
		uint32_t seen = wait_signal_count(&m->changed);
		ssize_t n = copy_some(m, address, at, length, write);
		if (n == -EAGAIN) {
			atomic_fetch_add(&m->missing, 1);
			wait_signal_wait(&m->changed, seen, limbo_left(m, address));
			atomic_fetch_sub(&m->missing, 1);
			continue;
		}
		if (n < 0)
			return -EFAULT;
		address += (uint64_t)n;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

/* ------------------------------------------------------------------ life */

int guest_memory_create(struct guest_copier *copier, struct guest_memory **out)
{
	struct guest_memory *m = aligned_alloc(64, (sizeof(*m) + 63) / 64 * 64);
	struct table *t = new_table(0);

	if (!m || !t) {
		free(m);
		free(t);
		return -ENOMEM;
	}
	pthread_once(&mapped.once, install);
	memset(m, 0, sizeof(*m));
	m->copier = copier;
	t->count = 0;
	m->empty = t;
	atomic_store(&m->table, t);
	*out = m;
	return 0;
}

void guest_memory_destroy(struct guest_memory *m)
{
	if (!m)
		return;
	guest_memory_clear(m);
	guest_memory_settle(m);
	free(m->empty);
	free(m);
}
