/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The language
 *
 *     rules      = rule { "+" rule }
 *     rule       = operations "=" action { "," condition }
 *     operations = operation { "/" operation } | "any"
 *     condition  = name | name "=" value
 *
 * so that "write=io,every=100+read=medium,at=1M,len=64K,heal" needs quotes neither in a shell nor, outside of lists,
 * in a spec.
 *
 * A rule looks at each request of its operations that touches its range, and counts it. Conditions narrow down one
 * after the other: after, every, rate, times. By its count alone, and the seed, it is settled whether a request is
 * struck and how, so the same requests in the same order are struck the same way.
 */
#include "decorators/fault-rules.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/chance.h"
#include "core/nearest.h"
#include "core/spec.h"

#define BIT(op) (1u << (op))
#define CHANGES (BIT(FAULT_WRITE) | BIT(FAULT_DISCARD) | BIT(FAULT_ZEROES))
#define TRANSFERS (BIT(FAULT_READ) | BIT(FAULT_WRITE))
#define ALL (BIT(FAULT_OPS) - 1)

#define HEAL_BYTES 512u
#define LONGEST_STALL_NS (UINT64_C(3600) * 1000000000)

const char *const fault_op_names[FAULT_OPS] = {"read", "write", "flush", "discard", "zeroes"};

static const struct action {
	const char *name;
	enum fault_act act;
	unsigned ops; /* for which it has a meaning */
	int status;
	int medium;
} actions[] = {
	{"io", FAULT_ERROR, ALL, -EIO, 0},
	{"medium", FAULT_ERROR, ALL, -ENODATA, -1},
	{"medium-read", FAULT_ERROR, ALL, -ENODATA, MEDIUM_UNRECOVERED_READ},
	{"medium-write", FAULT_ERROR, ALL, -ENODATA, MEDIUM_WRITE_FAULT},
	{"medium-guard", FAULT_ERROR, ALL, -ENODATA, MEDIUM_GUARD_CHECK},
	{"medium-app", FAULT_ERROR, ALL, -ENODATA, MEDIUM_APPLICATION_TAG_CHECK},
	{"medium-ref", FAULT_ERROR, ALL, -ENODATA, MEDIUM_REFERENCE_TAG_CHECK},
	{"nospace", FAULT_ERROR, ALL, -ENOSPC, 0},
	{"readonly", FAULT_ERROR, ALL, -EROFS, 0},
	{"range", FAULT_ERROR, ALL, -ERANGE, 0},
	{"invalid", FAULT_ERROR, ALL, -EINVAL, 0},
	{"unreachable", FAULT_ERROR, ALL, -EFAULT, 0},
	{"reserved", FAULT_ERROR, ALL, -EBADE, 0},
	{"aborted", FAULT_ERROR, ALL, -ECANCELED, 0},
	{"unsupported", FAULT_ERROR, ALL, -EOPNOTSUPP, 0},
	{"nomemory", FAULT_ERROR, ALL, -ENOMEM, 0},
	{"nomedium", FAULT_ERROR, ALL, -ENOMEDIUM, 0},
	{"torn", FAULT_TORN, CHANGES, -EIO, 0},
	{"drop", FAULT_DROP, CHANGES | BIT(FAULT_FLUSH), 0, 0},
	{"corrupt", FAULT_CORRUPT, TRANSFERS, 0, 0},
	{"misplace", FAULT_MISPLACE, TRANSFERS, 0, 0},
	{"stall", FAULT_STALL, ALL, 0, 0},
	{"cut", FAULT_CUT, ALL, -EIO, 0},
	{"reset", FAULT_RESET, ALL, -EIO, 0},
};
#define NR_ACTIONS (sizeof(actions) / sizeof(*actions))

/* ------------------------------------------------------------------ conditions */

/* One rule being read: its text is cut into pieces in place. */
struct reader {
	const char *begin; /* of all rules */
	struct fault_rule *rule;
	const struct action *action;
	unsigned given; /* bit: a row of the table below */
	struct error *err;
};

