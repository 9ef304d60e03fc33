/* SPDX-License-Identifier: BSD-3-Clause */
/* Several sub-requests of one request at the same time. */
#ifndef PLATTER_CORE_PARALLEL_H
#define PLATTER_CORE_PARALLEL_H

/*
 * Calls function(argument, 0) ... function(argument, count - 1), all under way at once, and waits for all
 * of them. Returns 0 or the failure with the lowest index. They are fibers of the caller's loop; on a plain
 * thread they are fibers of a small loop that the thread keeps for this purpose (freed when the thread
 * ends). If a fiber cannot be had they run one after the other: the call itself never fails for lack of
 * memory.
 */
int parallel_run(unsigned count, int (*function)(void *argument, unsigned index), void *argument);

#endif
