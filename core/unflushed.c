/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a power cut may leave
 *
 * The record is a list of what was done, oldest first. A state of the medium is the old medium and some of the list,
 * and which "some" are possible is all that this file is about.
 *
 * In any order (UNFLUSHED_ANY)
 *
 *   Each unit has a history: the records that touch it. Of that history a beginning survives, from nothing to all of
 *   it, for each unit another one: the unit holds what it held at that moment. A unit that is written in part holds
 *   the rest as it was then, so later records never appear without earlier ones in the same unit.
 *
 *   Sizes are a history of their own, of which a beginning survives. What ties the two:
 *
 *     a shrink is part of the history of the units from which it cuts bytes
 *     where it survives, these units have come at least as far      (nothing that was cut off is seen again)
 *     where it is lost, they have come at most to just before it    (what was written since lies elsewhere)
 *     bytes past the surviving size are not there, whatever happened to them
 *     a durable mark: its units have come at least to where they were, and the size as well
 *
 *   That is less than all that file systems do: one that keeps an old size and a zeroed tail of the last unit is not
 *   among the states. Whatever is among them can happen.
 *
 * In order (UNFLUSHED_IN_ORDER)
 *
 *   A beginning of the list survives, and of the record behind it the first units. Changes of size are whole.
 *
 * How histories are found: one sweep over the units at which records begin or end, with the set of those that touch
 * the segment between two of them. All units of a segment have the same history; each has its own fate, which a
 * picker decides. Neighbours with the same fate are brought to the medium together, from the last record on that
 * covers them all.
 *
 * A segment of very many units (the zeroing of a whole disk) is cut into GROUPS groups that share their fate, so that
 * what a cut does with it stays a bounded number of calls.
 */
#include "core/unflushed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/chance.h"
#include "core/spans.h"

#define GROUPS 65536u

enum record_kind { WRITE, ZERO, RESIZE, DURABLE };

struct record {
	enum record_kind kind;
	unsigned tag;
	uint64_t offset, end; /* RESIZE: what it cuts off, empty when it grows */
	uint64_t size;        /* RESIZE: the new one */
	uint64_t number;      /* from the first one ever */
	unsigned char data[];
};

struct unflushed {
	uint32_t unit;
	uint64_t old_size, size; /* at the last flush, and now */
	struct record **list;
	size_t count, room;
	size_t bytes;
	uint64_t next_number;
	struct spans newest; /* of each byte, the record that touched it last */
};

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t first_unit(const struct unflushed *u, const struct record *r)
{
	return r->offset / u->unit;
}

static uint64_t end_unit(const struct unflushed *u, const struct record *r)
{
	return r->end == r->offset ? r->offset / u->unit : (r->end - 1) / u->unit + 1;
}

/* ------------------------------------------------------------------ recording */

int unflushed_create(uint64_t size, uint32_t unit, struct unflushed **out)
{
	struct unflushed *u = calloc(1, sizeof(*u));

	*out = u;
	if (!u)
		return -ENOMEM;
	u->unit = unit;
	u->old_size = u->size = size;
	return 0;
}

static size_t record_bytes(const struct record *r)
{
	return sizeof(*r) + sizeof(r) + (r->kind == WRITE ? (size_t)(r->end - r->offset) : 0);
}

/* The oldest `n`. */
static void forget_oldest(struct unflushed *u, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (u->list[i]->kind == RESIZE)
			u->old_size = u->list[i]->size;
		if (u->list[i]->end > u->list[i]->offset)
			spans_clear(&u->newest, u->list[i]->offset, u->list[i]->end, u->list[i]);
		u->bytes -= record_bytes(u->list[i]);
		free(u->list[i]);
	}
	memmove(u->list, u->list + n, (u->count - n) * sizeof(*u->list));
	u->count -= n;
}

void unflushed_forget(struct unflushed *u, uint64_t size)
{
	spans_free(&u->newest);
	if (u->count)
		forget_oldest(u, u->count);
	u->old_size = u->size = size;
}

void unflushed_free(struct unflushed *u)
{
	if (!u)
		return;
	unflushed_forget(u, 0);
	free(u->list);
	free(u);
}

