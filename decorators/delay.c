/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * delay: each request waits before it goes down
 *
 * Latency, not throughput: requests wait side by side, however many there are. How long, a schedule for each operation says
 * (decorators/schedule.h). The n-th request of an operation waits as long as the n-th number of its stream says, so that the
 * same seed gives the same waits, whatever the other operations do meanwhile (core/chance.h).
 *
 * What waits: read, write, flush, discard, write_zeroes. Asking about the disk (extents, sizes, reservations) and hints of
 * reads to come do not.
 *
 * A control file may change the schedules (decorators/control.h): requests that come later go by the new ones, those that sleep
 * are not woken. Whoever has to wait copies the schedule under a short lock; a request for an operation without a wait pays
 * one relaxed load.
 */
#include "kinds.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "core/chance.h"
#include "core/node.h"
#include "core/short-lock.h"
#include "core/wait.h"
#include "decorators/control.h"
#include "decorators/schedule.h"

enum operation { READ, WRITE, FLUSH, DISCARD, ZEROES, OPERATIONS };

static const char *const operation_names[OPERATIONS] = {"read", "write", "flush", "discard", "zeroes"};

/* In `slow`: nobody watches the control file yet. The first request sees to that, whatever it is. */
#define UNWATCHED (1u << OPERATIONS)

struct settings {
	uint64_t seed;
	struct schedule schedules[OPERATIONS];
};

struct delay {
	struct disk disk;
	_Atomic unsigned slow; /* bit (1 << enum operation): has a wait; UNWATCHED */
	struct control *control; /* NULL: no file was given */

	struct short_lock lock; /* protects `settings`; that a number is drawn and the seed it belongs to is one step under it */
	struct settings settings;
	_Atomic uint64_t drawn[OPERATIONS]; /* numbers taken from each stream */
};

/* ------------------------------------------------------------------ requests */

static uint64_t draw_wait(struct delay *d, enum operation op)
{
	struct schedule s;
	uint64_t seed, n;

	short_lock_shared(&d->lock);
	s = d->settings.schedules[op];
	seed = d->settings.seed;
	n = atomic_fetch_add_explicit(&d->drawn[op], 1, memory_order_relaxed);
	short_unlock_shared(&d->lock);
	return schedule_draw(&s, chance_at(seed, op, n));
}

static __attribute__((noinline)) void wait_slowly(struct delay *d, enum operation op)
{
	unsigned slow = atomic_load_explicit(&d->slow, memory_order_relaxed);
	uint64_t ns = slow >> op & 1 ? draw_wait(d, op) : 0;

	if (slow & UNWATCHED && atomic_fetch_and(&d->slow, ~UNWATCHED) & UNWATCHED)
		control_start(d->control);
	if (ns)
		wait_sleep(ns);
}

static inline void wait_for(struct disk *d, enum operation op)
{
	struct delay *delay = (struct delay *)d;

	if (atomic_load_explicit(&delay->slow, memory_order_relaxed) & (1u << op | UNWATCHED))
		wait_slowly(delay, op);
}

static int delay_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	wait_for(d, READ);
	return disk_read(d->children[0], v, offset, io);
}

static int delay_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	wait_for(d, WRITE);
	return disk_write(d->children[0], v, offset, io);
}

static int delay_flush(struct disk *d, const struct io *io)
{
	wait_for(d, FLUSH);
	return disk_flush(d->children[0], io);
}

static int delay_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	wait_for(d, DISCARD);
	return disk_discard(d->children[0], offset, length, io);
}

static int delay_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	wait_for(d, ZEROES);
	return disk_write_zeroes(d->children[0], offset, length, io);
}

/* The bytes are those below. */
static int delay_identity(struct disk *d, struct identity *out)
{
	return disk_identity(d->children[0], out);
}

static json_t *describe_schedule(const struct schedule *s)
{
	json_t *o = json_pack("{s:I}", "time_ns", (json_int_t)s->time);

	if (s->jitter)
		json_object_set_new(o, "jitter_ns", json_integer((json_int_t)s->jitter));
	if (s->p99)
		json_object_set_new(o, "p99_ns", json_integer((json_int_t)s->p99));
	return o;
}

/* The seed is text: it may be larger than JSON's numbers. */
static void delay_describe(struct disk *d, json_t *object)
{
	struct delay *delay = (struct delay *)d;
	json_t *delays = json_object();
	struct settings s;

	short_lock_shared(&delay->lock);
	s = delay->settings;
	short_unlock_shared(&delay->lock);
	for (unsigned op = 0; op < OPERATIONS; op++)
		json_object_set_new(delays, operation_names[op], describe_schedule(&s.schedules[op]));
	json_object_set_new(object, "delays", delays);
	json_object_set_new(object, "seed", json_sprintf("%#llx", (unsigned long long)s.seed));
	control_describe(delay->control, object);
}

static int delay_close(struct disk *d, bool abandoned, struct error *err)
{
	(void)abandoned;
	(void)err;
	control_close(((struct delay *)d)->control);
	return 0;
}

static const struct disk_ops delay_ops = {
	.read = delay_read,
	.write = delay_write,
	.flush = delay_flush,
	.discard = delay_discard,
	.write_zeroes = delay_write_zeroes,
	.identity = delay_identity,
	.describe = delay_describe,
	.close = delay_close,
};

/* ------------------------------------------------------------------ settings */

/* The value of OPERATION, OPERATION-jitter or OPERATION-p99. */
static bool own_setting(const struct spec *spec, enum operation op, const char *ending, uint64_t *out)
{
	char name[32];

	snprintf(name, sizeof(name), "%s%s", operation_names[op], ending);
	*out = spec_number(spec, name);
	return spec_given(spec, name);
}

