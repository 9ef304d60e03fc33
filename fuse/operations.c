/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One FUSE request, one call of the engine, on the thread that got it
 *
 *   the page cache   Nobody but this mount changes a writable disk (its file is locked), so pages and attributes stay
 *                    valid until something goes through here: long timeouts, FOPEN_KEEP_CACHE. A disk opened
 *                    read-only may be changed by who has it for writing: its pages go when it is opened again. Files
 *                    that show parts of the same disk bypass the page cache, which knows files and not disks.
 *   O_TRUNC          A disk has the size it has. Opening it with O_TRUNC makes it all zeroes, as a file is whose old content
 *                    is gone: what cp --sparse relies on when it leaves out the zeroes.
 *                    With a writeback cache the kernel would believe that it is empty, and never ask again: refused.
 *   holes            The kernel asks for them without sending what it holds. So they are told only while nobody has
 *                    the file open for writing through the page cache; before that all is data.
 *   the end          A write across the end is cut there (a direct one fails); past it, it fails with ENOSPC, as on a block device. Disks that
 *                    can change their size do so by truncate(2).
 *   flush            close(2) is no promise that anything is durable; the kernel is told not to ask (ENOSYS).
 *   xattrs           Before each write the kernel would look for capabilities in an xattr that has to go. That
 *                    we see to that ourselves (FUSE_HANDLE_KILLPRIV_V2, session.c) spares half of all round trips.
 *   passthrough      The kernel could read and write a file: disk by itself (FUSE_PASSTHROUGH). But it knows no offset and no end, so
 *                    that a write past the end would make the file longer, and statistics would miss it: not used.
 *   access           default_permissions: the kernel judges by mode and owner.
 */
#include "fuse/operations.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "core/bytes.h"
#include "fuse/copy.h"
#include "fuse/log.h"
#include "fuse/reports.h"
#include "fuse/rings.h"
#include "fuse/status.h"

/* Seconds that the kernel may keep names and attributes: what changes them goes through here or is announced. */
#define FOREVER 86400.0

/* Zeroes are written in pieces of so many bytes, between which somebody may press Ctrl-C. */
#define ZERO_PIECE_BYTES (UINT64_C(256) << 20)

static struct mounted *mounted_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static struct file_entry *entry_of(fuse_req_t req, fuse_ino_t ino)
{
	return files_get(&mounted_of(req)->files, ino);
}

/* ------------------------------------------------------------------ one request to the engine */

struct request {
	struct failure failure;
	struct io io;
};

static void begin(struct request *r, unsigned flags)
{
	atomic_init(&r->failure.claimed, 0);
	r->failure.text[0] = '\0';
	r->io = (struct io){.flags = flags, .failure = &r->failure};
}

/* The errno for the program; what failed is said where somebody may read it. */
static int end(const struct request *r, const struct file_entry *e, const char *what, uint64_t offset,
	       uint64_t length, int status)
{
	if (!status)
		return 0;
	/* What a disk cannot do is an answer, and who asked for it hears it. */
	if (status != -EOPNOTSUPP)
		log_failure("%s%s%s of %" PRIu64 " bytes at %" PRIu64 ": %s", e->name, *e->name ? ": " : "", what, length,
			    offset, *r->failure.text ? r->failure.text : strerror(-status));
	return status_to_errno(status);
}

/* ------------------------------------------------------------------ memory for what is read */

/* Of REQUEST_MAX_BYTES; NULL until this thread needs it. */
static __thread void *buffer;

/* The thread's own buffer, aligned for direct I/O below; NULL when memory ran out. */
static void *get_buffer(void)
{
	void *memory = rings_buffer();

	if (memory)
		return memory;
	if (!buffer && !posix_memalign(&memory, 65536, REQUEST_MAX_BYTES))
		buffer = memory;
	return buffer;
}

void operations_end_thread(void)
{
	free(buffer);
	buffer = NULL;
}

/* ------------------------------------------------------------------ beginning */

