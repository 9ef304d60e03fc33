/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making changes durable
 *
 * Pages of the table and of sector bitmaps are changed in memory. A commit copies all that were changed, writes the copies to the log
 * as one entry, flushes, and writes them in their places; the next commit's flush makes those writes durable, too. All flushes
 * that were asked for meanwhile are answered by one commit.
 *
 *   step                      in the file after a power cut, if this was the last one that is durable
 *   1 flush, where needed     data that a page is about to point at; see vhdx-write.c for when
 *   2 entry, flush            the pages in the log: they will be replayed
 *   3 in their places         the same. From here on reads of these pages from the file find what memory has
 *   2 of the next commit      the pages in their places, too: the entry before is not needed any more
 *
 * The log within one GUID is written once, from its beginning to its end, and never over what a replay may need:
 *
 *   [ dead ............ | tail: entry k-1 | last: entry k | free ........... | one page kept free ]
 *
 * Entry k says that replay begins at entry k-1, since the pages of that one may not be durable in their places when k is. When there
 * is no room behind `last`, the next entry is written to the beginning of the log under a new GUID, over what is dead, and flushed, which
 * makes durable the pages of entry k as well; then the header gets the new GUID, and with that flush the old entries are no more.
 * Where not enough is dead an empty entry that is its own tail is written first, to the page that is kept free. So a log that is
 * left dirty never wraps, which QEMU could not replay, no power cut can meet an entry half overwritten, and a header never
 * names a GUID without an entry.
 *
 * Entries of one commit are ordered so that each prefix is a good state: sector bitmaps, then the table from its end to its beginning,
 * since the entry of a payload block that is in part present stands before that of the sector bitmap block it needs
 * (2.5). A page of 4 KiB is whole or not: its halves in an entry are told apart by the sequence number.
 */
#include "formats/vhdx-writer.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/endian.h"

/* ------------------------------------------------------------------ small steps */

static int fail_for_good(struct vhdx *x, int status)
{
	atomic_store(&x->writer->commit.failed, status);
	return status;
}

/* Everything written so far becomes durable, and the size of the file. */
static int flush(struct vhdx *x, const struct io *io)
{
	uint64_t size = container_size(x->file);
	int status = x->file->ops->flush(x->file, io);

	if (status)
		return fail_for_good(x, status);
	x->writer->commit.flushed_size = size & ~(VHDX_MIB - 1);
	return 0;
}

static int store_header(struct vhdx *x, const struct vhdx_header *next, const struct io *io)
{
	int status = vhdx_header_store(x->file, &x->headers, next, io);

	return status ? fail_for_good(x, status) : flush(x, io);
}

static int write_entry(struct vhdx *x, const struct guid *guid, uint32_t position, uint32_t tail, const struct vhdx_logged *pages,
		       uint32_t count, const struct io *io)
{
	struct vhdx_commit *c = &x->writer->commit;
	struct vhdx_log_entry e = {
		.sequence = c->sequence + 1,
		.tail = tail,
		.flushed_size = c->flushed_size,
		.last_size = (container_size(x->file) + VHDX_MIB - 1) & ~(VHDX_MIB - 1),
	};
	int status;

	assert(count <= VHDX_ENTRY_PAGES);
	assert(position + vhdx_log_entry_size(count) <= x->headers.current.log_length);
	vhdx_log_encode(&e, guid, pages, count, c->entry);
	status = container_write(x->file, c->entry, vhdx_log_entry_size(count), x->headers.current.log_offset + position, io);
	if (!status)
		c->sequence++;
	return status ? status : flush(x, io);
}

/* ------------------------------------------------------------------ the log */

/* The first entry under a new GUID, at the beginning: the old ones are not needed when the header has it. */
static int begin_log(struct vhdx *x, const struct vhdx_logged *pages, uint32_t count, const struct io *io)
{
	struct vhdx_commit *c = &x->writer->commit;
	struct vhdx_header next = x->headers.current;
	int status = guid_random(&next.log);

	if (status)
		return io_fail(io, -EIO, "'%s': no random numbers", x->file->name);
	next.log_version = 0;
	status = write_entry(x, &next.log, 0, 0, pages, count, io);
	if (!status)
		status = store_header(x, &next, io);
	if (status)
		return status;
	c->guid = next.log;
	c->position = vhdx_log_entry_size(count);
	c->last = c->tail = 0;
	return 0;
}

