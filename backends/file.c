/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file: a raw image file, or a block device given by its path
 *
 *   read, write     preadv2, pwritev2 (or the loop's io_uring); a transfer is whole or an error
 *   FUA             RWF_DSYNC; where the file system does not know it, a flush afterwards
 *   flush           fdatasync. A failed one is final: the kernel may have dropped the dirty pages and forgotten (fsync(2),
 *                   "retry is not safe"), so the disk refuses further writes and flushes and says why. The kernel
 *                   tells a failure to one caller only: flushes run one at a time, and those that wait share the next
 *   discard         hole punched in a file; BLKDISCARD on a device
 *   write zeroes    freeing: punch a hole. Keeping: zero range, else punch and allocate again. Else zeroes written out
 *   extents         SEEK_DATA and SEEK_HOLE; a device is all data
 *   direct          O_DIRECT; the block size is at least what the file system asks of offsets, and requests whose memory is
 *                   not aligned go through a bounce buffer
 *   writers         take an OFD lock over the file, so that a second one is refused; on a device O_EXCL, which also keeps
 *                   mounted file systems safe
 *
 * The size is the file's when it is opened. If somebody else shortens the file, reads past its end fail and say so; they never
 * return zeroes. Growing and shrinking through disk_resize() excludes writers (size_gate), which could
 * otherwise lengthen a file that was just cut. Reads do without the gate; one that meets the end of the file tries again
 * behind it, to tell our own resize (-ERANGE, or the file has grown again) from somebody else.
 */
#include "kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/file-identity.h"
#include "core/file-lock.h"
#include "core/gate.h"
#include "core/host-file.h"
#include "core/hot.h"
#include "core/node.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

struct file {
	struct disk disk;
	struct host_file host;
	char *path;
	bool is_direct;
	bool was_created;      /* by this open: removed again when the tree is abandoned */
	struct gate size_gate; /* passed by who needs the size to stay, closed by who changes it; across I/O */
};

static struct file *file_of(struct disk *d)
{
	return (struct file *)d;
}

/* ------------------------------------------------------------------ failing */

static __attribute__((noinline, cold)) int fail(const struct file *f, const char *what, uint64_t offset,
						uint64_t length, int status, const struct io *io)
{
	return io_fail(io, file_status(status), "'%s': %s of %" PRIu64 " bytes at %" PRIu64 ": %s",
		       f->path, what, length, offset, strerror(-status));
}

/* A read met the end of the file inside the disk. */
static int fail_shrunk(struct file *f, const struct io *io)
{
	struct stat st;

	if (fstat(f->host.fd, &st))
		st.st_size = 0;
	return io_fail(io, -EIO,
		       "'%s' was shortened by somebody else: it has %" PRIu64 " bytes, the disk %" PRIu64,
		       f->path, (uint64_t)st.st_size, disk_size(&f->disk));
}

static __attribute__((noinline, cold)) int refuse_after_sync_failure(struct file *f, const struct io *io)
{
	int status = host_file_failed(&f->host);

	return io_fail(io, -EIO,
		       "'%s': an earlier flush failed (%s), so what was written before may be lost; "
		       "nothing more is written",
		       f->path, strerror(-status));
}

/* ------------------------------------------------------------------ reading and writing */

static __attribute__((noinline, cold)) int refuse_past_the_end(struct file *f, const struct io *io)
{
	gate_leave(&f->size_gate);
	return io_fail(io, -ERANGE, "'%s': past the end", f->path);
}

/* Holds the size as it is until release_size(), which is not called after a failure. */
static inline int hold_size(struct file *f, uint64_t offset, uint64_t length, const struct io *io)
{
	gate_enter(&f->size_gate);
	if (__builtin_expect(offset + length <= disk_size(&f->disk), 1))
		return 0;
	return refuse_past_the_end(f, io);
}

/* Returns `status`. */
static int release_size(struct file *f, int status)
{
	gate_leave(&f->size_gate);
	return status;
}

/* What every change begins with; release_size() ends it. */
static inline int begin_change(struct file *f, uint64_t offset, uint64_t length, const struct io *io)
{
	if (__builtin_expect(host_file_failed(&f->host), 0))
		return refuse_after_sync_failure(f, io);
	return hold_size(f, offset, length, io);
}

static int read_again(struct file *f, const struct vec *v, uint64_t offset, const struct io *io)
{
	int status = hold_size(f, offset, v->size, io);

	if (status)
		return status;
	status = host_file_read(&f->host, v, offset);
	if (status == -ENXIO)
		return release_size(f, fail_shrunk(f, io));
	return release_size(f, status ? fail(f, "read", offset, v->size, status, io) : 0);
}

HOT static int file_disk_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct file *f = file_of(d);
	int status = host_file_read(&f->host, v, offset);

	if (status == -ENXIO)
		return read_again(f, v, offset, io);
	return status ? fail(f, "read", offset, v->size, status, io) : 0;
}

