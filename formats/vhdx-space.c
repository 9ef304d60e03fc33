/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space in a VHDX file
 *
 * Before a session writes anything it looks at the whole table, once: which MiB of the file are in use. What lies behind the last of
 * them is cut off, since nobody knows what it holds, and the file grows from there with zeroes.
 *
 *   in use   what the table as it is in memory points at
 *   freed    the table does not point there any more, but the change that says so may not be durable, or somebody may still be
 *            reading or writing there
 *   ready    neither; the space is given back to the file system, and reads as zero
 *   gaps     were not in use when the session began: they hold anything
 *   behind   `next`: the file's end, zero and never used
 *
 * Space is taken from `ready`, then from gaps, then from behind. Sector bitmap blocks are never freed while the file is open: an entry of
 * the log that is replayed may still write to where one was.
 */
#include "formats/vhdx-writer.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/endian.h"

#define GROWTH (UINT64_C(64) << 20)
#define SCAN_BYTES (1u << 20)

static struct vhdx_space *space_of(struct vhdx *x)
{
	return &x->writer->space;
}

/* ------------------------------------------------------------------ what is in use */

static bool is_used(const struct vhdx_space *s, uint64_t mib)
{
	return s->used[mib / 64] >> mib % 64 & 1;
}

/* False where a part of it is in use already. */
static bool mark_used(struct vhdx_space *s, uint64_t offset, uint64_t length)
{
	uint64_t mib = offset / VHDX_MIB, end = (offset + length + VHDX_MIB - 1) / VHDX_MIB;
	bool good = true;

	for (; mib < end; mib++) {
		good = good && !is_used(s, mib);
		s->used[mib / 64] |= UINT64_C(1) << mib % 64;
	}
	return good;
}

static int fail_entry(struct vhdx *x, uint64_t index, uint64_t entry, const char *why, const struct io *io)
{
	return io_fail(io, -EIO, "'%s': block allocation table: entry %" PRIu64 ", %#018" PRIx64 ", %s; nothing is written to such a file",
		       x->file->name, index, entry, why);
}

/* What the entry points at is in use; NULL, or why it cannot be. */
static const char *use_entry(struct vhdx *x, uint64_t index, uint64_t entry)
{
	uint64_t ratio = UINT64_C(1) << x->ratio_shift, block = index - index / (ratio + 1), offset = VHDX_OFFSET(entry);
	enum vhdx_state state = VHDX_STATE(entry);
	bool is_bitmap = index % (ratio + 1) == ratio, points = state == VHDX_FULL || state == VHDX_PARTIAL;
	const char *why = NULL;

	if (is_bitmap && (!x->meta.has_parent || !points))
		return NULL;
	if (!is_bitmap && block >= vhdx_blocks(atomic_load(&x->size), x->meta.block_size))
		return NULL;
	if (is_bitmap)
		why = vhdx_bitmap_fault(x, entry);
	else if (points || !offset)
		why = vhdx_entry_fault(x, block, entry);
	else if (state == VHDX_UNDEFINED || state == VHDX_UNMAPPED) /* the block's old space, kept for it */
		why = vhdx_range_fault(x, offset, x->meta.block_size);
	if (why || !offset || (!points && state != VHDX_UNDEFINED && state != VHDX_UNMAPPED))
		return why;
	return mark_used(space_of(x), offset, is_bitmap ? VHDX_MIB : x->meta.block_size) ? NULL : "points at what something else has";
}

static int scan_part(struct vhdx *x, uint64_t at, uint64_t length, uint8_t *buffer, const struct io *io)
{
	int status = container_read(x->file, buffer, length, atomic_load(&x->bat_offset) + at, io);

	for (uint64_t i = 0; i < length / 8 && !status; i++) {
		uint64_t entry = le64_get(buffer + 8 * i);
		const char *why = entry ? use_entry(x, at / 8 + i, entry) : NULL;
		if (why)
			status = fail_entry(x, at / 8 + i, entry, why, io);
	}
	return status;
}

