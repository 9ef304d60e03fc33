/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory
 *
 * PRPs (Base 4.1.1) and SGLs (Base 4.1.2) become one list of iovecs over the guest's own memory, so that a disk reads and writes
 * there without a copy. Pieces that lie side by side are joined. Two kinds of pieces lie elsewhere, in buffers that are made for
 * the command (bounces): memory that the host can only copy, and the bit bucket of an SGL, into which data falls that nobody
 * wants. Mixtures are fine.
 *
 * The guest may change lists while we read them, so each entry is copied to our memory once, checked there, and used. What a
 * guest can make us do is bounded: a PRP list by the length of the data, of which each page of a list describes some; an
 * SGL, whose descriptors may be empty and whose segments may lead in circles, by NVME_MAX_DESCRIPTORS.
 *
 * For data itself the guest is free to race with the disk: it gets what it asks for.
 */
#include "nvme/data.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/safe-copy.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

/* Descriptors of one SGL, segments included. 1 MiB of 512-byte blocks, each of them apart, is 2048. */
#define NVME_MAX_DESCRIPTORS 8192u

/* Entries of a list that are copied at a time. */
#define CHUNK_PRPS 64u
#define CHUNK_SGLS 16u

struct nvme_bounce {
	struct nvme_bounce *next;
	uint64_t address;
	size_t length;
	bool bucket; /* nobody wants to know */
	char bytes[];
};

/* ------------------------------------------------------------------ small accesses */

static bool wraps(uint64_t address, size_t length)
{
	return length > UINT64_MAX - address;
}

static int host_read(struct nvme *c, uint64_t address, void *ours, size_t length)
{
	return c->host->ops->read ? c->host->ops->read(c->host, address, ours, length) : -EFAULT;
}

static int host_write(struct nvme *c, uint64_t address, void *ours, size_t length)
{
	return c->host->ops->write ? c->host->ops->write(c->host, address, ours, length) : -EFAULT;
}

/* Copies run by run; from where it cannot be mapped on, the host does. */
static int copy_guest(struct nvme *c, uint64_t address, char *ours, size_t length, bool write)
{
	const struct nvme_host_ops *ops = c->host->ops;
	void *token = ops->hold(c->host);
	struct iovec run;
	int status = wraps(address, length) ? -EFAULT : 0;

	while (length && !status) {
		status = ops->map(c->host, address, length, write ? NVME_GUEST_WRITE : NVME_GUEST_READ, &run);
		if (status)
			break;
		status = write ? safe_copy(run.iov_base, ours, run.iov_len)
			       : safe_copy(ours, run.iov_base, run.iov_len);
		address += run.iov_len;
		ours += run.iov_len;
		length -= run.iov_len;
	}
	ops->release(c->host, token);
	if (status == -EOPNOTSUPP)
		status = write ? host_write(c, address, ours, length) : host_read(c, address, ours, length);
	return status;
}

int nvme_guest_read(struct nvme *c, uint64_t address, void *to, size_t length)
{
	return copy_guest(c, address, to, length, false);
}

int nvme_guest_write(struct nvme *c, uint64_t address, const void *from, size_t length)
{
	return copy_guest(c, address, (void *)from, length, true);
}

/* Maps `length` bytes that lie in one piece; between hold and release. -EOPNOTSUPP where they do not. */
static int map_whole(struct nvme *c, uint64_t address, size_t length, unsigned access, void **where)
{
	struct iovec run;
	int status = wraps(address, length) ? -EFAULT : c->host->ops->map(c->host, address, length, access, &run);

	if (status)
		return status;
	*where = run.iov_base;
	return run.iov_len == length && !((uintptr_t)run.iov_base % length) ? 0 : -EOPNOTSUPP;
}

int nvme_guest_load32(struct nvme *c, uint64_t address, uint32_t *value)
{
	void *token = c->host->ops->hold(c->host), *where;
	uint32_t raw = 0;
	int status = map_whole(c, address, sizeof(raw), NVME_GUEST_READ, &where);

	if (!status)
		status = safe_load32(where, &raw);
	c->host->ops->release(c->host, token);
	if (status == -EOPNOTSUPP)
		status = nvme_guest_read(c, address, &raw, sizeof(raw));
	*value = le32toh(raw);
	return status;
}