/* `status` of a flush that may have been refused, since an `earlier` one failed. */
static int flushed(struct file *f, int earlier, int status, const struct io *io)
{
	if (!status)
		return 0;
	if (earlier)
		return refuse_after_sync_failure(f, io);
	return io_fail(io, file_status(status), "'%s': flush: %s", f->path, strerror(-status));
}

static int sync_now(struct file *f, const struct io *io)
{
	int earlier = host_file_failed(&f->host);

	return flushed(f, earlier, host_file_sync(&f->host), io);
}

HOT static int file_disk_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct file *f = file_of(d);
	int status = begin_change(f, offset, v->size, io);

	if (status)
		return status;
	status = host_file_write(&f->host, v, offset, io->flags & IO_FUA);
	if (__builtin_expect(status, 0))
		status = fail(f, "write", offset, v->size, status, io);
	return release_size(f, status);
}

static int file_flush(struct disk *d, const struct io *io)
{
	return sync_now(file_of(d), io);
}

/* ------------------------------------------------------------------ discard and zero */

static int finish_range(struct file *f, const char *what, uint64_t offset, uint64_t length,
			int status, const struct io *io)
{
	if (status)
		status = fail(f, what, offset, length, status, io);
	else if (io->flags & IO_FUA)
		status = sync_now(f, io);
	return release_size(f, status);
}

static int file_discard(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct file *f = file_of(d);
	int status = begin_change(f, offset, length, io);

	if (status)
		return status;
	status = host_file_discard(&f->host, offset, length);
	return finish_range(f, "discard", offset, length, status, io);
}

static int file_write_zeroes(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	struct file *f = file_of(d);
	int status = begin_change(f, offset, length, io);

	if (status)
		return status;
	status = host_file_zero(&f->host, offset, length, io->flags & IO_MAY_UNMAP);
	if (status != -EOPNOTSUPP || (io->flags & IO_FAST_ONLY))
		return finish_range(f, "zeroing", offset, length, status, io);
	release_size(f, 0);
	return disk_write_zeroes_slowly(d, offset, length, io);
}

/* ------------------------------------------------------------------ extents and prefetch */

/* A hole past the file's own end would be a lie: reads fail there. */
static int check_not_shrunk(struct file *f, const struct extents *out, const struct io *io)
{
	struct stat st;

	if (f->host.is_device || fstat(f->host.fd, &st) || (uint64_t)st.st_size >= out->end)
		return 0;
	return fail_shrunk(f, io);
}

static int file_extents(struct disk *d, struct extents *out, const struct io *io)
{
	struct file *f = file_of(d);
	int status;

	status = hold_size(f, out->offset, out->end - out->offset, io);
	if (status)
		return status;
	status = check_not_shrunk(f, out, io);
	if (status)
		return release_size(f, status);
	status = host_file_extents(&f->host, out, d->info.block_size);
	if (status)
		status = fail(f, "extents", out->offset, out->end - out->offset, status, io);
	return release_size(f, status);
}

static int file_prefetch(struct disk *d, uint64_t offset, uint64_t length, const struct io *io)
{
	(void)io;
	host_file_prefetch(&file_of(d)->host, offset, length);
	return 0;
}

/* ------------------------------------------------------------------ size */

static int file_resize(struct disk *d, uint64_t size, const struct io *io)
{
	struct file *f = file_of(d);
	int status;

	if (host_file_failed(&f->host))
		return refuse_after_sync_failure(f, io);
	gate_close(&f->size_gate);
	status = host_file_truncate(&f->host, size);
	if (!status)
		disk_set_size(d, size);
	gate_open(&f->size_gate);
	if (status)
		return io_fail(io, file_status(status), "'%s': resize to %" PRIu64 " bytes: %s", f->path,
			       size, strerror(-status));
	return 0;
}

/* ------------------------------------------------------------------ looking inside, closing */