/* All of the table but its holes, of which a large disk's has many. */
static int scan_table(struct vhdx *x, uint8_t *buffer, const struct io *io)
{
	uint64_t begin = atomic_load(&x->bat_offset);
	CLEANUP_EXTENTS struct extents e = {0};
	int status;

	extents_init(&e, begin, (vhdx_bat_entries(&x->meta, atomic_load(&x->size)) * 8 + VHDX_PAGE - 1) & ~(uint64_t)(VHDX_PAGE - 1),
		     SIZE_MAX);
	status = x->file->ops->extents(x->file, &e, VHDX_PAGE, io);
	if (!status)
		status = e.status;
	for (size_t i = 0; i < e.count && !status; i++) {
		if (e.list[i].flags & EXTENT_ZERO)
			continue;
		for (uint64_t done = 0, n; done < e.list[i].length && !status; done += n) {
			n = e.list[i].length - done < SCAN_BYTES ? e.list[i].length - done : SCAN_BYTES;
			status = scan_part(x, e.list[i].offset - begin + done, n, buffer, io);
		}
	}
	return status;
}

static int scan(struct vhdx *x, const struct io *io)
{
	const struct vhdx_header *h = &x->headers.current;
	struct vhdx_space *s = space_of(x);
	uint8_t *buffer = malloc(SCAN_BYTES);
	int status;

	mark_used(s, 0, VHDX_MIB);
	mark_used(s, h->log_offset, h->log_length);
	for (unsigned i = 0; i < x->regions.count; i++)
		mark_used(s, x->regions.all[i].offset, x->regions.all[i].length);
	status = buffer ? scan_table(x, buffer, io) : io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);
	free(buffer);
	for (s->next = s->used_mib; s->next && !is_used(s, s->next - 1); s->next--)
		;
	s->used_mib = s->next;
	s->next *= VHDX_MIB;
	return status;
}

int vhdx_space_scan(struct vhdx *x, const struct io *io)
{
	struct vhdx_space *s = space_of(x);
	int status;

	free(s->used);
	/* the last block may reach behind the end of the file */
	s->used_mib = (container_size(x->file) + x->meta.block_size) / VHDX_MIB + 1;
	s->used = calloc(s->used_mib / 64 + 1, sizeof(*s->used));
	s->hand[0] = s->hand[1] = 0;
	if (!s->used)
		return io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);
	status = scan(x, io);
	if (status) {
		free(s->used);
		s->used = NULL;
	}
	return status;
}

int vhdx_space_cut(struct vhdx *x, const struct io *io)
{
	struct vhdx_space *s = space_of(x);
	uint64_t size = container_size(x->file);

	x->writer->commit.flushed_size = (size < s->next ? size : s->next) & ~(VHDX_MIB - 1);
	return size == s->next ? 0 : x->file->ops->resize(x->file, s->next, io);
}

/* ------------------------------------------------------------------ lists */

static bool push(struct vhdx_frees *f, struct vhdx_free free_space)
{
	struct vhdx_free *grown;

	if (f->count == f->room) {
		grown = reallocarray(f->list, f->room ? 2 * f->room : 32, sizeof(*grown));
		if (!grown)
			return false; /* it is lost until the file is opened again */
		f->list = grown;
		f->room = f->room ? 2 * f->room : 32;
	}
	f->list[f->count++] = free_space;
	return true;
}

/* ------------------------------------------------------------------ taking */

/* From the end of the list, where what was freed last is. */
static bool take_ready(struct vhdx_space *s, uint64_t length, uint64_t *offset, enum vhdx_space_kind *kind)
{
	struct vhdx_frees *f = &s->ready;

	for (size_t i = f->count; i--;) {
		if (f->list[i].length != length)
			continue;
		*offset = f->list[i].offset;
		*kind = f->list[i].zeroed ? VHDX_SPACE_ZEROED : VHDX_SPACE_STALE;
		f->list[i] = f->list[--f->count];
		return true;
	}
	return false;
}

/* The hand passes the file once: what is freed later is in the lists. */
static bool take_gap(struct vhdx_space *s, uint64_t length, uint64_t *hand, uint64_t *offset)
{
	uint64_t wanted = length / VHDX_MIB, run = 0;

	while (*hand < s->used_mib && run < wanted)
		run = is_used(s, (*hand)++) ? 0 : run + 1;
	if (run < wanted)
		return false;
	*offset = (*hand - wanted) * VHDX_MIB;
	mark_used(s, *offset, length);
	return true;
}

/* The file becomes longer by more than is needed, since each time costs; it is cut when it is closed. */
static int take_behind(struct vhdx *x, uint64_t length, uint64_t *offset, const struct io *io)
{
	struct vhdx_space *s = space_of(x);
	uint64_t end = s->next + length;
	int status = 0;

	if (end > VHDX_MAX_FILE)
		return io_fail(io, -ENOSPC, "'%s': it would become larger than 1 PiB", x->file->name);
	if (end > container_size(x->file))
		status = x->file->ops->resize(x->file, end + GROWTH - end % GROWTH, io);
	if (status == -EFBIG || status == -EINVAL)
		status = -ENOSPC;
	if (status)
		return status;
	*offset = s->next;
	s->next = end;
	return 0;
}

