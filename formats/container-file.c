/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A container that is a file of this machine
 *
 * The size is kept beside the file's own: asking the system for it would cost a call on the way of every request. It is the
 * container's alone to change, since a writer holds the lock; a reader whose file is changed by others meets errors, not zeroes.
 */
#include "formats/container.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file-identity.h"
#include "core/file-lock.h"
#include "core/host-file.h"

struct file_container {
	struct container container;
	struct host_file host;
	bool was_created;
};

static struct file_container *file_of(struct container *c)
{
	return (struct file_container *)c;
}

/* ------------------------------------------------------------------ requests */

static int fail(const struct container *c, const char *what, uint64_t offset, uint64_t length, int status, const struct io *io)
{
	return io_fail(io, file_status(status), "'%s': %s of %" PRIu64 " bytes at %" PRIu64 ": %s", c->name, what, length, offset,
		       strerror(-status));
}

static int fail_at_end(struct container *c, uint64_t offset, uint64_t length, const struct io *io)
{
	struct stat st;

	if (fstat(file_of(c)->host.fd, &st))
		st.st_size = 0;
	return io_fail(io, -EIO,
		       "'%s': %" PRIu64 " bytes at %" PRIu64 " lie behind its end at %" PRIu64 "; was it shortened by somebody else?",
		       c->name, length, offset, (uint64_t)st.st_size);
}

static int file_container_read(struct container *c, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status = host_file_read(&file_of(c)->host, v, offset);

	if (status == -ENXIO)
		return fail_at_end(c, offset, v->size, io);
	return status ? fail(c, "read", offset, v->size, status, io) : 0;
}

/* What every change and flush begins with. */
static int check_change(struct container *c, const struct io *io)
{
	int earlier = host_file_failed(&file_of(c)->host);

	if (c->read_only)
		return io_fail(io, -EROFS, "'%s' is open for reading only", c->name);
	if (earlier)
		return io_fail(io, -EIO,
			       "'%s': an earlier flush failed (%s), so what was written before may be lost; nothing more is written",
			       c->name, strerror(-earlier));
	return 0;
}

static void grow_to(struct container *c, uint64_t end)
{
	uint64_t size = container_size(c);

	while (size < end && !atomic_compare_exchange_weak(&c->size, &size, end))
		;
}

static int file_container_write(struct container *c, const struct vec *v, uint64_t offset, bool durable, const struct io *io)
{
	int status = check_change(c, io);

	if (status)
		return status;
	status = host_file_write(&file_of(c)->host, v, offset, durable);
	if (status)
		return fail(c, "write", offset, v->size, status, io);
	grow_to(c, offset + v->size);
	return 0;
}

static int file_container_flush(struct container *c, const struct io *io)
{
	int status = check_change(c, io);

	if (status)
		return status == -EROFS ? 0 : status; /* nothing was written */
	status = host_file_sync(&file_of(c)->host);
	return status ? io_fail(io, file_status(status), "'%s': flush: %s", c->name, strerror(-status)) : 0;
}

static int file_container_resize(struct container *c, uint64_t size, const struct io *io)
{
	int status = check_change(c, io);

	if (status)
		return status;
	status = host_file_truncate(&file_of(c)->host, size);
	if (status)
		return io_fail(io, file_status(status), "'%s': resize to %" PRIu64 " bytes: %s", c->name, size, strerror(-status));
	atomic_store(&c->size, size);
	return 0;
}

#define ZEROES (1u << 20)

static int write_zeroes_out(struct container *c, uint64_t offset, uint64_t length)
{
	size_t most = length < ZEROES ? (size_t)length : ZEROES;
	char *zeroes = calloc(1, most);
	int status = zeroes ? 0 : -ENOMEM;

	for (uint64_t done = 0; done < length && !status; done += most) {
		if (most > length - done)
			most = (size_t)(length - done);
		status = host_file_write(&file_of(c)->host, &VEC_FLAT(zeroes, most), offset + done, false);
	}
	free(zeroes);
	return status;
}

static int file_container_zero(struct container *c, uint64_t offset, uint64_t length, bool unmap, const struct io *io)
{
	int status = check_change(c, io);

	if (status || !length)
		return status;
	status = host_file_zero(&file_of(c)->host, offset, length, unmap);
	if (status == -EOPNOTSUPP && !(io->flags & IO_FAST_ONLY))
		status = write_zeroes_out(c, offset, length);
	return status ? fail(c, "zeroing", offset, length, status, io) : 0;
}

static int file_container_extents(struct container *c, struct extents *out, uint32_t block, const struct io *io)
{
	int status = host_file_extents(&file_of(c)->host, out, block);

	return status ? fail(c, "extents", out->offset, out->end - out->offset, status, io) : 0;
}

static void file_container_prefetch(struct container *c, uint64_t offset, uint64_t length)
{
	host_file_prefetch(&file_of(c)->host, offset, length);
}

static int file_container_identity(struct container *c, struct identity *out)
{
	struct file_container *f = file_of(c);

	return f->host.is_device ? -EOPNOTSUPP : file_identity(f->host.fd, out);
}

