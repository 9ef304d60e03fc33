/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The identity of a regular file
 *
 *   name      device and inode
 *   version   size, mtime and ctime in ns. Tools set mtime back (cp -p, rsync -t, touch), nobody can set ctime (inode(7)),
 *             which on the other hand also moves with chmod, link and rename: then the version is a new one for
 *             nothing. The kernel's own counter of changes (STATX_CHANGE_COOKIE) would be no better, as it
 *             moves with these as well, and statx(2) does not hand it out
 *
 * File systems stamp with a clock that stands still for some ms (current_time() in the kernel takes the coarse
 * CLOCK_REALTIME), some with one of whole seconds: a change within the same tick as the last one leaves the stamp
 * as it is. So no identity is given out before the clock has passed the stamp: whatever is written later has another. A
 * stamp from the future (the clock was set back, or is another machine's) differs from the next one in any case.
 *
 * Not seen: what is written through a shared mapping before the kernel takes notice of the dirty page, and file systems whose
 * server has a clock of its own that stands still longer.
 */
#include "core/file-identity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "core/wait.h"

#define NS_PER_S INT64_C(1000000000)
#define TICK_NS 20000000      /* longer than the coarse clock stands still */
#define SECONDS_NS 2000000000 /* the same where stamps are whole seconds (FAT: even ones) */
#define PAUSE_NS 2000000
#define LIMIT_NS UINT64_C(5000000000) /* then somebody is writing all the time */

/* False when they are more than a minute apart, which spares the arithmetic of far years. */
static bool ns_between(const struct timespec *from, const struct timespec *to, int64_t *ns)
{
	if (to->tv_sec - from->tv_sec > 60 || from->tv_sec - to->tv_sec > 60)
		return false;
	*ns = (int64_t)(to->tv_sec - from->tv_sec) * NS_PER_S + (to->tv_nsec - from->tv_nsec);
	return true;
}

/* Could a change made right now get the stamp that is there already? */
static bool may_repeat(const struct timespec *stamp)
{
	int64_t tick = stamp->tv_nsec ? TICK_NS : SECONDS_NS, age;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	return ns_between(stamp, &now, &age) && age > -tick && age < tick;
}

int file_identity(int fd, struct identity *out)
{
	uint64_t begun = wait_now();
	struct stat st;

	for (;;) {
		if (fstat(fd, &st))
			return -errno;
		if (!may_repeat(&st.st_ctim))
			break;
		if (wait_now() - begun > LIMIT_NS)
			return -EBUSY;
		wait_sleep(PAUSE_NS);
	}
	snprintf(out->name, sizeof(out->name), "file:%u:%u:%" PRIu64, major(st.st_dev), minor(st.st_dev),
		 (uint64_t)st.st_ino);
	snprintf(out->version, sizeof(out->version), "%" PRId64 ":%" PRId64 ".%09ld:%" PRId64 ".%09ld",
		 (int64_t)st.st_size, (int64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		 (int64_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	return 0;
}