static int append(struct vhdx *x, const struct vhdx_logged *pages, uint32_t count, uint32_t tail, const struct io *io)
{
	struct vhdx_commit *c = &x->writer->commit;
	int status = write_entry(x, &c->guid, c->position, tail, pages, count, io);

	if (status)
		return status;
	c->tail = tail;
	c->last = c->position;
	c->position += vhdx_log_entry_size(count);
	return 0;
}

/* Makes all entries dead, by one that is its own tail. */
static int kill_entries(struct vhdx *x, const struct io *io)
{
	int status = flush(x, io);

	return status ? status : append(x, NULL, 0, x->writer->commit.position, io);
}

static int log_pages(struct vhdx *x, const struct vhdx_logged *pages, uint32_t count, const struct io *io)
{
	struct vhdx_commit *c = &x->writer->commit;
	uint32_t size = vhdx_log_entry_size(count);
	int status = 0;

	if (guid_is_null(&c->guid))
		return begin_log(x, pages, count, io);
	if (c->position + size + VHDX_PAGE <= x->headers.current.log_length)
		return append(x, pages, count, c->last, io);
	if (c->tail < size)
		status = kill_entries(x, io);
	assert(status || c->tail >= size);
	return status ? status : begin_log(x, pages, count, io);
}

/* ------------------------------------------------------------------ copies of pages */

struct copy {
	struct vhdx_page *page;
	uint64_t number;
	uint8_t *data;
};

struct snapshot {
	struct copy *copies;
	uint8_t *data;
	size_t count, room;
	uint64_t change; /* all up to this one are in it */
	bool flush_first;
};

static void copy_page(struct snapshot *s, struct vhdx_page *page)
{
	struct copy *c = &s->copies[s->count];

	*c = (struct copy){page, page->number, s->data + s->count * VHDX_PAGE};
	for (unsigned i = 0; i < VHDX_WORDS; i++)
		le64_put(c->data + 8 * i, atomic_load_explicit(&page->words[i], memory_order_relaxed));
	s->count++;
}

/* False: more are dirty than there is room for. */
static bool copy_dirty(struct vhdx *x, struct snapshot *s)
{
	struct vhdx_commit *c = &x->writer->commit;
	struct vhdx_pages *p = &x->pages;
	bool fits;

	short_lock_exclusive(&p->lock);
	fits = atomic_load(&p->nr_dirty) <= s->room;
	if (fits) {
		for (struct vhdx_page *page = atomic_load(&p->dirty); page; page = page->next_dirty) {
			copy_page(s, page);
			atomic_store(&page->committing, true);
			atomic_store(&page->dirty, false);
		}
		atomic_store(&p->dirty, NULL);
		atomic_store(&p->nr_dirty, 0);
		s->change = atomic_load(&c->changes);
		s->flush_first = atomic_exchange(&c->flush_first, false);
	}
	short_unlock_exclusive(&p->lock);
	return fits;
}

static int from_the_end(const void *a, const void *b)
{
	const struct copy *x = a, *y = b;

	return x->number > y->number ? -1 : x->number < y->number;
}

static void snapshot_free(struct snapshot *s)
{
	free(s->copies);
	free(s->data);
	*s = (struct snapshot){0};
}

static int snapshot_take(struct vhdx *x, struct snapshot *s, const struct io *io)
{
	do {
		snapshot_free(s);
		s->room = atomic_load(&x->pages.nr_dirty) + 16;
		s->copies = calloc(s->room, sizeof(*s->copies));
		s->data = calloc(s->room, VHDX_PAGE);
		if (!s->copies || !s->data) {
			snapshot_free(s);
			return io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);
		}
	} while (!copy_dirty(x, s));
	if (s->count)
		qsort(s->copies, s->count, sizeof(*s->copies), from_the_end);
	return 0;
}

/* The copies from `first` on were not logged: their pages are dirty as before. */
static void snapshot_undo(struct vhdx *x, struct snapshot *s, size_t first)
{
	short_lock_shared(&x->pages.lock);
	for (size_t i = first; i < s->count; i++) {
		vhdx_page_touch(x, s->copies[i].page);
		atomic_store(&s->copies[i].page->committing, false);
	}
	if (s->flush_first || first < s->count)
		atomic_store(&x->writer->commit.flush_first, true);
	short_unlock_shared(&x->pages.lock);
}