int nvme_guest_store32(struct nvme *c, uint64_t address, uint32_t value)
{
	void *token = c->host->ops->hold(c->host), *where;
	uint32_t raw = htole32(value);
	int status = map_whole(c, address, sizeof(raw), NVME_GUEST_WRITE, &where);

	if (!status)
		status = safe_store32(where, raw);
	c->host->ops->release(c->host, token);
	if (status == -EOPNOTSUPP)
		status = nvme_guest_write(c, address, &raw, sizeof(raw));
	return status;
}

int nvme_guest_post(struct nvme *c, uint64_t address, const struct nvme_cqe *cqe)
{
	void *token = c->host->ops->hold(c->host), *where;
	uint64_t second;
	int status = map_whole(c, address, sizeof(*cqe), NVME_GUEST_WRITE, &where);

	if (!status)
		status = safe_copy(where, cqe, 8);
	if (!status) {
		memcpy(&second, (const char *)cqe + 8, sizeof(second));
		status = safe_store64((uint64_t *)((char *)where + 8), second);
	}
	c->host->ops->release(c->host, token);
	if (status == -EOPNOTSUPP)
		status = nvme_guest_write(c, address, cqe, sizeof(*cqe));
	return status;
}

/* ------------------------------------------------------------------ pieces */

static int add_iovec(struct nvme_data *d, void *base, size_t length)
{
	struct iovec *last = d->count ? &d->iov[d->count - 1] : NULL, *iov;

	d->size += length;
	if (last && (char *)last->iov_base + last->iov_len == base) {
		last->iov_len += length;
		return 0;
	}
	if (unlikely(d->count == d->room)) {
		iov = reallocarray(d->iov == d->own ? NULL : d->iov, d->room * 4, sizeof(*iov));
		if (!iov)
			return -ENOMEM;
		if (d->iov == d->own)
			memcpy(iov, d->own, sizeof(d->own));
		d->iov = iov;
		d->room *= 4;
	}
	d->iov[d->count++] = (struct iovec){base, length};
	return 0;
}

static int add_bounce(struct nvme_data *d, uint64_t address, size_t length, bool bucket)
{
	struct nvme_bounce *b = malloc(sizeof(*b) + length);
	int status = 0;

	if (!b)
		return -ENOMEM;
	*b = (struct nvme_bounce){.next = d->bounces, .address = address, .length = length, .bucket = bucket};
	d->bounces = b;
	if (!bucket && d->access & NVME_GUEST_READ)
		status = host_read(d->c, address, b->bytes, length);
	return status ? status : add_iovec(d, b->bytes, length);
}

static int add_piece(struct nvme_data *d, uint64_t address, size_t length)
{
	struct nvme_host *h = d->c->host;
	struct iovec run;
	int status = wraps(address, length) ? -EFAULT : 0;

	while (length && !status) {
		status = h->ops->map(h, address, length, d->access, &run);
		if (status == -EOPNOTSUPP)
			return add_bounce(d, address, length, false);
		if (!status)
			status = add_iovec(d, run.iov_base, run.iov_len);
		address += run.iov_len;
		length -= run.iov_len;
	}
	return status;
}

/* A piece of the data, or what became of it. */
static uint16_t take(struct nvme_data *d, uint64_t address, size_t length)
{
	int status = add_piece(d, address, length);

	if (!status)
		return NVME_OK;
	return status == -ENOMEM ? NVME_INTERNAL_ERROR : NVME_DATA_TRANSFER_ERROR;
}

/* ------------------------------------------------------------------ PRPs */

/* One page of a PRP list being read. */
struct prp_list {
	uint64_t address;
	size_t left; /* entries on this page that are not in `entries` yet */
	struct le64 entries[CHUNK_PRPS];
	size_t next, count;
};

static int prp_list_fill(struct nvme *c, struct prp_list *l)
{
	l->next = 0;
	l->count = l->left < CHUNK_PRPS ? l->left : CHUNK_PRPS;
	l->left -= l->count;
	l->address += l->count * sizeof(l->entries[0]);
	return nvme_guest_read(c, l->address - l->count * sizeof(l->entries[0]), l->entries,
			       l->count * sizeof(l->entries[0]));
}

/* The next list page: as many entries as it has, but no more than are needed. */
static void prp_list_begin(struct prp_list *l, uint64_t address, size_t page, size_t needed)
{
	size_t there = (page - (address & (page - 1))) / sizeof(l->entries[0]);

	*l = (struct prp_list){.address = address, .left = there < needed ? there : needed};
}

