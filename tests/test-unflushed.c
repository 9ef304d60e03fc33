/* SPDX-License-Identifier: BSD-3-Clause */
/* What a power cut may leave: just the states that there can be, all of them, in any order and in order. */
#include <errno.h>

#include "core/unflushed.h"
#include "tests/model.h"
#include "tests/tap.h"

#define UNIT 4u
#define ROOM 20u
#define RECORDS 6u
#define ANY UNFLUSHED_ANY
#define IN_ORDER UNFLUSHED_IN_ORDER

/* ------------------------------------------------------------------ memory that runs out */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_reallocarray(void *memory, size_t count, size_t size);
void *__wrap_reallocarray(void *memory, size_t count, size_t size);

/* The allocation that makes it zero fails; 0: none does. */
static unsigned fail_in;

static bool fails_now(void)
{
	return fail_in && !--fail_in;
}

void *__wrap_malloc(size_t size)
{
	return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_reallocarray(void *memory, size_t count, size_t size)
{
	return fails_now() ? NULL : __real_reallocarray(memory, count, size);
}

/* ------------------------------------------------------------------ sets of small media */

struct medium {
	uint64_t size;
	unsigned char bytes[ROOM]; /* zero past the size */
};

struct set {
	struct medium *list;
	size_t count, room;
};

static int compare_media(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct medium));
}

static void set_add(struct set *s, const struct medium *m)
{
	for (size_t i = 0; i < s->count; i++)
		if (!compare_media(&s->list[i], m))
			return;
	if (s->count == s->room) {
		s->room = 2 * s->room + 64;
		s->list = realloc(s->list, s->room * sizeof(*s->list));
	}
	s->list[s->count++] = *m;
}

static bool set_has(const struct set *s, const struct medium *m)
{
	for (size_t i = 0; i < s->count; i++)
		if (!compare_media(&s->list[i], m))
			return true;
	return false;
}

static struct unflushed_image image_of(const struct medium *m)
{
	struct unflushed_image image = {.bytes = malloc(ROOM), .size = m->size};

	memcpy(image.bytes, m->bytes, ROOM);
	return image;
}

static struct medium take_image(struct unflushed_image *image)
{
	struct medium m;

	memset(&m, 0, sizeof(m));
	m.size = image->size;
	if (image->size <= ROOM)
		memcpy(m.bytes, image->bytes, image->size);
	free(image->bytes);
	*image = (struct unflushed_image){0};
	return m;
}

/* ------------------------------------------------------------------ some history, and what it was at each moment */

struct event {
	enum { WRITE, ZERO, RESIZE, DURABLE } kind;
	uint64_t offset, length; /* RESIZE: offset is the new size */
};

/* moments[i] is the medium after i events; growing by a write is an event of its own. */
struct story {
	struct event events[2 * RECORDS];
	struct medium moments[2 * RECORDS + 1];
	unsigned count;
	struct unflushed *u;
};

static void note(struct story *s, struct event e)
{
	struct medium *m = &s->moments[s->count + 1];

	*m = s->moments[s->count];
	s->events[s->count++] = e;
	if (e.kind == RESIZE) {
		if (e.offset < m->size)
			memset(m->bytes + e.offset, 0, m->size - e.offset);
		m->size = e.offset;
	}
}

/* What is written is different each time. */
static void do_change(struct story *s, uint64_t offset, uint64_t length, bool zero)
{
	unsigned char data[ROOM];

	for (unsigned i = 0; i < length; i++)
		data[i] = zero ? 0 : (unsigned char)(16 * (s->count + 1) + i);
	if (zero)
		CHECK_EQ(unflushed_record_zero(s->u, offset, length, 7), 0);
	else
		CHECK_EQ(unflushed_record_write(s->u, offset, data, length), 0);
	if (offset + length > s->moments[s->count].size)
		note(s, (struct event){RESIZE, offset + length, 0});
	note(s, (struct event){zero ? ZERO : WRITE, offset, length});
	memcpy(s->moments[s->count].bytes + offset, data, length);
}

static void do_write(struct story *s, uint64_t offset, uint64_t length)
{
	do_change(s, offset, length, false);
}

static void do_zero(struct story *s, uint64_t offset, uint64_t length)
{
	do_change(s, offset, length, true);
}