static void file_describe(struct disk *d, json_t *object)
{
	struct file *f = file_of(d);
	struct stat st;

	json_object_set_new(object, "path", json_string(f->path)); /* nothing where it is not UTF-8 */
	json_object_set_new(object, "direct", json_boolean(f->is_direct));
	json_object_set_new(object, "device", json_boolean(f->host.is_device));
	if (!f->host.is_device && !fstat(f->host.fd, &st))
		json_object_set_new(object, "allocated_bytes",
				    json_integer((json_int_t)st.st_blocks * 512));
}

static int file_disk_identity(struct disk *d, struct identity *out)
{
	struct file *f = file_of(d);

	return f->host.is_device ? -EOPNOTSUPP : file_identity(f->host.fd, out);
}

static int file_close(struct disk *d, bool abandoned, struct error *err)
{
	struct file *f = file_of(d);
	int status = host_file_close(&f->host);

	if (status)
		error_set_errno(err, status, "closing '%s'", f->path);
	if (abandoned && f->was_created)
		unlink(f->path);
	free(f->path);
	return status;
}

static const struct disk_ops file_ops = {
	.read = file_disk_read,
	.write = file_disk_write,
	.flush = file_flush,
	.discard = file_discard,
	.write_zeroes = file_write_zeroes,
	.extents = file_extents,
	.prefetch = file_prefetch,
	.identity = file_disk_identity,
	.resize = file_resize,
	.describe = file_describe,
	.close = file_close,
};

/* ------------------------------------------------------------------ opening: the descriptor */

struct opening {
	struct file *f;
	const struct spec *spec;
	bool read_only;
	struct stat st;
	uint64_t size;
	struct error *err;
};

static int open_flags_of(const struct opening *o)
{
	int flags = O_CLOEXEC | (o->read_only ? O_RDONLY : O_RDWR);

	if (o->f->is_direct)
		flags |= O_DIRECT;
	if (spec_given(o->spec, "create"))
		return flags | O_CREAT | O_EXCL;
	return flags | O_NONBLOCK; /* a FIFO must not hang us before it is refused */
}

static int explain_open(struct opening *o, int error)
{
	const char *path = o->f->path;

	if (error == EEXIST)
		return error_set(o->err, -EEXIST, "'%s' exists already; create= never overwrites a file", path);
	if (error == EISDIR)
		return error_set(o->err, -EISDIR, "'%s' is a directory, not a disk image", path);
	error_set_errno(o->err, -error, "cannot open '%s'", path);
	if (error == EINVAL && o->f->is_direct)
		error_hint(o->err, "the file system may not support direct I/O; leave out ;direct");
	if (error == ENOENT && !o->read_only && !spec_given(o->spec, "create"))
		error_hint(o->err, "add ;create=SIZE to make it");
	if ((error == EACCES || error == EROFS || error == EPERM) && !o->read_only)
		error_hint(o->err, "add ;ro to open it read-only");
	return -error;
}

static int make_file(struct opening *o)
{
	uint64_t size = spec_number(o->spec, "create");
	int status = 0;

	o->f->was_created = true;
	if (ftruncate(o->f->host.fd, (off_t)size))
		status = -errno;
	if (!status)
		status = host_file_sync_folder(o->f->path);
	return status ? error_set_errno(o->err, status, "creating '%s' with %" PRIu64 " bytes",
					o->f->path, size)
		      : 0;
}

static int open_descriptor(struct opening *o)
{
	struct file *f = o->f;
	int status;

	f->host.fd = open(f->path, open_flags_of(o), 0666);
	if (f->host.fd < 0)
		return explain_open(o, errno);
	if (spec_given(o->spec, "create")) {
		status = make_file(o);
		if (status)
			return status;
	}
	if (fstat(f->host.fd, &o->st))
		return error_set_errno(o->err, -errno, "'%s'", f->path);
	if (S_ISDIR(o->st.st_mode))
		return error_set(o->err, -EISDIR, "'%s' is a directory, not a disk image", f->path);
	f->host.is_device = S_ISBLK(o->st.st_mode);
	if (!f->host.is_device && !S_ISREG(o->st.st_mode))
		return error_set(o->err, -EINVAL, "'%s' is neither a regular file nor a block device",
				 f->path);
	fcntl(f->host.fd, F_SETFL, fcntl(f->host.fd, F_GETFL) & ~O_NONBLOCK); /* was for opening only */
	return 0;
}

/* A device that is mounted or open exclusively elsewhere is refused by the kernel; it counts O_EXCL per open. */
static int claim_device(struct opening *o)
{
	int fd = open(o->f->path, O_RDWR | O_EXCL | O_CLOEXEC | (o->f->is_direct ? O_DIRECT : 0));

	if (fd < 0)
		return error_set_errno(o->err, -errno, "cannot open '%s' for writing by one user",
				       o->f->path);
	close(o->f->host.fd);
	o->f->host.fd = fd;
	return 0;
}

