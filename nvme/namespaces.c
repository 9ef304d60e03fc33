/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Namespaces: a table of pointers by id. Commands come inside c->inside and look; who takes one away clears its place and
 * waits until all are out who may have seen it, without holding up newcomers. Guests hear of each change, also of a
 * disk's size, by the Changed Namespace List.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"
#include "nvme/limits.h"

/* How often the end of a wait for another size is asked for again: who has not begun to wait does not hear of it. */
#define CANCEL_AGAIN_NS UINT64_C(5000000)

struct nvme_namespace *nvme_namespace(struct nvme *c, uint32_t nsid)
{
	return nsid && nsid <= c->max_nsid ? atomic_load(&c->namespaces[nsid]) : NULL;
}

uint64_t nvme_namespace_size(const struct nvme_namespace *n)
{
	return disk_size(n->disk) >> n->block_shift << n->block_shift;
}

void nvme_namespace_changed(struct nvme *c, uint32_t nsid)
{
	bool known = false;

	if (!(nvme_csts(c) & NVME_CSTS_RDY))
		return; /* a guest that has not begun yet will look for itself */
	short_lock_exclusive(&c->log_lock);
	for (uint32_t i = 0; i < c->nr_changed; i++)
		known |= c->changed[i] == nsid;
	if (!known)
		c->changed[c->nr_changed++] = nsid;
	short_unlock_exclusive(&c->log_lock);
	nvme_event(c, NVME_EVENT_NAMESPACES);
}

/* ------------------------------------------------------------------ adding */

static int check_block_size(const struct nvme_namespace_options *o, const struct disk_info *info, unsigned *shift,
			    struct error *err)
{
	uint32_t size = o->block_size ? o->block_size : info->block_size;

	if (o->block_size && o->block_size != info->block_size && (size != 4096 || info->block_size > 4096))
		return error_set(err, -EINVAL,
				 "nvme: block size %" PRIu32 " bytes: a disk with blocks of %" PRIu32
				 " bytes can be shown with those%s",
				 size, info->block_size, info->block_size < 4096 ? ", or with 4096" : " only");
	*shift = (unsigned)__builtin_ctz(size);
	return 0;
}

/* Checks the id, or finds one. Under namespaces_lock. */
static int choose_id(struct nvme *c, uint32_t *nsid, struct error *err)
{
	if (*nsid > c->max_nsid)
		return error_set(err, -EINVAL, "nvme: namespace id %" PRIu32 " is out of range (must be 1..=%u)", *nsid,
				 c->max_nsid);
	if (*nsid && atomic_load(&c->namespaces[*nsid]))
		return error_set(err, -EEXIST, "nvme: namespace id conflict for %" PRIu32, *nsid);
	for (uint32_t i = 1; !*nsid && i <= c->max_nsid; i++)
		if (!atomic_load(&c->namespaces[i]))
			*nsid = i;
	return *nsid ? 0 : error_set(err, -EEXIST, "nvme: all %u namespace ids are taken", c->max_nsid);
}

/* The fiber that waits for another size. */
static void watch_size(void *argument)
{
	struct nvme_namespace *n = argument;
	uint64_t known = disk_size(n->disk), size;

	while (!atomic_load(&n->leaving)) {
		if (disk_wait_resize(n->disk, known, WAIT_FOREVER, &size) || size == known)
			continue;
		known = size;
		nvme_namespace_changed(n->c, n->nsid);
	}
	wait_signal_raise(&n->ended);
}

static struct nvme_namespace *make(struct nvme *c, struct disk *disk, const struct nvme_namespace_options *o)
{
	struct nvme_namespace *n = aligned_alloc(64, (sizeof(*n) + 63) / 64 * 64);

	if (!n)
		return NULL;
	memset(n, 0, sizeof(*n));
	n->c = c;
	n->disk = disk;
	n->read_only = o->read_only || disk_info(disk)->flags & DISK_READ_ONLY;
	memcpy(n->eui64, o->eui64, sizeof(n->eui64));
	memcpy(n->uuid, o->uuid, sizeof(n->uuid));
	return n;
}

/* Under namespaces_lock. */
static int publish(struct nvme *c, struct nvme_namespace *n, uint32_t nsid, struct error *err)
{
	n->nsid = nsid;
	nvme_reservations_begin(n);
	if (loop_spawn(c->lanes[0].loop, watch_size, n)) {
		nvme_reservations_end(n);
		return error_set(err, -ENOMEM, "nvme: no memory for a fiber");
	}
	atomic_store(&c->namespaces[nsid], n);
	nvme_namespace_changed(c, nsid);
	return 0;
}