bool unflushed_find(const struct unflushed *u, uint64_t offset, struct unflushed_run *out)
{
	const struct span *s = spans_find(&u->newest, offset);
	const struct record *r = s ? s->what : NULL;

	if (!s)
		return false;
	out->offset = s->start > offset ? s->start : offset;
	out->length = s->end - out->offset;
	out->data = r->kind == WRITE ? r->data + (out->offset - r->offset) : NULL;
	return true;
}

size_t unflushed_records(const struct unflushed *u)
{
	return u->count;
}

size_t unflushed_bytes(const struct unflushed *u)
{
	return u->bytes;
}

/* Room for `more` records. */
static int reserve(struct unflushed *u, size_t more)
{
	size_t room = u->room ? u->room : 16;
	struct record **list;

	while (room - u->count < more)
		room *= 2;
	if (room == u->room)
		return 0;
	list = reallocarray(u->list, room, sizeof(*list));
	if (!list)
		return -ENOMEM;
	u->list = list;
	u->room = room;
	return 0;
}

/* NULL: no memory. */
static struct record *new_record(enum record_kind kind, uint64_t offset, uint64_t end, size_t data)
{
	struct record *r = data <= SIZE_MAX - sizeof(*r) ? malloc(sizeof(*r) + data) : NULL;

	if (r)
		*r = (struct record){.kind = kind, .offset = offset, .end = end};
	return r;
}

/* Takes `r` over in any case; there must be room in the list. */
static int add(struct unflushed *u, struct record *r)
{
	if (r->end > r->offset && r->kind != DURABLE && spans_set(&u->newest, r->offset, r->end, r)) {
		free(r);
		return -ENOMEM;
	}
	r->number = u->next_number++;
	u->list[u->count++] = r;
	u->bytes += record_bytes(r);
	if (r->kind == RESIZE)
		u->size = r->size;
	return 0;
}

static struct record *new_resize(const struct unflushed *u, uint64_t size)
{
	uint64_t cut = size < u->size ? size : u->size;
	struct record *r = new_record(RESIZE, cut, u->size, 0);

	if (r)
		r->size = size;
	return r;
}

int unflushed_record_resize(struct unflushed *u, uint64_t size)
{
	struct record *r;

	if (size > INT64_MAX)
		return -ERANGE;
	if (size == u->size)
		return 0;
	r = reserve(u, 1) ? NULL : new_resize(u, size);
	return r ? add(u, r) : -ENOMEM;
}

/* Adds `r`, and before it the growth that it needs; takes it over in any case. */
static int add_growing(struct unflushed *u, struct record *r)
{
	struct record *growth = NULL;
	uint64_t size = u->size;

	if (!r || reserve(u, 2) || (r->end > size && !(growth = new_resize(u, r->end)))) {
		free(r);
		return -ENOMEM;
	}
	if (growth)
		add(u, growth); /* cuts nothing off, so it does not fail */
	if (!add(u, r))
		return 0;
	if (growth) {
		u->bytes -= record_bytes(growth);
		u->count--;
		u->size = size;
		free(growth);
	}
	return -ENOMEM;
}

static bool is_too_far(uint64_t offset, uint64_t length)
{
	return offset > INT64_MAX || length > INT64_MAX - offset;
}

int unflushed_record_vec(struct unflushed *u, uint64_t offset, const struct vec *v)
{
	struct record *r;

	if (is_too_far(offset, v->size))
		return -ERANGE;
	if (!v->size)
		return 0;
	r = new_record(WRITE, offset, offset + v->size, v->size);
	if (r)
		vec_gather(v, 0, r->data, v->size);
	return add_growing(u, r);
}

int unflushed_record_write(struct unflushed *u, uint64_t offset, const void *data, size_t length)
{
	return unflushed_record_vec(u, offset, &VEC_FLAT(data, length));
}

int unflushed_record_zero(struct unflushed *u, uint64_t offset, uint64_t length, unsigned tag)
{
	struct record *r;

	if (is_too_far(offset, length))
		return -ERANGE;
	if (!length)
		return 0;
	r = new_record(ZERO, offset, offset + length, 0);
	if (r)
		r->tag = tag;
	return add_growing(u, r);
}

