/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/trap.h"

#include "core/kind.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct trap *trap_of(struct disk *d)
{
	return (struct trap *)d;
}

static void *must(void *memory)
{
	if (!memory) {
		printf("Bail out! no memory\n");
		exit(99);
	}
	return memory;
}

/* ------------------------------------------------------------------ writing down and failing */

static int fail(struct trap *t, const struct io *io)
{
	if (t->fail_status == -ENODATA)
		return io_fail_medium(io, t->fail_medium, "trap: medium");
	return io_fail(io, t->fail_status, "trap: sprung");
}

/* Writes the call down. 0, or what it shall fail with. */
static int enter(struct disk *d, enum trap_op op, uint64_t offset, uint64_t length, const struct io *io)
{
	struct trap *t = trap_of(d);
	int status = 0;

	pthread_mutex_lock(&t->lock);
	if (t->count < TRAP_LOG)
		t->log[t->count] = (struct trap_call){op, offset, length, io->flags, io->who};
	t->count++;
	t->counts[op]++;
	if (t->fail_in && (t->fail_ops >> op & 1) && !--t->fail_in)
		status = fail(t, io);
	pthread_mutex_unlock(&t->lock);
	return status;
}

void trap_reset(struct trap *t)
{
	pthread_mutex_lock(&t->lock);
	t->count = t->warms = 0;
	memset(t->counts, 0, sizeof(t->counts));
	pthread_mutex_unlock(&t->lock);
}

void trap_fail(struct trap *t, unsigned ops, unsigned nth, int status)
{
	pthread_mutex_lock(&t->lock);
	t->fail_ops = ops;
	t->fail_in = nth;
	t->fail_status = status;
	pthread_mutex_unlock(&t->lock);
}

/* ------------------------------------------------------------------ operations */

/* How much of the range has memory. */
static size_t held(struct trap *t, uint64_t offset, uint64_t length)
{
	if (offset >= t->capacity)
		return 0;
	return length < t->capacity - offset ? length : t->capacity - offset;
}

static int trap_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct trap *t = trap_of(d);
	int status = enter(d, TRAP_READ, offset, v->size, io);
	size_t n = held(t, offset, v->size);

	if (status)
		return status;
	if (n)
		vec_scatter(v, 0, t->content + offset, n);
	vec_zero(v, n, v->size - n);
	return 0;
}

static int trap_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct trap *t = trap_of(d);
	int status = enter(d, TRAP_WRITE, offset, v->size, io);

	if (!status && held(t, offset, v->size))
		vec_gather(v, 0, t->content + offset, held(t, offset, v->size));
	return status;
}

static int trap_flush(struct disk *d, const struct io *io)
{
	return enter(d, TRAP_FLUSH, 0, 0, io);
}

static void clear(struct trap *t, uint64_t offset, uint64_t length)
{
	if (held(t, offset, length))
		memset(t->content + offset, 0, held(t, offset, length));
}

static int trap_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	int status = enter(d, TRAP_DISCARD, offset, length, io);

	if (!status)
		clear(trap_of(d), offset, length);
	return status;
}

static int trap_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	int status = enter(d, TRAP_ZEROES, offset, length, io);

	if (!status)
		clear(trap_of(d), offset, length);
	return status;
}

static int trap_extents(struct disk *d, struct extents *out, const struct io *io)
{
	int status = enter(d, TRAP_EXTENTS, out->offset, out->end - out->offset, io);

	if (!status)
		extents_add(out, out->end - out->offset, EXTENT_DATA);
	return status;
}

static int trap_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	return enter(d, TRAP_PREFETCH, offset, length, io);
}

static void trap_warm(struct disk *d, uint64_t offset, uint64_t length, enum warm what)
{
	struct trap *t = trap_of(d);

	pthread_mutex_lock(&t->lock);
	if (t->warms < TRAP_LOG)
		t->warm[t->warms] = (struct trap_call){TRAP_READ, offset, length, what, NULL};
	t->warms++;
	pthread_mutex_unlock(&t->lock);
}

static int trap_resize(struct disk *d, uint64_t size, const struct io *io)
{
	int status = enter(d, TRAP_RESIZE, 0, size, io);

	if (status)
		return status;
	if (size < trap_of(d)->capacity)
		clear(trap_of(d), size, trap_of(d)->capacity - size);
	disk_set_size(d, size);
	return 0;
}

static int trap_eject(struct disk *d, const struct io *io)
{
	return enter(d, TRAP_EJECT, 0, 0, io);
}

static int trap_reserve(struct disk *d, const struct reservation_request *request, const struct io *io)
{
	return enter(d, TRAP_RESERVE, request->action, request->key, io);
}

