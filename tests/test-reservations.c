/* SPDX-License-Identifier: BSD-3-Clause */
/* Persistent reservations as a state machine: every action in every state of three initiators, against tables. */
#include "tests/tap.h"

#include "decorators/reservations.h"
#include "tests/model.h"

#define INITIATORS 3
#define TYPES 7
#define ANYBODY 7u /* all three, as bits */

static const struct initiator initiators[] = {{.id = {1}, .port = 2}, {.id = {1}, .port = 1}, {.id = {0, 200}, .port = 0}};

/* ------------------------------------------------------------------ the oracle */

/* By bits: bit i is initiator i. */
struct world {
	unsigned key[INITIATORS]; /* 0: not registered */
	unsigned type, holders;
};

struct expected {
	struct world after;
	int status;
	unsigned generations;
	unsigned hears[3]; /* of each event */
};

/* What the holder, another registrant, and anybody else may do: SBC-3 table of commands and reservations. */
static const struct {
	const char *read, *write;
} access_table[TYPES] = {
	[RESERVATION_NONE] = {"yyy", "yyy"},
	[RESERVATION_WRITE_EXCLUSIVE] = {"yyy", "y--"},
	[RESERVATION_EXCLUSIVE_ACCESS] = {"y--", "y--"},
	[RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS] = {"yyy", "yy-"},
	[RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS] = {"yy-", "yy-"},
	[RESERVATION_WRITE_EXCLUSIVE_ALL] = {"yyy", "yy-"},
	[RESERVATION_EXCLUSIVE_ACCESS_ALL] = {"yy-", "yy-"},
};

/* Do the others hear when it is released? */
static const bool release_is_heard[TYPES] = {false, false, false, true, true, true, true};
static const bool all_hold[TYPES] = {false, false, false, false, false, true, true};

static unsigned registered(const struct world *w)
{
	return (w->key[0] ? 1u : 0) | (w->key[1] ? 2u : 0) | (w->key[2] ? 4u : 0);
}

static unsigned those_with(const struct world *w, unsigned key)
{
	return (w->key[0] == key ? 1u : 0) | (w->key[1] == key ? 2u : 0) | (w->key[2] == key ? 4u : 0);
}

static void remove_these(struct world *w, unsigned who)
{
	for (unsigned i = 0; i < INITIATORS; i++)
		if (who & (1u << i))
			w->key[i] = 0;
	if (all_hold[w->type])
		w->holders = registered(w);
	else
		w->holders &= registered(w);
}

/* Nobody holds it any more: it is over. */
static void settle(struct expected *e, unsigned actor)
{
	struct world *w = &e->after;

	if (w->type && !w->holders) {
		if (release_is_heard[w->type])
			e->hears[RESERVATION_EVENT_RELEASED] |= registered(w) & ~actor;
		w->type = 0;
	}
}

static void expect_register(struct expected *e, const struct reservation_request *q, unsigned number)
{
	unsigned *key = &e->after.key[number], actor = 1u << number;
	bool ignoring = q->action == RESERVATION_REGISTER_IGNORING;
	bool again = q->nvme && *key && q->key == 0 && q->new_key == *key;

	if ((!ignoring && !again && q->key != *key) || (q->nvme && !q->new_key && !*key)) {
		e->status = -EBADE;
		return;
	}
	if (!q->new_key && !*key)
		return;
	e->generations = 1;
	if (q->new_key) {
		*key = (unsigned)q->new_key;
		if (all_hold[e->after.type])
			e->after.holders |= actor;
		return;
	}
	remove_these(&e->after, actor);
	settle(e, actor);
}

static void expect_reserve(struct expected *e, const struct reservation_request *q, unsigned actor)
{
	struct world *w = &e->after;

	if (!w->type) {
		w->type = q->type;
		w->holders = all_hold[q->type] ? registered(w) : actor;
	} else if (!(w->holders & actor) || w->type != q->type) {
		e->status = -EBADE;
	}
}

