/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * membarrier(2) needs a registration of the process, which a child inherits by fork(2) and loses by execve(2). It is made
 * when the library is loaded, before any of our threads has passed a light fence.
 *
 * It may be refused later all the same: for want of memory, or by a filter of system calls that was set up meanwhile. The light
 * sides have no fence then, and cannot be told in time. The other command, which needs no registration, waits until every
 * processor has been scheduled; where a filter refuses that one, too, it is tried again until it is let through, and between
 * tries we sleep, which in practice is many times what a processor needs to get rid of its stores: after SURELY of them it counts.
 */
#include "core/fence.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/checkers.h"
#include "core/wait.h"

#define PAUSE_NS UINT64_C(10000000)
#define SURELY 10

bool fence_is_asymmetric;

static int membarrier(int command)
{
	return (int)syscall(SYS_membarrier, command, 0, 0);
}

#ifndef CHECKERS_TSAN
__attribute__((constructor)) static void find_out(void)
{
	fence_is_asymmetric = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 &&
			      membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0;
}
#endif

void fence_heavy(void)
{
	checkers_fence();
	for (unsigned i = 0; fence_is_asymmetric && i < SURELY; i++) {
		if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0 || membarrier(MEMBARRIER_CMD_GLOBAL) == 0)
			break;
		wait_sleep(PAUSE_NS);
	}
	checkers_fence();
}