static int trap_report(struct disk *d, struct reservation_report *report, const struct io *io)
{
	int status = enter(d, TRAP_REPORT, 0, 0, io);

	if (!status)
		*report = (struct reservation_report){.generation = 7};
	return status;
}

static int trap_close(struct disk *d, bool abandoned, struct error *err)
{
	struct trap *t = trap_of(d);

	if (t->closed)
		++*t->closed;
	if (t->abandoned)
		*t->abandoned = abandoned;
	free(t->content);
	pthread_mutex_destroy(&t->lock);
	return t->close_status ? error_set(err, t->close_status, "sprung at close") : 0;
}

/* ------------------------------------------------------------------ making */

static void leave_out(struct disk_ops *ops, unsigned without)
{
#define LEAVE_OUT(op, name)                                                                                  \
	if (without >> (op) & 1)                                                                             \
	ops->name = NULL
	LEAVE_OUT(TRAP_WRITE, write);
	LEAVE_OUT(TRAP_FLUSH, flush);
	LEAVE_OUT(TRAP_DISCARD, discard);
	LEAVE_OUT(TRAP_ZEROES, write_zeroes);
	LEAVE_OUT(TRAP_EXTENTS, extents);
	LEAVE_OUT(TRAP_PREFETCH, prefetch);
	LEAVE_OUT(TRAP_RESIZE, resize);
	LEAVE_OUT(TRAP_EJECT, eject);
	LEAVE_OUT(TRAP_RESERVE, reserve);
	LEAVE_OUT(TRAP_REPORT, report_reservations);
#undef LEAVE_OUT
}

struct trap *trap_create(const struct trap_options *options)
{
	struct disk_ops ops = {
		.read = trap_read,
		.write = trap_write,
		.flush = trap_flush,
		.discard = trap_discard,
		.write_zeroes = trap_write_zeroes,
		.extents = trap_extents,
		.prefetch = trap_prefetch,
		.warm = trap_warm,
		.resize = trap_resize,
		.eject = trap_eject,
		.reserve = trap_reserve,
		.report_reservations = trap_report,
		.close = trap_close,
	};
	uint32_t block = options->block_size ? options->block_size : 512;
	uint64_t size = options->size ? options->size : 1 << 20;
	struct trap *t;

	leave_out(&ops, options->without);
	t = must(disk_new(sizeof(*t), "trap", &ops, NULL, 0));
	t->capacity = options->capacity ? options->capacity : size < 4 << 20 ? size : 4 << 20;
	t->content = must(calloc(1, t->capacity));
	pthread_mutex_init(&t->lock, NULL);
	t->disk.info = (struct disk_info){.block_size = block,
					  .physical_block_size = block,
					  .discard_granularity = block,
					  .discard = options->discard,
					  .flags = options->flags};
	if (disk_publish(&t->disk, size, NULL)) {
		printf("Bail out! a trap of this shape cannot be published\n");
		exit(99);
	}
	return t;
}

struct disk *pass_create(struct disk *child)
{
	static const struct disk_ops nothing;
	struct disk *d = must(disk_new(sizeof(*d), "pass", &nothing, &child, 1));

	disk_inherit(d);
	if (disk_publish(d, disk_size(child), NULL)) {
		printf("Bail out! a node that inherits all cannot be published\n");
		exit(99);
	}
	return d;
}

struct disk *trap_wrap(const char *text, struct disk *child)
{
	CLEANUP_SPEC struct spec *spec = NULL;
	struct open_request request = {.children = &child};
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	if (!spec_parse(text, &spec, &err)) {
		request.spec = spec;
		if (!spec->kind->open(&request, &d, &err))
			return d;
	}
	printf("Bail out! %s: %s\n", text, error_text(&err));
	exit(99);
}

int trap_ask(struct disk *d, enum trap_op op, uint64_t size, const struct io *io)
{
	CLEANUP_EXTENTS struct extents e;
	char block[512] = "x";

	extents_init(&e, 512, 512, SIZE_MAX);
	switch (op) {
	case TRAP_READ:
		return disk_read(d, &VEC_FLAT(block, 512), 512, io);
	case TRAP_WRITE:
		return disk_write(d, &VEC_FLAT(block, 512), 512, io);
	case TRAP_FLUSH:
		return disk_flush(d, io);
	case TRAP_DISCARD:
		return disk_discard(d, 512, 512, io);
	case TRAP_ZEROES:
		return disk_write_zeroes(d, 512, 512, io);
	case TRAP_EXTENTS:
		return disk_extents(d, &e, io);
	case TRAP_PREFETCH:
		return disk_prefetch(d, 512, 512, io);
	case TRAP_RESIZE:
		return disk_resize(d, size, io);
	case TRAP_EJECT:
		return disk_eject(d, io);
	default:
		return -EINVAL;
	}
}
