/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What ASan, TSan and Valgrind must be told about stacks that are not those of threads. All of it vanishes
 * without them.
 */
#ifndef PLATTER_CORE_CHECKERS_H
#define PLATTER_CORE_CHECKERS_H

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CHECKERS_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define CHECKERS_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(CHECKERS_ASAN)
#define CHECKERS_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(CHECKERS_TSAN)
#define CHECKERS_TSAN 1
#endif

#ifdef CHECKERS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CHECKERS_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/memcheck.h>
#include <valgrind/valgrind.h>
#endif

#if defined(CHECKERS_ASAN) || defined(CHECKERS_TSAN)
#define CHECKERS_STACK_SIZE (1024 * 1024) /* their frames are several times larger */
#else
#define CHECKERS_STACK_SIZE (256 * 1024)
#endif

#ifdef CHECKERS_ASAN
#define CHECKERS_NO_ASAN __attribute__((no_sanitize_address))
#else
#define CHECKERS_NO_ASAN
#endif

/* A piece of memory became a stack; the value is for checkers_stack_end(). */
static inline unsigned checkers_stack_begin(void *low, size_t size)
{
	(void)low, (void)size;
#ifdef HAVE_VALGRIND_VALGRIND_H
	return VALGRIND_STACK_REGISTER(low, (char *)low + size);
#else
	return 0;
#endif
}

/* It is no stack any more, and about to be unmapped. */
static inline void checkers_stack_end(unsigned id, void *low, size_t size)
{
	(void)id, (void)low, (void)size;
#ifdef HAVE_VALGRIND_VALGRIND_H
	VALGRIND_STACK_DEREGISTER(id);
#endif
#ifdef CHECKERS_ASAN
	ASAN_UNPOISON_MEMORY_REGION(low, size);
#endif
}

/* The kernel filled memory in a way that Valgrind does not see (a completed io_uring read). */
static inline void checkers_filled(void *memory, size_t size)
{
	(void)memory, (void)size;
#ifdef HAVE_VALGRIND_VALGRIND_H
	VALGRIND_MAKE_MEM_DEFINED(memory, size);
#endif
}

#ifdef CHECKERS_TSAN
/* Part of TSan's run time, though not of its headers. */
void __tsan_read_range(void *memory, long size);
void __tsan_write_range(void *memory, long size);
#endif

/* Memory is about to be read by instructions that the checkers did not instrument. */
static inline void checkers_reads(const void *memory, size_t size)
{
	(void)memory, (void)size;
#ifdef CHECKERS_ASAN
	const volatile char *bad = size ? __asan_region_is_poisoned((void *)memory, size) : NULL;
	if (bad)
		(void)*bad;
#endif
#ifdef CHECKERS_TSAN
	__tsan_read_range((void *)memory, (long)size);
#endif
}

/* The same for writing. */
static inline void checkers_writes(void *memory, size_t size)
{
	(void)memory, (void)size;
#ifdef CHECKERS_ASAN
	volatile char *bad = size ? __asan_region_is_poisoned(memory, size) : NULL;
	if (bad)
		*bad = 0;
#endif
#ifdef CHECKERS_TSAN
	__tsan_write_range(memory, (long)size);
#endif
}

/* Instructions that were not instrumented load (store) a word that is shared with others, with acquire (release) order. */
static inline void checkers_acquires(const void *word)
{
	(void)word;
#ifdef CHECKERS_TSAN
	__tsan_acquire((void *)word);
#endif
}

static inline void checkers_releases(void *word)
{
	(void)word;
#ifdef CHECKERS_TSAN
	__tsan_release(word);
#endif
}

/* A full fence. TSan knows none, but an atomic exchange is one on the processors that it runs on. */
static inline void checkers_fence(void)
{
#ifdef CHECKERS_TSAN
	int word = 0;
	__atomic_exchange_n(&word, 1, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* True when running under Valgrind. */
static inline int checkers_in_valgrind(void)
{
#ifdef HAVE_VALGRIND_VALGRIND_H
	return RUNNING_ON_VALGRIND;
#else
	return 0;
#endif
}

#endif
