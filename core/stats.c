/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/stats.h"

#include <pthread.h>
#include <stdlib.h>

#include "core/fence.h"
#include "core/hot.h"
#include "core/node.h"
#include "core/slots.h"

/*
 * Which indexes living threads own. The one process-wide table beside the registry: a thread's index has to be
 * the same in every disk.
 */
static struct {
	pthread_mutex_t lock;
	pthread_once_t once;
	pthread_key_t key; /* its destructor gives the index back */
	bool have_key;
	bool taken[STAT_SLOTS];
} threads = {.lock = PTHREAD_MUTEX_INITIALIZER, .once = PTHREAD_ONCE_INIT};

_Thread_local unsigned stat_thread_index __attribute__((tls_model("initial-exec")));
_Thread_local unsigned stat_own_index __attribute__((tls_model("initial-exec")));

/* Counting by destructors that run later goes to the shared slot. */
static void release_index(void *value)
{
	unsigned index = (unsigned)(uintptr_t)value;

	stat_thread_index = STAT_SLOT_SHARED;
	stat_own_index = 0;
	pthread_mutex_lock(&threads.lock);
	threads.taken[index] = false;
	pthread_mutex_unlock(&threads.lock);
}

static void make_key(void)
{
	threads.have_key = pthread_key_create(&threads.key, release_index) == 0;
}

/* The program may unload us (nbdkit does): no thread may call a destructor that is gone. */
__attribute__((destructor)) static void delete_key(void)
{
	if (threads.have_key)
		pthread_key_delete(threads.key);
}

static unsigned take_index(void)
{
	unsigned index = 1;

	pthread_mutex_lock(&threads.lock);
	while (index < STAT_SLOT_SHARED && threads.taken[index])
		index++;
	threads.taken[index] = true;
	pthread_mutex_unlock(&threads.lock);
	return index;
}

unsigned stat_thread_assign(void)
{
	unsigned index;

	pthread_once(&threads.once, make_key);
	index = threads.have_key ? take_index() : STAT_SLOT_SHARED;
	if (index != STAT_SLOT_SHARED &&
	    pthread_setspecific(threads.key, (void *)(uintptr_t)index) != 0) {
		release_index((void *)(uintptr_t)index);
		index = STAT_SLOT_SHARED;
	}
	stat_thread_index = index;
	stat_own_index = fence_is_asymmetric && index != STAT_SLOT_SHARED ? index : 0;
	return index;
}

struct stat_slot *stat_slot_new(void)
{
	struct stat_slot *s = aligned_alloc(64, sizeof(*s));

	if (s)
		*s = (struct stat_slot){0};
	return s;
}

void stat_slot_free(struct stat_slot *s)
{
	if (s)
		free((void *)s->latency);
	free(s);
}

/* Several threads may come here at once in the shared slot. */
static _Atomic uint64_t *make_histogram(struct stat_slot *s)
{
	_Atomic uint64_t *fresh = calloc(STAT_OPS * STAT_BUCKETS, sizeof(*fresh));
	_Atomic uint64_t *there = NULL;

	if (!fresh || atomic_compare_exchange_strong(&s->latency, &there, fresh))
		return fresh;
	free((void *)fresh);
	return there;
}

static unsigned bucket_of(uint64_t ns)
{
	unsigned bucket = ns ? 63 - (unsigned)__builtin_clzll(ns) : 0;

	return bucket < STAT_BUCKETS ? bucket : STAT_BUCKETS - 1;
}

HOT void stat_slot_measure(struct stat_slot *s, enum stat_op op, uint64_t ns, bool shared)
{
	_Atomic uint64_t *h = atomic_load_explicit(&s->latency, memory_order_acquire);

	if (!h)
		h = make_histogram(s);
	if (h)
		stat_add(&h[op * STAT_BUCKETS + bucket_of(ns)], 1, shared);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_acquire);
}

/* `finished` is read before `started`, so that the difference is never negative. */
void stat_slot_sum(const struct stat_slot *s, struct stat_totals *out)
{
	const _Atomic uint64_t *h = atomic_load_explicit(&s->latency, memory_order_acquire);

	for (unsigned op = 0; op < STAT_OPS; op++) {
		out->finished[op] += get(&s->op[op].finished);
		out->started[op] += get(&s->op[op].started);
		out->errors[op] += get(&s->errors[op]);
		out->bytes[op] += get(&s->op[op].bytes);
		for (unsigned b = 0; h && b < STAT_BUCKETS; b++)
			out->latency[op][b] += get(&h[op * STAT_BUCKETS + b]);
	}
}

const char *stat_op_name(enum stat_op op)
{
	static const char *const names[STAT_OPS] = {
		[STAT_READ] = "read",		      [STAT_WRITE] = "write",
		[STAT_FLUSH] = "flush",		      [STAT_DISCARD] = "discard",
		[STAT_WRITE_ZEROES] = "write-zeroes", [STAT_EXTENTS] = "extents",
		[STAT_PREFETCH] = "prefetch",
	};

	return names[op];
}

uint64_t stat_percentile_ns(const uint64_t buckets[STAT_BUCKETS], double fraction)
{
	uint64_t total = 0, seen = 0;

	for (unsigned b = 0; b < STAT_BUCKETS; b++)
		total += buckets[b];
	for (unsigned b = 0; b < STAT_BUCKETS && total; b++) {
		seen += buckets[b];
		if (seen && (double)seen >= fraction * (double)total)
			return UINT64_C(2) << b;
	}
	return 0;
}