static void do_resize(struct story *s, uint64_t size)
{
	CHECK_EQ(unflushed_record_resize(s->u, size), 0);
	if (size != s->moments[s->count].size)
		note(s, (struct event){RESIZE, size, 0});
}

static void do_durable(struct story *s, uint64_t offset, uint64_t length)
{
	CHECK_EQ(unflushed_record_durable(s->u, offset, length), 0);
	note(s, (struct event){DURABLE, offset, length});
}

static void begin(struct story *s, uint64_t size)
{
	memset(s, 0, sizeof(*s));
	s->moments[0].size = size;
	memset(s->moments[0].bytes, 'o', size);
	REQUIRE(!unflushed_create(size, UNIT, &s->u));
}

static void begin_random(struct story *s, struct random *r)
{
	begin(s, random_below(r, 15));
	for (uint64_t n = random_below(r, RECORDS + 1); n; n--) {
		uint64_t offset = random_below(r, 12), length = random_below(r, 8) + 1, kind = random_below(r, 10);
		if (kind < 5)
			do_write(s, offset, length);
		else if (kind < 7)
			do_zero(s, offset, length);
		else if (kind < 9)
			do_resize(s, random_below(r, 17));
		else
			do_durable(s, offset, length);
	}
}

static void end(struct story *s)
{
	unflushed_free(s->u);
}

/* ------------------------------------------------------------------ what there can be, told from the moments */

static bool touches(uint64_t from, uint64_t to, unsigned unit)
{
	return from < to && from < (unit + 1) * UNIT && to > unit * UNIT;
}

/* The moments [low, high] that a unit may be seen at when the first `resizes` changes of size survive. */
static void bounds(const struct story *s, unsigned unit, unsigned resizes, unsigned *low, unsigned *high)
{
	unsigned seen = 0;

	*low = 0;
	*high = s->count;
	for (unsigned i = 0; i < s->count; i++) {
		const struct event *e = &s->events[i];
		if (e->kind == DURABLE && touches(e->offset, e->offset + e->length, unit))
			*low = i;
		if (e->kind != RESIZE)
			continue;
		if (touches(e->offset, s->moments[i].size, unit) && seen < resizes)
			*low = i + 1;
		else if (touches(e->offset, s->moments[i].size, unit) && *high > i)
			*high = i;
		seen++;
	}
}

static void add_states(const struct story *s, unsigned resizes, struct medium *m, unsigned unit, struct set *out)
{
	uint64_t from = unit * UNIT, n;
	unsigned low, high;

	if (from >= m->size) {
		set_add(out, m);
		return;
	}
	n = m->size - from < UNIT ? m->size - from : UNIT;
	bounds(s, unit, resizes, &low, &high);
	for (unsigned i = low; i <= high; i++) {
		struct medium next = *m;
		bool old = false;
		memcpy(next.bytes + from, s->moments[i].bytes + from, n);
		for (unsigned before = low; before < i; before++)
			old = old || !memcmp(s->moments[before].bytes + from, s->moments[i].bytes + from, n);
		if (!old)
			add_states(s, resizes, &next, unit + 1, out);
	}
}

static void expect_any(const struct story *s, struct set *out)
{
	unsigned least = 0, seen = 0;

	for (unsigned i = 0; i < s->count; i++) {
		if (s->events[i].kind == DURABLE)
			least = seen;
		seen += s->events[i].kind == RESIZE;
	}
	for (unsigned resizes = least; resizes <= seen; resizes++) {
		struct medium m;
		unsigned n = 0;
		memset(&m, 0, sizeof(m));
		m.size = s->moments[0].size;
		for (unsigned i = 0; i < s->count; i++)
			if (s->events[i].kind == RESIZE && n++ < resizes)
				m.size = s->events[i].offset;
		add_states(s, resizes, &m, 0, out);
	}
}

