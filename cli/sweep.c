/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/sweep.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/wait.h"

#define DEFAULT_ZERO_PIECE (UINT64_C(64) << 20)

/* So many runs are asked for at a time. */
#define RUNS_AT_A_TIME 256u

struct run {
	struct sweep *s;
	uint64_t end, align, piece, zero_piece;
	struct error *err;

	struct wait_mutex lock; /* protects what follows; held while extents are asked for, and nothing else */
	struct extents known;
	size_t at; /* of known.list */
	uint64_t next;
	uint64_t number;
	bool over;
	int status;
	pthread_t threads[SWEEP_MAX_JOBS];
	unsigned made, wanted; /* of threads, besides the calling one */
};

/* ------------------------------------------------------------------ cutting, under the lock */

static uint64_t round_down(uint64_t n, uint64_t unit)
{
	return n & ~(unit - 1);
}

static int ask(struct run *r)
{
	extents_free(&r->known);
	extents_init(&r->known, r->next, r->end - r->next, RUNS_AT_A_TIME);
	r->at = 0;
	if (r->s->all_data) {
		extents_add(&r->known, r->end - r->next, EXTENT_DATA);
		return r->known.status;
	}
	return find_extents(r->s->disk, NULL, &r->known, r->err);
}

static uint64_t end_of(const struct extent *e)
{
	return e->offset + e->length;
}

/* The run that holds the next byte; NULL when it is not known. */
static const struct extent *run_at_next(struct run *r)
{
	while (r->at < r->known.count && end_of(&r->known.list[r->at]) <= r->next)
		r->at++;
	return r->at < r->known.count ? &r->known.list[r->at] : NULL;
}

/* What is in part data is data. */
static void cut(struct run *r, const struct extent *e, struct piece *p)
{
	uint64_t end = end_of(e);
	bool zero = e->flags & EXTENT_ZERO;

	if (zero && end < r->end)
		end = round_down(end, r->align);
	if (zero && end <= r->next) {
		zero = false;
		end = r->next + r->align;
	}
	if (!zero && end < r->end && end % r->align > 0)
		end = round_down(end, r->align) + r->align;
	uint64_t most = zero ? r->zero_piece : r->piece;
	if (end - r->next > most)
		end = round_down(r->next + most, most);
	if (end > r->end)
		end = r->end;
	*p = (struct piece){
		.number = r->number++,
		.offset = r->next,
		.length = end - r->next,
		.flags = zero ? e->flags : e->flags & ~(unsigned)(EXTENT_ZERO | EXTENT_HOLE),
	};
	r->next = end;
}

static void end_with(struct run *r, int status)
{
	if (!r->status && status < 0)
		r->status = status;
	r->over = true;
}

/* False when there is no more. */
static bool take_locked(struct run *r, struct piece *p)
{
	const struct extent *e;

	if (!r->over && r->s->progress && progress_stopped(r->s->progress))
		end_with(r, error_set(r->err, -EINTR, "stopped by a signal"));
	if (r->over || r->next >= r->end)
		return false;
	e = run_at_next(r);
	if (!e) {
		int status = ask(r);
		if (status) {
			end_with(r, status);
			return false;
		}
		e = run_at_next(r);
	}
	cut(r, e, p);
	return true;
}

/* ------------------------------------------------------------------ threads */

static void *work(void *argument);

/*
 * Whoever takes a piece makes one more thread, so that there are as many as there is work, and none where there is nothing to do.
 * Under the lock, and only while pieces are left: who has found none left knows that no more are made.
 */
static void make_thread(struct run *r, const struct piece *taken)
{
	if (r->made == r->wanted || r->next >= r->end || (taken->flags & EXTENT_ZERO && r->s->zeroes_are_free))
		return;
	if (pthread_create(&r->threads[r->made], NULL, work, r))
		r->wanted = r->made; /* fewer will do */
	else
		r->made++;
}

static bool take(struct run *r, struct piece *p)
{
	wait_mutex_lock(&r->lock);
	bool there = take_locked(r, p);
	if (there)
		make_thread(r, p);
	wait_mutex_unlock(&r->lock);
	return there;
}

static void ended(struct run *r, int status, struct error *err)
{
	wait_mutex_lock(&r->lock);
	if (status < 0 && !r->status)
		error_move(r->err, err);
	end_with(r, status);
	wait_mutex_unlock(&r->lock);
}

