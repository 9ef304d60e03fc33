/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finding what is to be replayed
 *
 * The log is a ring of pages. An entry is a header with descriptors and a page for each data descriptor; entries that follow
 * each other without a gap, with sequence numbers one apart, are a sequence. It counts when its last entry's tail is the
 * beginning of one of its entries; of those that count the one with the highest number at the end is the active one, and it
 * is replayed from that tail on (2.3.2, 2.3.3).
 *
 * Every page is tried as the beginning of an entry. That is not quadratic, however the log was made: all pages of an entry but
 * the first begin with a signature of their own, which is looked at before anything is summed, so entries never overlap, and
 * each page is summed as part of at most one of them. A sequence then is a chain, of which each entry is in one only.
 */
#include "formats/vhdx-log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/crc32c.h"
#include "formats/endian.h"

#define WINDOW_PAGES 64u

/* ------------------------------------------------------------------ reading pages */

/* The page at `n`, counted around the ring; good until the next call. NULL with `err` set when it cannot be read. */
static const uint8_t *log_page(struct vhdx_log *l, uint64_t n, struct error *err)
{
	uint64_t pages = l->length / VHDX_PAGE, at;

	n %= pages;
	at = n - n % WINDOW_PAGES;
	if (l->window_at != at) {
		l->window_at = UINT64_MAX;
		if (container_load(l->c, l->window, WINDOW_PAGES * VHDX_PAGE, l->offset + at * VHDX_PAGE, err))
			return NULL;
		l->window_at = at;
	}
	return l->window + (n - at) * VHDX_PAGE;
}

/* ------------------------------------------------------------------ one entry */

/* The descriptors of an entry, one by one; they lie behind its header and in the pages that follow. */
struct descriptors {
	struct vhdx_log *l;
	uint64_t first; /* page of the entry */
	uint32_t next, count;
};

/* -1: an error; 0: no more; 1: *d is the next. */
static int next_descriptor(struct descriptors *it, struct vhdx_raw_descriptor *d, struct error *err)
{
	uint64_t byte = sizeof(struct vhdx_raw_entry) + (uint64_t)it->next * sizeof(*d);
	const uint8_t *page;

	if (it->next == it->count)
		return 0;
	page = log_page(it->l, it->first + byte / VHDX_PAGE, err);
	if (!page)
		return -1;
	memcpy(d, page + byte % VHDX_PAGE, sizeof(*d));
	it->next++;
	return 1;
}

static uint32_t descriptor_pages(uint32_t count)
{
	return count <= VHDX_FIRST_DESCRIPTORS
		       ? 1
		       : 1 + (count - VHDX_FIRST_DESCRIPTORS + VHDX_MORE_DESCRIPTORS - 1) / VHDX_MORE_DESCRIPTORS;
}

static bool is_data(const struct vhdx_raw_descriptor *d)
{
	return !memcmp(d->signature, "desc", 4);
}

/* What is changed must lie behind the headers, in whole pages, and not in the log itself. NULL, or what is wrong. */
static const char *check_target(const struct vhdx_log *l, const struct vhdx_log_entry *e, uint64_t target, uint64_t length)
{
	uint64_t end;

	if (target % VHDX_PAGE || length % VHDX_PAGE || __builtin_add_overflow(target, length, &end))
		return "changes what is not whole pages";
	if (target < VHDX_FIRST_LOGGED)
		return "changes the headers";
	if (length && target < l->offset + l->length && l->offset < end)
		return "changes the log";
	if (length && end > e->last_size && end > container_size(l->c))
		return "changes what lies behind the end of the file";
	return NULL;
}

static const char *check_descriptor(const struct vhdx_log *l, const struct vhdx_log_entry *e, const struct vhdx_raw_descriptor *d)
{
	if (!is_data(d) && memcmp(d->signature, "zero", 4))
		return "has a descriptor without a signature";
	if (le64_get(d->sequence) != e->sequence)
		return "has a descriptor of another entry";
	return check_target(l, e, le64_get(d->target), is_data(d) ? VHDX_PAGE : le64_get(d->leading));
}

/* The header alone. */
static const char *check_entry(const struct vhdx_log *l, const struct vhdx_log_entry *e, const struct vhdx_raw_entry *raw)
{
	if (!guid_equal(&raw->log, &l->guid))
		return "is of another log";
	if (!e->length || e->length % VHDX_PAGE || e->length > l->length)
		return "has a length that is impossible";
	if (e->tail % VHDX_PAGE || e->tail >= l->length)
		return "has a tail that is impossible";
	if (!e->sequence)
		return "has the sequence number 0";
	if (e->last_size > VHDX_MAX_FILE)
		return "wants a file larger than 1 PiB";
	if ((uint64_t)e->count * sizeof(struct vhdx_raw_descriptor) + sizeof(*raw) > e->length)
		return "has more descriptors than there is room for";
	return NULL;
}