/* Each moment, and between two of them the first units of what was written. */
static void expect_in_order(const struct story *s, struct set *out)
{
	unsigned first = 0;

	for (unsigned i = 0; i < s->count; i++)
		if (s->events[i].kind == DURABLE)
			first = i;
	set_add(out, &s->moments[first]);
	for (unsigned i = first; i < s->count; i++) {
		struct medium torn = s->moments[i];
		for (uint64_t at = 0; at < torn.size && s->events[i].kind != RESIZE; at++) {
			torn.bytes[at] = s->moments[i + 1].bytes[at];
			if ((at + 1) % UNIT == 0)
				set_add(out, &torn);
		}
		set_add(out, &s->moments[i + 1]);
	}
}

/* ------------------------------------------------------------------ what there is */

static void enumerate(const struct story *s, enum unflushed_order order, struct set *out)
{
	uint64_t states = unflushed_count_states(s->u, order);

	CHECK(states > 0);
	for (uint64_t k = 0; k < states; k++) {
		struct unflushed_image image = image_of(&s->moments[0]);
		struct unflushed_sink sink = unflushed_image_sink(&image);
		struct medium m;
		CHECK_EQ(unflushed_enumerate(s->u, order, k, &sink), 0);
		m = take_image(&image);
		set_add(out, &m);
	}
}

static struct medium sample(const struct story *s, enum unflushed_order order, uint64_t seed)
{
	struct unflushed_image image = image_of(&s->moments[0]);
	struct unflushed_sink sink = unflushed_image_sink(&image);

	CHECK_EQ(unflushed_sample(s->u, order, seed, &sink), 0);
	return take_image(&image);
}

static void print_medium(const char *what, const struct medium *m)
{
	char text[2 * ROOM + 1] = "";

	for (unsigned i = 0; i < m->size && i < ROOM; i++)
		snprintf(text + 2 * i, 3, "%02x", m->bytes[i]);
	tap_diag("%s: %llu bytes: %s", what, (unsigned long long)m->size, text);
}

static void print_story(const struct story *s)
{
	static const char *const names[] = {"write", "zero", "resize", "durable"};

	print_medium("old", &s->moments[0]);
	for (unsigned i = 0; i < s->count; i++)
		tap_diag("%s %llu %llu", names[s->events[i].kind], (unsigned long long)s->events[i].offset,
			 (unsigned long long)s->events[i].length);
}

/* Both sets are one. */
static bool check_sets(const struct story *s, const struct set *found, const struct set *expected)
{
	bool good = true;

	for (size_t i = 0; i < found->count && good; i++) {
		good = CHECK(set_has(expected, &found->list[i]));
		if (!good)
			print_medium("cannot be", &found->list[i]);
	}
	for (size_t i = 0; i < expected->count && good; i++) {
		good = CHECK(set_has(found, &expected->list[i]));
		if (!good)
			print_medium("is missing", &expected->list[i]);
	}
	if (!good)
		print_story(s);
	return good;
}

static bool check_states(const struct story *s, enum unflushed_order order)
{
	struct set found = {0}, expected = {0};
	bool good;

	enumerate(s, order, &found);
	if (order == ANY)
		expect_any(s, &expected);
	else
		expect_in_order(s, &expected);
	good = check_sets(s, &found, &expected);
	free(found.list);
	free(expected.list);
	return good;
}

/* ------------------------------------------------------------------ in any order */

static void test_nothing_happened(void)
{
	struct story s;

	begin(&s, 13);
	CHECK_EQ(unflushed_count_states(s.u, ANY), 1);
	CHECK_EQ(unflushed_count_states(s.u, IN_ORDER), 1);
	check_states(&s, ANY);
	check_states(&s, IN_ORDER);
	end(&s);
}

static void test_units_have_their_own_fate(void)
{
	struct story s;

	begin(&s, 16);
	do_write(&s, 0, 12);
	CHECK_EQ(unflushed_count_states(s.u, ANY), 8);
	do_write(&s, 4, 4);
	CHECK_EQ(unflushed_count_states(s.u, ANY), 12);
	check_states(&s, ANY);
	end(&s);
}

/* Half a unit that is written later never appears without the half that was written before. */
static void test_parts_of_a_unit_keep_their_order(void)
{
	struct story s;

	begin(&s, 8);
	do_write(&s, 0, 2);
	do_write(&s, 2, 2);
	CHECK_EQ(unflushed_count_states(s.u, ANY), 3);
	check_states(&s, ANY);
	end(&s);
}