static void expect_release(struct expected *e, const struct reservation_request *q, unsigned actor)
{
	struct world *w = &e->after;

	if (!(w->holders & actor))
		return;
	if (w->type != q->type) {
		e->status = -EINVAL;
		return;
	}
	w->holders = 0;
	settle(e, actor);
}

static void expect_preempt(struct expected *e, const struct reservation_request *q, unsigned actor)
{
	struct world *w = &e->after;
	unsigned named = those_with(w, (unsigned)q->new_key), before = registered(w), old = w->type;
	bool over = w->type && (all_hold[w->type] ? !q->new_key : (w->holders & named) != 0);

	if (over && (!q->type || q->type >= TYPES))
		e->status = -EINVAL;
	if (!over && !q->new_key)
		e->status = -EINVAL;
	else if (!over && !named)
		e->status = -EBADE;
	if (e->status)
		return;
	e->generations = 1;
	remove_these(w, over ? (q->new_key ? named : ANYBODY) & ~actor : named);
	e->hears[RESERVATION_EVENT_REGISTRATION_PREEMPTED] = before & ~registered(w) & ~actor;
	if (over) {
		w->type = q->type;
		w->holders = all_hold[q->type] ? registered(w) : actor;
		if (old != w->type)
			e->hears[RESERVATION_EVENT_RELEASED] = registered(w) & ~actor;
	} else {
		settle(e, actor);
	}
}

static void expect_move(struct expected *e, const struct reservation_request *q, unsigned actor)
{
	struct world *w = &e->after;
	unsigned to = initiator_compare(q->also, &initiators[0]) == 0 ? 0 : initiator_compare(q->also, &initiators[1]) == 0 ? 1 : 2;

	if (!w->type)
		e->status = -EINVAL;
	else if (all_hold[w->type] || !(w->holders & actor))
		e->status = -EBADE;
	else if (1u << to == actor || !q->new_key)
		e->status = -EINVAL;
	if (e->status)
		return;
	e->generations = 1;
	w->key[to] = (unsigned)q->new_key;
	w->holders = 1u << to;
	if (q->unregister)
		remove_these(w, actor);
}

static struct expected expect(const struct world *w, const struct reservation_request *q, unsigned number)
{
	struct expected e = {.after = *w};
	bool typed = q->action == RESERVATION_RESERVE || q->action == RESERVATION_RELEASE;
	unsigned actor = 1u << number;

	if (typed && (!q->type || q->type >= TYPES)) {
		e.status = -EINVAL;
		return e;
	}
	if (q->action != RESERVATION_REGISTER && q->action != RESERVATION_REGISTER_IGNORING &&
	    (!w->key[number] || w->key[number] != q->key)) {
		e.status = -EBADE;
		return e;
	}
	switch (q->action) {
	case RESERVATION_REGISTER:
	case RESERVATION_REGISTER_IGNORING:
		expect_register(&e, q, number);
		break;
	case RESERVATION_RESERVE:
		expect_reserve(&e, q, actor);
		break;
	case RESERVATION_RELEASE:
		expect_release(&e, q, actor);
		break;
	case RESERVATION_CLEAR:
		e.hears[RESERVATION_EVENT_PREEMPTED] = registered(w) & ~actor;
		e.generations = 1;
		e.after = (struct world){0};
		break;
	case RESERVATION_MOVE:
		expect_move(&e, q, actor);
		break;
	default:
		expect_preempt(&e, q, actor);
	}
	return e;
}

/* ------------------------------------------------------------------ every state */

static struct io from(unsigned number)
{
	return (struct io){.who = &initiators[number]};
}