/* ------------------------------------------------------------------ life */

static int file_container_close(struct container *c, bool remove, struct error *err)
{
	struct file_container *f = file_of(c);
	int status = host_file_close(&f->host);

	if (status)
		error_set_errno(err, status, "closing '%s'", c->name);
	if (remove && f->was_created)
		unlink(c->name);
	free(c->name);
	free(f);
	return status;
}

static const struct container_ops file_container_ops = {
	.read = file_container_read,
	.write = file_container_write,
	.flush = file_container_flush,
	.resize = file_container_resize,
	.zero = file_container_zero,
	.extents = file_container_extents,
	.prefetch = file_container_prefetch,
	.identity = file_container_identity,
	.close = file_container_close,
};

static int find_size(struct file_container *f, const struct stat *st, struct error *err)
{
	uint64_t size = (uint64_t)st->st_size;

	if (f->host.is_device && ioctl(f->host.fd, BLKGETSIZE64, &size))
		return error_set_errno(err, -errno, "size of '%s'", f->container.name);
	atomic_store(&f->container.size, size);
	return 0;
}

static int check_type(struct file_container *f, const struct stat *st, struct error *err)
{
	const char *name = f->container.name;

	if (S_ISDIR(st->st_mode))
		return error_set(err, -EISDIR, "'%s' is a directory, not a disk image", name);
	f->host.is_device = S_ISBLK(st->st_mode);
	if (f->host.is_device && !f->container.read_only)
		return error_set(err, -EOPNOTSUPP, "'%s' is a block device, in which an image can only be read", name);
	if (!f->host.is_device && !S_ISREG(st->st_mode))
		return error_set(err, -EINVAL, "'%s' is neither a regular file nor a block device", name);
	return 0;
}

static int set_up(struct file_container *f, unsigned flags, struct error *err)
{
	struct container *c = &f->container;
	struct stat st;
	int status;

	if (fstat(f->host.fd, &st))
		return error_set_errno(err, -errno, "'%s'", c->name);
	status = check_type(f, &st, err);
	if (status)
		return status;
	c->is_file = true;
	c->device = f->host.is_device ? st.st_rdev : st.st_dev;
	c->inode = f->host.is_device ? 0 : st.st_ino;
	fcntl(f->host.fd, F_SETFL, fcntl(f->host.fd, F_GETFL) & ~O_NONBLOCK); /* was for opening only */
	if (!c->read_only)
		status = file_lock_writer(f->host.fd, c->name, err);
	else if (flags & CONTAINER_SHARED)
		status = file_lock_readers(f->host.fd, c->name, err);
	return status ? status : find_size(f, &st, err);
}

static struct file_container *make(const char *name, unsigned flags)
{
	struct file_container *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	host_file_init(&f->host);
	f->container = (struct container){.ops = &file_container_ops, .name = strdup(name), .read_only = flags & CONTAINER_READ_ONLY};
	if (f->container.name)
		return f;
	free(f);
	return NULL;
}

static int open_flags(unsigned flags)
{
	if (flags & CONTAINER_CREATE)
		return O_CLOEXEC | O_RDWR | O_CREAT | O_EXCL;
	return O_CLOEXEC | O_NONBLOCK | (flags & CONTAINER_READ_ONLY ? O_RDONLY : O_RDWR); /* a FIFO must not hang us */
}

static int explain_open(const char *path, unsigned flags, int status, struct error *err)
{
	if (status == -EEXIST)
		return error_set(err, -EEXIST, "'%s' exists already; creating never overwrites a file", path);
	if (status == -EISDIR)
		return error_set(err, -EISDIR, "'%s' is a directory, not a disk image", path);
	error_set_errno(err, status, "cannot open '%s'", path);
	if ((status == -EACCES || status == -EROFS || status == -EPERM) && !(flags & (CONTAINER_READ_ONLY | CONTAINER_CREATE)))
		error_hint(err, "add ;ro to open it read-only");
	return status;
}

int container_open(const char *path, unsigned flags, struct container **out, struct error *err)
{
	int fd = open(path, open_flags(flags), 0666), status;

	if (fd < 0)
		return explain_open(path, flags, -errno, err);
	status = container_from_fd(fd, path, flags, out, err);
	if (!status && (flags & CONTAINER_CREATE))
		status = host_file_sync_folder(path);
	if (!status)
		return 0;
	if (flags & CONTAINER_CREATE)
		unlink(path);
	if (*out)
		return container_close(*out, false, NULL), *out = NULL, error_set_errno(err, status, "creating '%s'", path);
	close(fd);
	return status;
}

int container_from_fd(int fd, const char *name, unsigned flags, struct container **out, struct error *err)
{
	struct file_container *f = make(name, flags);
	int status;

	*out = NULL;
	if (!f)
		return error_set(err, -ENOMEM, "no memory");
	f->host.fd = fd;
	status = set_up(f, flags, err);
	if (status) {
		f->host.fd = -1; /* the caller's still */
		file_container_close(&f->container, false, NULL);
		return status;
	}
	f->was_created = flags & CONTAINER_CREATE;
	*out = &f->container;
	return 0;
}
