/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fault: a disk that fails by rules
 *
 * A request comes by, and if no rule is for its operation, there is no limit, no cache and no control file to begin
 * with, one load of `active` was all. Else it
 *
 *   1. is judged: rules (decorators/fault-rules.h), of which the first that strikes decides what becomes of it, and
 *      limits (decorators/fault-limit.h);
 *   2. waits for its turn, where there is a limit;
 *   3. goes on to the disk below, or to the cache over it (decorators/fault-cache.h), as it is, in part, changed, or
 *      not at all (decorators/fault-act.h).
 *
 * Rules, limits and seed are one object that is never changed, but for its counters: a control file puts another in
 * its place (decorators/control.h). Judging is done inside a grace (core/grace.h), where nothing waits; who needs the
 * settings for longer takes a reference. Whether there is a cache, and of what kind, is settled when the disk is
 * opened, since it decides what the disk can promise.
 *
 *   power   on    as above
 *           off   everything fails with -EIO: requests, and questions about extents. What was under way without a
 *                 cache ends as it would have; what comes to the cache after the cut finds it off.
 *
 * By a cut the cache loses what it holds, as a seeded choice among the states of core/unflushed.h; what is below it
 * counts as the medium. Without a cache nothing is lost. Close writes back what is held: losing it takes a cut, or
 * the end of the process.
 *
 * Flags of the disk stay true. FUA is passed on, or honoured by the cache. Where reads may show other bytes than
 * those below (rules of reads that say so, a cache, or a control file, which may bring either), the disk has no
 * identity and no id, by which somebody might keep them.
 */
#include "kinds.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/chance.h"
#include "core/grace.h"
#include "core/node.h"
#include "core/wait.h"
#include "decorators/control.h"
#include "decorators/fault-act.h"
#include "decorators/fault-cache.h"
#include "decorators/fault-limit.h"
#include "decorators/fault-rules.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

#define DEFAULT_CACHE (UINT64_C(64) << 20)

/* In `active`, above a bit (1 << enum fault_op) for each operation that rules or limits are for. */
#define UNWATCHED (1u << FAULT_OPS) /* nobody watches the control file yet: the first request sees to that */
#define POWER_OFF (2u << FAULT_OPS)
#define CACHED (4u << FAULT_OPS)

/* Streams of random numbers beside those of the rules, which are numbered from 1. */
#define STREAM_CUT UINT64_MAX

enum limit { READ_REQUESTS, WRITE_REQUESTS, READ_BYTES, WRITE_BYTES, LIMITS };

static const char *const limit_names[LIMITS] = {"read-iops", "write-iops", "read-rate", "write-rate"};

struct settings {
	_Atomic unsigned references;
	uint64_t seed;
	bool off, limited, healing;
	struct fault_rules rules;
	struct fault_limit limits[LIMITS];
};

struct fault {
	struct disk disk;
	_Atomic unsigned active;
	struct control *control;   /* NULL: no file was given */
	struct fault_way way;
	struct grace grace;        /* who is inside may look at the settings, and take a reference, but not wait */
	struct settings *_Atomic settings;
	_Atomic uint64_t cuts;
};

/* ------------------------------------------------------------------ settings */

static struct settings *settings_ref(struct settings *s)
{
	atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
	return s;
}

static struct settings *settings_take(struct fault *f)
{
	_Atomic uint32_t *place = grace_enter(&f->grace);
	struct settings *s = settings_ref(atomic_load(&f->settings));

	grace_leave(&f->grace, place);
	return s;
}

static void settings_drop(struct settings *s)
{
	if (!s || atomic_fetch_sub(&s->references, 1) > 1)
		return;
	fault_rules_free(&s->rules);
	free(s);
}

/* ------------------------------------------------------------------ power */

static int cut_power(struct fault *f, uint64_t seed, const struct io *io)
{
	uint64_t n = atomic_fetch_add(&f->cuts, 1);

	return f->way.cache ? fault_cache_cut(f->way.cache, chance_at(seed, STREAM_CUT, n), io) : 0;
}

static void restore_power(struct fault *f)
{
	if (f->way.cache)
		fault_cache_restore(f->way.cache);
}