/* The descriptors; *data counts those with a page. */
static const char *check_descriptors(struct vhdx_log *l, const struct vhdx_log_entry *e, uint32_t *data, struct error *err)
{
	struct descriptors it = {.l = l, .first = e->offset / VHDX_PAGE, .count = e->count};
	struct vhdx_raw_descriptor d;
	const char *why = NULL;
	int more;

	*data = 0;
	while (!why && (more = next_descriptor(&it, &d, err)) > 0) {
		why = check_descriptor(l, e, &d);
		*data += is_data(&d);
	}
	if (!why && more < 0)
		return "cannot be read";
	if (!why && (uint64_t)(descriptor_pages(e->count) + *data) * VHDX_PAGE != e->length)
		return "has a length that is not that of its pages";
	return why;
}

/* Signatures and numbers of the data pages, then the sum of all. */
static const char *check_pages(struct vhdx_log *l, const struct vhdx_log_entry *e, uint32_t data, uint32_t sum, struct error *err)
{
	uint32_t pages = e->length / VHDX_PAGE, crc = 0;
	static const uint8_t nothing[4];

	for (uint32_t i = 0; i < pages; i++) {
		const uint8_t *page = log_page(l, e->offset / VHDX_PAGE + i, err);
		const struct vhdx_raw_sector *s = (const void *)page;
		if (!page)
			return "cannot be read";
		if (i >= pages - data && memcmp(s->signature, "data", 4))
			return "has a data page without a signature";
		if (i >= pages - data &&
		    ((uint64_t)le32_get(s->sequence_high) << 32 | le32_get(s->sequence_low)) != e->sequence)
			return "has a data page of another entry";
		crc = crc32c(crc, page, i ? VHDX_PAGE : 4);
		if (!i) {
			crc = crc32c(crc, nothing, 4);
			crc = crc32c(crc, page + 8, VHDX_PAGE - 8);
		}
	}
	return crc == sum ? NULL : "has a wrong checksum";
}

/* Whether page `n` begins a valid entry; why not is noted for the first that looks like one of this log. */
static bool load_entry(struct vhdx_log *l, uint32_t n, struct vhdx_log_entry *e, struct error *err)
{
	const uint8_t *page = log_page(l, n, err);
	const struct vhdx_raw_entry *raw = (const void *)page;
	uint32_t sum, data;
	const char *why;

	if (!page || memcmp(raw->signature, "loge", 4))
		return false;
	*e = (struct vhdx_log_entry){
		.sequence = le64_get(raw->sequence),
		.offset = n * VHDX_PAGE,
		.length = le32_get(raw->length),
		.tail = le32_get(raw->tail),
		.count = le32_get(raw->count),
		.flushed_size = le64_get(raw->flushed_size),
		.last_size = le64_get(raw->last_size),
	};
	sum = le32_get(raw->checksum);
	why = check_entry(l, e, raw);
	if (why && !guid_equal(&raw->log, &l->guid))
		return false;
	if (!why)
		why = check_descriptors(l, e, &data, err);
	if (!why)
		why = check_pages(l, e, data, sum, err);
	if (why && !l->rejected[0])
		snprintf(l->rejected, sizeof(l->rejected), "the entry at %" PRIu32 " of the log, number %" PRIu64 ", %s", e->offset,
			 e->sequence, why);
	return !why;
}

/* ------------------------------------------------------------------ sequences */

/* All valid entries, in the order of their places. */
static int load_entries(struct vhdx_log *l, struct vhdx_log_entry **out, uint32_t *count, struct error *err)
{
	uint32_t room = 0, pages = l->length / VHDX_PAGE;
	struct vhdx_log_entry e, *grown;

	for (uint32_t n = 0; n < pages; n++) {
		if (!load_entry(l, n, &e, err))
			continue;
		if (*count == room) {
			room = room ? 2 * room : 64;
			grown = reallocarray(*out, room, sizeof(e));
			if (!grown)
				return error_set(err, -ENOMEM, "no memory");
			*out = grown;
		}
		(*out)[(*count)++] = e;
	}
	return err->status;
}

static int by_place(const void *key, const void *entry)
{
	uint32_t a = *(const uint32_t *)key, b = ((const struct vhdx_log_entry *)entry)->offset;

	return a < b ? -1 : a > b;
}

/* The entry behind `e` in its sequence; NULL when `e` is the last. */
static struct vhdx_log_entry *successor(const struct vhdx_log *l, struct vhdx_log_entry *all, uint32_t count,
					const struct vhdx_log_entry *e)
{
	uint32_t at = (uint32_t)(((uint64_t)e->offset + e->length) % l->length);
	struct vhdx_log_entry *next = bsearch(&at, all, count, sizeof(*all), by_place);

	return next && e->sequence != UINT64_MAX && next->sequence == e->sequence + 1 ? next : NULL;
}