int unflushed_record_durable(struct unflushed *u, uint64_t offset, uint64_t length)
{
	struct record *r;

	if (is_too_far(offset, length))
		return -ERANGE;
	r = reserve(u, 1) ? NULL : new_record(DURABLE, offset, offset + length, 0);
	return r ? add(u, r) : -ENOMEM;
}

/* ------------------------------------------------------------------ to the medium */

/* What the record did to [from, to). */
static int put(const struct record *r, uint64_t from, uint64_t to, const struct unflushed_sink *sink)
{
	if (from < r->offset)
		from = r->offset;
	to = min64(to, r->end);
	if (from >= to || r->kind == DURABLE)
		return 0;
	if (r->kind == WRITE)
		return sink->write(sink->to, from, r->data + (from - r->offset), (size_t)(to - from));
	return sink->zero(sink->to, from, to - from, r->tag);
}

static int put_whole(const struct record *r, const struct unflushed_sink *sink)
{
	return r->kind == RESIZE ? sink->resize(sink->to, r->size) : put(r, r->offset, r->end, sink);
}

/* ------------------------------------------------------------------ sizes */

static size_t count_resizes(const struct unflushed *u)
{
	size_t n = 0;

	for (size_t i = 0; i < u->count; i++)
		n += u->list[i]->kind == RESIZE;
	return n;
}

/* Changes of size that survive whatever happens. */
static size_t count_durable_resizes(const struct unflushed *u)
{
	size_t n = 0, durable = 0;

	for (size_t i = 0; i < u->count; i++) {
		n += u->list[i]->kind == RESIZE;
		if (u->list[i]->kind == DURABLE)
			durable = n;
	}
	return durable;
}

/* The size after the first `resizes` changes, and the smallest up to there. */
static uint64_t size_after(const struct unflushed *u, size_t resizes, uint64_t *smallest)
{
	uint64_t size = u->old_size;

	*smallest = size;
	for (size_t i = 0; i < u->count && resizes; i++)
		if (u->list[i]->kind == RESIZE) {
			size = u->list[i]->size;
			*smallest = min64(*smallest, size);
			resizes--;
		}
	return size;
}

/* Cuts to the smallest size first, so that what was cut off is lost. */
static int put_sizes(const struct unflushed *u, size_t resizes, const struct unflushed_sink *sink)
{
	uint64_t smallest, size = size_after(u, resizes, &smallest);
	int status = 0;

	if (smallest < u->old_size)
		status = sink->resize(sink->to, smallest);
	if (!status && size > smallest)
		status = sink->resize(sink->to, size);
	return status;
}

/* ------------------------------------------------------------------ histories */

/* Units [first, end) that have one history; of it at least `least` and at most `most` records survive. */
struct segment {
	uint64_t first, end;
	const struct record **history;
	size_t least, most;
};

/* A place where a record begins to touch units, or ends to. */
struct edge {
	uint64_t unit;
	size_t record;
	bool ends;
};

/* One walk over all segments of those states in which `resizes` changes of size survive. */
struct sweep {
	const struct unflushed *u;
	size_t resizes;
	uint64_t size; /* then */
	struct edge *edges;
	size_t nr_edges, next;
	size_t *active; /* records that touch the present segment, in order */
	size_t nr_active;
	size_t *resize_number;         /* of each record: how many changes of size there were before it */
	const struct record **history; /* the segment's */
};

static int compare_edges(const void *a, const void *b)
{
	const struct edge *x = a, *y = b;

	if (x->unit != y->unit)
		return x->unit < y->unit ? -1 : 1;
	return x->record < y->record ? -1 : x->record > y->record;
}

static void sweep_end(struct sweep *s)
{
	free(s->edges);
	free(s->active);
	free(s->resize_number);
	free(s->history);
}