int nvme_add_namespace(struct nvme *c, uint32_t nsid, struct disk *disk, const struct nvme_namespace_options *options,
		       uint32_t *added, struct error *err)
{
	static const struct nvme_namespace_options defaults;
	const struct nvme_namespace_options *o = options ? options : &defaults;
	const struct disk_info *info = disk_info(disk);
	struct nvme_namespace *n;
	unsigned shift = 0;
	int status;

	if (info->flags & DISK_REMOVABLE)
		return error_set(err, -EINVAL, "dvd not supported with nvme");
	status = check_block_size(o, info, &shift, err);
	if (status)
		return status;
	n = make(c, disk, o);
	if (!n)
		return error_set(err, -ENOMEM, "nvme: no memory");
	n->block_shift = shift;
	wait_mutex_lock(&c->namespaces_lock);
	status = choose_id(c, &nsid, err);
	if (!status)
		status = publish(c, n, nsid, err);
	wait_mutex_unlock(&c->namespaces_lock);
	if (status)
		free(n);
	else if (added)
		*added = nsid;
	return status;
}

/* ------------------------------------------------------------------ removing */

/* It is in the table no more. */
static int retire(struct nvme *c, struct nvme_namespace *n, struct error *err)
{
	int status;

	atomic_store(&n->leaving, true);
	grace_wait(&c->inside);
	nvme_reservations_end(n);
	do
		disk_cancel_resize_waits(n->disk);
	while (wait_signal_wait(&n->ended, 0, CANCEL_AGAIN_NS) == -ETIMEDOUT);
	status = disk_close(n->disk, err);
	free(n->bad);
	free(n);
	return status;
}

int nvme_remove_namespace(struct nvme *c, uint32_t nsid, struct error *err)
{
	struct nvme_namespace *n;

	wait_mutex_lock(&c->namespaces_lock);
	n = nvme_namespace(c, nsid);
	if (n)
		atomic_store(&c->namespaces[nsid], NULL);
	wait_mutex_unlock(&c->namespaces_lock);
	if (!n)
		return error_set(err, -ENOENT, "nvme: namespace %" PRIu32 " not found", nsid);
	nvme_namespace_changed(c, nsid);
	return retire(c, n, err);
}

/* ------------------------------------------------------------------ sizes */

int nvme_resize_namespace(struct nvme *c, uint32_t nsid, uint64_t size, struct error *err)
{
	_Atomic uint32_t *place = grace_enter(&c->inside);
	struct nvme_namespace *n = nvme_namespace(c, nsid);
	struct failure failure = {0};
	int status = n ? disk_resize(n->disk, size, &(const struct io){.failure = &failure}) : -ENOENT;

	grace_leave(&c->inside, place);
	if (!n)
		return error_set(err, -ENOENT, "nvme: namespace %" PRIu32 " not found", nsid);
	if (status && *failure.text)
		return error_set(err, status, "nvme: namespace %" PRIu32 ": %s", nsid, failure.text);
	return status ? error_set_errno(err, status, "nvme: namespace %" PRIu32 ": cannot be resized to %" PRIu64 " bytes",
					nsid, size)
		      : 0;
}

bool nvme_find_namespace(struct nvme *c, uint32_t *nsid, uint64_t *size)
{
	_Atomic uint32_t *place = grace_enter(&c->inside);
	struct nvme_namespace *n = NULL;

	while (*nsid <= c->max_nsid && !(n = nvme_namespace(c, *nsid)))
		++*nsid;
	if (n)
		*size = nvme_namespace_size(n);
	grace_leave(&c->inside, place);
	return n;
}

int nvme_namespaces_end(struct nvme *c, struct error *err)
{
	int status = 0;

	for (uint32_t i = 1; i <= c->max_nsid; i++) {
		CLEANUP_ERROR struct error one = {0};
		struct nvme_namespace *n = atomic_exchange(&c->namespaces[i], NULL);
		if (n && retire(c, n, &one) && !status)
			status = error_move(err, &one);
	}
	return status;
}

void nvme_namespaces_reset(struct nvme *c)
{
	for (uint32_t i = 1; i <= c->max_nsid; i++) {
		_Atomic uint32_t *place = grace_enter(&c->inside);
		struct nvme_namespace *n = nvme_namespace(c, i);
		if (n) {
			atomic_store(&n->dulbe, false);
			atomic_store(&n->mask, 0);
		}
		grace_leave(&c->inside, place);
	}
}