/* Follows the sequence from `first`: its last entry, how many there are from that one's tail on, and where they begin. */
static struct vhdx_log_entry *follow(const struct vhdx_log *l, struct vhdx_log_entry *all, uint32_t count,
				     struct vhdx_log_entry *first, struct vhdx_log_entry **tail, uint32_t *length)
{
	struct vhdx_log_entry *last = first, *next;

	while ((next = successor(l, all, count, last)))
		last = next;
	*tail = NULL;
	*length = 0;
	for (struct vhdx_log_entry *e = first; e; e = successor(l, all, count, e)) {
		if (e->offset == last->tail) {
			*tail = e;
			*length = 0;
		}
		(*length)++;
	}
	return last;
}

static int refuse(const struct vhdx_log *l, struct error *err)
{
	if (!l->valid && !l->rejected[0])
		return error_set(err, -EINVAL, "log: the header says that it is not empty, but there is no entry of it");
	return error_set(err, -EINVAL, "log: the header says that it is not empty, but of its %" PRIu32 " good entries none ends a sequence%s%s",
			 l->valid, l->rejected[0] ? "; " : "", l->rejected);
}

/* Keeps the entries that are to be applied. */
static int keep_active(struct vhdx_log *l, struct vhdx_log_entry *all, uint32_t count, struct vhdx_log_entry *tail, uint32_t length,
		       struct error *err)
{
	l->active = calloc(length, sizeof(*l->active));
	if (!l->active)
		return error_set(err, -ENOMEM, "no memory");
	for (; l->count < length; tail = successor(l, all, count, tail))
		l->active[l->count++] = *tail;
	l->last_size = l->active[length - 1].last_size;
	if (l->active[length - 1].flushed_size > container_size(l->c))
		return error_set(err, -EINVAL,
				 "log: the file has %" PRIu64 " bytes, fewer than the %" PRIu64 " it had when entry %" PRIu64
				 " was written: it was cut short",
				 container_size(l->c), l->active[length - 1].flushed_size, l->active[length - 1].sequence);
	return 0;
}

/* A sequence's first entry is the successor of none: it is enough to begin at those. */
static int find_active(struct vhdx_log *l, struct vhdx_log_entry *all, uint32_t count, struct error *err)
{
	struct vhdx_log_entry *best = NULL, *best_tail = NULL;
	uint32_t best_length = 0, length;
	bool *follows = calloc(count ? count : 1, sizeof(*follows));

	if (!follows)
		return error_set(err, -ENOMEM, "no memory");
	for (uint32_t i = 0; i < count; i++) {
		struct vhdx_log_entry *next = successor(l, all, count, &all[i]);
		if (next)
			follows[next - all] = true;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct vhdx_log_entry *tail, *last;
		if (follows[i])
			continue;
		last = follow(l, all, count, &all[i], &tail, &length);
		if (!tail || (best && last->sequence < best->sequence))
			continue;
		best = last;
		best_tail = tail;
		best_length = length;
	}
	free(follows);
	return best ? keep_active(l, all, count, best_tail, best_length, err) : refuse(l, err);
}

int vhdx_log_load(struct container *c, const struct vhdx_header *h, struct vhdx_log *out, struct error *err)
{
	CLEANUP_ERROR struct error own = {0};
	struct vhdx_log_entry *all = NULL;
	uint32_t count = 0;
	int status;

	*out = (struct vhdx_log){.c = c, .guid = h->log, .offset = h->log_offset, .length = h->log_length, .window_at = UINT64_MAX};
	out->window = malloc(WINDOW_PAGES * VHDX_PAGE);
	status = out->window ? load_entries(out, &all, &count, &own) : error_set(&own, -ENOMEM, "no memory");
	out->valid = count;
	if (!status)
		status = find_active(out, all, count, &own);
	free(all);
	if (!status)
		return 0;
	error_move(err, &own);
	vhdx_log_free(out);
	return status;
}

void vhdx_log_free(struct vhdx_log *l)
{
	free(l->active);
	free(l->window);
	l->active = NULL;
	l->window = NULL;
}

/* ------------------------------------------------------------------ replay */

/* The page of a data descriptor, of which log and descriptor have a part each. */
static int assemble(struct vhdx_log *l, uint64_t n, const struct vhdx_raw_descriptor *d, uint8_t page[VHDX_PAGE], struct error *err)
{
	const uint8_t *raw = log_page(l, n, err);

	if (!raw)
		return err->status;
	memcpy(page, d->leading, 8);
	memcpy(page + 8, ((const struct vhdx_raw_sector *)(const void *)raw)->data, 4084);
	memcpy(page + 4092, d->trailing, 4);
	return 0;
}

