/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing to a VHDX file
 *
 * Most writes meet a block that is there: they look up where, and write. All others change the state of a block, under its lock:
 *
 *   state in the table        seen from the disk    a write                               zeroes, discard
 *   not present, no parent    zero                  space, data, then full                nothing to do
 *   not present, parent       the parent's          space, data, bits, then partial;      whole: zero; else as a write
 *                                                   whole: then full
 *   undefined, zero, unmapped zero                  space, data, then full                nothing to do
 *   full                      data                  in its place                          whole: zero; else in its place
 *   partial                   by the bits           in its place, then bits               whole: zero; else in its place, bits
 *
 * "then": in memory. Readers see the old state until data, and zeroes around it, are in the file. What makes it durable, and in which
 * order, is told in vhdx-commit.c.
 *
 * Invariants. They hold whatever part of what was not flushed a power cut leaves, in any order.
 *
 *   1  Before anything else is written in a session the header has new GUIDs, durably.           vhdx_begin()
 *   2  A header names a log only when an entry of it is durable.                                 vhdx-commit.c, begin_log()
 *   3  The table never points at space that may show another block's old bytes: such space is zeroed or overwritten, and
 *      flushed, before the entry that points there is logged.                                     vhdx_publish(), flush_first
 *   4  The entry of a partial block is never durable before its sector bitmap block, whose space was zeroed, and before all of
 *      the block's bits are as they are to be.                                                    make_bitmap(), set_all_bits()
 *   5  A bit is never durable before the sector it tells of; nor is an entry that hides the parent before the data that does. flush_first
 *   6  A page is written in its place only when an entry with it is durable.                      vhdx-commit.c, log_and_apply()
 *   7  Space is taken again only when what freed it is durable, and nobody who looked before is there any more. Space of pages
 *      that are logged is not taken again at all.                                                 vhdx_space_settle()
 *   8  No entry that a replay may need is written over, and none is left that would bring back a page that was written in its place
 *      without one.                                                                              log_pages(), vhdx_commit_forget()
 *   9  Each entry has the size of the file that is known to be durable, and the one that holds everything. write_entry()
 *  10  The log is emptied when all of it is durable in its place, and only then the file is cut.   vhdx_writer_close()
 *  11  After a write of the log or a page, or a flush, has failed for good nothing is written.     commit.failed
 *  12  What lies behind the last thing in use is cut off before it is used.                      vhdx_space_cut()
 *
 * Not done: a block that has got all its bits stays partial; space of blocks that read as zero is not looked for.
 */
#include "formats/vhdx-writer.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ beginning */

static int begin_session(struct vhdx *x, const struct io *io)
{
	int status = vhdx_space_scan(x, io);

	if (!status)
		status = vhdx_commit_begin(x, io);
	if (!status)
		status = vhdx_space_cut(x, io);
	if (!status)
		atomic_store(&x->writer->begun, true);
	return status;
}

/* What every change begins with. */
int vhdx_begin(struct vhdx *x, const struct io *io)
{
	struct vhdx_writer *w = x->writer;
	int status;

	if (!w)
		return io_fail(io, -EROFS, "'%s' is open for reading only", x->file->name);
	status = vhdx_check_failed(x, io);
	if (status || __builtin_expect(atomic_load(&w->begun), 1))
		return status;
	wait_mutex_lock(&w->beginning);
	if (!atomic_load(&w->begun))
		status = begin_session(x, io);
	wait_mutex_unlock(&w->beginning);
	return status;
}

static int fail_range(struct vhdx *x, const struct io *io)
{
	return io_fail(io, -ERANGE, "'%s': past the end, %" PRIu64 " bytes", x->file->name, atomic_load(&x->size));
}

/* ------------------------------------------------------------------ changing pages */

/* A word of a page that is to be another one. */
struct change {
	uint64_t page;
	unsigned word;
	uint64_t set;   /* bits that become 1 */
	uint64_t clear; /* bits that become 0 first */
	bool flush_first;
};

/* False: the page is not loaded. Returns the number of the change in *number. */
static bool try_change(struct vhdx *x, const struct change *c, uint64_t *number)
{
	struct vhdx_commit *commit = &x->writer->commit;
	struct vhdx_page *page;
	uint64_t old;

	short_lock_shared(&x->pages.lock);
	page = vhdx_page_find(x, c->page);
	if (page) {
		if (c->flush_first)
			atomic_store(&commit->flush_first, true);
		*number = atomic_fetch_add(&commit->changes, 1) + 1;
		old = atomic_load(&page->words[c->word]);
		while (!atomic_compare_exchange_weak(&page->words[c->word], &old, (old & ~c->clear) | c->set))
			;
		vhdx_page_touch(x, page);
	}
	short_unlock_shared(&x->pages.lock);
	return page != NULL;
}