/* The message is one line of plain text, whatever was in the rules. */
static int __attribute__((format(printf, 3, 4))) refuse(struct reader *r, const char *at, const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	for (char *c = text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return error_set(r->err, -EINVAL, "rules, character %zu: %s", (size_t)(at - r->begin) + 1, text);
}

static int read_number(struct reader *r, const char *name, const char *value, uint64_t *out)
{
	if (number_parse(value, out, NULL) || !*out)
		return refuse(r, value, "expected a number from 1 for %s, found '%.40s'", name, value);
	return 0;
}

static int read_size(struct reader *r, const char *name, const char *value, uint64_t *out)
{
	if (size_parse(value, out, NULL) || *out > INT64_MAX)
		return refuse(r, value, "expected bytes for %s, such as 64K, found '%.40s'", name, value);
	return 0;
}

static int read_at(struct reader *r, const char *name, const char *value)
{
	return read_size(r, name, value, &r->rule->at);
}

/* `end` is the length until the whole rule is known. */
static int read_len(struct reader *r, const char *name, const char *value)
{
	int status = read_size(r, name, value, &r->rule->end);

	return status || r->rule->end ? status : refuse(r, value, "len is to be more than 0");
}

static int read_after(struct reader *r, const char *name, const char *value)
{
	return read_number(r, name, value, &r->rule->after);
}

static int read_every(struct reader *r, const char *name, const char *value)
{
	return read_number(r, name, value, &r->rule->every);
}

static int read_times(struct reader *r, const char *name, const char *value)
{
	return read_number(r, name, value, &r->rule->times);
}

static int read_bits(struct reader *r, const char *name, const char *value)
{
	int status = read_number(r, name, value, &r->rule->bits);

	return status || r->rule->bits <= 4096 ? status : refuse(r, value, "bits is to be at most 4096");
}

static int read_nth(struct reader *r, const char *name, const char *value)
{
	int status = read_number(r, name, value, &r->rule->after);

	r->rule->after -= !status;
	r->rule->times = 1;
	return status;
}

static int read_once(struct reader *r, const char *name, const char *value)
{
	(void)name;
	(void)value;
	r->rule->times = 1;
	return 0;
}

/* "0.1%": digits, of which nine may stand behind a point. */
static int read_rate(struct reader *r, const char *name, const char *value)
{
	uint64_t parts = 0; /* 10^-9 of one in a hundred */
	unsigned behind = 0, digits = 0;
	bool point = false;
	const char *p = value;

	for (; (*p >= '0' && *p <= '9') || (*p == '.' && !point); p++) {
		point = point || *p == '.';
		if (*p == '.')
			continue;
		parts = 10 * parts + (uint64_t)(*p - '0');
		behind += point;
		digits++;
		if (digits > 12 || behind > 9)
			break;
	}
	for (; behind < 9; behind++)
		parts = parts > UINT64_MAX / 10 ? UINT64_MAX : 10 * parts;
	if (!digits || strcmp(p, "%") || !parts || parts > UINT64_C(100000000000))
		return refuse(r, value, "expected a part of all for %s, such as 0.1%%, at most 100%%, found '%.40s'", name, value);
	r->rule->rate = parts == UINT64_C(100000000000) ? UINT64_MAX
							  : (uint64_t)(((unsigned __int128)parts << 64) / 100000000000u);
	return 0;
}

static int read_time(struct reader *r, const char *name, const char *value)
{
	if (duration_parse(value, &r->rule->time_ns, NULL) || !r->rule->time_ns || r->rule->time_ns > LONGEST_STALL_NS)
		return refuse(r, value, "expected a time up to 3600s for %s, such as 30s, found '%.40s'", name, value);
	return 0;
}

static int read_flag(struct reader *r, const char *name, const char *value)
{
	bool *flag = !strcmp(name, "heal")    ? &r->rule->heal
		     : !strcmp(name, "late")  ? &r->rule->late
		     : !strcmp(name, "quiet") ? &r->rule->quiet
					      : &r->rule->scatter;

	(void)value;
	*flag = true;
	return 0;
}

enum { AT, LEN, AFTER, EVERY, TIMES, NTH, ONCE, RATE, TIME, BITS, HEAL, LATE, QUIET, SCATTER };

#define EXCLUDES(a, b, c) (BIT(a) | BIT(b) | BIT(c))

static const struct condition {
	const char *name;
	int (*read)(struct reader *r, const char *name, const char *value);
	bool valued;
	int act;           /* only for this one; -1: for all */
	unsigned excludes; /* conditions that it cannot be together with */
} conditions[] = {
	[AT] = {"at", read_at, true, -1, 0},
	[LEN] = {"len", read_len, true, -1, 0},
	[AFTER] = {"after", read_after, true, -1, BIT(NTH)},
	[EVERY] = {"every", read_every, true, -1, BIT(NTH)},
	[TIMES] = {"times", read_times, true, -1, BIT(NTH) | BIT(ONCE)},
	[NTH] = {"nth", read_nth, true, -1, EXCLUDES(AFTER, EVERY, TIMES) | EXCLUDES(ONCE, RATE, RATE)},
	[ONCE] = {"once", read_once, false, -1, BIT(NTH) | BIT(TIMES)},
	[RATE] = {"rate", read_rate, true, -1, BIT(NTH)},
	[TIME] = {"time", read_time, true, FAULT_STALL, 0},
	[BITS] = {"bits", read_bits, true, FAULT_CORRUPT, 0},
	[HEAL] = {"heal", read_flag, false, FAULT_ERROR, BIT(LATE)},
	[LATE] = {"late", read_flag, false, FAULT_ERROR, BIT(HEAL)},
	[QUIET] = {"quiet", read_flag, false, FAULT_TORN, 0},
	[SCATTER] = {"scatter", read_flag, false, FAULT_TORN, 0},
};
#define NR_CONDITIONS (sizeof(conditions) / sizeof(*conditions))

/* ------------------------------------------------------------------ reading */

/* `known`: what might have stood there. */
static int refuse_word(struct reader *r, const char *at, const char *what, const char *known,
		       const struct nearest *near)
{
	if (near->word)
		return refuse(r, at, "'%.40s' is no %s; did you mean '%s'?", at, what, near->word);
	return refuse(r, at, "'%.40s' is no %s, which are %s", at, what, known);
}

static int read_operation(struct reader *r, const char *word)
{
	struct nearest near = nearest_to(word, strlen(word));

	for (unsigned op = 0; op < FAULT_OPS; op++) {
		nearest_try(&near, fault_op_names[op]);
		if (!strcmp(word, fault_op_names[op])) {
			r->rule->ops |= BIT(op);
			return 0;
		}
	}
	nearest_try(&near, "any");
	if (strcmp(word, "any"))
		return refuse_word(r, word, "operation", "read, write, flush, discard, zeroes and any", &near);
	r->rule->ops = ALL;
	return 0;
}

static int read_operations(struct reader *r, char *text)
{
	int status = 0;

	while (text && !status)
		status = read_operation(r, strsep(&text, "/"));
	return status;
}

static int read_action(struct reader *r, const char *word)
{
	struct nearest near = nearest_to(word, strlen(word));

	for (size_t i = 0; i < NR_ACTIONS; i++) {
		nearest_try(&near, actions[i].name);
		if (strcmp(word, actions[i].name))
			continue;
		r->action = &actions[i];
		r->rule->act = actions[i].act;
		r->rule->status = actions[i].status;
		r->rule->medium = actions[i].medium;
		if (!(r->rule->ops & ~actions[i].ops))
			return 0;
		return refuse(r, word, "%s is not for %s", word,
			      fault_op_names[__builtin_ctz(r->rule->ops & ~actions[i].ops)]);
	}
	return refuse_word(r, word, "action",
			   "io, medium[-read|-write|-guard|-app|-ref], nospace, readonly, range, invalid, unreachable, reserved, "
			   "aborted, unsupported, nomemory, nomedium, torn, drop, corrupt, misplace, stall, cut and reset",
			   &near);
}

static const char *excluded_by(const struct reader *r, const struct condition *c)
{
	unsigned both = c->excludes & r->given;

	return both ? conditions[__builtin_ctz(both)].name : NULL;
}

static int take_condition(struct reader *r, const struct condition *c, const char *name, const char *value)
{
	unsigned bit = BIT(c - conditions);

	if (r->given & bit)
		return refuse(r, name, "%s is given twice", name);
	if (excluded_by(r, c))
		return refuse(r, name, "%s and %s exclude each other", name, excluded_by(r, c));
	if (c->act >= 0 && (enum fault_act)c->act != r->rule->act)
		return refuse(r, name, "%s does not go with %s", name, r->action->name);
	if (c->valued && !value)
		return refuse(r, name, "%s needs a value: %s=...", name, name);
	if (!c->valued && value)
		return refuse(r, name, "%s takes no value", name);
	r->given |= bit;
	return c->read(r, name, value);
}

static int read_condition(struct reader *r, char *text)
{
	char *name = strsep(&text, "=");
	struct nearest near = nearest_to(name, strlen(name));

	for (size_t i = 0; i < NR_CONDITIONS; i++) {
		nearest_try(&near, conditions[i].name);
		if (!strcmp(name, conditions[i].name))
			return take_condition(r, &conditions[i], name, text);
	}
	return refuse_word(r, name, "condition",
			   "at, len, after, every, times, nth, once, rate, time, bits, heal, late, quiet and scatter", &near);
}

/* What only the whole rule shows. `at` is where it begins. */
static int check_rule(struct reader *r, const char *at)
{
	struct fault_rule *rule = r->rule;
	uint64_t length = rule->end;

	rule->ranged = length;
	if (rule->ops & BIT(FAULT_FLUSH) && r->given & (BIT(AT) | BIT(LEN)) && rule->ops != ALL)
		return refuse(r, at, "a flush has no range: at and len do not go with it");
	if (r->given & BIT(AT) && !(r->given & BIT(LEN)))
		return refuse(r, at, "at needs len: how many bytes from there");
	if (rule->act == FAULT_STALL && !rule->time_ns)
		return refuse(r, at, "stall needs time, such as time=30s");
	if (rule->heal && (rule->ops != BIT(FAULT_READ) || rule->status != -ENODATA || !length || length > FAULT_HEAL_MAX))
		return refuse(r, at, "heal is for read=medium with a range, len, of at most 1T");
	rule->end = !length || length > INT64_MAX - rule->at ? INT64_MAX : rule->at + length;
	if (!rule->rate)
		rule->rate = UINT64_MAX;
	if (!rule->bits)
		rule->bits = 1;
	return 0;
}

static int make_healed(struct fault_rule *rule)
{
	uint64_t bits = (rule->end - 1) / HEAL_BYTES - rule->at / HEAL_BYTES + 1;

	if (!rule->heal)
		return 0;
	rule->healed = calloc((size_t)(bits / 64 + 1), sizeof(*rule->healed));
	return rule->healed ? 0 : -ENOMEM;
}

static int read_rule(struct reader *r, char *text)
{
	char *begin = text, *first = strsep(&text, ","), *operations;
	int status;

	operations = strsep(&first, "=");
	if (!first)
		return refuse(r, begin, "expected OPERATION=ACTION, such as write=io, found '%.40s'",
			      operations);
	status = read_operations(r, operations);
	if (!status)
		status = read_action(r, first);
	while (!status && text)
		status = read_condition(r, strsep(&text, ","));
	return status ? status : check_rule(r, begin);
}

void fault_rules_free(struct fault_rules *rules)
{
	for (unsigned i = 0; i < rules->count; i++) {
		free(rules->list[i].text);
		free(rules->list[i].healed);
	}
	free(rules->list);
	*rules = (struct fault_rules){0};
}

/* One more rule, whose text is `text`. */
static int add_rule(struct fault_rules *rules, char *begin, char *text, struct error *err)
{
	struct fault_rule *list = reallocarray(rules->list, rules->count + 1u, sizeof(*list));
	struct reader r = {.begin = begin, .err = err};
	char *copy = strdup(text);
	int status;

	if (!list || !copy) {
		rules->list = list ? list : rules->list;
		free(copy);
		return error_set(err, -ENOMEM, "no memory");
	}
	rules->list = list;
	r.rule = &list[rules->count++];
	memset(r.rule, 0, sizeof(*r.rule));
	r.rule->text = copy;
	status = read_rule(&r, text);
	if (!status && make_healed(r.rule))
		status = error_set(err, -ENOMEM, "no memory");
	rules->ops |= r.rule->ops;
	return status;
}

int fault_rules_parse(const char *text, struct fault_rules *out, struct error *err)
{
	char *copy = text && *text ? strdup(text) : NULL, *next = copy;
	int status = 0;

	*out = (struct fault_rules){0};
	if (text && *text && !copy)
		return error_set(err, -ENOMEM, "no memory");
	while (next && !status)
		status = out->count < FAULT_RULES_MAX ? add_rule(out, copy, strsep(&next, "+"), err)
						      : error_set(err, -EINVAL, "rules: more than %u", FAULT_RULES_MAX);
	free(copy);
	if (status)
		fault_rules_free(out);
	return status;
}

/* ------------------------------------------------------------------ asking */

static uint64_t max64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The first byte of [from, to) that is bad still; `to` when none is. */
static uint64_t first_bad(const struct fault_rule *rule, uint64_t from, uint64_t to)
{
	uint64_t first = rule->at / HEAL_BYTES;

	for (uint64_t block = from / HEAL_BYTES; block * HEAL_BYTES < to; block++) {
		uint64_t bit = block - first;
		if (!(atomic_load_explicit(&rule->healed[bit / 64], memory_order_relaxed) >> bit % 64 & 1))
			return max64(from, block * HEAL_BYTES);
	}
	return to;
}

/* Does the rule look at the request? */
static bool looks_at(const struct fault_rule *rule, enum fault_op op, uint64_t offset, uint64_t length, uint64_t *where)
{
	uint64_t end = offset + length < rule->end ? offset + length : rule->end;

	*where = max64(offset, rule->at);
	if (!(rule->ops & BIT(op)))
		return false;
	if (op == FAULT_FLUSH)
		return !rule->ranged;
	if (*where >= end)
		return false;
	if (rule->heal)
		*where = first_bad(rule, *where, end);
	return *where < end;
}

/* One of the times that are left. */
static bool take_time(struct fault_rule *rule)
{
	uint64_t struck = atomic_load_explicit(&rule->struck, memory_order_relaxed);

	do {
		if (rule->times && struck >= rule->times)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&rule->struck, &struck, struck + 1, memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

static uint64_t draw(unsigned number, uint64_t seed, uint64_t nth, uint64_t which)
{
	return chance_at(chance_at(seed, number, nth), 0, which);
}

uint64_t fault_strike_draw(const struct fault_strike *s, uint64_t seed, uint64_t which)
{
	return draw(s->number, seed, s->nth, which + 1);
}

static bool strikes(struct fault_rule *rule, unsigned number, uint64_t nth, uint64_t seed)
{
	if (nth < rule->after)
		return false;
	if (rule->every && (nth - rule->after + 1) % rule->every)
		return false;
	if (rule->rate != UINT64_MAX && draw(number, seed, nth, 0) >= rule->rate)
		return false;
	return take_time(rule);
}

bool fault_rules_ask(const struct fault_rules *rules, enum fault_op op, uint64_t offset, uint64_t length, uint64_t seed,
		     struct fault_strike *out)
{
	for (unsigned i = 0; i < rules->count; i++) {
		struct fault_rule *rule = &rules->list[i];
		uint64_t where, nth;
		if (!looks_at(rule, op, offset, length, &where))
			continue;
		nth = atomic_fetch_add_explicit(&rule->matched, 1, memory_order_relaxed);
		if (!strikes(rule, i + 1, nth, seed))
			continue;
		*out = (struct fault_strike){.rule = rule, .number = i + 1, .nth = nth, .where = where};
		return true;
	}
	return false;
}

/* Requests are whole blocks, of at least as many bytes as a bit stands for. */
static void heal_rule(struct fault_rule *rule, uint64_t offset, uint64_t end)
{
	uint64_t first = rule->at / HEAL_BYTES, from = max64(offset, rule->at);

	if (end > rule->end)
		end = rule->end;
	for (uint64_t block = from / HEAL_BYTES; from < end && block * HEAL_BYTES < end; block++) {
		uint64_t bit = block - first;
		atomic_fetch_or_explicit(&rule->healed[bit / 64], UINT64_C(1) << bit % 64, memory_order_relaxed);
	}
}

void fault_rules_heal(const struct fault_rules *rules, uint64_t offset, uint64_t length)
{
	for (unsigned i = 0; i < rules->count; i++)
		if (rules->list[i].heal)
			heal_rule(&rules->list[i], offset, offset + length);
}

/* ------------------------------------------------------------------ failing */

static enum medium_error medium_of(const struct fault_rule *rule, enum fault_op op)
{
	if (rule->medium >= 0)
		return (enum medium_error)rule->medium;
	return op == FAULT_READ ? MEDIUM_UNRECOVERED_READ : MEDIUM_WRITE_FAULT;
}

int fault_strike_fail(const struct fault_strike *s, enum fault_op op, uint32_t block_size, const struct io *io)
{
	const struct fault_rule *rule = s->rule;

	if (rule->status == -ENODATA && op != FAULT_FLUSH)
		return io_fail_medium(io, medium_of(rule, op), "fault: rule %u (%s): request %" PRIu64 ", block %" PRIu64, s->number,
				      rule->text, s->nth + 1, s->where / block_size);
	if (rule->status == -ENODATA)
		return io_fail_medium(io, medium_of(rule, op), "fault: rule %u (%s): request %" PRIu64, s->number, rule->text,
				      s->nth + 1);
	return io_fail(io, rule->status, "fault: rule %u (%s): request %" PRIu64, s->number, rule->text, s->nth + 1);
}
