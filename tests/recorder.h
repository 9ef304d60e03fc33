/* SPDX-License-Identifier: BSD-3-Clause */
/* A container for tests: sparse memory that writes down every change, fails where it is told to, and shows what a power cut leaves. */
#ifndef PLATTER_TESTS_RECORDER_H
#define PLATTER_TESTS_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/unflushed.h"
#include "formats/container.h"

/*
 *     struct recorder *r = recorder_create("a.vhd");
 *     make an image in recorder_container(r);
 *     recorder_begin(r);
 *     work on it, noting recorder_calls(r) when something was promised;
 *     for each n up to recorder_calls(r), for some seeds:
 *             recorder_cut(r, n, order, seed): open what comes out, check it, compare with what was promised before call n
 *
 * Calls of the container may come from several threads; those below not beside them. All exit when memory runs out, and say so
 * for what cannot happen. A cut is replayed by its number, order and seed: recorder_cut() prints nothing, who finds something wrong does
 * (recorder_tell).
 */
struct recorder;

enum recorder_call {
	RECORDER_READ,
	RECORDER_WRITE,
	RECORDER_FLUSH,
	RECORDER_RESIZE,
	RECORDER_ZERO,
	RECORDER_KINDS
};

/* An empty container called `name`, which is no file of this machine. Freed by container_close(), which does not call for a flush. */
struct recorder *recorder_create(const char *name);

struct container *recorder_container(struct recorder *r);
struct recorder *recorder_of(struct container *c);

/* One more holder: container_close() frees it when it has been called once for each. */
void recorder_hold(struct recorder *r);

/* Sparse files of this machine. A file that is loaded is durable; the calls before are forgotten. */
bool recorder_load(struct recorder *r, const char *path);
bool recorder_save(struct recorder *r, const char *path);

/* From now on the container refuses changes, as a file that was opened read-only does. */
void recorder_set_read_only(struct recorder *r, bool read_only);

/* Forgets the calls up to now: what is there is durable. */
void recorder_begin(struct recorder *r);

/* Changes and flushes that were answered with success since then. */
unsigned recorder_calls(const struct recorder *r);

/* Of one kind, reads as well, whether or not they failed, since recorder_begin(). */
unsigned recorder_count(const struct recorder *r, enum recorder_call kind);

/* The `nth` call from now (from 1) among the kinds in `kinds` (bits) fails and changes nothing; later ones work again. 0: none. */
void recorder_fail(struct recorder *r, unsigned kinds, unsigned nth, int status);

/*
 * A new recorder with what may be found when the power goes after the first `n` recorded calls: all up to the last flush among them,
 * and of what came after it one state that is legal in this order, chosen by the seed.
 */
struct recorder *recorder_cut(struct recorder *r, unsigned n, enum unflushed_order order, uint64_t seed);

/* How many states there are, and the k-th of them: where they are few, all of them are tried. */
uint64_t recorder_states(struct recorder *r, unsigned n, enum unflushed_order order);
struct recorder *recorder_cut_state(struct recorder *r, unsigned n, enum unflushed_order order, uint64_t k);

/* Prints how to come to this cut again, with the calls around it. */
void recorder_tell(const struct recorder *r, unsigned n, enum unflushed_order order, uint64_t seed);

/* Bytes of memory that content takes. */
uint64_t recorder_bytes(const struct recorder *r);

#endif