static int claim(struct opening *o)
{
	if (o->read_only)
		return 0;
	if (o->f->host.is_device)
		return claim_device(o);
	return file_lock_writer(o->f->host.fd, o->f->path, o->err);
}

/* ------------------------------------------------------------------ opening: geometry */

/* A number in /sys/dev/block/MAJOR:MINOR/queue (or of its whole disk, for a partition); 0 when it cannot be read. */
static uint64_t queue_limit(const struct stat *st, const char *name)
{
	static const char *const forms[] = {"/sys/dev/block/%u:%u/queue/%s",
					    "/sys/dev/block/%u:%u/../queue/%s"};
	unsigned long long value = 0;

	for (size_t i = 0; i < 2; i++) {
		char path[128];
		FILE *file;
		snprintf(path, sizeof(path), forms[i], major(st->st_rdev), minor(st->st_rdev), name);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fscanf(file, "%llu", &value) != 1)
			value = 0;
		fclose(file);
		break;
	}
	return value;
}

/* A read of one block at 0 with this alignment of offset and memory works. */
static bool direct_works(int fd, char *aligned, size_t memory, size_t block)
{
	return pread(fd, aligned + memory, block, 0) == (ssize_t)block;
}

/*
 * What O_DIRECT asks for is found by trying (open(2): there is no portable way to ask before statx's STATX_DIOALIGN of Linux
 * 6.1): reads of 512 bytes, then memory at 512.
 */
static int find_alignment(struct opening *o, uint32_t *block)
{
	struct file *f = o->f;
	void *memory;

	f->host.alignment = (struct file_alignment){1, 1};
	*block = DISK_MIN_BLOCK;
	if (!f->is_direct)
		return 0;
	if (posix_memalign(&memory, 65536, 2 * 65536))
		return error_set(o->err, -ENOMEM, "no memory");
	while (*block < 4096 && !direct_works(f->host.fd, memory, 0, *block))
		*block *= 2;
	f->host.alignment.block = *block;
	f->host.alignment.memory = 512;
	while (f->host.alignment.memory < 4096 && !direct_works(f->host.fd, memory, f->host.alignment.memory, 4096))
		f->host.alignment.memory *= 2;
	free(memory);
	return 0;
}

static int choose_block_size(struct opening *o, uint32_t least)
{
	uint32_t block = (uint32_t)spec_number(o->spec, "block");
	int logical;

	if (o->f->host.is_device && !ioctl(o->f->host.fd, BLKSSZGET, &logical) && (uint32_t)logical > least)
		least = (uint32_t)logical;
	if (!block)
		block = least;
	if (block < least)
		return error_set(o->err, -EINVAL, "'%s' needs blocks of at least %" PRIu32 " bytes%s, not %" PRIu32,
				 o->f->path, least, o->f->is_direct ? " for direct I/O" : "", block);
	o->f->disk.info.block_size = block;
	if (o->f->is_direct)
		o->f->host.alignment.block = block;
	return 0;
}

static int find_size(struct opening *o)
{
	uint32_t block = o->f->disk.info.block_size;

	o->size = (uint64_t)o->st.st_size;
	if (o->f->host.is_device && ioctl(o->f->host.fd, BLKGETSIZE64, &o->size))
		return error_set_errno(o->err, -errno, "size of '%s'", o->f->path);
	if (!o->size)
		return error_set(o->err, -EINVAL, "'%s' is empty: a disk has at least one block of %" PRIu32 " bytes",
				 o->f->path, block);
	if (!(o->size % block))
		return 0;
	error_set(o->err, -EINVAL, "size of '%s', %" PRIu64 " bytes, is not a multiple of the block size, %" PRIu32 " bytes",
		  o->f->path, o->size, block);
	if (!o->f->host.is_device && !spec_given(o->spec, "create"))
		error_hint(o->err, "truncate -s %%%" PRIu32 " FILE rounds it up", block);
	return -EINVAL;
}

static uint32_t physical_block(const struct opening *o)
{
	uint32_t block = o->f->disk.info.block_size;
	unsigned wanted = (unsigned)o->st.st_blksize;

	if (o->f->host.is_device && ioctl(o->f->host.fd, BLKPBSZGET, &wanted))
		wanted = block;
	while (block < wanted && block < DISK_MAX_BLOCK)
		block *= 2;
	return block;
}