/* Puts the machine into that state by its own actions. */
static void enter(struct reservations *r, const struct world *w)
{
	CLEANUP_NEWS struct reservation_news none = {0};

	for (unsigned i = 0; i < INITIATORS; i++) {
		CLEANUP_NEWS struct reservation_news news = {0};
		struct io io = from(i);
		struct reservation_request q = {.action = RESERVATION_REGISTER, .new_key = w->key[i], .persist = -1};
		CHECK_EQ(reservations_apply(r, &q, false, &news, &io), 0);
	}
	for (unsigned i = 0; i < INITIATORS; i++) {
		struct io io = from(i);
		struct reservation_request q = {.action = RESERVATION_RESERVE, .type = w->type, .key = w->key[i]};
		if (w->holders & (1u << i)) {
			CHECK_EQ(reservations_apply(r, &q, false, &none, &io), 0);
			break;
		}
	}
	r->generation = UINT32_MAX; /* it wraps */
}

static bool is_state(const struct reservations *r, const struct world *w)
{
	unsigned found = 0;
	bool good = (unsigned)r->type == w->type;

	for (size_t i = 0; i < r->count; i++) {
		for (unsigned n = 0; n < INITIATORS; n++)
			if (!initiator_compare(&r->list[i].who, &initiators[n])) {
				found |= 1u << n;
				good = good && r->list[i].key == w->key[n];
			}
		good = good && (!i || initiator_compare(&r->list[i - 1].who, &r->list[i].who) < 0);
	}
	for (unsigned n = 0; n < INITIATORS; n++)
		good = good && reservations_holds(r, &initiators[n]) == ((w->holders >> n) & 1);
	return good && found == registered(w);
}

static bool is_heard(const struct reservation_news *news, const unsigned hears[3])
{
	unsigned heard[3] = {0};
	size_t count = 0;

	for (size_t i = 0; i < news->count; i++)
		for (unsigned n = 0; n < INITIATORS; n++)
			if (!initiator_compare(&news->list[i].who, &initiators[n]))
				heard[news->list[i].event] |= 1u << n;
	for (unsigned e = 0; e < 3; e++)
		count += (size_t)__builtin_popcount(hears[e]);
	return !memcmp(heard, hears, sizeof(heard)) && count == news->count;
}

static void try_action(const struct world *w, const struct reservations *state, const struct reservation_request *q,
		       unsigned actor)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};
	CLEANUP_NEWS struct reservation_news news = {0};
	struct expected e = expect(w, q, actor);
	struct io io = from(actor);
	int status;

	if (!CHECK_EQ(reservations_copy(&r, state), 0))
		return;
	status = reservations_apply(&r, q, false, &news, &io);
	if (status == e.status && is_state(&r, &e.after) && is_heard(&news, e.hears) &&
	    r.generation == UINT32_MAX + e.generations)
		return;
	CHECK(!"as the oracle says");
	tap_diag("keys %u %u %u, type %u, holders %u; action %d of %u, key %u, new key %u, type %d, nvme %d: status %d, not %d; "
		 "type %d, not %u; news %zu; generation %u",
		 w->key[0], w->key[1], w->key[2], w->type, w->holders, q->action, actor, (unsigned)q->key,
		 (unsigned)q->new_key, q->type, q->nvme, status, e.status, r.type, e.after.type, news.count, r.generation);
}

#define KEYS 3
#define ACTIONS 8

static void try_keys(const struct world *w, const struct reservations *r, struct reservation_request q, unsigned actor)
{
	for (unsigned key = 0; key < KEYS * KEYS; key++)
		for (unsigned type = 0; type < TYPES + 1; type++) {
			q.key = key % KEYS;
			q.new_key = key / KEYS;
			q.type = type;
			try_action(w, r, &q, actor);
			q.nvme = true;
			try_action(w, r, &q, actor);
			q.nvme = false;
		}
}

static void try_actions(const struct world *w)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};

	enter(&r, w);
	if (!CHECK(is_state(&r, w)))
		return;
	for (unsigned action = 0; action < ACTIONS; action++)
		for (unsigned actor = 0; actor < INITIATORS; actor++) {
			struct reservation_request q = {.action = action, .persist = -1};
			if (action != RESERVATION_MOVE) {
				try_keys(w, &r, q, actor);
				continue;
			}
			q.nr_also = 1;
			for (unsigned to = 0; to < 2 * INITIATORS; to++) {
				q.also = &initiators[to / 2];
				q.unregister = to % 2;
				try_keys(w, &r, q, actor);
			}
		}
}