static int apply_entry(struct vhdx_log *l, const struct vhdx_log_entry *e, vhdx_log_change *change, void *argument, uint8_t *page,
		       struct error *err)
{
	struct descriptors it = {.l = l, .first = e->offset / VHDX_PAGE, .count = e->count};
	uint64_t data = it.first + descriptor_pages(e->count);
	struct vhdx_raw_descriptor d;
	int more, status = 0;

	while (!status && (more = next_descriptor(&it, &d, err)) > 0) {
		if (!is_data(&d)) {
			status = change(argument, le64_get(d.target), le64_get(d.leading), NULL, err);
			continue;
		}
		status = assemble(l, data++, &d, page, err);
		if (!status)
			status = change(argument, le64_get(d.target), VHDX_PAGE, page, err);
	}
	return status ? status : more < 0 ? err->status : 0;
}

int vhdx_log_each(struct vhdx_log *l, vhdx_log_change *change, void *argument, struct error *err)
{
	CLEANUP_ERROR struct error own = {0};
	uint8_t *page = malloc(VHDX_PAGE);
	int status = page ? 0 : error_set(&own, -ENOMEM, "no memory");

	for (uint32_t i = 0; i < l->count && !status; i++)
		status = apply_entry(l, &l->active[i], change, argument, page, &own);
	free(page);
	if (status)
		error_move(err, &own);
	return status;
}

static int change_file(void *argument, uint64_t target, uint64_t length, const uint8_t *data, struct error *err)
{
	struct container *c = argument;
	uint64_t size = container_size(c);
	struct failure why = {0};
	int status = 0;

	if (data)
		return container_store(c, data, VHDX_PAGE, target, err);
	if (target + length > size) /* what is added is zero */
		status = container_set_size(c, target + length, err);
	if (status || target >= size || !length)
		return status;
	status = c->ops->zero(c, target, (target + length < size ? target + length : size) - target, false, &(struct io){.failure = &why});
	return status ? error_set(err, status, "%s", why.text) : 0;
}

int vhdx_log_replay(struct vhdx_log *l, struct vhdx_headers *h, struct error *err)
{
	struct vhdx_header next;
	struct failure why = {0};
	int status = vhdx_header_begin(l->c, h, err);

	if (!status)
		status = vhdx_log_each(l, change_file, l->c, err);
	if (!status && l->last_size > container_size(l->c))
		status = container_set_size(l->c, l->last_size, err);
	if (!status)
		status = container_sync(l->c, err);
	if (status)
		return status;
	next = h->current;
	memset(&next.log, 0, sizeof(next.log));
	for (unsigned i = 0; i < 2 && !status; i++) { /* both copies, as the specification wants it */
		status = vhdx_header_store(l->c, h, &next, &(struct io){.failure = &why});
		if (status)
			error_set(err, status, "%s", why.text);
		else
			status = container_sync(l->c, err);
	}
	return status;
}

/* ------------------------------------------------------------------ making entries */

uint32_t vhdx_log_entry_size(uint32_t count)
{
	return (descriptor_pages(count) + count) * VHDX_PAGE;
}

void vhdx_log_encode(const struct vhdx_log_entry *e, const struct guid *guid, const struct vhdx_logged *pages, uint32_t count,
		     uint8_t *out)
{
	struct vhdx_raw_entry *raw = (void *)out;
	struct vhdx_raw_descriptor *d = (void *)(out + sizeof(*raw));
	struct vhdx_raw_sector *s = (void *)(out + descriptor_pages(count) * VHDX_PAGE);

	memset(out, 0, descriptor_pages(count) * VHDX_PAGE);
	memcpy(raw->signature, "loge", 4);
	le32_put(raw->length, vhdx_log_entry_size(count));
	le32_put(raw->tail, e->tail);
	le64_put(raw->sequence, e->sequence);
	le32_put(raw->count, count);
	raw->log = *guid;
	le64_put(raw->flushed_size, e->flushed_size);
	le64_put(raw->last_size, e->last_size);
	for (uint32_t i = 0; i < count; i++, d++, s++) {
		memcpy(d->signature, "desc", 4);
		memcpy(d->leading, pages[i].data, 8);
		memcpy(d->trailing, pages[i].data + 4092, 4);
		le64_put(d->target, pages[i].target);
		le64_put(d->sequence, e->sequence);
		memcpy(s->signature, "data", 4);
		le32_put(s->sequence_high, (uint32_t)(e->sequence >> 32));
		memcpy(s->data, pages[i].data + 8, 4084);
		le32_put(s->sequence_low, (uint32_t)e->sequence);
	}
	le32_put(raw->checksum, crc32c(0, out, vhdx_log_entry_size(count)));
}