/*
 * An operation with a time of its own takes nothing from what is set for all; one with a jitter or p99 of its own only the
 * time.
 */
static struct schedule schedule_of(const struct spec *spec, enum operation op)
{
	struct schedule s;
	bool time = own_setting(spec, op, "", &s.time);
	bool jitter = own_setting(spec, op, "-jitter", &s.jitter);
	bool p99 = own_setting(spec, op, "-p99", &s.p99);

	if (time)
		return s;
	s.time = spec_number(spec, "time");
	if (jitter || p99)
		return s;
	s.jitter = spec_number(spec, "jitter");
	s.p99 = spec_number(spec, "p99");
	return s;
}

static int read_schedules(struct schedule *schedules, const struct spec *spec, struct error *err)
{
	int status = 0;

	for (unsigned op = 0; op < OPERATIONS && !status; op++) {
		schedules[op] = schedule_of(spec, op);
		status = schedule_check(&schedules[op], operation_names[op], err);
	}
	return status;
}

static unsigned slow_operations(const struct settings *s)
{
	unsigned slow = 0;

	for (unsigned op = 0; op < OPERATIONS; op++)
		slow |= schedule_is_empty(&s->schedules[op]) ? 0 : 1u << op;
	return slow;
}

/* From the control file: all of it holds from now on, or none. A seed begins all streams anew; without one they go on. */
static int change_settings(void *owner, const struct spec *spec, struct error *err)
{
	struct delay *d = owner;
	struct settings s = {.seed = spec_number(spec, "seed")};
	int status;

	if (spec_given(spec, "control"))
		return error_set(err, -EINVAL, "control: another file cannot be named while the disk is open");
	status = read_schedules(s.schedules, spec, err);
	if (status)
		return status;
	short_lock_exclusive(&d->lock);
	if (!spec_given(spec, "seed"))
		s.seed = d->settings.seed;
	for (unsigned op = 0; op < OPERATIONS && spec_given(spec, "seed"); op++)
		atomic_store_explicit(&d->drawn[op], 0, memory_order_relaxed);
	d->settings = s;
	short_unlock_exclusive(&d->lock);
	atomic_store_explicit(&d->slow, slow_operations(&s), memory_order_relaxed);
	return 0;
}

static int first_settings(struct delay *d, const struct spec *spec, struct error *err)
{
	struct settings *s = &d->settings;
	int status;

	s->seed = spec_number(spec, "seed");
	if (!spec_given(spec, "seed") && getrandom(&s->seed, sizeof(s->seed), 0) != sizeof(s->seed))
		return error_set_errno(err, -errno, "seed: no random numbers");
	status = read_schedules(s->schedules, spec, err);
	if (!status)
		atomic_store(&d->slow, slow_operations(s));
	return status;
}

/* What the file says already counts more than the spec, which may have been written long ago. */
static int open_control(struct delay *d, const struct spec *spec, struct error *err)
{
	int status;

	if (!spec_text(spec, "control"))
		return 0;
	status = control_open(&d->control, spec_text(spec, "control"), &delay_kind, change_settings, d, err);
	if (!status)
		atomic_fetch_or(&d->slow, UNWATCHED);
	return status;
}

static int delay_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct delay *d = disk_new(sizeof(*d), "delay", &delay_ops, request->children, 1);
	int status;

	if (!d)
		return error_set(err, -ENOMEM, "no memory");
	disk_inherit(&d->disk);
	status = first_settings(d, request->spec, err);
	if (!status)
		status = disk_publish(&d->disk, disk_size(request->children[0]), err);
	if (!status)
		status = open_control(d, request->spec, err);
	if (status)
		disk_drop_new(&d->disk);
	else
		*out = &d->disk;
	return status;
}

#define TIME(field, text)                                                                          \
	{                                                                                          \
		.name = field, .role = SPEC_OPTION, .type = SPEC_DURATION, .unit = "ms",           \
		.max = SCHEDULE_LONGEST_NS, .help = text                                           \
	}

#define TIMES(operation, what)                                                                     \
	TIME(operation, "how long " what " waits, instead of the time for all"),                   \
		TIME(operation "-jitter", "the most by which that is longer or shorter"),          \
		TIME(operation "-p99", "the time that 99 in 100 keep to; the time is the median then")

static const struct spec_field delay_fields[] = {
	{.name = "time",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_DURATION,
	 .required = true,
	 .unit = "ms",
	 .max = SCHEDULE_LONGEST_NS,
	 .help = "how long each request waits"},
	TIME("jitter", "the most by which a wait is longer or shorter"),
	TIME("p99", "the time that 99 in 100 waits keep to; the time is the median then"),
	TIMES("read", "a read"),
	TIMES("write", "a write"),
	TIMES("flush", "a flush"),
	TIMES("discard", "a discard"),
	TIMES("zeroes", "zeroing"),
	{.name = "seed",
	 .role = SPEC_OPTION,
	 .type = SPEC_NUMBER,
	 .help = "the same seed gives the same waits; the default is another one each time"},
	{.name = "control",
	 .role = SPEC_OPTION,
	 .type = SPEC_TEXT,
	 .help = "a file that changes all of this while the disk is open"},
	{0},
};

const struct disk_kind delay_kind = {
	.name = "delay",
	.summary = "a disk that takes its time: latency for each operation",
	.children = KIND_WRAPS,
	.fields = delay_fields,
	.open = delay_open,
};
