/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Content is a hash table of pages, so that a file of TiB costs what was written to it. Pages are shared between a recorder and what was
 * cut from it, and copied when they are written to. The calls are a list; a cut replays those up to the last flush (which is
 * remembered for the next cut) and gives the rest to core/unflushed.h, which knows what may become of it.
 */
#include "tests/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tap.h"

#define PAGE 4096u
#define SECTOR 512u

static void *must(void *memory)
{
	if (!memory) {
		printf("Bail out! no memory\n");
		exit(99);
	}
	return memory;
}

/* ------------------------------------------------------------------ sparse content */

struct page {
	_Atomic unsigned users;
	unsigned char bytes[PAGE];
};

struct slot {
	uint64_t number;
	struct page *page; /* NULL: the slot is free */
};

struct content {
	struct slot *slots;
	size_t room, count; /* room is a power of two, or 0 */
	uint64_t size;
};

static size_t place_of(const struct content *c, uint64_t number)
{
	size_t i = (size_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (c->room - 1);

	while (c->slots[i].page && c->slots[i].number != number)
		i = (i + 1) & (c->room - 1);
	return i;
}

static struct page *page_at(const struct content *c, uint64_t number)
{
	return c->room ? c->slots[place_of(c, number)].page : NULL;
}

static void make_room(struct content *c)
{
	struct content old = *c;

	if (c->count * 2 < c->room)
		return;
	c->room = c->room ? 2 * c->room : 64;
	c->slots = must(calloc(c->room, sizeof(*c->slots)));
	for (size_t i = 0; i < old.room; i++)
		if (old.slots[i].page)
			c->slots[place_of(c, old.slots[i].number)] = old.slots[i];
	free(old.slots);
}

static void drop_page(struct page *p)
{
	if (p && atomic_fetch_sub(&p->users, 1) == 1)
		free(p);
}

/* A page that is ours alone, made if there is none. */
static struct page *own_page(struct content *c, uint64_t number)
{
	struct slot *s;
	struct page *fresh;

	if (!page_at(c, number))
		make_room(c); /* not for one that is there: others walk over the slots */
	s = &c->slots[place_of(c, number)];
	if (s->page && atomic_load(&s->page->users) == 1)
		return s->page;
	fresh = must(malloc(sizeof(*fresh)));
	atomic_init(&fresh->users, 1);
	if (s->page)
		memcpy(fresh->bytes, s->page->bytes, PAGE);
	else
		memset(fresh->bytes, 0, PAGE), c->count++;
	drop_page(s->page);
	*s = (struct slot){number, fresh};
	return fresh;
}

static void content_free(struct content *c)
{
	for (size_t i = 0; i < c->room; i++)
		drop_page(c->slots[i].page);
	free(c->slots);
	*c = (struct content){0};
}

static void content_copy(struct content *to, const struct content *from)
{
	*to = *from;
	to->slots = from->room ? must(calloc(from->room, sizeof(*to->slots))) : NULL;
	for (size_t i = 0; i < from->room; i++) {
		to->slots[i] = from->slots[i];
		if (to->slots[i].page)
			atomic_fetch_add(&to->slots[i].page->users, 1);
	}
}

static size_t piece_of(uint64_t offset, uint64_t length)
{
	uint64_t rest = PAGE - offset % PAGE;

	return (size_t)(length < rest ? length : rest);
}

static void content_read(const struct content *c, uint64_t offset, const struct vec *v)
{
	for (size_t done = 0, n; done < v->size; done += n) {
		uint64_t at = offset + done;
		const struct page *p = page_at(c, at / PAGE);
		n = piece_of(at, v->size - done);
		if (p)
			vec_scatter(v, done, p->bytes + at % PAGE, n);
		else
			vec_zero(v, done, n);
	}
}

static int content_write(void *to, uint64_t offset, const void *data, size_t length)
{
	struct content *c = to;

	for (size_t done = 0, n; done < length; done += n) {
		uint64_t at = offset + done;
		n = piece_of(at, length - done);
		memcpy(own_page(c, at / PAGE)->bytes + at % PAGE, (const char *)data + done, n);
	}
	if (offset + length > c->size)
		c->size = offset + length;
	return 0;
}

/* Of a page that is there. */
static void zero_in_page(struct content *c, uint64_t number, uint64_t offset, uint64_t end)
{
	uint64_t from = offset > number * PAGE ? offset - number * PAGE : 0;
	uint64_t to = end < (number + 1) * PAGE ? end - number * PAGE : PAGE;

	memset(own_page(c, number)->bytes + from, 0, to - from);
}

/* Looks at the pages of the range or, where they are fewer, at those that there are. */
static int content_zero(void *to, uint64_t offset, uint64_t length, unsigned tag)
{
	struct content *c = to;
	uint64_t first = offset / PAGE, end = (offset + length + PAGE - 1) / PAGE;

	(void)tag;
	if (end - first < c->room) {
		for (uint64_t number = first; number < end; number++)
			if (page_at(c, number))
				zero_in_page(c, number, offset, offset + length);
		return 0;
	}
	for (size_t i = 0, room = c->room; i < room; i++)
		if (c->slots[i].page && c->slots[i].number >= first && c->slots[i].number < end)
			zero_in_page(c, c->slots[i].number, offset, offset + length);
	return 0;
}

static int content_resize(void *to, uint64_t size)
{
	struct content *c = to;
	size_t in_page = size % PAGE;

	if (size < c->size && in_page && page_at(c, size / PAGE))
		memset(own_page(c, size / PAGE)->bytes + in_page, 0, PAGE - in_page);
	for (size_t i = 0; size < c->size && i < c->room; i++)
		if (c->slots[i].page && c->slots[i].number >= (size + PAGE - 1) / PAGE && !memory_is_zero(c->slots[i].page->bytes, PAGE))
			memset(own_page(c, c->slots[i].number)->bytes, 0, PAGE);
	c->size = size;
	return 0;
}

static struct unflushed_sink sink_of(struct content *c)
{
	return (struct unflushed_sink){content_write, content_zero, content_resize, c};
}

/* ------------------------------------------------------------------ the calls */

struct call {
	enum recorder_call kind;
	bool durable;
	uint64_t offset, length; /* resize: length is the new size */
	unsigned char *data;     /* write */
};

struct recorder {
	struct container container;
	pthread_mutex_t lock; /* protects what follows */
	struct content now, begun;
	struct call *calls;
	unsigned nr_calls, room;
	unsigned counts[RECORDER_KINDS];
	unsigned fail_kinds, fail_in;
	int fail_status, failed_flush;
	unsigned holders; /* besides the first */
	struct content stable; /* after the first `stable_calls` calls, the last of which is a flush (or none) */
	unsigned stable_calls;
};

struct recorder *recorder_of(struct container *c)
{
	return (struct recorder *)c;
}

struct container *recorder_container(struct recorder *r)
{
	return &r->container;
}

/* Under the lock. What a call of this kind is to be answered with; 0: it may go on. */
static int begin_call(struct recorder *r, enum recorder_call kind, const struct io *io)
{
	r->counts[kind]++;
	if (kind != RECORDER_READ && r->failed_flush)
		return io_fail(io, -EIO, "'%s': an earlier flush failed", r->container.name);
	if (r->fail_in && r->fail_kinds >> kind & 1 && !--r->fail_in) {
		if (kind == RECORDER_FLUSH)
			r->failed_flush = r->fail_status;
		return io_fail(io, r->fail_status, "'%s': failed as it was told to", r->container.name);
	}
	if (kind == RECORDER_FLUSH || kind == RECORDER_READ || !r->container.read_only)
		return 0;
	return io_fail(io, -EROFS, "'%s' is open for reading only", r->container.name);
}

static void record(struct recorder *r, struct call call)
{
	if (r->nr_calls == r->room) {
		r->room = r->room ? 2 * r->room : 256;
		r->calls = must(reallocarray(r->calls, r->room, sizeof(*r->calls)));
	}
	r->calls[r->nr_calls++] = call;
	atomic_store(&r->container.size, r->now.size);
}

static int recorder_read(struct container *c, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct recorder *r = recorder_of(c);
	int status;

	pthread_mutex_lock(&r->lock);
	status = begin_call(r, RECORDER_READ, io);
	if (!status && (offset > r->now.size || v->size > r->now.size - offset))
		status = io_fail(io, -EIO, "'%s': %zu bytes at %" PRIu64 " lie behind its end at %" PRIu64, c->name, v->size, offset,
				 r->now.size);
	if (!status)
		content_read(&r->now, offset, v);
	pthread_mutex_unlock(&r->lock);
	return status;
}

static int recorder_write(struct container *c, const struct vec *v, uint64_t offset, bool durable, const struct io *io)
{
	struct recorder *r = recorder_of(c);
	int status;

	pthread_mutex_lock(&r->lock);
	status = begin_call(r, RECORDER_WRITE, io);
	if (!status) {
		unsigned char *data = must(malloc(v->size + 1));
		vec_gather(v, 0, data, v->size);
		content_write(&r->now, offset, data, v->size);
		record(r, (struct call){RECORDER_WRITE, durable, offset, v->size, data});
	}
	pthread_mutex_unlock(&r->lock);
	return status;
}

static int recorder_flush(struct container *c, const struct io *io)
{
	struct recorder *r = recorder_of(c);
	int status;

	pthread_mutex_lock(&r->lock);
	status = begin_call(r, RECORDER_FLUSH, io);
	if (!status)
		record(r, (struct call){.kind = RECORDER_FLUSH});
	pthread_mutex_unlock(&r->lock);
	return status;
}

static int recorder_resize(struct container *c, uint64_t size, const struct io *io)
{
	struct recorder *r = recorder_of(c);
	int status;

	pthread_mutex_lock(&r->lock);
	status = begin_call(r, RECORDER_RESIZE, io);
	if (!status) {
		content_resize(&r->now, size);
		record(r, (struct call){.kind = RECORDER_RESIZE, .length = size});
	}
	pthread_mutex_unlock(&r->lock);
	return status;
}

static int recorder_zero(struct container *c, uint64_t offset, uint64_t length, bool unmap, const struct io *io)
{
	struct recorder *r = recorder_of(c);
	int status;

	(void)unmap;
	pthread_mutex_lock(&r->lock);
	status = begin_call(r, RECORDER_ZERO, io);
	if (!status && (offset > r->now.size || length > r->now.size - offset)) {
		CHECK(!"zeroing stays inside the size");
		status = -EIO;
	}
	if (!status) {
		content_zero(&r->now, offset, length, 0);
		record(r, (struct call){.kind = RECORDER_ZERO, .offset = offset, .length = length});
	}
	pthread_mutex_unlock(&r->lock);
	return status;
}

/* As a file system with holes of a block tells them. */
static int recorder_extents(struct container *c, struct extents *out, uint32_t block, const struct io *io)
{
	struct recorder *r = recorder_of(c);
	uint32_t step = block > PAGE ? block : PAGE;
	bool more = true;

	(void)io;
	pthread_mutex_lock(&r->lock);
	while (more && extents_next(out) < out->end) {
		uint64_t next = extents_next(out), end = (next / step + 1) * step;
		bool data = false;
		for (uint64_t page = next / PAGE; page < (end + PAGE - 1) / PAGE; page++)
			data = data || page_at(&r->now, page);
		more = extents_add(out, end - next, data ? EXTENT_DATA : EXTENT_ZERO | EXTENT_HOLE);
	}
	pthread_mutex_unlock(&r->lock);
	return 0;
}

static void recorder_prefetch(struct container *c, uint64_t offset, uint64_t length)
{
	(void)c, (void)offset, (void)length;
}

static void forget_calls(struct recorder *r)
{
	for (unsigned i = 0; i < r->nr_calls; i++)
		free(r->calls[i].data);
	r->nr_calls = r->stable_calls = 0;
	memset(r->counts, 0, sizeof(r->counts));
	content_free(&r->begun);
	content_free(&r->stable);
}

static int recorder_close(struct container *c, bool remove, struct error *err)
{
	struct recorder *r = recorder_of(c);

	(void)remove, (void)err;
	if (r->holders) {
		r->holders--;
		return 0;
	}
	forget_calls(r);
	content_free(&r->now);
	free(r->calls);
	free(c->name);
	free(r);
	return 0;
}

static const struct container_ops recorder_ops = {
	.read = recorder_read,
	.write = recorder_write,
	.flush = recorder_flush,
	.resize = recorder_resize,
	.zero = recorder_zero,
	.extents = recorder_extents,
	.prefetch = recorder_prefetch,
	.close = recorder_close,
};

/* ------------------------------------------------------------------ making, loading, saving */

struct recorder *recorder_create(const char *name)
{
	struct recorder *r = must(calloc(1, sizeof(*r)));

	pthread_mutex_init(&r->lock, NULL);
	r->container = (struct container){.ops = &recorder_ops, .name = must(strdup(name))};
	return r;
}

void recorder_hold(struct recorder *r)
{
	r->holders++;
}

/* The file's data between its holes. */
static bool load_data(struct recorder *r, int fd)
{
	static unsigned char piece[65536];
	off_t at = 0;

	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		ssize_t n = pread(fd, piece, sizeof(piece), at);
		if (n <= 0)
			return false;
		if (!memory_is_zero(piece, (size_t)n))
			content_write(&r->now, (uint64_t)at, piece, (size_t)n);
		at += n;
	}
	return errno == ENXIO;
}