static void describe_device(struct opening *o)
{
	struct disk_info *info = &o->f->disk.info;
	uint64_t granularity = queue_limit(&o->st, "discard_granularity");

	if (granularity && granularity % info->block_size == 0 && granularity <= UINT32_MAX) {
		info->discard = DISK_DISCARD_UNSPECIFIED;
		info->discard_granularity = (uint32_t)granularity;
		info->discard_alignment =
			(uint32_t)(queue_limit(&o->st, "../discard_alignment") % granularity);
	}
	if (queue_limit(&o->st, "write_zeroes_max_bytes"))
		info->flags |= DISK_FAST_ZERO;
	if (queue_limit(&o->st, "rotational"))
		info->flags |= DISK_ROTATIONAL;
}

/* Punching behind the end changes nothing and tells whether the file system can. */
static void describe_regular(struct opening *o)
{
	struct disk_info *info = &o->f->disk.info;

	info->flags |= DISK_RESIZABLE;
	info->discard_granularity = info->physical_block_size;
	if (o->read_only || !fallocate(o->f->host.fd, PUNCH, (off_t)o->size, info->block_size)) {
		info->discard = DISK_DISCARD_ZEROES;
		info->flags |= DISK_FAST_ZERO;
	}
}

static int find_geometry(struct opening *o)
{
	struct disk_info *info = &o->f->disk.info;
	uint32_t least;
	int status = find_alignment(o, &least);

	if (!status)
		status = choose_block_size(o, least);
	if (!status)
		status = find_size(o);
	if (status)
		return status;
	info->physical_block_size = physical_block(o);
	info->discard_granularity = info->block_size;
	info->flags = DISK_FUA | (o->read_only ? DISK_READ_ONLY : 0);
	if (o->f->host.is_device)
		describe_device(o);
	else
		describe_regular(o);
	return 0;
}

/* ------------------------------------------------------------------ opening */

static int check_options(const struct opening *o)
{
	if (spec_given(o->spec, "create") && o->read_only)
		return error_set(o->err, -EROFS, "create= would write, but the disk is opened read-only");
	return 0;
}

static int open_steps(struct opening *o)
{
	int status = check_options(o);

	if (!status)
		status = open_descriptor(o);
	if (!status)
		status = claim(o);
	if (!status)
		status = find_geometry(o);
	if (!status)
		status = disk_publish(&o->f->disk, o->size, o->err);
	return status;
}

static int file_open(const struct open_request *request, struct disk **out, struct error *err)
{
	struct file *f = disk_new(sizeof(*f), "file", &file_ops, NULL, 0);
	struct opening o = {.f = f, .spec = request->spec, .err = err};
	int status;

	if (!f)
		return error_set(err, -ENOMEM, "no memory");
	host_file_init(&f->host);
	f->path = strdup(spec_text(request->spec, "path"));
	f->is_direct = spec_given(request->spec, "direct");
	o.read_only = (request->flags & OPEN_READ_ONLY) || spec_given(request->spec, "ro");
	status = f->path ? open_steps(&o) : error_set(err, -ENOMEM, "no memory");
	if (status) {
		file_close(&f->disk, true, NULL);
		disk_drop_new(&f->disk);
		return status;
	}
	*out = &f->disk;
	return 0;
}

static const struct spec_field file_fields[] = {
	{.name = "path",
	 .role = SPEC_PARAMETER,
	 .type = SPEC_TEXT,
	 .required = true,
	 .help = "raw image file or block device"},
	{.name = "direct",
	 .role = SPEC_OPTION,
	 .type = SPEC_FLAG,
	 .help = "bypass the page cache (O_DIRECT)"},
	{.name = "create",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_END,
	 .help = "make the file, which must not exist, with this size"},
	{.name = "ro",
	 .role = SPEC_OPTION,
	 .type = SPEC_FLAG,
	 .help = "open read-only"},
	{.name = "block",
	 .role = SPEC_OPTION,
	 .type = SPEC_SIZE,
	 .unit = "bytes",
	 .min = DISK_MIN_BLOCK,
	 .max = DISK_MAX_BLOCK,
	 .help = "logical block size, a power of two; default: 512, or what the device or direct I/O asks for"},
	{0},
};

const struct disk_kind file_kind = {
	.name = "file",
	.summary = "raw image file or block device",
	.children = KIND_LEAF,
	.fields = file_fields,
	.open = file_open,
};
