/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A fiber's memory is one mapping:
 *
 *     low                                                        high
 *     | guard (PROT_NONE) | stack, grows down <----- | colour | struct fiber |
 *
 * An overflow runs into the guard and is a SIGSEGV. The guard is wider than a page, so that a function with
 * a large frame does not step over it. Pages that were never touched take no memory. `colour` shifts each
 * stack by some cache lines: the hot tops of all stacks would otherwise compete for the same few sets of
 * the caches.
 *
 * A fiber takes two of the process's memory mappings, of which Linux allows 65530 (vm.max_map_count): about
 * 30000 fibers.
 */
#include "core/fiber.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/checkers.h"

#define GUARD_SIZE (64 * 1024)
#define NR_COLOURS 16
#define COLOUR_SIZE 192

/* A pool never keeps more than this, however busy it is. */
#define POOL_MAX 1024

/* ------------------------------------------------------------------ entering and leaving */

void fiber_host_begin(struct fiber_host *h)
{
#ifdef CHECKERS_TSAN
	h->tsan = __tsan_get_current_fiber();
#else
	(void)h;
#endif
}

/*
 * The two halves of a switch that concern ASan: where the processor goes, and that it has arrived. A NULL
 * `save` tells ASan that the flow that is left holds no frames any more.
 */
static inline __attribute__((always_inline)) void announce_switch(void **save, const void *stack, size_t size)
{
#ifdef CHECKERS_ASAN
	__sanitizer_start_switch_fiber(save, stack, size);
#else
	(void)save, (void)stack, (void)size;
#endif
}

static inline __attribute__((always_inline)) void announce_arrival(void *saved, const void **stack,
								   size_t *size)
{
#ifdef CHECKERS_ASAN
	__sanitizer_finish_switch_fiber(saved, stack, size);
#else
	(void)saved, (void)stack, (void)size;
#endif
}

/* TSan wants to hear of it right before the switch, and nothing in between. */
static inline __attribute__((always_inline)) void announce_flow(void *flow)
{
#ifdef CHECKERS_TSAN
	__tsan_switch_to_fiber(flow, 0);
#else
	(void)flow;
#endif
}

void fiber_enter(struct fiber_host *h, struct fiber *f)
{
	f->host = h;
	announce_switch(&h->fake_stack, f->stack, f->stack_size);
	announce_flow(f->tsan);
	context_switch(&h->context, &f->context);
	announce_arrival(h->fake_stack, NULL, NULL);
}

void fiber_leave(struct fiber *f)
{
	struct fiber_host *h = f->host;

	announce_switch(&f->fake_stack, h->stack, h->stack_size);
	announce_flow(h->tsan);
	context_switch(&f->context, &h->context);
	h = f->host;
	announce_arrival(f->fake_stack, &h->stack, &h->stack_size);
}

/*
 * Life of a fiber. Its frame lasts as long as the stack, so it must not be one of those that ASan puts
 * elsewhere.
 */
CHECKERS_NO_ASAN static void fiber_main(void *argument)
{
	struct fiber *f = argument;

	for (;;) {
		announce_arrival(NULL, &f->host->stack, &f->host->stack_size);
		f->entry(f->argument);
		f->ended = true;
		announce_switch(NULL, f->host->stack, f->host->stack_size);
		announce_flow(f->host->tsan);
		context_switch(&f->context, &f->host->context);
	}
}

/* ------------------------------------------------------------------ memory */

static size_t round_up(size_t n, size_t unit)
{
	return (n + unit - 1) / unit * unit;
}

static struct fiber *fiber_new(size_t stack_size, unsigned colour)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t guard = round_up(GUARD_SIZE, page);
	size_t extra = sizeof(struct fiber) + 64 + NR_COLOURS * COLOUR_SIZE;
	size_t size = guard + round_up(stack_size + extra, page);
	char *mapping, *top;
	struct fiber *f;

	mapping = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
	if (mapping == MAP_FAILED)
		return NULL;
	if (mprotect(mapping, guard, PROT_NONE) < 0) {
		munmap(mapping, size);
		return NULL;
	}
	top = mapping + size - sizeof(struct fiber) - colour % NR_COLOURS * COLOUR_SIZE;
	top -= (uintptr_t)top % 64;
	f = (struct fiber *)top;
	*f = (struct fiber){
		.mapping = mapping,
		.mapping_size = size,
		.stack = mapping + guard,
		.stack_size = (size_t)(top - (mapping + guard)),
	};
	f->checkers_id = checkers_stack_begin(f->stack, f->stack_size);
#ifdef CHECKERS_TSAN
	f->tsan = __tsan_create_fiber(0);
#endif
	context_make(&f->context, f->stack, f->stack_size, fiber_main, f);
	return f;
}

static void fiber_free(struct fiber *f)
{
#ifdef CHECKERS_TSAN
	__tsan_destroy_fiber(f->tsan);
#endif
	checkers_stack_end(f->checkers_id, f->stack, f->stack_size);
	munmap(f->mapping, f->mapping_size);
}

/* ------------------------------------------------------------------ pool */

struct fiber *fiber_pool_get(struct fiber_pool *p)
{
	struct fiber *f = p->free;

	if (!f)
		return fiber_new(p->stack_size, p->nr_made++);
	p->free = f->next;
	p->nr_free--;
	return f;
}

void fiber_pool_put(struct fiber_pool *p, struct fiber *f)
{
	if (p->nr_free >= POOL_MAX) {
		fiber_free(f);
		return;
	}
	f->ended = false;
	f->next = p->free;
	p->free = f;
	p->nr_free++;
}

void fiber_pool_trim(struct fiber_pool *p, unsigned keep)
{
	while (p->nr_free > keep)
		fiber_free(fiber_pool_get(p));
}