/* What was being written may survive like all that the cache holds; nothing else of the request is done. */
static int strike_cut(struct fault *f, const struct fault_request *r, const struct fault_blow *b)
{
	struct io plain = io_with_flags(r->io, r->io->flags & ~(unsigned)IO_FUA);
	struct fault_request held = *r;
	int status = 0;

	held.io = &plain;
	if (f->way.cache && r->op != FAULT_READ && r->op != FAULT_FLUSH)
		status = fault_pass(&f->way, &held);
	if (!status)
		status = cut_power(f, b->seed, r->io);
	if (b->strike.rule->act == FAULT_RESET)
		restore_power(f);
	else
		atomic_fetch_or(&f->active, POWER_OFF);
	return status ? status : fault_fail(&f->way, r, b);
}

/* ------------------------------------------------------------------ requests */

static int strike(struct fault *f, const struct fault_request *r, const struct fault_blow *b)
{
	enum fault_act act = b->strike.rule->act;

	return act == FAULT_CUT || act == FAULT_RESET ? strike_cut(f, r, b) : fault_act(&f->way, r, b);
}

/* How long the request waits: the longer of what the limits of requests and of bytes ask for, in ns. */
static uint64_t take_turn(struct settings *s, const struct fault_request *r)
{
	bool reading = r->op == FAULT_READ;
	uint64_t now, first, second;

	if (!s->limited || r->op == FAULT_FLUSH)
		return 0;
	now = wait_now();
	first = fault_limit_take(&s->limits[reading ? READ_REQUESTS : WRITE_REQUESTS], 1, now);
	second = r->v ? fault_limit_take(&s->limits[reading ? READ_BYTES : WRITE_BYTES], r->length, now) : 0;
	return first > second ? first : second;
}

static bool heals(const struct settings *s, enum fault_op op)
{
	return s->healing && (op == FAULT_WRITE || op == FAULT_ZEROES);
}

/* What the settings say of a request; they are kept where they are needed still. */
struct verdict {
	struct settings *kept; /* with a reference; NULL: neither struck nor healing */
	bool struck;
	struct fault_blow blow;
	uint64_t wait_ns;
};

static void judge(struct fault *f, const struct fault_request *r, struct verdict *out)
{
	_Atomic uint32_t *place = grace_enter(&f->grace);
	struct settings *s = atomic_load(&f->settings);

	out->wait_ns = take_turn(s, r);
	out->struck = fault_rules_ask(&s->rules, r->op, r->offset, r->length, s->seed, &out->blow.strike);
	out->blow.seed = s->seed;
	out->kept = out->struck || heals(s, r->op) ? settings_ref(s) : NULL;
	grace_leave(&f->grace, place);
}

static int serve_judged(struct fault *f, const struct fault_request *r)
{
	struct verdict v;
	int status;

	judge(f, r, &v);
	if (v.wait_ns)
		wait_sleep(v.wait_ns);
	status = v.struck ? strike(f, r, &v.blow) : fault_pass(&f->way, r);
	if (!v.struck && !status && v.kept)
		fault_rules_heal(&v.kept->rules, r->offset, r->length);
	settings_drop(v.kept);
	return status;
}

static void watch_control(struct fault *f)
{
	if (atomic_fetch_and(&f->active, ~UNWATCHED) & UNWATCHED)
		control_start(f->control);
}

static int refuse_off(const struct io *io)
{
	return io_fail(io, -EIO, "fault: the power is off");
}

static __attribute__((noinline)) int serve(struct fault *f, const struct fault_request *r)
{
	unsigned active = atomic_load(&f->active);

	if (active & UNWATCHED)
		watch_control(f);
	if (active & POWER_OFF)
		return refuse_off(r->io);
	return active & 1u << r->op ? serve_judged(f, r) : fault_pass(&f->way, r);
}

static inline bool is_busy(struct disk *d, enum fault_op op)
{
	unsigned active = atomic_load_explicit(&((struct fault *)d)->active, memory_order_relaxed);

	return unlikely(active & (1u << op | UNWATCHED | POWER_OFF | CACHED));
}

static int fault_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	if (is_busy(d, FAULT_READ))
		return serve((struct fault *)d, &(struct fault_request){FAULT_READ, v, offset, v->size, io});
	return disk_read(d->children[0], v, offset, io);
}

static int fault_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	if (is_busy(d, FAULT_WRITE))
		return serve((struct fault *)d, &(struct fault_request){FAULT_WRITE, v, offset, v->size, io});
	return disk_write(d->children[0], v, offset, io);
}

static int fault_flush(struct disk *d, const struct io *io)
{
	if (is_busy(d, FAULT_FLUSH))
		return serve((struct fault *)d, &(struct fault_request){FAULT_FLUSH, NULL, 0, 0, io});
	return disk_flush(d->children[0], io);
}