static int change_word(struct vhdx *x, const struct change *c, uint64_t *number, const struct io *io)
{
	int status = 0;

	while (!status && !try_change(x, c, number))
		status = vhdx_page_load(x, c->page, io);
	return status;
}

int vhdx_publish(struct vhdx *x, uint64_t index, uint64_t entry, bool flush_first, uint64_t *number, const struct io *io)
{
	struct change c = {vhdx_index_page(index), vhdx_index_word(index), entry, ~UINT64_C(0), flush_first};

	return change_word(x, &c, number, io);
}

static int publish_block(struct vhdx *x, uint64_t block, uint64_t entry, bool flush_first, uint64_t *number, const struct io *io)
{
	return vhdx_publish(x, vhdx_payload_index(block, x->ratio_shift), entry, flush_first, number, io);
}

static uint64_t mask(unsigned from, uint64_t count)
{
	return count >= 64 ? ~UINT64_C(0) : ((UINT64_C(1) << count) - 1) << from;
}

/* These sectors are here from now on: their data is in the file. */
static int set_bits(struct vhdx *x, uint64_t sector, uint64_t count, const struct io *io)
{
	uint64_t number;
	int status = 0;

	while (count && !status) {
		unsigned bit = sector % 64;
		uint64_t n = 64 - bit < count ? 64 - bit : count;
		struct change c = {vhdx_bitmap_page(x, sector), (unsigned)(sector % VHDX_PAGE_SECTORS / 64), mask(bit, n), 0, true};
		status = change_word(x, &c, &number, io);
		sector += n;
		count -= n;
	}
	return status;
}

/* All bits of a block that becomes partial: whatever they were, [from, to) are here. Whole words, since a block has 256 sectors or more. */
static int set_all_bits(struct vhdx *x, uint64_t block, uint64_t from, uint64_t to, const struct io *io)
{
	uint64_t first = block << (x->block_shift - x->sector_shift), number;
	uint64_t end = first + (UINT64_C(1) << (x->block_shift - x->sector_shift));
	int status = 0;

	for (uint64_t sector = first; sector < end && !status; sector += 64) {
		uint64_t begin = from > sector ? from : sector, stop = to < sector + 64 ? to : sector + 64;
		struct change c = {vhdx_bitmap_page(x, sector), (unsigned)(sector % VHDX_PAGE_SECTORS / 64),
				   begin < stop ? mask((unsigned)(begin - sector), stop - begin) : 0, ~UINT64_C(0), true};
		status = change_word(x, &c, &number, io);
	}
	return status;
}

/* ------------------------------------------------------------------ reading entries */

static int load_entry(struct vhdx *x, uint64_t block, uint64_t *entry, const struct io *io)
{
	for (;;) {
		uint64_t missing;
		_Atomic uint32_t *place = grace_enter(&x->grace);
		int status = vhdx_entry(x, block, entry, &missing);
		grace_leave(&x->grace, place);
		if (!status)
			return 0;
		status = vhdx_page_load(x, missing, io);
		if (status)
			return status;
	}
}

int vhdx_load_index(struct vhdx *x, uint64_t index, uint64_t *entry, const struct io *io)
{
	for (;;) {
		_Atomic uint32_t *place = grace_enter(&x->grace);
		struct vhdx_page *page = vhdx_page_find(x, vhdx_index_page(index));
		int status;
		if (page)
			*entry = atomic_load(&page->words[vhdx_index_word(index)]);
		grace_leave(&x->grace, place);
		if (page)
			return 0;
		status = vhdx_page_load(x, vhdx_index_page(index), io);
		if (status)
			return status;
	}
}

/* ------------------------------------------------------------------ a change of one block */

/* A piece of a request inside one block, whose lock is held. */
struct piece {
	struct vhdx *x;
	const struct vec *v; /* NULL: zeroes */
	uint64_t block;
	uint64_t within;     /* where in the block */
	uint64_t length;
	uint64_t entry;      /* as it is */
	bool below_zero;     /* of zeroes: so it is below */
	bool unmap;
	bool hint;           /* a discard: nothing need be done */
	bool beyond;         /* behind the end of the disk, which is about to grow */
	const struct io *io;
};