static void test_growth_may_be_lost_with_what_it_holds(void)
{
	struct story s;

	begin(&s, 6);
	do_write(&s, 4, 8);
	CHECK_EQ(unflushed_count_states(s.u, ANY), 2 + 4);
	check_states(&s, ANY);
	end(&s);
}

static void test_cut_off_and_grown_again(void)
{
	struct story s;

	begin(&s, 16);
	do_resize(&s, 6);
	do_resize(&s, 16);
	do_write(&s, 8, 8);
	check_states(&s, ANY);
	check_states(&s, IN_ORDER);
	end(&s);
}

static void check_random(enum unflushed_order order)
{
	struct random r = random_stream(order);

	for (unsigned i = 0; i < 3000 && !atomic_load(&tap_errors); i++) {
		struct story s;
		begin_random(&s, &r);
		check_states(&s, order);
		end(&s);
	}
}

static void test_states_are_just_those_that_can_be(void)
{
	check_random(ANY);
}

static void test_states_in_order(void)
{
	check_random(IN_ORDER);
}

/* ------------------------------------------------------------------ samples */

static void check_samples(const struct story *s, enum unflushed_order order, bool all)
{
	struct set found = {0}, sampled = {0};

	enumerate(s, order, &found);
	for (uint64_t seed = 0; seed < (all ? 4000 : 40); seed++) {
		struct medium m = sample(s, order, seed);
		if (!CHECK(set_has(&found, &m)))
			print_story(s);
		set_add(&sampled, &m);
	}
	if (all)
		CHECK_EQ(sampled.count, found.count);
	free(found.list);
	free(sampled.list);
}

static void test_samples_are_states(void)
{
	struct random r = random_stream(5);

	for (unsigned i = 0; i < 300 && !atomic_load(&tap_errors); i++) {
		struct story s;
		begin_random(&s, &r);
		check_samples(&s, ANY, false);
		check_samples(&s, IN_ORDER, false);
		end(&s);
	}
}

static void test_samples_reach_every_state(void)
{
	struct story s;

	begin(&s, 14);
	do_write(&s, 0, 8);
	do_write(&s, 4, 4);
	do_zero(&s, 2, 6);
	do_resize(&s, 10);
	do_write(&s, 8, 6);
	check_samples(&s, ANY, true);
	check_samples(&s, IN_ORDER, true);
	end(&s);
}

static void test_same_seed_same_state(void)
{
	struct story s;

	begin(&s, 16);
	do_write(&s, 0, 16);
	do_write(&s, 0, 16);
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct medium a = sample(&s, ANY, seed), b = sample(&s, ANY, seed);
		CHECK(!compare_media(&a, &b));
	}
	end(&s);
}

/* Of 64 units: each temper shows itself among few seeds. */
static void test_tempers(void)
{
	bool one_lost = false, one_kept = false, all = false, none = false, mixed = false;
	static unsigned char data[256];
	struct unflushed *u;

	memset(data, 1, sizeof(data));
	REQUIRE(!unflushed_create(256, UNIT, &u));
	unflushed_record_write(u, 0, data, 256);
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct unflushed_image image = {.bytes = calloc(1, 256), .size = 256};
		struct unflushed_sink sink = unflushed_image_sink(&image);
		unsigned kept = 0;
		CHECK_EQ(unflushed_sample(u, ANY, seed, &sink), 0);
		for (unsigned i = 0; i < 256; i += UNIT)
			kept += image.bytes[i];
		one_lost = one_lost || kept == 63;
		one_kept = one_kept || kept == 1;
		all = all || kept == 64;
		none = none || kept == 0;
		mixed = mixed || (kept > 25 && kept < 40);
		free(image.bytes);
	}
	CHECK(one_lost && one_kept && all && none && mixed);
	unflushed_free(u);
}

/* ------------------------------------------------------------------ flushes */