int vhdx_space_take(struct vhdx *x, uint64_t length, uint64_t *offset, enum vhdx_space_kind *kind, const struct io *io)
{
	struct vhdx_space *s = space_of(x);
	int status = 0;

	wait_mutex_lock(&s->lock);
	if (take_ready(s, length, offset, kind)) {
		;
	} else if (take_gap(s, length, &s->hand[length != x->meta.block_size], offset)) {
		*kind = VHDX_SPACE_STALE;
	} else {
		*kind = VHDX_SPACE_FRESH;
		status = take_behind(x, length, offset, io);
	}
	wait_mutex_unlock(&s->lock);
	assert(status || *offset >= VHDX_MIB);
	return status;
}

void vhdx_space_return(struct vhdx *x, uint64_t offset, uint64_t length)
{
	struct vhdx_space *s = space_of(x);

	wait_mutex_lock(&s->lock);
	push(&s->ready, (struct vhdx_free){.offset = offset, .length = length});
	wait_mutex_unlock(&s->lock);
}

/* ------------------------------------------------------------------ freeing */

void vhdx_space_free(struct vhdx *x, uint64_t offset, uint64_t length, uint64_t change)
{
	struct vhdx_space *s = space_of(x);

	wait_mutex_lock(&s->lock);
	push(&s->freed, (struct vhdx_free){.offset = offset, .length = length, .change = change});
	wait_mutex_unlock(&s->lock);
}

/* Moves those whose change is durable to `out`. */
static void collect_durable(struct vhdx_space *s, uint64_t durable, struct vhdx_frees *out)
{
	size_t kept = 0;

	wait_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->freed.count; i++)
		if (s->freed.list[i].change > durable)
			s->freed.list[kept++] = s->freed.list[i];
		else
			push(out, s->freed.list[i]);
	s->freed.count = kept;
	wait_mutex_unlock(&s->lock);
}

void vhdx_space_settle(struct vhdx *x, uint64_t durable, const struct io *io)
{
	struct vhdx_space *s = space_of(x);
	struct vhdx_frees now = {0};
	const struct io quiet = {.who = io->who};

	collect_durable(s, durable, &now);
	if (!now.count)
		return;
	grace_wait(&x->grace);
	for (size_t i = 0; i < now.count; i++)
		now.list[i].zeroed = !x->file->ops->zero(x->file, now.list[i].offset, now.list[i].length, true, &quiet);
	wait_mutex_lock(&s->lock);
	for (size_t i = 0; i < now.count; i++)
		push(&s->ready, now.list[i]);
	wait_mutex_unlock(&s->lock);
	free(now.list);
}

/* ------------------------------------------------------------------ closing */

static int from_the_end(const void *a, const void *b)
{
	const struct vhdx_free *x = a, *y = b;

	return x->offset > y->offset ? -1 : x->offset < y->offset;
}

uint64_t vhdx_space_end(struct vhdx *x)
{
	struct vhdx_space *s = space_of(x);
	struct vhdx_frees *f = &s->ready;
	uint64_t end = s->next;

	if (f->count)
		qsort(f->list, f->count, sizeof(*f->list), from_the_end);
	for (size_t i = 0; i < f->count && f->list[i].offset + f->list[i].length == end; i++)
		end = f->list[i].offset;
	return end;
}

bool vhdx_space_gap(struct vhdx *x, uint64_t length, uint64_t before, uint64_t *offset)
{
	struct vhdx_space *s = space_of(x);
	bool found;

	wait_mutex_lock(&s->lock);
	found = take_gap(s, length, &s->hand[length != x->meta.block_size], offset) && *offset + length <= before;
	wait_mutex_unlock(&s->lock);
	return found;
}

void vhdx_space_lower(struct vhdx *x, uint64_t end)
{
	struct vhdx_space *s = space_of(x);

	wait_mutex_lock(&s->lock);
	s->next = end;
	s->ready.count = s->freed.count = 0;
	wait_mutex_unlock(&s->lock);
}

void vhdx_space_destroy(struct vhdx_space *s)
{
	free(s->used);
	free(s->ready.list);
	free(s->freed.list);
}
