/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory of a virtual machine, as a client lends it to us: regions that come, go, and are cut while requests use them. */
#ifndef PLATTER_VMM_MEMORY_H
#define PLATTER_VMM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct guest_memory;

enum guest_access {
	GUEST_READ = 1 << 0,  /* we may read it */
	GUEST_WRITE = 1 << 1, /* we may write it */
};

/* Regions begin and end at multiples of this, as the smallest pages of the processors that we run on do. */
#define GUEST_PAGE_BYTES 4096u

/* At most so many regions; as many as a client of vfio-user offers to have (max_dma_maps). */
#define GUEST_MAX_REGIONS 65535u

/*
 * Who copies what lies in regions without a descriptor. `length` bytes from `address` on, inside one region whose access has
 * been checked; 0 or a negative errno. May wait. Called on any thread or fiber, many at once.
 */
struct guest_copier {
	int (*copy)(struct guest_copier *c, uint64_t address, void *ours, size_t length, bool write);
};

/* No memory yet. `copier` (NULL: regions without a descriptor are there, but cannot be reached) outlives it. 0 or -ENOMEM. */
int guest_memory_create(struct guest_copier *copier, struct guest_memory **out);

/* Nobody holds any of it any more. Accepts NULL. */
void guest_memory_destroy(struct guest_memory *m);

/* ------------------------------------------------------------------ who lends it; one at a time */

/*
 * Adds `size` bytes at the guest's `address`, which lie at `offset` of `fd`, or, with -1, where only the copier reaches them.
 * The descriptor stays the caller's and need not stay open.
 *
 *   -EINVAL  empty, not whole pages, beyond 2^64, no access, or the file is too short
 *   -EEXIST  overlaps a region     -ENOSPC  too many     -ENOMEM     others are those of mmap(2)
 */
int guest_memory_add(struct guest_memory *m, uint64_t address, uint64_t size, unsigned access, int fd, uint64_t offset);

/*
 * Takes away what lies in the range; regions that reach out of it are cut. From then on nobody finds it any more, but who did before
 * may go on using it until guest_memory_settle(). -EINVAL as above; -ENOENT: there was nothing; -ENOMEM.
 */
int guest_memory_remove(struct guest_memory *m, uint64_t address, uint64_t size);

/* Takes away all of it. */
void guest_memory_clear(struct guest_memory *m);

/* Waits until nobody uses what was taken away before, and unmaps that. From any fiber or thread, several at once; not from inside a hold. */
void guest_memory_settle(struct guest_memory *m);

/*
 * Does somebody wait for memory that was taken away? Maybe in a hold, so that guest_memory_settle() cannot end before it is added again. On any
 * thread, at any time.
 */
bool guest_memory_is_missed(struct guest_memory *m);

/* How many regions there are. */
size_t guest_memory_regions(struct guest_memory *m);

/* ------------------------------------------------------------------ who uses it; anybody, many at once */

/*
 * Between these, memory that was found, and that will be, stays mapped. May be nested, and held across waits. The token is for
 * guest_memory_release() alone.
 */
void *guest_memory_hold(struct guest_memory *m);
void guest_memory_release(struct guest_memory *m, void *token);

/*
 * Where `length` bytes (not 0) from `address` on lie: *run begins there and is as long as they lie in one piece, at least a byte.
 * Never waits. In a hold.
 *
 *   -EFAULT      there is no memory, or not for that access, or the client has shortened its file
 *   -EOPNOTSUPP  guest_memory_copy() may reach it: it lies with the copier, or was taken away a moment ago and may come back
 */
int guest_memory_map(struct guest_memory *m, uint64_t address, size_t length, unsigned access, struct iovec *run);

/*
 * Copies from (`write`: to) the guest, whatever it lies in; waits where it must, a moment for what was just taken away, too. 0 or
 * -EFAULT; any part may have been copied then. Allowed in a hold.
 */
int guest_memory_copy(struct guest_memory *m, uint64_t address, void *ours, size_t length, bool write);

#endif