static int sweep_begin(struct sweep *s, const struct unflushed *u, size_t resizes)
{
	size_t n = u->count ? u->count : 1, seen = 0;
	uint64_t smallest;

	*s = (struct sweep){.u = u, .resizes = resizes, .size = size_after(u, resizes, &smallest)};
	s->edges = reallocarray(NULL, 2 * n, sizeof(*s->edges));
	s->active = reallocarray(NULL, n, sizeof(*s->active));
	s->resize_number = reallocarray(NULL, n, sizeof(*s->resize_number));
	s->history = reallocarray(NULL, n, sizeof(*s->history));
	if (!s->edges || !s->active || !s->resize_number || !s->history) {
		sweep_end(s);
		return -ENOMEM;
	}
	for (size_t i = 0; i < u->count; i++) {
		uint64_t first = first_unit(u, u->list[i]), end = end_unit(u, u->list[i]);
		s->resize_number[i] = seen;
		seen += u->list[i]->kind == RESIZE;
		if (first == end)
			continue;
		s->edges[s->nr_edges++] = (struct edge){first, i, false};
		s->edges[s->nr_edges++] = (struct edge){end, i, true};
	}
	qsort(s->edges, s->nr_edges, sizeof(*s->edges), compare_edges);
	return 0;
}

/* Where in `active` the record stands, or would. */
static size_t active_place(const struct sweep *s, size_t record)
{
	size_t low = 0, high = s->nr_active;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (s->active[middle] < record)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void pass_edge(struct sweep *s, const struct edge *e)
{
	size_t at = active_place(s, e->record);

	if (e->ends) {
		memmove(s->active + at, s->active + at + 1, (s->nr_active - at - 1) * sizeof(*s->active));
		s->nr_active--;
	} else {
		memmove(s->active + at + 1, s->active + at, (s->nr_active - at) * sizeof(*s->active));
		s->active[at] = e->record;
		s->nr_active++;
	}
}

/* The history of the active records, up to the first change of size that is lost. */
static void write_history(struct sweep *s, struct segment *out)
{
	out->history = s->history;
	out->least = out->most = 0;
	for (size_t i = 0; i < s->nr_active; i++) {
		const struct record *r = s->u->list[s->active[i]];
		if (r->kind == RESIZE && s->resize_number[s->active[i]] >= s->resizes)
			return;
		if (r->kind != DURABLE)
			s->history[out->most++] = r;
		if (r->kind == RESIZE || r->kind == DURABLE)
			out->least = out->most;
	}
}

/* The next segment that anything happened to; false at the end. */
static bool sweep_next(struct sweep *s, struct segment *out)
{
	uint64_t end_of_medium = s->size ? (s->size - 1) / s->u->unit + 1 : 0;

	while (s->next < s->nr_edges) {
		uint64_t unit = s->edges[s->next].unit;
		while (s->next < s->nr_edges && s->edges[s->next].unit == unit)
			pass_edge(s, &s->edges[s->next++]);
		if (unit >= end_of_medium || s->next == s->nr_edges)
			return false;
		out->first = unit;
		out->end = min64(s->edges[s->next].unit, end_of_medium);
		write_history(s, out);
		if (out->most)
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------ fates */

enum temper { CHANCE, LITTLE_LOST, LITTLE_KEPT, WHOLE_WRITES, TEMPERS };

/* Decides how much of a history survives. */
struct picker {
	enum { PICK_ALL, PICK_NUMBER, PICK_SEED } by;
	uint64_t number; /* what is left of the number of the state: the digits of a number of mixed radix */
	uint64_t seed;
	enum temper temper;
};

static size_t pick_by_number(struct picker *p, size_t choices)
{
	uint64_t digit = p->number % choices;

	p->number /= choices;
	return (size_t)digit;
}

/* As far as the last record that survives; a record has one fate in all units. */
static size_t pick_whole_writes(const struct picker *p, const struct segment *s)
{
	size_t n = s->most;

	while (n > s->least && chance_at(p->seed, 2, s->history[n - 1]->number) & 1)
		n--;
	return n;
}

static size_t pick_by_seed(const struct picker *p, const struct segment *s, uint64_t unit)
{
	uint64_t random = chance_at(p->seed, 1, unit);

	if (p->temper == WHOLE_WRITES)
		return pick_whole_writes(p, s);
	if (p->temper == LITTLE_LOST && random >> 60)
		return s->most;
	if (p->temper == LITTLE_KEPT && random >> 60)
		return s->least;
	return s->least + (size_t)((random & UINT32_MAX) % (s->most - s->least + 1));
}

static size_t pick(struct picker *p, const struct segment *s, uint64_t unit)
{
	if (p->by == PICK_ALL || s->least == s->most)
		return s->most;
	if (p->by == PICK_NUMBER)
		return s->least + pick_by_number(p, s->most - s->least + 1);
	return pick_by_seed(p, s, unit);
}

/* Units that share a fate. */
static uint64_t group_of(const struct segment *s)
{
	return (s->end - s->first - 1) / GROUPS + 1;
}

/* Brings `survive` records of the history to units [first, end). */
static int put_run(const struct sweep *w, const struct segment *s, uint64_t first, uint64_t end, size_t survive,
		   const struct unflushed_sink *sink)
{
	uint64_t from = first * w->u->unit, to = min64(end * w->u->unit, w->size);
	size_t i = survive;
	int status = 0;

	while (i && !(s->history[i - 1]->offset <= from && s->history[i - 1]->end >= to))
		i--;
	for (i -= i > 0; i < survive && !status; i++)
		status = put(s->history[i], from, to, sink);
	return status;
}

static int put_segment(const struct sweep *w, const struct segment *s, struct picker *p,
		       const struct unflushed_sink *sink)
{
	uint64_t group = group_of(s), first = s->first;
	size_t fate = 0;

	for (uint64_t unit = s->first; unit < s->end; unit += min64(group, s->end - unit)) {
		size_t next = pick(p, s, unit);
		if (unit > first && next != fate) {
			int status = put_run(w, s, first, unit, fate, sink);
			if (status)
				return status;
			first = unit;
		}
		fate = next;
	}
	return put_run(w, s, first, s->end, fate, sink);
}

/* The state in which `resizes` changes of size survive, and of the units what is picked. */
static int put_state(const struct unflushed *u, size_t resizes, struct picker *p, const struct unflushed_sink *sink)
{
	struct segment segment;
	struct sweep sweep;
	int status = sweep_begin(&sweep, u, resizes);

	if (status)
		return status;
	status = put_sizes(u, resizes, sink);
	while (!status && sweep_next(&sweep, &segment))
		status = put_segment(&sweep, &segment, p, sink);
	sweep_end(&sweep);
	return status;
}

/* ------------------------------------------------------------------ states in any order */

static uint64_t saturating_multiply(uint64_t a, uint64_t b)
{
	return __builtin_mul_overflow(a, b, &a) ? UINT64_MAX : a;
}

/* 0: no memory. */
static uint64_t count_with_resizes(const struct unflushed *u, size_t resizes)
{
	struct segment s;
	struct sweep sweep;
	uint64_t states = 1;

	if (sweep_begin(&sweep, u, resizes))
		return 0;
	while (sweep_next(&sweep, &s)) {
		uint64_t groups = (s.end - s.first - 1) / group_of(&s) + 1;
		for (uint64_t i = 0; i < groups && s.most > s.least && states < UINT64_MAX; i++)
			states = saturating_multiply(states, s.most - s.least + 1);
	}
	sweep_end(&sweep);
	return states;
}

static uint64_t count_any(const struct unflushed *u)
{
	size_t last = count_resizes(u);
	uint64_t states = 0;

	for (size_t i = count_durable_resizes(u); i <= last; i++) {
		uint64_t more = count_with_resizes(u, i);
		if (!more)
			return 0;
		states = more > UINT64_MAX - states ? UINT64_MAX : states + more;
	}
	return states;
}

static int enumerate_any(const struct unflushed *u, uint64_t k, const struct unflushed_sink *sink)
{
	struct picker p = {.by = PICK_NUMBER, .number = k};
	size_t resizes = count_durable_resizes(u), last = count_resizes(u);

	for (; resizes < last; resizes++) {
		uint64_t states = count_with_resizes(u, resizes);
		if (!states)
			return -ENOMEM;
		if (p.number < states)
			break;
		p.number -= states;
	}
	return put_state(u, resizes, &p, sink);
}

static int sample_any(const struct unflushed *u, uint64_t seed, const struct unflushed_sink *sink)
{
	uint64_t random = chance_at(seed, 0, 0);
	size_t least = count_durable_resizes(u), last = count_resizes(u);
	struct picker p = {.by = PICK_SEED, .seed = seed, .temper = random % TEMPERS};

	return put_state(u, least + (size_t)((random >> 8) % (last - least + 1)), &p, sink);
}

/* ------------------------------------------------------------------ states in order */

/* What cannot be lost. */
static size_t durable_records(const struct unflushed *u)
{
	size_t n = u->count;

	while (n && u->list[n - 1]->kind != DURABLE)
		n--;
	return n;
}

/* States in which all before the record is there, and it is not, or not all of it. */
static uint64_t steps_of(const struct unflushed *u, const struct record *r)
{
	if (r->kind == RESIZE)
		return 1;
	return r->kind == DURABLE ? 0 : end_unit(u, r) - first_unit(u, r);
}

/* All before record `n`, and of it the first `units`. */
static int put_beginning(const struct unflushed *u, size_t n, uint64_t units, const struct unflushed_sink *sink)
{
	int status = 0;

	for (size_t i = 0; i < n && !status; i++)
		status = put_whole(u->list[i], sink);
	if (!status && units)
		status = put(u->list[n], u->list[n]->offset, (first_unit(u, u->list[n]) + units) * u->unit, sink);
	return status;
}

static uint64_t count_in_order(const struct unflushed *u)
{
	uint64_t states = 1;

	for (size_t i = durable_records(u); i < u->count; i++) {
		uint64_t more = steps_of(u, u->list[i]);
		states = more > UINT64_MAX - states ? UINT64_MAX : states + more;
	}
	return states;
}

static int enumerate_in_order(const struct unflushed *u, uint64_t k, const struct unflushed_sink *sink)
{
	size_t n = durable_records(u);

	while (n < u->count && k >= steps_of(u, u->list[n]))
		k -= steps_of(u, u->list[n++]);
	return put_beginning(u, n, n < u->count ? k : 0, sink);
}

static int sample_in_order(const struct unflushed *u, uint64_t seed, const struct unflushed_sink *sink)
{
	size_t least = durable_records(u);
	size_t n = least + (size_t)(chance_at(seed, 0, 0) % (u->count - least + 1));
	uint64_t steps = n < u->count ? steps_of(u, u->list[n]) : 0;

	return put_beginning(u, n, steps ? chance_at(seed, 0, 1) % steps : 0, sink);
}

/* ------------------------------------------------------------------ the calls */

uint64_t unflushed_count_states(const struct unflushed *u, enum unflushed_order order)
{
	return order == UNFLUSHED_ANY ? count_any(u) : count_in_order(u);
}

int unflushed_enumerate(const struct unflushed *u, enum unflushed_order order, uint64_t k,
			const struct unflushed_sink *sink)
{
	return order == UNFLUSHED_ANY ? enumerate_any(u, k, sink) : enumerate_in_order(u, k, sink);
}

int unflushed_sample(const struct unflushed *u, enum unflushed_order order, uint64_t seed,
		     const struct unflushed_sink *sink)
{
	return order == UNFLUSHED_ANY ? sample_any(u, seed, sink) : sample_in_order(u, seed, sink);
}

int unflushed_flush(struct unflushed *u, const struct unflushed_sink *sink)
{
	struct picker p = {.by = PICK_ALL};
	int status = sink ? put_state(u, count_resizes(u), &p, sink) : 0;

	if (!status)
		unflushed_forget(u, u->size);
	return status;
}

int unflushed_shrink(struct unflushed *u, size_t bytes, const struct unflushed_sink *sink)
{
	size_t held = u->bytes, n = 0;
	int status = 0;

	while (n < u->count && held > bytes)
		held -= record_bytes(u->list[n++]);
	if (sink)
		status = put_beginning(u, n, 0, sink);
	if (!status && n)
		forget_oldest(u, n);
	return status;
}