/* What fails is told by the disk's own close, and by each command that needs it. */
void nvme_namespaces_flush(struct nvme *c)
{
	for (uint32_t i = 1; i <= c->max_nsid; i++) {
		_Atomic uint32_t *place = grace_enter(&c->inside);
		struct nvme_namespace *n = nvme_namespace(c, i);
		if (n && !n->read_only)
			disk_flush(n->disk, &(const struct io){.who = atomic_load(&c->who)});
		grace_leave(&c->inside, place);
	}
}

/* ------------------------------------------------------------------ blocks made unreadable */

/* The first range that ends behind `offset`. Under bad_lock. */
static size_t bad_place(const struct nvme_namespace *n, uint64_t offset)
{
	size_t low = 0, high = atomic_load_explicit(&n->nr_bad, memory_order_relaxed);

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (n->bad[middle].end <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Replaces `count` ranges from `at` on by those given; there is room. Under bad_lock. */
static void bad_replace(struct nvme_namespace *n, size_t at, size_t count, const struct nvme_bad_range *by, size_t nr_by)
{
	size_t all = atomic_load_explicit(&n->nr_bad, memory_order_relaxed);

	memmove(n->bad + at + nr_by, n->bad + at + count, (all - at - count) * sizeof(*n->bad));
	if (nr_by)
		memcpy(n->bad + at, by, nr_by * sizeof(*by));
	atomic_store(&n->nr_bad, all - count + nr_by);
}

/* How many ranges from `at` on begin before `end`. */
static size_t bad_run(const struct nvme_namespace *n, size_t at, uint64_t end)
{
	size_t all = atomic_load_explicit(&n->nr_bad, memory_order_relaxed), count = 0;

	while (at + count < all && n->bad[at + count].first < end)
		count++;
	return count;
}

/*
 * Makes the list; all of it at once, since it is small and hardly ever needed. Ranges that fall apart when parts of them are written
 * to find room in its second half; when that is full, the later part is given up.
 */
static int bad_prepare(struct nvme_namespace *n)
{
	struct nvme_bad_range *list = n->bad ? NULL : calloc(2 * NVME_BAD_RANGES, sizeof(*list));
	bool had;

	short_lock_exclusive(&n->bad_lock);
	had = n->bad;
	if (!had)
		n->bad = list;
	short_unlock_exclusive(&n->bad_lock);
	if (had)
		free(list);
	return had || list ? 0 : -ENOMEM;
}

int nvme_bad_add(struct nvme_namespace *n, uint64_t offset, uint64_t length)
{
	struct nvme_bad_range r = {offset, offset + length};
	size_t at, count;
	int status = bad_prepare(n);

	if (status)
		return status;
	short_lock_exclusive(&n->bad_lock);
	at = bad_place(n, offset ? offset - 1 : 0); /* neighbours are joined */
	count = bad_run(n, at, r.end + 1);
	if (count) {
		r.first = n->bad[at].first < r.first ? n->bad[at].first : r.first;
		r.end = n->bad[at + count - 1].end > r.end ? n->bad[at + count - 1].end : r.end;
	}
	if (!count && atomic_load(&n->nr_bad) >= NVME_BAD_RANGES)
		status = -ENOSPC;
	else
		bad_replace(n, at, count, &r, 1);
	short_unlock_exclusive(&n->bad_lock);
	return status;
}

bool nvme_bad_find(struct nvme_namespace *n, uint64_t offset, uint64_t length, uint64_t *where)
{
	size_t at;
	bool found = false;

	short_lock_shared(&n->bad_lock);
	at = bad_place(n, offset);
	if (at < atomic_load(&n->nr_bad) && n->bad[at].first < offset + length) {
		*where = n->bad[at].first > offset ? n->bad[at].first : offset;
		found = true;
	}
	short_unlock_shared(&n->bad_lock);
	return found;
}

void nvme_bad_remove(struct nvme_namespace *n, uint64_t offset, uint64_t length)
{
	struct nvme_bad_range left[2];
	size_t at, count, nr_left = 0;
	uint64_t end = offset + length;

	short_lock_exclusive(&n->bad_lock);
	at = bad_place(n, offset);
	count = bad_run(n, at, end);
	if (count && n->bad[at].first < offset)
		left[nr_left++] = (struct nvme_bad_range){n->bad[at].first, offset};
	if (count && n->bad[at + count - 1].end > end)
		left[nr_left++] = (struct nvme_bad_range){end, n->bad[at + count - 1].end};
	if (count && nr_left > count && atomic_load(&n->nr_bad) == 2 * NVME_BAD_RANGES)
		nr_left = 1;
	if (count)
		bad_replace(n, at, count, left, nr_left);
	short_unlock_exclusive(&n->bad_lock);
}