static int fault_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	if (is_busy(d, FAULT_DISCARD))
		return serve((struct fault *)d, &(struct fault_request){FAULT_DISCARD, NULL, offset, length, io});
	return disk_discard(d->children[0], offset, length, io);
}

static int fault_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	if (is_busy(d, FAULT_ZEROES))
		return serve((struct fault *)d, &(struct fault_request){FAULT_ZEROES, NULL, offset, length, io});
	return disk_write_zeroes(d->children[0], offset, length, io);
}

/* ------------------------------------------------------------------ other operations */

static bool is_off(struct fault *f)
{
	return atomic_load(&f->active) & POWER_OFF;
}

static int fault_extents(struct disk *d, struct extents *out, const struct io *io)
{
	struct fault *f = (struct fault *)d;

	if (is_off(f))
		return refuse_off(io);
	return f->way.cache ? fault_cache_extents(f->way.cache, out, io) : disk_extents(d->children[0], out, io);
}

/* What is held is written back first: the old and the new end are durable. */
static int fault_resize(struct disk *d, uint64_t size, const struct io *io)
{
	struct fault *f = (struct fault *)d;
	int status = is_off(f) ? refuse_off(io) : 0;

	if (!status && f->way.cache)
		status = fault_cache_flush(f->way.cache, io);
	return status ? status : disk_resize(d->children[0], size, io);
}

static int fault_eject(struct disk *d, const struct io *io)
{
	struct fault *f = (struct fault *)d;
	int status = is_off(f) ? refuse_off(io) : 0;

	if (!status && f->way.cache)
		status = fault_cache_flush(f->way.cache, io);
	return status ? status : disk_eject(d->children[0], io);
}

static bool rules_change_reads(const struct fault_rules *rules)
{
	for (unsigned i = 0; i < rules->count; i++)
		if (rules->list[i].ops & 1u << FAULT_READ &&
		    (rules->list[i].act == FAULT_CORRUPT || rules->list[i].act == FAULT_MISPLACE))
			return true;
	return false;
}

/* The settings as opened; a control file might bring others. */
static bool shows_what_is_below(const struct fault *f)
{
	return !f->way.cache && !f->control && !rules_change_reads(&atomic_load(&f->settings)->rules);
}

static int fault_identity(struct disk *d, struct identity *out)
{
	return shows_what_is_below((struct fault *)d) ? disk_identity(d->children[0], out) : -EOPNOTSUPP;
}

/* ------------------------------------------------------------------ describe */

static json_t *describe_rules(const struct fault_rules *rules)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < rules->count; i++) {
		const struct fault_rule *rule = &rules->list[i];
		json_array_append_new(list, json_pack("{s:s,s:I,s:I}", "rule", rule->text, "asked",
						      (json_int_t)atomic_load(&rule->matched), "struck",
						      (json_int_t)atomic_load(&rule->struck)));
	}
	return list;
}

/* The seed is text: it may be larger than JSON's numbers. */
static void fault_describe(struct disk *d, json_t *object)
{
	struct fault *f = (struct fault *)d;
	struct settings *s = settings_take(f);

	json_object_set_new(object, "rules", describe_rules(&s->rules));
	json_object_set_new(object, "seed", json_sprintf("%#" PRIx64, s->seed));
	for (unsigned i = 0; i < LIMITS; i++)
		if (s->limits[i].per_second)
			json_object_set_new(object, limit_names[i], json_integer((json_int_t)s->limits[i].per_second));
	settings_drop(s);
	json_object_set_new(object, "power", json_string(is_off(f) ? "off" : "on"));
	json_object_set_new(object, "cuts", json_integer((json_int_t)atomic_load(&f->cuts)));
	if (f->way.cache)
		fault_cache_describe(f->way.cache, object);
	control_describe(f->control, object);
}

/* ------------------------------------------------------------------ life */

/* Nothing is struck any more. What a flush that lied has left in the cache is written back. */
static int fault_close(struct disk *d, bool abandoned, struct error *err)
{
	struct fault *f = (struct fault *)d;
	struct failure failure = {0};
	struct io io = {.failure = &failure};
	int status = 0;

	control_close(f->control);
	if (f->way.cache && !abandoned && !is_off(f) && !d->read_only)
		status = fault_cache_flush(f->way.cache, &io);
	fault_cache_free(f->way.cache);
	settings_drop(atomic_load(&f->settings));
	return status ? error_set(err, status, "cache: %s", failure.text) : 0;
}