static void want(struct fuse_conn_info *conn, unsigned capability, bool wanted)
{
	if (wanted && (conn->capable & capability))
		conn->want |= capability;
	else
		conn->want &= ~capability;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct mounted *m = userdata;

	want(conn, FUSE_CAP_ATOMIC_O_TRUNC, true); /* also for writeback, where the answer is no */
	want(conn, FUSE_CAP_ASYNC_READ, true);
	want(conn, FUSE_CAP_ASYNC_DIO, true);
	want(conn, FUSE_CAP_WRITEBACK_CACHE, m->options->writeback);
	want(conn, FUSE_CAP_AUTO_INVAL_DATA, false);
	want(conn, FUSE_CAP_PARALLEL_DIROPS, true);
	want(conn, FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE, false);
	conn->max_write = REQUEST_MAX_BYTES;
	conn->max_readahead = REQUEST_MAX_BYTES;
	conn->max_background = m->options->threads * 2;
	conn->congestion_threshold = conn->max_background * 3 / 4;
	conn->time_gran = 1;
	m->ready(m);
}

/* ------------------------------------------------------------------ names and attributes */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct files *files = &mounted_of(req)->files;
	uint64_t inode = files_find(files, parent, name);
	struct fuse_entry_param e = {
		.ino = inode, .generation = 1, .attr_timeout = FOREVER, .entry_timeout = FOREVER};

	if (inode) /* else a negative entry: that there is no such name stays true, too */
		file_stat(files, files_get(files, inode), &e.attr);
	fuse_reply_entry(req, &e);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct file_entry *e = entry_of(req, ino);
	struct stat st;

	(void)fi;
	if (!e) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	file_stat(&mounted_of(req)->files, e, &st);
	fuse_reply_attr(req, &st, FOREVER);
}

/* The new size of a file: the disk's, if that can change. */
static int set_size(struct file_entry *e, uint64_t size)
{
	struct request r;
	int error;

	if (e->kind != FILE_DISK)
		return e->kind == FILE_FOLDER ? EISDIR : EPERM;
	if (size == file_size(e))
		return 0;
	if (file_is_read_only(e))
		return EROFS;
	if (e->window_length || !(disk_info(file_disk(e))->flags & DISK_RESIZABLE))
		return EPERM;
	begin(&r, 0);
	/* What the disk refuses (0, parts of a block) is wrong usage, not worth a message. */
	if (size == 0 || size > INT64_MAX || size % disk_info(file_disk(e))->block_size)
		return EINVAL;
	error = end(&r, e, "resize", size, 0, disk_resize(file_disk(e), size, &r.io));
	file_touch(e);
	return error;
}

static int64_t ns_of(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static int64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return ns_of(&t);
}