static void check_access(const struct world *w)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};

	enter(&r, w);
	for (unsigned n = 0; n < INITIATORS; n++) {
		unsigned column = w->holders & (1u << n) ? 0 : w->key[n] ? 1 : 2;
		CHECK_EQ(reservations_allow(&r, &initiators[n], RESERVATION_READ), access_table[w->type].read[column] == 'y');
		CHECK_EQ(reservations_allow(&r, &initiators[n], RESERVATION_WRITE),
			 access_table[w->type].write[column] == 'y');
	}
	CHECK_EQ(reservations_restrict(&r) & RESERVATION_READ, strchr(access_table[w->type].read, '-') ? RESERVATION_READ : 0);
	CHECK_EQ(reservations_restrict(&r) & RESERVATION_WRITE,
		 strchr(access_table[w->type].write, '-') ? RESERVATION_WRITE : 0);
}

/* Each way to give out two keys, each type, each holder. */
static unsigned for_each_state(void (*function)(const struct world *w))
{
	unsigned states = 0;

	for (unsigned keys = 0; keys < 27; keys++) {
		struct world w = {.key = {keys % 3, keys / 3 % 3, keys / 9}};
		for (w.type = 0; w.type < TYPES; w.type++)
			for (unsigned h = 0; h < INITIATORS; h++) {
				if (w.type && !all_hold[w.type] ? !w.key[h] : h > 0)
					continue;
				w.holders = !w.type ? 0 : all_hold[w.type] ? registered(&w) : 1u << h;
				if (w.type && !w.holders)
					continue;
				function(&w);
				states++;
			}
	}
	return states;
}

static void test_every_action_in_every_state(void)
{
	CHECK_EQ(for_each_state(try_actions), 27 + 4 * (1 * 6 + 2 * 12 + 3 * 8) + 2 * 26);
}

static void test_access_in_every_state(void)
{
	for_each_state(check_access);
}

/* ------------------------------------------------------------------ one by one */

static int act(struct reservations *r, unsigned actor, struct reservation_request q)
{
	CLEANUP_NEWS struct reservation_news news = {0};
	struct io io = from(actor);

	return reservations_apply(r, &q, true, &news, &io);
}

static void test_setting_persists_as_last_said(void)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};
	CLEANUP_NEWS struct reservation_news news = {0};
	struct reservation_request q = {.action = RESERVATION_REGISTER, .new_key = 5, .persist = 1};
	struct io io = from(0);

	CHECK_EQ(reservations_apply(&r, &q, false, &news, &io), -EINVAL);
	CHECK_EQ(r.count, 0);
	CHECK_EQ(act(&r, 0, q), 0);
	CHECK(r.persists);
	CHECK_EQ(act(&r, 1, (struct reservation_request){.action = RESERVATION_REGISTER, .new_key = 6, .persist = -1}), 0);
	CHECK(r.persists);
	CHECK_EQ(act(&r, 1, (struct reservation_request){.action = RESERVATION_REGISTER, .key = 7, .persist = 0}), -EBADE);
	CHECK(r.persists);
	CHECK_EQ(act(&r, 0, (struct reservation_request){.action = RESERVATION_CLEAR, .key = 5}), 0);
	CHECK(r.persists);
	CHECK_EQ(act(&r, 2, (struct reservation_request){.action = RESERVATION_REGISTER_IGNORING, .new_key = 6}), 0);
	CHECK(!r.persists);
}