static uint64_t sector_of(const struct piece *p)
{
	return ((p->block << p->x->block_shift) + p->within) >> p->x->sector_shift;
}

static bool is_here(const struct piece *p)
{
	return VHDX_STATE(p->entry) == VHDX_FULL || VHDX_STATE(p->entry) == VHDX_PARTIAL;
}

static bool is_partial(const struct piece *p)
{
	return VHDX_STATE(p->entry) == VHDX_PARTIAL && p->x->meta.has_parent;
}

static bool shows_parent(const struct piece *p)
{
	return p->x->meta.has_parent && VHDX_STATE(p->entry) == VHDX_NOT_PRESENT;
}

/* All of the block that the disk shows. */
static bool is_whole(const struct piece *p)
{
	uint64_t end = (p->block << p->x->block_shift) + p->length;

	return !p->within && (p->length == p->x->meta.block_size || end == atomic_load(&p->x->size));
}

static int put_data(const struct piece *p, uint64_t offset)
{
	struct container *file = p->x->file;

	if (p->v)
		return file->ops->write(file, p->v, offset + p->within, false, p->io);
	return file->ops->zero(file, offset + p->within, p->length, p->unmap, p->io);
}

/* The block lies where it did. */
static int write_here(const struct piece *p)
{
	int status = put_data(p, VHDX_OFFSET(p->entry));

	if (!status && is_partial(p))
		status = set_bits(p->x, sector_of(p), p->length >> p->x->sector_shift, p->io);
	return status;
}

/* The sector bitmap block of the piece's chunk, which is new. */
static int make_bitmap(const struct piece *p, uint64_t index)
{
	struct vhdx *x = p->x;
	enum vhdx_space_kind kind;
	uint64_t offset, number;
	int status = vhdx_space_take(x, VHDX_MIB, &offset, &kind, p->io);

	if (status)
		return status;
	if (kind == VHDX_SPACE_STALE)
		status = x->file->ops->zero(x->file, offset, VHDX_MIB, false, p->io);
	if (!status)
		status = vhdx_publish(x, index, offset | VHDX_FULL, kind != VHDX_SPACE_FRESH, &number, p->io);
	if (status)
		vhdx_space_return(x, offset, VHDX_MIB);
	return status;
}

static int need_bitmap(const struct piece *p)
{
	uint64_t index = vhdx_bitmap_index(p->block >> p->x->ratio_shift, p->x->ratio_shift), entry;
	int status;

	wait_mutex_lock(&p->x->writer->bitmaps);
	status = vhdx_load_index(p->x, index, &entry, p->io);
	if (!status && VHDX_STATE(entry) != VHDX_FULL && VHDX_STATE(entry) != VHDX_PARTIAL)
		status = make_bitmap(p, index);
	wait_mutex_unlock(&p->x->writer->bitmaps);
	return status;
}

/* Data into space of its own, and zeroes around it unless bits say what is there. */
static int fill_space(const struct piece *p, uint64_t offset, enum vhdx_space_kind kind, bool partial)
{
	struct container *file = p->x->file;
	bool covers = p->length == p->x->meta.block_size && p->v;
	int status = 0;

	if (kind == VHDX_SPACE_STALE && !covers && !partial)
		status = file->ops->zero(file, offset, p->x->meta.block_size, false, p->io);
	if (!status && (p->v || partial))
		status = put_data(p, offset);
	return status;
}

static int publish_new(const struct piece *p, uint64_t offset, enum vhdx_space_kind kind, bool partial)
{
	uint64_t from = sector_of(p), number;
	int status = 0;

	if (partial)
		status = set_all_bits(p->x, p->block, from, from + (p->length >> p->x->sector_shift), p->io);
	if (status)
		return status;
	return publish_block(p->x, p->block, offset | (partial ? VHDX_PARTIAL : VHDX_FULL),
			     kind != VHDX_SPACE_FRESH || p->x->meta.has_parent, &number, p->io);
}

/* The block gets space. */
static int write_new(const struct piece *p)
{
	bool partial = shows_parent(p) && !is_whole(p);
	enum vhdx_space_kind kind;
	uint64_t offset;
	int status = partial ? need_bitmap(p) : 0;

	if (!status)
		status = vhdx_space_take(p->x, p->x->meta.block_size, &offset, &kind, p->io);
	if (status)
		return status;
	status = fill_space(p, offset, kind, partial);
	if (!status)
		status = publish_new(p, offset, kind, partial);
	if (status)
		vhdx_space_return(p->x, offset, p->x->meta.block_size);
	return status;
}