/* What comes to the medium at last is what was there last, whether all at once or the oldest first. */
static void test_flush_brings_all(void)
{
	struct random r = random_stream(6);

	for (unsigned i = 0; i < 2000 && !atomic_load(&tap_errors); i++) {
		struct story s;
		struct unflushed_image image;
		struct unflushed_sink sink = unflushed_image_sink(&image);
		struct medium m;
		begin_random(&s, &r);
		image = image_of(&s.moments[0]);
		if (i % 2)
			CHECK_EQ(unflushed_shrink(s.u, random_below(&r, unflushed_bytes(s.u) + 1), &sink), 0);
		CHECK_EQ(unflushed_flush(s.u, &sink), 0);
		CHECK_EQ(unflushed_records(s.u), 0);
		CHECK_EQ(unflushed_bytes(s.u), 0);
		CHECK_EQ(unflushed_count_states(s.u, ANY), 1);
		m = take_image(&image);
		if (!CHECK(!compare_media(&m, &s.moments[s.count])))
			print_story(&s);
		end(&s);
	}
}

/* With the oldest on the medium, a cut leaves what it might have left before. */
static void check_states_after_shrink(struct story *s, size_t bytes)
{
	struct set expected = {0};
	struct unflushed_image image = image_of(&s->moments[0]);
	struct unflushed_sink sink = unflushed_image_sink(&image);
	struct medium begun, m;

	expect_any(s, &expected);
	CHECK_EQ(unflushed_shrink(s->u, bytes, &sink), 0);
	CHECK(unflushed_bytes(s->u) <= bytes);
	begun = take_image(&image);
	for (uint64_t k = 0, states = unflushed_count_states(s->u, ANY); k < states; k++) {
		image = image_of(&begun);
		CHECK_EQ(unflushed_enumerate(s->u, ANY, k, &sink), 0);
		m = take_image(&image);
		if (!CHECK(set_has(&expected, &m)))
			print_story(s);
	}
	free(expected.list);
}

static void test_shrink_only_leaves_fewer_states(void)
{
	struct random r = random_stream(7);

	for (unsigned i = 0; i < 1000 && !atomic_load(&tap_errors); i++) {
		struct story s;
		begin_random(&s, &r);
		check_states_after_shrink(&s, random_below(&r, unflushed_bytes(s.u) + 1));
		end(&s);
	}
}

static int refuse(void *to, uint64_t offset, const void *data, size_t length)
{
	(void)to, (void)offset, (void)data, (void)length;
	return -EIO;
}

static void test_failed_flush_forgets_nothing(void)
{
	const struct unflushed_sink bad = {.write = refuse};
	struct story s;

	begin(&s, 12);
	do_write(&s, 0, 8);
	CHECK_EQ(unflushed_flush(s.u, &bad), -EIO);
	CHECK_EQ(unflushed_shrink(s.u, 0, &bad), -EIO);
	CHECK_EQ(unflushed_enumerate(s.u, ANY, 3, &bad), -EIO);
	CHECK_EQ(unflushed_records(s.u), 1);
	check_states(&s, ANY);
	end(&s);
}

static void test_after_a_flush_it_begins_anew(void)
{
	struct unflushed_image image;
	struct unflushed_sink sink = unflushed_image_sink(&image);
	struct story s;
	struct medium m;

	begin(&s, 12);
	image = image_of(&s.moments[0]);
	do_write(&s, 0, 16);
	CHECK_EQ(unflushed_flush(s.u, &sink), 0);
	m = take_image(&image);
	s.moments[0] = m;
	s.count = 0;
	do_write(&s, 14, 4);
	do_resize(&s, 3);
	check_states(&s, ANY);
	end(&s);
}

/* ------------------------------------------------------------------ reading through it */

/* The old medium with what is found over it is the present one, at each moment. */
static void check_find(const struct story *s)
{
	struct medium m = s->moments[0];
	const struct medium *now = &s->moments[s->count];
	struct unflushed_run run;
	uint64_t at = 0;

	while (unflushed_find(s->u, at, &run)) {
		CHECK(run.offset >= at && run.length > 0 && run.offset + run.length <= ROOM);
		for (uint64_t i = 0; i < run.length; i++)
			m.bytes[run.offset + i] = run.data ? run.data[i] : 0;
		at = run.offset + run.length;
	}
	if (!CHECK_MEM(m.bytes, now->bytes, now->size))
		print_story(s);
}

static void test_newest_is_found(void)
{
	struct random r = random_stream(8);

	for (unsigned i = 0; i < 3000 && !atomic_load(&tap_errors); i++) {
		struct story s;
		begin_random(&s, &r);
		check_find(&s);
		end(&s);
	}
}