static void test_several_register_at_once_or_none(void)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};
	struct reservation_request q = {
		.action = RESERVATION_REGISTER, .new_key = 5, .persist = -1, .also = &initiators[1], .nr_also = 2};

	CHECK_EQ(act(&r, 2, (struct reservation_request){.action = RESERVATION_REGISTER, .new_key = 6, .persist = -1}), 0);
	CHECK_EQ(act(&r, 0, q), -EBADE);
	CHECK_EQ(r.count, 1);
	CHECK_EQ(r.generation, 1);
	q.action = RESERVATION_REGISTER_IGNORING;
	CHECK_EQ(act(&r, 0, q), 0);
	CHECK_EQ(r.count, 3);
	CHECK_EQ(r.generation, 2);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(r.list[i].key, 5);
	q.action = RESERVATION_REGISTER;
	q.key = 5;
	q.new_key = 0;
	CHECK_EQ(act(&r, 0, q), 0);
	CHECK_EQ(r.count, 0);
	q.action = RESERVATION_RESERVE;
	q.type = 1;
	CHECK_EQ(act(&r, 0, q), -EINVAL);
}

/* The others of the list are gone as well, so there is nobody to tell. */
static void test_holder_and_others_unregister_at_once(void)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};
	CLEANUP_NEWS struct reservation_news news = {0};
	struct reservation_request q = {
		.action = RESERVATION_REGISTER, .new_key = 5, .persist = -1, .also = &initiators[1], .nr_also = 2};
	struct io io = from(0);

	CHECK_EQ(act(&r, 0, q), 0);
	CHECK_EQ(act(&r, 0, (struct reservation_request){.action = RESERVATION_RESERVE, .key = 5, .type = 3}), 0);
	q.key = 5;
	q.new_key = 0;
	q.nr_also = 1;
	CHECK_EQ(reservations_apply(&r, &q, false, &news, &io), 0);
	CHECK_EQ(r.type, RESERVATION_NONE);
	if (CHECK_EQ(news.count, 1)) {
		CHECK(!initiator_compare(&news.list[0].who, &initiators[2]));
		CHECK_EQ(news.list[0].event, RESERVATION_EVENT_RELEASED);
	}
}

/* One that is nobody's counts as all zero, and can register as any other. */
static void test_this_process_is_an_initiator(void)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};
	CLEANUP_NEWS struct reservation_news news = {0};
	const struct initiator nobody = {0};
	struct reservation_request q = {.action = RESERVATION_REGISTER, .new_key = 5, .persist = -1};

	CHECK_EQ(reservations_apply(&r, &q, false, &news, &io_plain), 0);
	CHECK(reservations_registered(&r, &nobody));
	CHECK(!reservations_registered(&r, &initiators[0]));
}

static void test_unknown_action(void)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};

	CHECK_EQ(act(&r, 0, (struct reservation_request){.action = 8}), -EINVAL);
	CHECK_EQ(act(&r, 0, (struct reservation_request){.action = (enum reservation_action)-1}), -EINVAL);
}

/* ------------------------------------------------------------------ many */

static struct initiator numbered(uint32_t n)
{
	struct initiator who = {.port = (uint16_t)(n % 5)};

	n *= 2654435761u; /* odd: each has its own */
	memcpy(who.id, &n, sizeof(n));
	return who;
}

static int act_as(struct reservations *r, uint32_t n, struct reservation_request q, struct failure *failure)
{
	CLEANUP_NEWS struct reservation_news news = {0};
	struct initiator who = numbered(n);
	struct io io = {.who = &who, .failure = failure};

	return reservations_apply(r, &q, false, &news, &io);
}

static void test_as_many_as_can_be(void)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};
	struct reservation_request join = {.action = RESERVATION_REGISTER, .new_key = 5, .persist = -1};
	struct failure failure = {0};

	for (uint32_t n = 0; n < RESERVATIONS_MAX; n++)
		if (!CHECK_EQ(act_as(&r, n, join, NULL), 0))
			return;
	CHECK_EQ(act_as(&r, RESERVATIONS_MAX, join, &failure), -ENOSPC);
	CHECK_STR(failure.text, "prwrap: 8192 initiators are registered, and there can be 8192");
	for (size_t i = 1; i < r.count; i++)
		CHECK(initiator_compare(&r.list[i - 1].who, &r.list[i].who) < 0);
	CHECK_EQ(act_as(&r, RESERVATIONS_MAX, (struct reservation_request){.action = RESERVATION_REGISTER}, NULL), 0);
	join.key = 5;
	CHECK_EQ(act_as(&r, 77, join, NULL), 0); /* no new one */
	CHECK_EQ(act_as(&r, 1, (struct reservation_request){.action = RESERVATION_RESERVE, .key = 5, .type = 5}, NULL), 0);
	CHECK_EQ(act_as(&r, 9, (struct reservation_request){.action = RESERVATION_PREEMPT_ABORT, .key = 5, .type = 2}, NULL), 0);
	CHECK_EQ(r.count, 1);
	CHECK_EQ(r.type, RESERVATION_EXCLUSIVE_ACCESS);
}