bool recorder_load(struct recorder *r, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	bool good;

	content_free(&r->now);
	good = fd >= 0 && !fstat(fd, &st) && load_data(r, fd);
	if (good)
		content_resize(&r->now, (uint64_t)st.st_size);
	if (fd >= 0)
		close(fd);
	atomic_store(&r->container.size, r->now.size);
	recorder_begin(r);
	return good;
}

bool recorder_save(struct recorder *r, const char *path)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	bool good = fd >= 0 && !ftruncate(fd, (off_t)r->now.size);

	for (size_t i = 0; good && i < r->now.room; i++) {
		const struct slot *s = &r->now.slots[i];
		uint64_t at = s->number * PAGE;
		if (s->page && at < r->now.size) {
			size_t n = r->now.size - at < PAGE ? (size_t)(r->now.size - at) : PAGE;
			good = pwrite(fd, s->page->bytes, n, (off_t)at) == (ssize_t)n;
		}
	}
	return fd >= 0 && !close(fd) && good;
}

void recorder_set_read_only(struct recorder *r, bool read_only)
{
	r->container.read_only = read_only;
}

void recorder_begin(struct recorder *r)
{
	forget_calls(r);
	content_copy(&r->begun, &r->now);
	content_copy(&r->stable, &r->now);
}