/* The block is zero as a whole, and its space is free. */
static int make_zero(const struct piece *p)
{
	uint64_t number;
	int status;

	if (VHDX_STATE(p->entry) == VHDX_ZERO && !VHDX_OFFSET(p->entry))
		return 0;
	status = publish_block(p->x, p->block, VHDX_ZERO, false, &number, p->io);
	if (!status && is_here(p))
		vhdx_space_free(p->x, VHDX_OFFSET(p->entry), p->x->meta.block_size, number);
	return status;
}

static int zero_piece(const struct piece *p)
{
	if (is_here(p))
		return is_whole(p) && p->unmap && !p->x->meta.leave_allocated ? make_zero(p) : write_here(p);
	if (!shows_parent(p) || p->below_zero)
		return 0;
	if (is_whole(p))
		return make_zero(p);
	return p->hint ? 0 : write_new(p);
}

static int change_piece(struct piece *p)
{
	int status = load_entry(p->x, p->block, &p->entry, p->io);

	if (status)
		return status;
	if (!p->beyond && (p->block << p->x->block_shift) + p->within + p->length > atomic_load(&p->x->size))
		return fail_range(p->x, p->io);
	if (is_here(p) && p->v)
		return write_here(p);
	if (p->v && !vec_is_zero(p->v, 0, p->v->size))
		return write_new(p);
	return zero_piece(p);
}

/* Several may write to a partial block at the same time: its bits are set one by one. */
static int try_shared(struct piece *p, struct wait_rwlock *lock, bool *done)
{
	int status = 0;

	*done = false;
	if (!p->x->meta.has_parent || !p->v)
		return 0;
	wait_rwlock_lock_shared(lock);
	status = load_entry(p->x, p->block, &p->entry, p->io);
	*done = status || is_here(p);
	if (!status && *done)
		status = change_piece(p);
	wait_rwlock_unlock_shared(lock);
	return status;
}

static int change_block(struct piece *p)
{
	struct wait_rwlock *lock = &p->x->block_locks[p->block % VHDX_BLOCK_LOCKS];
	bool done;
	int status = try_shared(p, lock, &done);

	if (done)
		return status;
	wait_rwlock_lock_exclusive(lock);
	status = change_piece(p);
	wait_rwlock_unlock_exclusive(lock);
	return status;
}

/* ------------------------------------------------------------------ requests */

static int write_run(struct vhdx *x, const struct vec *v, const struct vhdx_run *run, bool durable, const struct io *io)
{
	struct vec part;

	if (run->length == v->size)
		return x->file->ops->write(x->file, v, run->offset, durable, io);
	part = vec_slice(v, 0, run->length);
	return x->file->ops->write(x->file, &part, run->offset, durable, io);
}

/* Writes the first run, if it is there; *done is 0 if it is not. */
static int write_in_place(struct vhdx *x, const struct vec *v, uint64_t offset, bool durable, uint64_t *done, const struct io *io)
{
	struct vhdx_run run;
	int status;

	for (;;) {
		uint64_t missing = UINT64_MAX;
		_Atomic uint32_t *place = grace_enter(&x->grace);
		*done = 0;
		status = offset + v->size > atomic_load(&x->size) ? fail_range(x, io)
								  : vhdx_map(x, offset, v->size, &run, &missing, io);
		if (!status && run.presence == LAYER_DATA) {
			status = write_run(x, v, &run, durable, io);
			*done = run.length;
		}
		grace_leave(&x->grace, place);
		if (missing == UINT64_MAX)
			return status;
		status = vhdx_page_load(x, missing, io);
		if (status)
			return status;
	}
}

static bool all_durable(struct vhdx *x)
{
	struct vhdx_commit *c = &x->writer->commit;

	return atomic_load(&c->durable) == atomic_load(&c->changes);
}

/* The request was carried out; `durable`: what it wrote is, as long as what says where it lies is as well. */
static int finish(struct vhdx *x, bool durable, const struct io *io)
{
	if ((io->flags & IO_FUA) && !(durable && all_durable(x)))
		return vhdx_commit_flush(x, io);
	if (__builtin_expect(atomic_load_explicit(&x->pages.nr_dirty, memory_order_relaxed) > VHDX_DIRTY_PAGES, 0))
		return vhdx_commit_flush(x, io);
	return 0;
}

static uint64_t rest_of_block(const struct vhdx *x, uint64_t offset, uint64_t length)
{
	uint64_t rest = x->meta.block_size - (offset & (x->meta.block_size - 1));

	return rest < length ? rest : length;
}