static void test_too_many_at_once(void)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};
	struct initiator *also = calloc(RESERVATIONS_MAX, sizeof(*also));
	struct reservation_request q = {.action = RESERVATION_REGISTER, .new_key = 5, .persist = -1, .also = also};

	for (uint32_t n = 0; n < RESERVATIONS_MAX; n++)
		also[n] = numbered(n + 1);
	q.nr_also = RESERVATIONS_MAX;
	CHECK_EQ(act_as(&r, 0, q, NULL), -ENOSPC);
	CHECK_EQ(r.count, 0);
	q.nr_also--;
	CHECK_EQ(act_as(&r, 0, q, NULL), 0);
	CHECK_EQ(r.count, RESERVATIONS_MAX);
	free(also);
}

/* A set of hundreds, against flags. */
static void test_random_crowd(void)
{
	enum { CROWD = 300 };
	CLEANUP_RESERVATIONS struct reservations r = {0};
	struct random random = random_stream(1);
	static uint64_t keys[CROWD];
	size_t count = 0;

	for (unsigned i = 0; i < 20000; i++) {
		uint32_t n = (uint32_t)random_below(&random, CROWD);
		uint64_t key = random_below(&random, 3);
		struct initiator who = numbered(n);
		CHECK_EQ(act_as(&r, n, (struct reservation_request){.action = RESERVATION_REGISTER, .key = keys[n],
								   .new_key = key, .persist = -1}, NULL), 0);
		count += (size_t)(!keys[n] && key) - (size_t)(keys[n] && !key);
		keys[n] = key;
		CHECK_EQ(reservations_registered(&r, &who), key != 0);
		CHECK_EQ(r.count, count);
	}
}

static void test_report(void)
{
	CLEANUP_RESERVATIONS struct reservations r = {0};
	struct reservation_report report;

	for (unsigned i = 0; i < INITIATORS; i++)
		act(&r, i, (struct reservation_request){.action = RESERVATION_REGISTER, .new_key = i + 1, .persist = 1});
	act(&r, 1, (struct reservation_request){.action = RESERVATION_RESERVE, .key = 2, .type = 4});
	REQUIRE(CHECK_EQ(reservations_report(&r, &report), 0));
	CHECK_EQ(report.generation, 3);
	CHECK_EQ(report.type, RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS);
	CHECK(report.persists);
	CHECK_EQ(report.types, 0x7e);
	CHECK_EQ(report.count, 3);
	for (size_t i = 0; i < report.count; i++) {
		CHECK_EQ(report.registrants[i].holds, report.registrants[i].key == 2);
		CHECK(!initiator_compare(&report.registrants[i].who, &initiators[report.registrants[i].key - 1]));
	}
	free(report.registrants);
}

int main(void)
{
	TAP_RUN(test_every_action_in_every_state);
	TAP_RUN(test_access_in_every_state);
	TAP_RUN(test_setting_persists_as_last_said);
	TAP_RUN(test_several_register_at_once_or_none);
	TAP_RUN(test_holder_and_others_unregister_at_once);
	TAP_RUN(test_this_process_is_an_initiator);
	TAP_RUN(test_unknown_action);
	TAP_RUN(test_as_many_as_can_be);
	TAP_RUN(test_too_many_at_once);
	TAP_RUN(test_random_crowd);
	TAP_RUN(test_report);
	return TAP_DONE();
}