/* ------------------------------------------------------------------ committing */

/* In their places: the entry with them is durable. */
static int apply(struct vhdx *x, const struct vhdx_logged *pages, uint32_t count, const struct io *io)
{
	for (uint32_t i = 0; i < count; i++) {
		int status = container_write(x->file, pages[i].data, VHDX_PAGE, pages[i].target, io);
		if (status)
			return fail_for_good(x, status);
	}
	return 0;
}

static int log_and_apply(struct vhdx *x, const struct vhdx_logged *pages, uint32_t count, const struct io *io)
{
	int status = log_pages(x, pages, count, io);

	return status ? status : apply(x, pages, count, io);
}

/* The next entry's worth of copies from *done on. */
static int commit_some(struct vhdx *x, struct snapshot *s, size_t *done, const struct io *io)
{
	struct vhdx_logged pages[VHDX_ENTRY_PAGES] = {0};
	uint32_t n = 0;
	int status = 0;

	for (; n < VHDX_ENTRY_PAGES && *done + n < s->count && !status; n++) {
		pages[n].data = s->copies[*done + n].data;
		status = vhdx_page_place(x, s->copies[*done + n].number, &pages[n].target, io);
	}
	if (!status)
		status = log_and_apply(x, pages, n, io);
	if (status)
		return status;
	for (uint32_t i = 0; i < n; i++)
		atomic_store(&s->copies[*done + i].page->committing, false);
	*done += n;
	return 0;
}

static int commit_snapshot(struct vhdx *x, struct snapshot *s, const struct vhdx_logged *more, uint32_t nr_more, const struct io *io)
{
	size_t done = 0;
	int status = 0;

	if (s->flush_first || !(s->count + nr_more))
		status = flush(x, io);
	while (!status && done < s->count)
		status = commit_some(x, s, &done, io);
	if (!status && nr_more)
		status = log_and_apply(x, more, nr_more, io);
	if (status)
		snapshot_undo(x, s, done);
	return status;
}

/* Under the lock. */
static int commit(struct vhdx *x, const struct vhdx_logged *more, uint32_t nr_more, const struct io *io)
{
	struct vhdx_commit *c = &x->writer->commit;
	struct snapshot s = {0};
	uint64_t asked = atomic_load(&c->asked);
	int status = vhdx_check_failed(x, io);

	if (!status)
		status = snapshot_take(x, &s, io);
	if (status)
		return status;
	status = commit_snapshot(x, &s, more, nr_more, io);
	if (!status) {
		c->covered = asked;
		atomic_store(&c->durable, s.change);
	}
	snapshot_free(&s);
	return status;
}

int vhdx_commit_flush(struct vhdx *x, const struct io *io)
{
	struct vhdx_commit *c = &x->writer->commit;
	uint64_t number = atomic_fetch_add(&c->asked, 1) + 1;
	int status = 0;

	wait_mutex_lock(&c->lock);
	if (c->covered < number)
		status = commit(x, NULL, 0, io);
	wait_mutex_unlock(&c->lock);
	if (!status)
		vhdx_space_settle(x, atomic_load(&c->durable), io);
	return status;
}

int vhdx_commit_pages(struct vhdx *x, const struct vhdx_logged *pages, uint32_t count, const struct io *io)
{
	struct vhdx_commit *c = &x->writer->commit;
	int status;

	wait_mutex_lock(&c->lock);
	status = commit(x, pages, count, io);
	wait_mutex_unlock(&c->lock);
	return status;
}

int vhdx_commit_forget(struct vhdx *x, const struct io *io)
{
	struct vhdx_commit *c = &x->writer->commit;
	int status;

	wait_mutex_lock(&c->lock);
	status = commit(x, NULL, 0, io);
	if (!status && !guid_is_null(&c->guid)) /* the page that is kept free may have been used for this before, and nothing since */
		status = c->position < x->headers.current.log_length ? kill_entries(x, io) : begin_log(x, NULL, 0, io);
	wait_mutex_unlock(&c->lock);
	return status;
}

/* ------------------------------------------------------------------ moving the table */