static uint16_t map_prp_list(struct nvme_data *d, uint64_t address, size_t rest)
{
	size_t page = (size_t)1 << d->c->page_shift;
	struct prp_list l;
	uint16_t status = NVME_OK;

	prp_list_begin(&l, address, page, (rest + page - 1) / page);
	while (rest && !status) {
		size_t length = rest < page ? rest : page;
		bool last;
		uint64_t entry;
		if (l.next == l.count && prp_list_fill(d->c, &l))
			return NVME_DATA_TRANSFER_ERROR;
		last = l.next + 1 == l.count && !l.left;
		entry = get64(l.entries[l.next++]);
		if (entry & (page - 1))
			return NVME_PRP_INVALID_OFFSET;
		if (last && rest > page) { /* more than this entry describes: it leads to the next page */
			prp_list_begin(&l, entry, page, (rest + page - 1) / page);
			continue;
		}
		status = take(d, entry, length);
		rest -= length;
	}
	return status;
}

static uint16_t map_prps(struct nvme_command *cmd, size_t length, struct nvme_data *d)
{
	uint64_t prp1 = get64(cmd->sqe.prp1), prp2 = get64(cmd->sqe.prp2);
	size_t page = (size_t)1 << d->c->page_shift, first = page - (prp1 & (page - 1));
	uint16_t status;

	if (prp1 & 3)
		return nvme_fail_field(cmd, NVME_PRP_INVALID_OFFSET, 24, 0);
	if (first > length)
		first = length;
	status = take(d, prp1, first);
	length -= first;
	if (status || !length)
		return status;
	if (length > page)
		return prp2 & 7 ? nvme_fail_field(cmd, NVME_PRP_INVALID_OFFSET, 32, 0) : map_prp_list(d, prp2, length);
	if (prp2 & (page - 1))
		return nvme_fail_field(cmd, NVME_PRP_INVALID_OFFSET, 32, 0);
	return take(d, prp2, length);
}

/* ------------------------------------------------------------------ SGLs */

/* A list of segments being walked. */
struct sgl_walk {
	size_t rest;       /* bytes of data still to be found */
	size_t left;       /* descriptors of this segment that were not looked at */
	uint64_t address;  /* of the next of them */
	bool last;         /* no other segment may follow */
	unsigned seen;     /* descriptors in all */
};

static uint16_t sgl_data(struct nvme_data *d, const struct nvme_sgl *s, struct sgl_walk *w)
{
	size_t length = get32(s->length);
	bool bucket = s->type >> 4 == NVME_SGL_BUCKET;

	/* a bucket takes from what comes, and has nothing to give */
	if (bucket && d->access & NVME_GUEST_READ)
		return NVME_OK;
	if (length > w->rest)
		length = w->rest;
	w->rest -= length;
	if (!length)
		return NVME_OK;
	if (bucket)
		return add_bounce(d, 0, length, true) ? NVME_INTERNAL_ERROR : NVME_OK;
	return take(d, get64(s->address), length);
}

static uint16_t sgl_segment(const struct nvme_sgl *s, struct sgl_walk *w)
{
	uint32_t length = get32(s->length);

	if (!length || length % sizeof(*s))
		return NVME_SGL_INVALID_SEGMENT;
	w->left = length / sizeof(*s);
	w->address = get64(s->address);
	w->last = s->type >> 4 == NVME_SGL_LAST_SEGMENT;
	return NVME_OK;
}

/* A descriptor in a segment, or the one in the command itself (`first`). */
static uint16_t sgl_one(struct nvme_data *d, const struct nvme_sgl *s, struct sgl_walk *w, bool first)
{
	bool ends = !w->left;

	if (++w->seen > NVME_MAX_DESCRIPTORS)
		return NVME_SGL_INVALID_COUNT;
	if (s->type & 15)
		return NVME_SGL_INVALID_TYPE;
	switch (s->type >> 4) {
	case NVME_SGL_DATA:
	case NVME_SGL_BUCKET:
		/* a segment that is not the last one ends with the way to the next */
		return ends && !w->last && !first ? NVME_SGL_INVALID_SEGMENT : sgl_data(d, s, w);
	case NVME_SGL_SEGMENT:
	case NVME_SGL_LAST_SEGMENT:
		return ends && (!w->last || first) ? sgl_segment(s, w) : NVME_SGL_INVALID_SEGMENT;
	default:
		return NVME_SGL_INVALID_TYPE;
	}
}