static const struct disk_ops fault_ops = {
	.read = fault_read,
	.write = fault_write,
	.flush = fault_flush,
	.discard = fault_discard,
	.write_zeroes = fault_write_zeroes,
	.extents = fault_extents,
	.resize = fault_resize,
	.eject = fault_eject,
	.identity = fault_identity,
	.describe = fault_describe,
	.close = fault_close,
};

/* ------------------------------------------------------------------ the spec */

static void read_limits(struct settings *s, const struct spec *spec)
{
	for (unsigned i = 0; i < LIMITS; i++) {
		s->limits[i].per_second = spec_number(spec, limit_names[i]);
		s->limits[i].burst_ns = spec_number(spec, "burst");
		s->limited = s->limited || s->limits[i].per_second;
	}
}

static int settings_read(struct settings **out, const struct spec *spec, struct error *err)
{
	struct settings *s = calloc(1, sizeof(*s));
	int status;

	*out = NULL;
	if (!s)
		return error_set(err, -ENOMEM, "no memory");
	atomic_init(&s->references, 1);
	s->seed = spec_number(spec, "seed");
	s->off = spec_number(spec, "power");
	read_limits(s, spec);
	status = fault_rules_parse(spec_text(spec, "rules"), &s->rules, err);
	for (unsigned i = 0; i < s->rules.count; i++)
		s->healing = s->healing || s->rules.list[i].heal;
	if (status)
		settings_drop(s);
	else
		*out = s;
	return status;
}

/* Of which operations requests are to be judged. */
static unsigned active_by(const struct settings *s)
{
	unsigned changes = 1u << FAULT_WRITE | 1u << FAULT_ZEROES, active = s->rules.ops | (s->off ? POWER_OFF : 0);

	if (s->healing)
		active |= changes;
	if (s->limited)
		active |= changes | 1u << FAULT_READ | 1u << FAULT_DISCARD;
	return active;
}

/* The new settings hold from now on; the power goes off, or on again. */
static void settings_put(struct fault *f, struct settings *s)
{
	unsigned active = atomic_load(&f->active), next;

	do
		next = (active & (UNWATCHED | CACHED)) | active_by(s);
	while (!atomic_compare_exchange_weak(&f->active, &active, next));
	if (s->off && !(active & POWER_OFF))
		cut_power(f, s->seed, &io_plain);
	else if (!s->off && active & POWER_OFF)
		restore_power(f);
}

static const char *const fixed[] = {"control", "cache", "atomic", "in-order"};

static int refuse_fixed(const struct spec *spec, struct error *err)
{
	for (unsigned i = 0; i < sizeof(fixed) / sizeof(*fixed); i++)
		if (spec_given(spec, fixed[i]))
			return error_set(err, -EINVAL, "%s: cannot be changed while the disk is open; what it was stays",
					 fixed[i]);
	return 0;
}

/* From the control file: all of it holds from now on, or none. Counters begin anew; a seed that is not given stays. */
static int change_settings(void *owner, const struct spec *spec, struct error *err)
{
	struct fault *f = owner;
	struct settings *s, *old;
	int status = refuse_fixed(spec, err);

	if (!status)
		status = settings_read(&s, spec, err);
	if (status)
		return status;
	old = atomic_load(&f->settings);
	if (!spec_given(spec, "seed"))
		s->seed = old->seed;
	atomic_store(&f->settings, s);
	settings_put(f, s);
	grace_wait(&f->grace);
	settings_drop(old);
	return 0;
}

static int first_settings(struct fault *f, const struct spec *spec, struct error *err)
{
	struct settings *s;
	int status = settings_read(&s, spec, err);

	if (status)
		return status;
	atomic_store(&f->settings, s);
	if (!spec_given(spec, "seed") && getrandom(&s->seed, sizeof(s->seed), 0) != sizeof(s->seed))
		return error_set_errno(err, -errno, "seed: no random numbers");
	settings_put(f, s);
	return 0;
}

static int open_cache(struct fault *f, const struct spec *spec, struct error *err)
{
	uint64_t limit = spec_number(spec, "cache"), unit = spec_number(spec, "atomic");
	uint32_t block = f->disk.info.block_size;

	if (!spec_given(spec, "cache")) {
		if (spec_given(spec, "atomic") || spec_given(spec, "in-order"))
			return error_set(err, -EINVAL, "%s: is for a cache, and there is none (add ;cache)",
					 spec_given(spec, "atomic") ? "atomic" : "in-order");
		return 0;
	}
	if (unit % block)
		return error_set(err, -EINVAL, "atomic: %" PRIu64 " bytes are no whole blocks of %" PRIu32 " bytes", unit, block);
	f->way.cache = fault_cache_create(f->disk.children[0], limit ? limit : DEFAULT_CACHE, unit ? (uint32_t)unit : block,
				      spec_given(spec, "in-order"));
	if (!f->way.cache)
		return error_set(err, -ENOMEM, "no memory");
	f->disk.info.flags |= DISK_FUA;
	atomic_fetch_or(&f->active, CACHED);
	return 0;
}