unsigned recorder_calls(const struct recorder *r)
{
	return r->nr_calls;
}

unsigned recorder_count(const struct recorder *r, enum recorder_call kind)
{
	return r->counts[kind];
}

void recorder_fail(struct recorder *r, unsigned kinds, unsigned nth, int status)
{
	r->fail_kinds = kinds;
	r->fail_in = nth;
	r->fail_status = status;
}

uint64_t recorder_bytes(const struct recorder *r)
{
	return r->now.count * sizeof(struct page);
}

/* ------------------------------------------------------------------ cuts */

static int record_call(struct unflushed *u, const struct call *call)
{
	int status;

	switch (call->kind) {
	case RECORDER_WRITE:
		status = unflushed_record_write(u, call->offset, call->data, call->length);
		if (!status && call->durable)
			status = unflushed_record_durable(u, call->offset, call->length);
		return status;
	case RECORDER_ZERO:
		return unflushed_record_zero(u, call->offset, call->length, 0);
	case RECORDER_RESIZE:
		return unflushed_record_resize(u, call->length);
	default:
		return 0;
	}
}

static void apply_call(struct content *c, const struct call *call)
{
	if (call->kind == RECORDER_WRITE)
		content_write(c, call->offset, call->data, call->length);
	else if (call->kind == RECORDER_ZERO)
		content_zero(c, call->offset, call->length, 0);
	else if (call->kind == RECORDER_RESIZE)
		content_resize(c, call->length);
}