static void set_times(struct file_entry *e, const struct stat *st, int which)
{
	int64_t now = clock_ns();

	if (which & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
		atomic_store(&e->accessed_ns, which & FUSE_SET_ATTR_ATIME_NOW ? now : ns_of(&st->st_atim));
	if (which & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		atomic_store(&e->modified_ns, which & FUSE_SET_ATTR_MTIME_NOW ? now : ns_of(&st->st_mtim));
	atomic_store(&e->changed_ns, which & FUSE_SET_ATTR_CTIME ? ns_of(&st->st_ctim) : now);
}

/* The kernel has looked at who may do this (default_permissions). For as long as the mount lives. */
static int set_owner_and_mode(struct file_entry *e, const struct stat *st, int which)
{
	if ((which & FUSE_SET_ATTR_MODE) && file_is_read_only(e) && (st->st_mode & 0222) && e->kind == FILE_DISK)
		return EROFS;
	if (which & FUSE_SET_ATTR_MODE)
		atomic_store(&e->mode, st->st_mode & 0777); /* a disk is no program: no set-user-ID */
	if (which & FUSE_SET_ATTR_UID)
		atomic_store(&e->uid, st->st_uid);
	if (which & FUSE_SET_ATTR_GID)
		atomic_store(&e->gid, st->st_gid);
	return 0;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int which, struct fuse_file_info *fi)
{
	struct file_entry *e = entry_of(req, ino);
	struct stat st;
	int error = e ? 0 : ENOENT;

	(void)fi;
	if (!error && (which & FUSE_SET_ATTR_SIZE))
		error = set_size(e, (uint64_t)attr->st_size);
	if (!error)
		error = set_owner_and_mode(e, attr, which);
	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	set_times(e, attr, which);
	file_stat(&mounted_of(req)->files, e, &st);
	fuse_reply_attr(req, &st, FOREVER);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct files *files = &mounted_of(req)->files;
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = NAME_MAX};

	(void)ino;
	for (size_t i = 0; i < files->count; i++)
		if (files->list[i].kind == FILE_DISK && !files->list[i].window_length)
			st.f_blocks += file_size(&files->list[i]) / 4096;
	st.f_files = files->count;
	fuse_reply_statfs(req, &st);
}

/* ------------------------------------------------------------------ folders */

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct file_entry *e = entry_of(req, ino);

	if (!e || e->kind != FILE_FOLDER) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	fi->cache_readdir = fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

/* Entry number `at` of a folder: itself, its parent, then what it holds. False past the last. */
static bool folder_entry(const struct files *files, fuse_ino_t folder, size_t at, const char **name, struct stat *st)
{
	const struct file_entry *e;

	if (at >= 2 + files->count)
		return false;
	*name = at == 0 ? "." : "..";
	e = files_get(files, folder);
	if (at == 1)
		e = &files->list[e->parent];
	if (at >= 2) {
		e = &files->list[at - 2];
		*name = e->name;
	}
	st->st_ino = files_inode(files, e);
	st->st_mode = e->kind == FILE_FOLDER ? S_IFDIR : S_IFREG;
	return true;
}

/* The first entry (the root) is in no folder, though it names itself as its parent. */
static bool is_inside(const struct files *files, fuse_ino_t folder, size_t at)
{
	return at < 2 || (at > 2 && files->list[at - 2].parent + 1 == folder);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	const struct files *files = &mounted_of(req)->files;
	size_t used = 0, limit = size < REQUEST_MAX_BYTES ? size : REQUEST_MAX_BYTES;
	char *entries = get_buffer();
	struct stat st = {0};
	const char *name;

	(void)fi;
	if (!entries) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (size_t at = (size_t)offset; folder_entry(files, ino, at, &name, &st); at++) {
		size_t n;

		if (!is_inside(files, ino, at))
			continue;
		n = fuse_add_direntry(req, entries + used, limit - used, name, &st, (off_t)at + 1);
		if (n > limit - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, entries, used);
}

/* ------------------------------------------------------------------ opening */

/* The whole of the file, in pieces; 0 or an errno. */
static int zero_all(fuse_req_t req, struct file_entry *e)
{
	uint64_t size = file_size(e);
	int error = 0;

	for (uint64_t at = 0; at < size && !error; at += ZERO_PIECE_BYTES) {
		uint64_t n = size - at < ZERO_PIECE_BYTES ? size - at : ZERO_PIECE_BYTES;
		struct request r;

		if (fuse_req_interrupted(req))
			return EINTR;
		begin(&r, IO_MAY_UNMAP);
		error = end(&r, e, "truncation", at, n,
			    bytes_write_zeroes(e->export->bytes, e->window_offset + at, n, &r.io));
	}
	file_touch(e);
	return error;
}

static int open_disk(fuse_req_t req, struct file_entry *e, const struct fuse_file_info *fi)
{
	bool writing = (fi->flags & O_ACCMODE) != O_RDONLY;

	if ((writing || (fi->flags & O_TRUNC)) && file_is_read_only(e))
		return EROFS;
	if ((fi->flags & O_TRUNC) && mounted_of(req)->options->writeback)
		return EPERM;
	return fi->flags & O_TRUNC ? zero_all(req, e) : 0;
}

static bool is_cached(const struct mount_options *o, const struct file_entry *e)
{
	return e->kind != FILE_REPORT && !o->direct_io && !e->shares_disk;
}

/* Counts who may have written what the kernel has not sent yet: until the last one has closed it. */
static void count_writer(fuse_req_t req, struct file_entry *e, const struct fuse_file_info *fi, int change)
{
	if (is_cached(mounted_of(req)->options, e) && (fi->flags & O_ACCMODE) != O_RDONLY)
		atomic_fetch_add(&e->writers, (uint32_t)change);
}

/* What libfuse's structure has no field for in every version is answered in the protocol's own words. */
static void reply_open(fuse_req_t req, const struct file_entry *e, uint64_t handle)
{
	const struct mount_options *o = mounted_of(req)->options;
	struct fuse_open_out out = {.fh = handle};

	if (!is_cached(o, e))
		out.open_flags |= FOPEN_DIRECT_IO;
	else if (!file_is_read_only(e))
		out.open_flags |= FOPEN_KEEP_CACHE;
	if (o->parallel)
		out.open_flags |= FOPEN_PARALLEL_DIRECT_WRITES;
	fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct file_entry *e = entry_of(req, ino);
	struct open_report *report = NULL;
	int error = e ? 0 : ENOENT;

	if (!error && e->kind == FILE_DISK)
		error = open_disk(req, e, fi);
	if (!error && e->kind == FILE_REPORT) {
		struct files *files = &mounted_of(req)->files;

		if ((fi->flags & O_ACCMODE) != O_RDONLY)
			error = EROFS;
		else
			report = files_open_report(files, e->report(files));
		if (!error && !report)
			error = ENOMEM;
	}
	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	count_writer(req, e, fi, 1);
	reply_open(req, e, (uintptr_t)report);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct file_entry *e = entry_of(req, ino);

	if (e && e->kind == FILE_REPORT)
		files_close_report(&mounted_of(req)->files, (struct open_report *)(uintptr_t)fi->fh);
	if (e)
		count_writer(req, e, fi, -1);
	fuse_reply_err(req, 0);
}

/* ------------------------------------------------------------------ reading and writing */

static void read_report(fuse_req_t req, size_t size, off_t offset, const struct fuse_file_info *fi)
{
	const char *text = ((const struct open_report *)(uintptr_t)fi->fh)->text;
	size_t length = strlen(text), at = (uint64_t)offset < length ? (size_t)offset : length;
	size_t n = size < length - at ? size : length - at;
	void *copy = get_buffer(); /* whoever has got the answer may close the report at once, before we are back from giving it */

	if (!copy) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	n = n < REQUEST_MAX_BYTES ? n : REQUEST_MAX_BYTES;
	memcpy(copy, text + at, n);
	fuse_reply_buf(req, copy, n);
}

/* How much of a request lies inside the file. */
static size_t inside(const struct file_entry *e, uint64_t offset, size_t size)
{
	uint64_t end = file_size(e);

	if (offset >= end)
		return 0;
	return end - offset < size ? (size_t)(end - offset) : size;
}

static void read_disk(fuse_req_t req, struct file_entry *e, size_t size, uint64_t offset)
{
	size_t n = inside(e, offset, size < REQUEST_MAX_BYTES ? size : REQUEST_MAX_BYTES);
	void *data = get_buffer();
	struct request r;
	int status, error;

	if (!data) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	begin(&r, 0);
	status = n ? bytes_read(e->export->bytes, &VEC_FLAT(data, n), e->window_offset + offset, &r.io) : 0;
	if (status == -ERANGE) { /* the disk shrank meanwhile: its end is where it is now */
		n = 0;
		status = 0;
	}
	error = end(&r, e, "read", offset, n, status);
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_buf(req, data, n);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct file_entry *e = entry_of(req, ino);

	if (!e || offset < 0)
		fuse_reply_err(req, EINVAL);
	else if (e->kind == FILE_REPORT)
		read_report(req, size, offset, fi);
	else
		read_disk(req, e, size, (uint64_t)offset);
}

/* With a writeback cache the kernel has let the file grow before it asked. */
static void correct_size(fuse_req_t req, struct file_entry *e)
{
	struct mounted *m = mounted_of(req);

	if (m->options->writeback && !atomic_exchange(&e->is_forgotten, true))
		m->forget(m, e);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	struct file_entry *e = entry_of(req, ino);
	size_t n = e && offset >= 0 ? inside(e, (uint64_t)offset, size) : 0;
	uint64_t at = (uint64_t)offset;
	struct request r;
	int error;

	if (e && n < size)
		correct_size(req, e);
	if (!n) {
		fuse_reply_err(req, !e ? EINVAL : size ? ENOSPC : 0);
		return;
	}
	begin(&r, 0);
	error = end(&r, e, "write", at, n,
		    bytes_write(e->export->bytes, &VEC_FLAT(data, n), e->window_offset + at, &r.io));
	file_touch(e);
	if (!error && n < size && (fi->flags & O_DIRECT))
		error = ENOSPC; /* of a short direct write the kernel makes EIO (fs/fuse/file.c, fuse_get_res_by_io) */
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_write(req, n);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct file_entry *e = entry_of(req, ino);
	struct request r;
	int error = 0;

	(void)datasync; /* a disk has no times of its own to save */
	(void)fi;
	begin(&r, 0);
	if (e && e->kind == FILE_DISK && !file_is_read_only(e))
		error = end(&r, e, "flush", 0, 0, bytes_flush(e->export->bytes, &r.io));
	fuse_reply_err(req, error);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, 0);
}

/* ------------------------------------------------------------------ holes */

static int zero_some(struct file_entry *e, uint64_t offset, uint64_t length, unsigned flags)
{
	uint64_t size = file_size(e);
	struct request r;
	int error;

	/* Both ways keep the size: what is past it is not there to be zeroed. */
	if (offset >= size || !length)
		return 0;
	if (length > size - offset)
		length = size - offset;
	begin(&r, flags);
	error = end(&r, e, "zeroing", offset, length,
		    bytes_write_zeroes(e->export->bytes, e->window_offset + offset, length, &r.io));
	file_touch(e);
	return error;
}

static int allocate(struct file_entry *e, int mode, uint64_t offset, uint64_t length)
{
	uint64_t end;

	if (e->kind != FILE_DISK)
		return ENODEV;
	if (file_is_read_only(e))
		return EROFS;
	if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return zero_some(e, offset, length, IO_MAY_UNMAP);
	if (mode != FALLOC_FL_ZERO_RANGE && mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
		return EOPNOTSUPP; /* a disk cannot promise space to come, nor move what follows */
	if (__builtin_add_overflow(offset, length, &end))
		return EFBIG;
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > file_size(e)) {
		int error = set_size(e, end); /* what is added is zero */
		if (error)
			return error;
	}
	return zero_some(e, offset, length, 0);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			 struct fuse_file_info *fi)
{
	struct file_entry *e = entry_of(req, ino);

	(void)fi;
	if (!e || offset < 0 || length <= 0)
		fuse_reply_err(req, EINVAL);
	else
		fuse_reply_err(req, allocate(e, mode, (uint64_t)offset, (uint64_t)length));
}

/* Where the next data, or the next hole, begins: lseek(2). 0 or an errno. */
static int seek(struct file_entry *e, uint64_t offset, bool for_hole, uint64_t *found)
{
	uint64_t size = file_size(e), at = e->window_offset + offset, stop = e->window_offset + size;
	struct request r;

	if (offset >= size)
		return ENXIO;
	if (atomic_load(&e->writers) > 0) { /* a hole may have been written to: all is data */
		*found = for_hole ? size : offset;
		return 0;
	}
	while (at < stop) {
		CLEANUP_EXTENTS struct extents runs;
		int error;

		extents_init(&runs, at, stop - at, 64);
		begin(&r, 0);
		error = end(&r, e, "extents", offset, stop - at, bytes_extents(e->export->bytes, &runs, &r.io));
		if (error)
			return error;
		for (size_t i = 0; i < runs.count; i++) {
			*found = runs.list[i].offset - e->window_offset;
			if (((runs.list[i].flags & EXTENT_ZERO) != 0) == for_hole)
				return 0;
		}
		at = extents_next(&runs);
	}
	*found = size;
	return for_hole ? 0 : ENXIO; /* there is a hole at the end of every file */
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct file_entry *e = entry_of(req, ino);
	uint64_t found = 0;
	int error = EINVAL;

	(void)fi;
	if (e && e->kind == FILE_DISK && offset >= 0 && (whence == SEEK_DATA || whence == SEEK_HOLE))
		error = seek(e, (uint64_t)offset, whence == SEEK_HOLE, &found);
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_lseek(req, (off_t)found);
}

/* ------------------------------------------------------------------ copying */

static int copy(struct file_entry *from, uint64_t from_offset, struct file_entry *to, uint64_t to_offset,
		size_t *length)
{
	struct request r;
	int status, error;

	if (from->kind != FILE_DISK || to->kind != FILE_DISK)
		return EOPNOTSUPP; /* the kernel copies then */
	if (file_is_read_only(to))
		return EROFS;
	*length = inside(from, from_offset, *length);
	if (!*length)
		return 0;
	*length = inside(to, to_offset, *length);
	if (!*length)
		return ENOSPC;
	begin(&r, 0);
	status = bytes_copy(from->export->bytes, from->window_offset + from_offset, to->export->bytes,
			    to->window_offset + to_offset, length, get_buffer(), REQUEST_MAX_BYTES, &r.io);
	error = end(&r, to, "copy", to_offset, *length, status);
	file_touch(to);
	return error;
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			       fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t length,
			       int flags)
{
	struct file_entry *from = entry_of(req, ino_in), *to = entry_of(req, ino_out);
	int error = EINVAL;

	(void)fi_in;
	(void)fi_out;
	if (from && to && !flags && off_in >= 0 && off_out >= 0)
		error = copy(from, (uint64_t)off_in, to, (uint64_t)off_out, &length);
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_write(req, length);
}

/* ------------------------------------------------------------------ extended attributes */

static const char attribute_spec[] = "user.platter.spec";
static const char attribute_info[] = "user.platter.info";
static const char attribute_pid[] = "user.platter.pid"; /* of the root: who serves it */

/* What opens the same as this file shows. To be freed. */
static char *spec_of(const struct file_entry *e)
{
	char *whole = report_spec(e->export), *part = NULL;

	if (!e->partition || !whole)
		return whole;
	if (asprintf(&part, "part:%u:%s", e->partition, whole) < 0)
		part = NULL;
	free(whole);
	return part;
}

/* The value, to be freed; NULL with *error set. */
static char *attribute(const struct file_entry *e, bool is_root, const char *name, int *error)
{
	char *value = NULL;

	*error = ENOMEM;
	if (is_root && strcmp(name, attribute_pid) == 0) {
		if (asprintf(&value, "%d", (int)getpid()) < 0)
			value = NULL;
	} else if (e->kind == FILE_DISK && strcmp(name, attribute_spec) == 0) {
		value = spec_of(e);
	} else if (e->kind == FILE_DISK && strcmp(name, attribute_info) == 0) {
		value = report_info(e->export);
	} else {
		*error = ENODATA;
	}
	return value;
}

/* As getxattr(2): the length alone where `size` is 0. */
static void reply_attribute(fuse_req_t req, const char *value, size_t length, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, length);
	else if (size < length)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, length);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	const struct file_entry *e = entry_of(req, ino);
	int error = ENOENT;
	char *value = e ? attribute(e, ino == FUSE_ROOT_ID, name, &error) : NULL;

	if (!value)
		fuse_reply_err(req, error);
	else if (strlen(value) > XATTR_SIZE_MAX)
		fuse_reply_err(req, E2BIG);
	else
		reply_attribute(req, value, strlen(value), size);
	free(value);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	const struct file_entry *e = entry_of(req, ino);
	char names[sizeof(attribute_spec) + sizeof(attribute_info) + sizeof(attribute_pid)];
	size_t length = 0;

	if (e && e->kind == FILE_DISK) {
		memcpy(names, attribute_spec, sizeof(attribute_spec));
		memcpy(names + sizeof(attribute_spec), attribute_info, sizeof(attribute_info));
		length = sizeof(attribute_spec) + sizeof(attribute_info);
	}
	if (ino == FUSE_ROOT_ID) {
		memcpy(names + length, attribute_pid, sizeof(attribute_pid));
		length += sizeof(attribute_pid);
	}
	reply_attribute(req, names, length, size);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	(void)ino;
	(void)name;
	(void)value;
	(void)size;
	(void)flags;
	fuse_reply_err(req, EOPNOTSUPP);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)ino;
	(void)name;
	fuse_reply_err(req, EOPNOTSUPP);
}

/* ------------------------------------------------------------------ what a mount does not do */

/* Which files there are was said on the command line. */
static void refuse(fuse_req_t req)
{
	fuse_reply_err(req, EPERM);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	(void)parent;
	(void)name;
	(void)mode;
	(void)device;
	refuse(req);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	op_mknod(req, parent, name, mode, 0);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	op_mknod(req, parent, name, 0, 0);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	(void)target;
	op_mknod(req, parent, name, 0, 0);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		      const char *new_name, unsigned flags)
{
	(void)parent;
	(void)name;
	(void)flags;
	op_mknod(req, new_parent, new_name, 0, 0);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	(void)ino;
	op_mknod(req, parent, name, 0, 0);
}

const struct fuse_lowlevel_ops mount_operations = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.statfs = op_statfs,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.open = op_open,
	.release = op_release,
	.read = op_read,
	.write = op_write,
	.fsync = op_fsync,
	.fsyncdir = op_fsyncdir,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.copy_file_range = op_copy_file_range,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.setxattr = op_setxattr,
	.removexattr = op_removexattr,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_unlink,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
};