/* What was shrunk away to the medium is not found any more; the rest is. */
static void test_found_after_shrink(void)
{
	struct unflushed_run run;
	struct story s;

	begin(&s, 12);
	do_write(&s, 0, 12);
	do_write(&s, 4, 2);
	CHECK_EQ(unflushed_shrink(s.u, unflushed_bytes(s.u) - 1, NULL), 0);
	CHECK(unflushed_find(s.u, 0, &run));
	CHECK(run.offset == 4 && run.length == 2);
	CHECK(unflushed_find(s.u, 5, &run));
	CHECK(run.offset == 5 && run.length == 1 && run.data[0] == s.moments[2].bytes[5]);
	CHECK(!unflushed_find(s.u, 6, &run));
	end(&s);
}

/* ------------------------------------------------------------------ limits */

struct calls {
	unsigned writes, zeroes;
	uint64_t bytes;
};

static int count_zero(void *to, uint64_t offset, uint64_t length, unsigned tag)
{
	struct calls *c = to;

	(void)offset;
	CHECK_EQ(tag, 7);
	c->zeroes++;
	c->bytes += length;
	return 0;
}

static int count_write(void *to, uint64_t offset, const void *data, size_t length)
{
	struct calls *c = to;

	(void)offset, (void)data;
	c->writes++;
	c->bytes += length;
	return 0;
}

/* The zeroing of a whole disk takes neither memory nor more than so many calls. */
static void test_large_zeroing(void)
{
	struct calls c = {0};
	const struct unflushed_sink sink = {.write = count_write, .zero = count_zero, .to = &c};
	struct unflushed *u;

	REQUIRE(!unflushed_create(INT64_MAX, 512, &u));
	CHECK_EQ(unflushed_record_zero(u, 0, INT64_MAX, 7), 0);
	CHECK_EQ(unflushed_record_write(u, INT64_MAX - 3, "abc", 3), 0);
	CHECK(unflushed_bytes(u) < 500);
	CHECK(unflushed_count_states(u, ANY) == UINT64_MAX);
	CHECK_EQ(unflushed_enumerate(u, ANY, 12345, &sink), 0);
	for (uint64_t seed = 0; seed < 20; seed++)
		CHECK_EQ(unflushed_sample(u, ANY, seed, &sink), 0);
	CHECK(c.zeroes > 20 && c.zeroes < 21 * 65537 / 2 + 1000);
	c = (struct calls){0};
	CHECK_EQ(unflushed_flush(u, &sink), 0);
	CHECK(c.zeroes <= 2 && c.writes == 1);
	unflushed_free(u);
}

/* What was written over a thousand times comes to the medium once. */
static void test_flush_writes_once(void)
{
	struct calls c = {0};
	const struct unflushed_sink sink = {.write = count_write, .zero = count_zero, .to = &c};
	static char data[4096];
	struct unflushed *u;

	REQUIRE(!unflushed_create(1 << 20, 512, &u));
	for (unsigned i = 0; i < 1000; i++)
		CHECK_EQ(unflushed_record_write(u, 8192, data, sizeof(data)), 0);
	CHECK(unflushed_bytes(u) > 1000 * sizeof(data));
	CHECK_EQ(unflushed_flush(u, &sink), 0);
	CHECK_EQ(c.writes, 1);
	CHECK_EQ(c.bytes, sizeof(data));
	unflushed_free(u);
}

static void test_past_the_end_of_all(void)
{
	struct unflushed *u;

	REQUIRE(!unflushed_create(4096, 512, &u));
	CHECK_EQ(unflushed_record_write(u, INT64_MAX, "x", 1), -ERANGE);
	CHECK_EQ(unflushed_record_zero(u, UINT64_MAX, 1, 0), -ERANGE);
	CHECK_EQ(unflushed_record_zero(u, 1, UINT64_MAX, 0), -ERANGE);
	CHECK_EQ(unflushed_record_resize(u, UINT64_MAX), -ERANGE);
	CHECK_EQ(unflushed_record_durable(u, UINT64_MAX, UINT64_MAX), -ERANGE);
	CHECK_EQ(unflushed_records(u), 0);
	unflushed_free(u);
}