/* Brings r->stable to the last flush among the first `n` calls. */
static void find_stable(struct recorder *r, unsigned n)
{
	unsigned flush = n;

	while (flush && r->calls[flush - 1].kind != RECORDER_FLUSH)
		flush--;
	if (flush < r->stable_calls) {
		content_free(&r->stable);
		content_copy(&r->stable, &r->begun);
		r->stable_calls = 0;
	}
	while (r->stable_calls < flush)
		apply_call(&r->stable, &r->calls[r->stable_calls++]);
}

/* What was not flushed among the first `n` calls; the medium before it is r->stable. */
static struct unflushed *unflushed_of(struct recorder *r, unsigned n)
{
	struct unflushed *u = NULL;
	int status;

	find_stable(r, n);
	status = unflushed_create(r->stable.size, SECTOR, &u);
	for (unsigned i = r->stable_calls; i < n && !status; i++)
		status = record_call(u, &r->calls[i]);
	must(status ? NULL : u);
	return u;
}

static struct recorder *begin_cut(struct recorder *r, struct unflushed_sink *sink)
{
	struct recorder *cut = recorder_create(r->container.name);

	content_copy(&cut->now, &r->stable);
	*sink = sink_of(&cut->now);
	return cut;
}

static struct recorder *end_cut(struct recorder *cut, struct unflushed *u, int status)
{
	must(status ? NULL : u);
	unflushed_free(u);
	atomic_store(&cut->container.size, cut->now.size);
	recorder_begin(cut);
	return cut;
}

