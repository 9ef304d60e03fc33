/* SPDX-License-Identifier: BSD-3-Clause */
/* Switching the processor from one stack to another. Internal to fiber.c. */
#ifndef PLATTER_CORE_SWITCH_H
#define PLATTER_CORE_SWITCH_H

#include <stddef.h>

#if defined(PLATTER_PORTABLE_FIBERS) || \
	!((defined(__x86_64__) && defined(__LP64__)) || (defined(__aarch64__) && defined(__LP64__)))
#define CONTEXT_UCONTEXT 1
#include <ucontext.h>
#endif

/* Where a flow of control that does not run goes on. */
struct context {
#ifdef CONTEXT_UCONTEXT
	ucontext_t uc;
#else
	void *sp; /* callee-saved registers and the address to go on at lie there */
#endif
};

/* Makes `c` begin in entry(argument), which must not return, on the stack [low, low + size). */
void context_make(struct context *c, void *low, size_t size, void (*entry)(void *argument), void *argument);

/* Saves the running flow in `from` and goes on with `to`; returns when something switches to `from`. */
void context_switch(struct context *from, struct context *to);

#endif
