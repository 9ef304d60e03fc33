/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/host-file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/aio.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

void host_file_init(struct host_file *f)
{
	memset(f, 0, sizeof(*f));
	f->fd = -1;
	f->alignment = (struct file_alignment){1, 1};
}

/* ------------------------------------------------------------------ writing and flushing */

/* Under sync_lock. */
static int sync_numbered(struct host_file *f, uint64_t number)
{
	uint64_t asked = atomic_load(&f->sync_asked);
	int status = atomic_load(&f->sync_failed);

	if (status || number <= f->sync_covered)
		return status;
	status = aio_fdatasync(f->fd);
	if (status)
		atomic_store(&f->sync_failed, status);
	else
		f->sync_covered = asked;
	return status;
}

int host_file_sync(struct host_file *f)
{
	uint64_t number = atomic_fetch_add(&f->sync_asked, 1) + 1;
	int status;

	wait_mutex_lock(&f->sync_lock);
	status = sync_numbered(f, number);
	wait_mutex_unlock(&f->sync_lock);
	return status;
}

/* A write that had to be durable met the medium and failed there: as bad as a failed flush. */
static bool is_final(int status)
{
	return status == -EIO || status == -ENODATA || status == -EILSEQ;
}

int host_file_write_durably(struct host_file *f, const struct vec *v, uint64_t offset)
{
	int status = -EOPNOTSUPP;

	if (!atomic_load_explicit(&f->no_dsync, memory_order_relaxed))
		status = file_write(f->fd, v, offset, RWF_DSYNC, &f->alignment);
	if (is_final(status))
		atomic_store(&f->sync_failed, status);
	if (status != -EOPNOTSUPP)
		return status;
	atomic_store_explicit(&f->no_dsync, true, memory_order_relaxed);
	status = file_write(f->fd, v, offset, 0, &f->alignment);
	return status ? status : host_file_sync(f);
}

/* ------------------------------------------------------------------ discard and zero */

struct range_call {
	int fd;
	uint64_t range[2];
};

static int call_blkdiscard(void *argument)
{
	struct range_call *c = argument;

	return ioctl(c->fd, BLKDISCARD, c->range) ? -errno : 0;
}

int host_file_discard(struct host_file *f, uint64_t offset, uint64_t length)
{
	struct range_call c = {.fd = f->fd, .range = {offset, length}};
	int status;

	if (!f->is_device)
		return aio_fallocate(f->fd, PUNCH, offset, length);
	status = aio_offload(call_blkdiscard, &c);
	return status == -EOPNOTSUPP ? 0 : status; /* it is a hint */
}

static int zero_range(struct host_file *f, uint64_t offset, uint64_t length)
{
	int status;

	if (atomic_load_explicit(&f->no_zero_range, memory_order_relaxed))
		return -EOPNOTSUPP;
	status = aio_fallocate(f->fd, ZERO, offset, length);
	if (status == -EOPNOTSUPP)
		atomic_store_explicit(&f->no_zero_range, true, memory_order_relaxed);
	return status;
}

int host_file_zero(struct host_file *f, uint64_t offset, uint64_t length, bool may_unmap)
{
	int status = -EOPNOTSUPP;

	if (may_unmap)
		status = aio_fallocate(f->fd, PUNCH, offset, length);
	if (status == -EOPNOTSUPP)
		status = zero_range(f, offset, length);
	if (status != -EOPNOTSUPP || f->is_device)
		return status;
	status = aio_fallocate(f->fd, PUNCH, offset, length);
	if (!status && !may_unmap)
		aio_fallocate(f->fd, FALLOC_FL_KEEP_SIZE, offset, length); /* it is zero even if this fails */
	return status;
}

/* ------------------------------------------------------------------ size */

struct truncation {
	int fd;
	uint64_t size;
};

static int call_truncate(void *argument)
{
	struct truncation *t = argument;

	return ftruncate(t->fd, (off_t)t->size) ? -errno : 0;
}

int host_file_truncate(struct host_file *f, uint64_t size)
{
	return aio_offload(call_truncate, &(struct truncation){.fd = f->fd, .size = size});
}

/* ------------------------------------------------------------------ extents and prefetch */

struct seek {
	int fd;
	uint32_t block;
	struct extents *out;
};

static uint64_t round_down(uint64_t n, uint64_t block)
{
	return n & ~(block - 1);
}

/* Adds [next, end) as one run, cut to whole blocks: a block that is in part data is data. */
static bool add_until(struct seek *s, uint64_t end, unsigned flags)
{
	uint64_t block = s->block, next = extents_next(s->out);

	end = flags ? round_down(end, block) : round_down(end + block - 1, block);
	return end <= next || extents_add(s->out, end - next, flags);
}

/* One hole and the data after it. False at the end, or with *status set. */
static bool seek_next(struct seek *s, int *status)
{
	uint64_t next = extents_next(s->out), end = s->out->end;
	off_t data = lseek(s->fd, (off_t)next, SEEK_DATA), hole;

	if (data < 0 && errno == ENXIO) /* nothing but a hole up to the end of the file */
		return add_until(s, end, EXTENT_ZERO | EXTENT_HOLE);
	if (data < 0 && errno != EINVAL && errno != EOPNOTSUPP) {
		*status = -errno;
		return false;
	}
	if (data < 0) /* the file system cannot tell */
		return extents_add(s->out, end - next, EXTENT_DATA);
	if (!add_until(s, (uint64_t)data, EXTENT_ZERO | EXTENT_HOLE) || extents_next(s->out) >= end)
		return false;
	hole = lseek(s->fd, data, SEEK_HOLE);
	if (hole <= data) /* changed meanwhile: call it data, which is never wrong */
		return extents_add(s->out, s->block, EXTENT_DATA);
	return add_until(s, (uint64_t)hole, EXTENT_DATA);
}

static int call_seek(void *argument)
{
	struct seek *s = argument;
	int status = 0;

	while (seek_next(s, &status) && extents_next(s->out) < s->out->end)
		;
	return status;
}

int host_file_extents(struct host_file *f, struct extents *out, uint32_t block)
{
	if (f->is_device) {
		extents_add(out, out->end - out->offset, EXTENT_DATA);
		return 0;
	}
	return aio_offload(call_seek, &(struct seek){.fd = f->fd, .block = block, .out = out});
}

void host_file_prefetch(struct host_file *f, uint64_t offset, uint64_t length)
{
	if (f->alignment.memory == 1) /* direct I/O has nothing to read ahead into */
		posix_fadvise(f->fd, (off_t)offset, (off_t)length, POSIX_FADV_WILLNEED);
}

/* ------------------------------------------------------------------ opening and closing */

int host_file_close(struct host_file *f)
{
	struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
	int status = 0;

	if (f->fd < 0)
		return 0;
	fcntl(f->fd, F_OFD_SETLK, &l);
	if (close(f->fd))
		status = -errno;
	f->fd = -1;
	return status;
}

int host_file_sync_folder(const char *path)
{
	char *copy = strdup(path);
	int fd, status;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	if (fd < 0)
		return -errno;
	status = fsync(fd) && errno != EINVAL ? -errno : 0;
	close(fd);
	return status;
}