struct recorder *recorder_cut(struct recorder *r, unsigned n, enum unflushed_order order, uint64_t seed)
{
	struct unflushed *u = unflushed_of(r, n);
	struct unflushed_sink sink;
	struct recorder *cut = begin_cut(r, &sink);

	return end_cut(cut, u, unflushed_sample(u, order, seed, &sink));
}

uint64_t recorder_states(struct recorder *r, unsigned n, enum unflushed_order order)
{
	struct unflushed *u = unflushed_of(r, n);
	uint64_t count = unflushed_count_states(u, order);

	unflushed_free(u);
	return count;
}

struct recorder *recorder_cut_state(struct recorder *r, unsigned n, enum unflushed_order order, uint64_t k)
{
	struct unflushed *u = unflushed_of(r, n);
	struct unflushed_sink sink;
	struct recorder *cut = begin_cut(r, &sink);

	return end_cut(cut, u, unflushed_enumerate(u, order, k, &sink));
}

void recorder_tell(const struct recorder *r, unsigned n, enum unflushed_order order, uint64_t seed)
{
	static const char *const names[] = {"read", "write", "flush", "resize", "zero"};
	unsigned first = n > 8 ? n - 8 : 0;

	tap_diag("'%s': cut after call %u of %u, %s, seed %" PRIu64 " (SEED=... in the environment gives the same calls)", r->container.name,
		 n, r->nr_calls, order == UNFLUSHED_ANY ? "in any order" : "in order", seed);
	for (unsigned i = first; i < n; i++)
		tap_diag("  %u: %s%s %" PRIu64 "+%" PRIu64, i, names[r->calls[i].kind], r->calls[i].durable ? " durably" : "",
			 r->calls[i].offset, r->calls[i].length);
}