static uint16_t map_sgl(struct nvme_command *cmd, size_t length, struct nvme_data *d)
{
	struct nvme_sgl list[CHUNK_SGLS];
	struct sgl_walk w = {.rest = length};
	uint16_t status;

	memcpy(list, &cmd->sqe.prp1, sizeof(list[0]));
	status = sgl_one(d, &list[0], &w, true);
	while (!status && w.rest && w.left) {
		size_t count = w.left < CHUNK_SGLS ? w.left : CHUNK_SGLS;
		if (wraps(w.address, count * sizeof(list[0])) ||
		    nvme_guest_read(d->c, w.address, list, count * sizeof(list[0])))
			return NVME_DATA_TRANSFER_ERROR;
		w.address += count * sizeof(list[0]);
		for (size_t i = 0; i < count && !status && w.rest; i++) {
			w.left--;
			status = sgl_one(d, &list[i], &w, false);
		}
	}
	return !status && w.rest ? NVME_SGL_INVALID_LENGTH : status;
}

/* ------------------------------------------------------------------ the data of a command */

static void drop(struct nvme_data *d)
{
	struct nvme_bounce *b;

	while ((b = d->bounces)) {
		d->bounces = b->next;
		free(b);
	}
	if (d->iov != d->own)
		free(d->iov);
	d->c->host->ops->release(d->c->host, d->token);
}

uint16_t nvme_data_map(struct nvme_command *cmd, size_t length, unsigned access, struct nvme_data *d)
{
	struct nvme *c = cmd->c;
	uint16_t status;

	if (unlikely(length > (size_t)4096 << c->mdts))
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 48, 0);
	d->c = c;
	d->iov = d->own;
	d->count = d->size = 0;
	d->room = NVME_OWN_IOVECS;
	d->access = access;
	d->bounces = NULL;
	d->token = c->host->ops->hold(c->host);
	if (!length)
		status = NVME_OK;
	else if (NVME_PSDT(cmd->sqe.flags))
		status = map_sgl(cmd, length, d);
	else
		status = map_prps(cmd, length, d);
	if (status)
		drop(d);
	else
		d->v = (struct vec){.iov = d->iov, .count = d->count, .size = d->size};
	return status;
}

uint16_t nvme_data_unmap(struct nvme_data *d, bool deliver)
{
	uint16_t status = NVME_OK;

	if (deliver && d->access & NVME_GUEST_WRITE)
		for (struct nvme_bounce *b = d->bounces; b; b = b->next)
			if (!b->bucket && host_write(d->c, b->address, b->bytes, b->length))
				status = NVME_DATA_TRANSFER_ERROR;
	drop(d);
	return status;
}

/* Copies [from, from + length) of the buffer, to or from `ours`. */
static int copy_data(const struct nvme_data *d, size_t from, char *ours, size_t length, bool to_guest)
{
	int status = 0;

	for (size_t i = 0; i < d->count && length && !status; i++) {
		struct iovec piece = d->iov[i];
		size_t n;
		if (from >= piece.iov_len) {
			from -= piece.iov_len;
			continue;
		}
		piece.iov_base = (char *)piece.iov_base + from;
		n = piece.iov_len - from < length ? piece.iov_len - from : length;
		status = to_guest ? safe_copy(piece.iov_base, ours, n) : safe_copy(ours, piece.iov_base, n);
		from = 0;
		ours += n;
		length -= n;
	}
	return status;
}

uint16_t nvme_data_gather(const struct nvme_data *d, size_t from, void *to, size_t length)
{
	return copy_data(d, from, to, length, false) ? NVME_DATA_TRANSFER_ERROR : NVME_OK;
}

uint16_t nvme_data_send(struct nvme_command *cmd, const void *from, size_t length)
{
	struct nvme_data d;
	uint16_t status = nvme_data_map(cmd, length, NVME_GUEST_WRITE, &d), ended;
	int copied;

	if (status)
		return status;
	copied = copy_data(&d, 0, (char *)(uintptr_t)from, length, true);
	ended = nvme_data_unmap(&d, !copied);
	return copied ? NVME_DATA_TRANSFER_ERROR : ended;
}

uint16_t nvme_data_fetch(struct nvme_command *cmd, void *to, size_t length)
{
	struct nvme_data d;
	uint16_t status = nvme_data_map(cmd, length, NVME_GUEST_READ, &d);

	if (status)
		return status;
	status = nvme_data_gather(&d, 0, to, length);
	nvme_data_unmap(&d, false);
	return status;
}