static int write_block(struct vhdx *x, const struct vec *v, uint64_t offset, uint64_t *done, const struct io *io)
{
	struct vec part = vec_slice(v, 0, rest_of_block(x, offset, v->size));
	struct piece p = {
		.x = x,
		.v = &part,
		.block = offset >> x->block_shift,
		.within = offset & (x->meta.block_size - 1),
		.length = part.size,
		.unmap = true,
		.io = io,
	};

	*done = part.size;
	return change_block(&p);
}

/* What is left from `at` on, where there is a block that is not here, or several that are. *durable becomes false for the former. */
static int write_rest(struct vhdx *x, const struct vec *v, uint64_t offset, uint64_t at, bool *durable, const struct io *io)
{
	int status = 0;

	for (uint64_t done = 0; at < v->size && !status; at += done) {
		struct vec rest = vec_slice(v, at, v->size - at);
		status = write_in_place(x, &rest, offset + at, *durable, &done, io);
		if (status || done)
			continue;
		*durable = false;
		status = write_block(x, &rest, offset + at, &done, io);
	}
	return status;
}

int vhdx_write(struct layer *l, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct vhdx *x = vhdx_of(l);
	int status = vhdx_begin(x, io);
	uint64_t done;
	bool durable;

	if (status)
		return status;
	durable = (io->flags & IO_FUA) && all_durable(x);
	status = write_in_place(x, v, offset, durable, &done, io);
	if (!status && done < v->size)
		status = write_rest(x, v, offset, done, &durable, io);
	return status ? status : finish(x, durable, io);
}

static int clear(struct vhdx *x, uint64_t offset, uint64_t length, const struct piece *how)
{
	int status = vhdx_begin(x, how->io);

	for (uint64_t at = offset, end = offset + length; at < end && !status;) {
		struct piece p = *how;
		p.x = x;
		p.block = at >> x->block_shift;
		p.within = at & (x->meta.block_size - 1);
		p.length = rest_of_block(x, at, end - at);
		status = change_block(&p);
		at += p.length;
	}
	return status ? status : finish(x, false, how->io);
}

int vhdx_write_zeroes(struct layer *l, uint64_t offset, uint64_t length, bool below_zero, const struct io *io)
{
	struct piece how = {.below_zero = below_zero, .unmap = io->flags & IO_MAY_UNMAP, .io = io};

	return clear(vhdx_of(l), offset, length, &how);
}

int vhdx_discard(struct layer *l, uint64_t offset, uint64_t length, bool below_zero, const struct io *io)
{
	struct piece how = {.below_zero = below_zero, .unmap = true, .hint = true, .io = io};

	return clear(vhdx_of(l), offset, length, &how);
}

int vhdx_zero_beyond(struct vhdx *x, uint64_t offset, uint64_t length, const struct io *io)
{
	struct piece p = {
		.x = x,
		.block = offset >> x->block_shift,
		.within = offset & (x->meta.block_size - 1),
		.length = length,
		.beyond = true,
		.io = io,
	};

	return change_block(&p);
}

int vhdx_flush(struct layer *l, const struct io *io)
{
	struct vhdx *x = vhdx_of(l);

	return x->writer && atomic_load(&x->writer->begun) ? vhdx_commit_flush(x, io) : 0;
}

/* ------------------------------------------------------------------ life */

int vhdx_writer_create(struct vhdx *x)
{
	x->writer = calloc(1, sizeof(*x->writer));
	return x->writer ? 0 : -ENOMEM;
}

static int end_session(struct vhdx *x, const struct io *io)
{
	int status = vhdx_commit_flush(x, io);
	uint64_t end;

	if (!status)
		status = vhdx_commit_end(x, io);
	if (status)
		return status;
	end = vhdx_space_end(x);
	return end < container_size(x->file) ? x->file->ops->resize(x->file, end, io) : 0;
}

int vhdx_writer_close(struct vhdx *x, bool abandoned, struct error *err)
{
	struct vhdx_writer *w = x->writer;
	struct failure why = {0};
	int status = 0;

	if (!w)
		return 0;
	if (!abandoned && atomic_load(&w->begun))
		status = end_session(x, &(struct io){.failure = &why});
	if (status)
		error_set(err, status, "%s", why.text);
	vhdx_space_destroy(&w->space);
	free(w->commit.entry);
	free(w);
	x->writer = NULL;
	return status;
}