static int copy_table(struct vhdx *x, uint64_t to, uint64_t length, const struct io *io)
{
	uint64_t from = atomic_load(&x->bat_offset);
	uint8_t *buffer = malloc(VHDX_MIB);
	int status = buffer ? 0 : io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);

	for (uint64_t done = 0; done < length && !status; done += VHDX_MIB) {
		status = container_read(x->file, buffer, VHDX_MIB, from + done, io);
		if (!status)
			status = container_write(x->file, buffer, VHDX_MIB, to + done, io);
	}
	free(buffer);
	return status ? status : flush(x, io);
}

/* The list of regions is looked at without a lock, inside `grace`. */
static int change_regions(struct vhdx *x, uint64_t offset, uint32_t length, const struct io *io)
{
	struct vhdx_region *old = atomic_load(&x->places), *list = calloc(x->regions.count, sizeof(*list));

	if (!list)
		return io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);
	memcpy(list, old, x->regions.count * sizeof(*list));
	for (unsigned i = 0; i < x->regions.count; i++)
		if (guid_equal(&list[i].id, &x->regions.bat.id)) {
			list[i].offset = offset;
			list[i].length = length;
		}
	vhdx_note_structures(x, list);
	atomic_store(&x->places, list);
	grace_wait(&x->grace);
	free(old);
	x->regions.all = list;
	x->regions.bat.offset = offset;
	x->regions.bat.length = length;
	return 0;
}

/* With the lock, and nobody loading pages: what is loaded from now on comes from the new place. */
static int move_table(struct vhdx *x, uint64_t offset, uint32_t length, const struct vhdx_logged *pages, uint32_t count,
		      const struct io *io)
{
	int status = copy_table(x, offset, x->regions.bat.length, io);

	if (!status)
		status = log_and_apply(x, pages, count, io);
	if (status)
		return status;
	atomic_store(&x->bat_offset, offset);
	status = change_regions(x, offset, length, io);
	return status ? fail_for_good(x, status) : 0;
}

int vhdx_commit_move(struct vhdx *x, uint64_t offset, uint32_t length, const struct vhdx_logged *pages, uint32_t count,
		     const struct io *io)
{
	struct vhdx_commit *c = &x->writer->commit;
	int status;

	wait_mutex_lock(&c->lock);
	status = commit(x, NULL, 0, io);
	for (unsigned i = VHDX_LOAD_LOCKS; i--;) /* of sector bitmaps first, as who loads them takes them */
		wait_mutex_lock(&x->pages.load_locks[i]);
	if (!status)
		status = move_table(x, offset, length, pages, count, io);
	for (unsigned i = 0; i < VHDX_LOAD_LOCKS; i++)
		wait_mutex_unlock(&x->pages.load_locks[i]);
	wait_mutex_unlock(&c->lock);
	return status;
}

/* ------------------------------------------------------------------ the session */

int vhdx_commit_begin(struct vhdx *x, const struct io *io)
{
	struct vhdx_header next = x->headers.current;
	struct vhdx_commit *c = &x->writer->commit;

	assert(guid_is_null(&next.log));
	if (!next.log_length)
		return io_fail(io, -EIO, "'%s': it has no log", x->file->name);
	if (!c->entry)
		c->entry = malloc(vhdx_log_entry_size(VHDX_ENTRY_PAGES));
	if (!c->entry)
		return io_fail(io, -ENOMEM, "'%s': no memory", x->file->name);
	if (guid_random(&next.file_write) || (!x->writer->keeps_data && guid_random(&next.data_write)))
		return io_fail(io, -EIO, "'%s': no random numbers", x->file->name);
	if (!guid_is_null(&x->writer->next_data))
		next.data_write = x->writer->next_data;
	return store_header(x, &next, io);
}

int vhdx_commit_end(struct vhdx *x, const struct io *io)
{
	struct vhdx_header next = x->headers.current;
	struct vhdx_commit *c = &x->writer->commit;
	int status;

	wait_mutex_lock(&c->lock);
	status = commit(x, NULL, 0, io);
	if (!status)
		status = flush(x, io);
	memset(&next.log, 0, sizeof(next.log));
	for (unsigned i = 0; i < 2 && !status; i++) /* so that both copies agree */
		status = store_header(x, &next, io);
	if (!status)
		memset(&c->guid, 0, sizeof(c->guid));
	wait_mutex_unlock(&c->lock);
	return status;
}