static void visit_all(struct run *r, void *buffer)
{
	CLEANUP_ERROR struct error err = {0};
	struct piece p;

	while (take(r, &p)) {
		int status = r->s->visit(r->s, &p, buffer, &err);
		if (status) {
			ended(r, status, &err);
			return;
		}
		if (r->s->progress)
			progress_add(r->s->progress, p.length);
	}
}

static void *work(void *argument)
{
	struct run *r = argument;
	void *buffer = NULL;

	if (r->s->buffer_size > 0 && posix_memalign(&buffer, 4096, r->s->buffer_size)) {
		CLEANUP_ERROR struct error err = {0};
		ended(r, error_set(&err, -ENOMEM, "no memory"), &err);
		return NULL;
	}
	visit_all(r, buffer);
	free(buffer);
	return NULL;
}

int sweep_run(struct sweep *s, struct error *err)
{
	struct run r = {
		.s = s,
		.end = s->offset + s->length,
		.align = s->align ? s->align : disk_info(s->disk)->block_size,
		.piece = s->piece ? s->piece : SWEEP_PIECE,
		.zero_piece = s->zero_piece ? s->zero_piece : DEFAULT_ZERO_PIECE,
		.err = err,
		.next = s->offset,
		.wanted = (s->jobs < SWEEP_MAX_JOBS ? s->jobs : SWEEP_MAX_JOBS) - 1,
	};

	assert(s->jobs);
	work(&r);
	for (unsigned i = 0; i < r.made; i++)
		pthread_join(r.threads[i], NULL);
	extents_free(&r.known);
	return r.status;
}

/* ------------------------------------------------------------------ requests */

static int told(int status, const char *name, const char *what, uint64_t size, uint64_t offset,
		const struct failure *failure, struct error *err)
{
	if (!status)
		return 0;
	return error_set(err, status, "%s%s%s of %" PRIu64 " bytes at %" PRIu64 ": %s", name ? name : "", name ? ": " : "", what,
			 size, offset, failure->text[0] ? failure->text : strerror(-status));
}

int read_piece(struct disk *d, const char *name, void *buffer, size_t size, uint64_t offset, struct error *err)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure};

	return told(disk_read(d, &VEC_FLAT(buffer, size), offset, &io), name, "read", size, offset, &failure, err);
}

int write_piece(struct disk *d, const char *name, const void *buffer, size_t size, uint64_t offset, struct error *err)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure};

	return told(disk_write(d, &VEC_FLAT((void *)(uintptr_t)buffer, size), offset, &io), name, "write", size, offset,
		    &failure, err);
}

int zero_piece(struct disk *d, const char *name, uint64_t offset, uint64_t length, unsigned io_flags, struct error *err)
{
	struct failure failure = {0};
	struct io io = {.flags = io_flags, .failure = &failure};

	return told(disk_write_zeroes(d, offset, length, &io), name, "zeroing", length, offset, &failure, err);
}

int flush_disk(struct disk *d, const char *name, struct error *err)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	int status = disk_flush(d, &io);

	if (!status)
		return 0;
	return error_set(err, status, "%s%sflush: %s", name ? name : "", name ? ": " : "",
			 failure.text[0] ? failure.text : strerror(-status));
}

int find_extents(struct disk *d, const char *name, struct extents *out, struct error *err)
{
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	uint64_t at = extents_next(out);
	int status = disk_extents(d, out, &io);

	if (!status)
		status = out->status;
	if (!status && out->count == 0)
		status = -EIO;
	if (!status)
		return 0;
	return error_set(err, status, "%s%swhat is allocated at %" PRIu64 ": %s", name ? name : "", name ? ": " : "", at,
			 failure.text[0] ? failure.text : strerror(-status));
}

size_t zero_run_end(const char *data, size_t size, size_t at, size_t granule, bool *zero)
{
	size_t first = size - at < granule ? size - at : granule;

	*zero = memory_is_zero(data + at, first);
	for (at += first; at < size; at += granule) {
		size_t here = size - at < granule ? size - at : granule;
		if (memory_is_zero(data + at, here) != *zero)
			return at;
	}
	return size;
}