/* What the file says already counts more than the spec, which may have been written long ago. */
static int open_control(struct fault *f, const struct spec *spec, struct error *err)
{
	int status;

	if (!spec_text(spec, "control"))
		return 0;
	status = control_open(&f->control, spec_text(spec, "control"), &fault_kind, change_settings, f, err);
	if (!status)
		atomic_fetch_or(&f->active, UNWATCHED);
	return status;
}

static int open_parts(struct fault *f, const struct spec *spec, struct error *err)
{
	int status = first_settings(f, spec, err);

	if (!status)
		status = open_cache(f, spec, err);
	if (!status)
		status = open_control(f, spec, err);
	if (!status && !shows_what_is_below(f))
		f->disk.info.flags &= ~(unsigned)DISK_HAS_ID;
	return status;
}

static int fault_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct fault *f = disk_new(sizeof(*f), "fault", &fault_ops, request->children, 1);
	int status;

	if (!f)
		return error_set(err, -ENOMEM, "no memory");
	disk_inherit(&f->disk);
	f->way.below = request->children[0];
	status = open_parts(f, request->spec, err);
	if (!status)
		status = disk_publish(&f->disk, disk_size(request->children[0]), err);
	if (status) {
		fault_close(&f->disk, true, NULL);
		disk_drop_new(&f->disk);
		return status;
	}
	*out = &f->disk;
	return 0;
}

static const char *const powers[] = {"on", "off", NULL};

#define IOPS(field, what)                                                                                   \
	{                                                                                                   \
		.name = field, .role = SPEC_OPTION, .type = SPEC_NUMBER, .unit = "requests a second",       \
		.help = "the most " what " in a second"                                                     \
	}

#define RATE(field, what)                                                                                   \
	{                                                                                                   \
		.name = field, .role = SPEC_OPTION, .type = SPEC_SIZE, .unit = "bytes a second",            \
		.help = "the most bytes that are " what " in a second"                                      \
	}

static const struct spec_field fault_fields[] = {
	{.name = "rules",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_TEXT,
	 .help = "what fails and when, such as write=io,every=100+read=medium,at=1M,len=64K,heal; none: nothing"},
	{.name = "cache",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .bare = true,
	 .unit = "bytes",
	 .min = 4096,
	 .help = "a volatile write cache that holds so much; 64M without a value"},
	{.name = "atomic",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .min = DISK_MIN_BLOCK,
	 .max = UINT64_C(1) << 30,
	 .help = "what a power cut keeps or loses as a whole; a logical block, or some"},
	{.name = "in-order",
	 .role = SPEC_OPTION,
	 .type = SPEC_FLAG,
	 .help = "a power cut keeps all writes up to some one, and none behind it"},
	{.name = "power",
	 .role = SPEC_OPTION,
	 .type = SPEC_WORD,
	 .words = powers,
	 .fallback = "on",
	 .help = "off: the power is cut, and everything fails until it is on again"},
	IOPS("read-iops", "reads"),
	IOPS("write-iops", "writes, zeroings and discards"),
	RATE("read-rate", "read"),
	RATE("write-rate", "written"),
	{.name = "burst",
	 .role = SPEC_OPTION,
	 .type = SPEC_DURATION,
	 .unit = "ms",
	 .max = FAULT_LIMIT_LONGEST_NS,
	 .help = "what a limit allows in this time may come at once"},
	{.name = "seed",
	 .role = SPEC_OPTION,
	 .type = SPEC_NUMBER,
	 .help = "the same seed gives the same faults to the same requests; the default is another one each time"},
	{.name = "control",
	 .role = SPEC_OPTION,
	 .type = SPEC_TEXT,
	 .help = "a file that changes rules, limits and power while the disk is open"},
	{0},
};

const struct disk_kind fault_kind = {
	.name = "fault",
	.summary = "a disk that fails by rules: errors, bad blocks, torn and lost writes, power cuts",
	.children = KIND_WRAPS,
	.fields = fault_fields,
	.open = fault_open,
};