/* Tries the change with the first, the second, ... allocation failing: until it works, nothing changes. */
static void check_without_memory(struct story *s, int (*change)(struct unflushed *u))
{
	size_t records = unflushed_records(s->u), bytes = unflushed_bytes(s->u);
	unsigned nth = 0;
	int status;

	do {
		fail_in = ++nth;
		status = change(s->u);
		if (!status)
			break;
		CHECK_EQ(status, -ENOMEM);
		CHECK_EQ(unflushed_records(s->u), records);
		CHECK_EQ(unflushed_bytes(s->u), bytes);
		fail_in = 0;
		check_find(s);
		check_states(s, ANY);
	} while (nth < 20);
	fail_in = 0;
	CHECK(nth > 1 && nth < 20);
}

static int write_and_grow(struct unflushed *u)
{
	return unflushed_record_write(u, 10, "123456", 6);
}

static int zero_within(struct unflushed *u)
{
	return unflushed_record_zero(u, 2, 5, 7);
}

static int cut_off(struct unflushed *u)
{
	return unflushed_record_resize(u, 3);
}

static int sample_nothing(struct unflushed *u)
{
	const struct unflushed_sink sink = {.write = refuse};
	int status = unflushed_sample(u, ANY, 2, &sink);

	return status == -ENOMEM ? status : 0;
}

static int count(struct unflushed *u)
{
	return unflushed_count_states(u, ANY) ? 0 : -ENOMEM;
}

static void test_no_memory_changes_nothing(void)
{
	int (*const changes[])(struct unflushed *u) = {write_and_grow, zero_within, cut_off, sample_nothing, count};

	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		struct story s;
		begin(&s, 12);
		do_write(&s, 0, 9);
		do_write(&s, 3, 2);
		check_without_memory(&s, changes[i]);
		end(&s);
	}
}

static void test_image_keeps_to_its_size(void)
{
	struct unflushed_image image = {0};
	struct unflushed_sink sink = unflushed_image_sink(&image);

	CHECK_EQ(sink.write(&image, 0, "x", 1), -ERANGE);
	CHECK_EQ(sink.resize(&image, 4), 0);
	CHECK_EQ(sink.write(&image, 2, "xyz", 3), -ERANGE);
	CHECK_EQ(sink.write(&image, 1, "xyz", 3), 0);
	CHECK_EQ(sink.resize(&image, 3), 0);
	CHECK_EQ(sink.resize(&image, 6), 0);
	CHECK_MEM(image.bytes, "\0xy\0\0\0", 6);
	CHECK_EQ(sink.zero(&image, 1, 6, 0), -ERANGE);
	CHECK_EQ(sink.zero(&image, UINT64_MAX, 1, 0), -ERANGE);
	CHECK_EQ(sink.zero(&image, 2, 4, 0), 0);
	CHECK_MEM(image.bytes, "\0x\0\0\0\0", 6);
	free(image.bytes);
}

int main(void)
{
	TAP_RUN(test_nothing_happened);
	TAP_RUN(test_units_have_their_own_fate);
	TAP_RUN(test_parts_of_a_unit_keep_their_order);
	TAP_RUN(test_growth_may_be_lost_with_what_it_holds);
	TAP_RUN(test_cut_off_and_grown_again);
	TAP_RUN(test_states_are_just_those_that_can_be);
	TAP_RUN(test_states_in_order);
	TAP_RUN(test_samples_are_states);
	TAP_RUN(test_samples_reach_every_state);
	TAP_RUN(test_same_seed_same_state);
	TAP_RUN(test_tempers);
	TAP_RUN(test_flush_brings_all);
	TAP_RUN(test_shrink_only_leaves_fewer_states);
	TAP_RUN(test_failed_flush_forgets_nothing);
	TAP_RUN(test_after_a_flush_it_begins_anew);
	TAP_RUN(test_newest_is_found);
	TAP_RUN(test_found_after_shrink);
	TAP_RUN(test_large_zeroing);
	TAP_RUN(test_flush_writes_once);
	TAP_RUN(test_past_the_end_of_all);
	TAP_RUN(test_no_memory_changes_nothing);
	TAP_RUN(test_image_keeps_to_its_size);
	return TAP_DONE();
}
