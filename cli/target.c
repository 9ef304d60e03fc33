/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Over the target lies a node of our own that forwards everything but flushes, which it can swallow: closing a disk flushes it,
 * and that takes long for a file that is about to be removed, or whose durability nobody asked for.
 */
#include "cli/target.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/sweep.h"
#include "cli/tools.h"
#include "core/file-lock.h"
#include "core/host-file.h"
#include "core/node.h"
#include "core/open.h"

#define NAME_TRIES 100

/* Longer names are cut in the temporary one. */
#define NAME_KEPT 200

/* ------------------------------------------------------------------ the node on top */

struct top {
	struct disk disk;
	_Atomic bool unflushed;
	_Atomic bool flushed; /* and nothing is written any more */
};

static int top_flush(struct disk *d, const struct io *io)
{
	struct top *t = (struct top *)d;

	return atomic_load(&t->unflushed) || atomic_load(&t->flushed) ? 0 : disk_flush(d->children[0], io);
}

static const struct disk_ops top_ops = {
	.flush = top_flush, /* all else is forwarded */
};

static int put_on_top(struct disk *below, bool flushed, struct disk **out, struct error *err)
{
	struct top *t = disk_new(sizeof(*t), "target", &top_ops, &below, 1);
	int status;

	if (!t)
		return error_set(err, -ENOMEM, "no memory");
	atomic_init(&t->unflushed, !flushed);
	atomic_init(&t->flushed, false);
	disk_inherit(&t->disk);
	status = disk_publish(&t->disk, disk_size(below), err);
	if (status) {
		disk_drop_new(&t->disk);
		return status;
	}
	*out = &t->disk;
	return 0;
}

/* ------------------------------------------------------------------ names */

/* "FOLDER/.NAME.XXXXXX" for "FOLDER/NAME" */
static char *temporary_name(const char *path)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	const char *name = strrchr(path, '/');
	unsigned char random[6];
	char *out;

	name = name ? name + 1 : path;
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return NULL;
	for (size_t i = 0; i < sizeof(random); i++)
		random[i] = (unsigned char)letters[random[i] % (sizeof(letters) - 1)];
	if (asprintf(&out, "%.*s.%.*s.%.6s", (int)(name - path), path, NAME_KEPT, name, (const char *)random) < 0)
		return NULL;
	return out;
}

/* Takes the place of `path` if it may, else only where there is nothing. */
static int give_name(const struct target *t)
{
	if (t->replaces)
		return rename(t->temporary, t->path) ? -errno : 0;
	if (!renameat2(AT_FDCWD, t->temporary, AT_FDCWD, t->path, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (link(t->temporary, t->path)) /* a file system without that flag */
		return -errno;
	unlink(t->temporary);
	return 0;
}

/* SQLite's files, too, which a clean close has removed. */
static void remove_temporary(const struct target *t)
{
	static const char *const endings[] = {"", "-journal", "-wal", "-shm"};

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		char *name;
		if (asprintf(&name, "%s%s", t->temporary, endings[i]) < 0)
			return;
		unlink(name);
		free(name);
	}
}

/* ------------------------------------------------------------------ what is there already */

/* Nobody may be writing to what is replaced. */
static int lock_replaced(struct target *t, struct error *err)
{
	t->replaced_fd = open(t->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (t->replaced_fd < 0)
		return 0; /* read-only: nobody can */
	return file_lock_writer(t->replaced_fd, t->path, err);
}

/* A link is followed: it is what it leads to that is replaced. */
static int look_at_name(struct target *t, const struct target_request *request, struct error *err)
{
	struct stat st;
	char *real;

	if (stat(t->path, &st))
		return 0;
	if (!S_ISREG(st.st_mode)) {
		error_set(err, -EEXIST, "'%s' is there already, and is not a regular file", t->path);
		return S_ISBLK(st.st_mode) ? error_hint(err, "-n writes into it") : -EEXIST;
	}
	if (!request->replace) {
		error_set(err, -EEXIST, "'%s' exists already", t->path);
		return error_hint(err, "--force replaces it, -n writes into it");
	}
	real = realpath(t->path, NULL);
	if (!real)
		return error_set_errno(err, -errno, "'%s'", t->path);
	free(t->path);
	t->path = real;
	t->replaces = true;
	return lock_replaced(t, err);
}

/* ------------------------------------------------------------------ opening */

static int open_existing(struct target *t, struct error *err)
{
	return disk_open_spec(t->spec, 0, &t->disk, err);
}

static int prepare_create(struct target *t, const struct kind_tools *tools, const struct target_request *request,
			  struct error *err)
{
	const struct spec_field *block = tools->block ? kind_field(t->spec->kind, tools->block) : NULL;

	if (tools_over(tools, t->spec))
		return error_set(err, -EINVAL, "%s: a copy stands alone: %s= is not for it", tools->kind, tools->parent);
	if (block && !spec_given(t->spec, tools->block) && request->block_size >= tools->block_from)
		spec_set_number(t->spec, tools->block, request->block_size < block->max ? request->block_size : block->max);
	if (kind_field(t->spec->kind, "exact"))
		spec_set_number(t->spec, "exact", 1); /* a copy has all of what is copied, and no more */
	if (spec_given(t->spec, "create") && spec_number(t->spec, "create") > 0)
		return 0; /* as large as the user says */
	return tools->create(t->spec, request->size, err);
}

static int make_new(struct target *t, const struct kind_tools *tools, struct error *err)
{
	int status = -EEXIST;

	for (int i = 0; i < NAME_TRIES && status == -EEXIST; i++) {
		free(t->temporary);
		error_clear(err);
		t->temporary = temporary_name(t->path);
		if (!t->temporary)
			return error_set(err, -ENOMEM, "no memory");
		status = spec_set_text(t->spec, tools->path, t->temporary, err);
		if (!status)
			status = disk_open_spec(t->spec, 0, &t->disk, err);
	}
	t->is_new = !status;
	return status;
}

static bool makes_disks(const struct kind_tools *tools)
{
	return tools->create && tools->takes_size;
}

static int create_new(struct target *t, const struct target_request *request, struct error *err)
{
	const struct kind_tools *tools = tools_find(t->spec->kind);
	int status;

	if (!tools || !makes_disks(tools)) {
		tools_refuse(t->spec->kind, "made for a copy", makes_disks, err);
		return error_hint(err, "-n writes into one that is there");
	}
	t->path = strdup(spec_text(t->spec, tools->path));
	if (!t->path)
		return error_set(err, -ENOMEM, "no memory");
	status = look_at_name(t, request, err);
	if (!status)
		status = prepare_create(t, tools, request, err);
	return status ? status : make_new(t, tools, err);
}

int target_open(struct target *t, const struct target_request *request, struct error *err)
{
	int status = spec_parse(request->spec, &t->spec, err);

	t->replaced_fd = -1;
	if (!status)
		status = request->existing ? open_existing(t, err) : create_new(t, request, err);
	if (!status)
		status = put_on_top(t->disk, request->durable, &t->top, err);
	if (status) {
		target_drop(t);
		return status;
	}
	t->disk = t->top;
	return 0;
}

/* ------------------------------------------------------------------ ending */

static void clear(struct target *t)
{
	if (t->spec && t->replaced_fd >= 0)
		close(t->replaced_fd);
	free(t->path);
	free(t->temporary);
	spec_free(t->spec);
	*t = (struct target){.replaced_fd = -1};
}

static int name_it(struct target *t, bool durable, struct error *err)
{
	int status = give_name(t);

	if (status == -EEXIST)
		error_set(err, status, "'%s' has been made by somebody else meanwhile", t->path);
	else if (status)
		error_set_errno(err, status, "renaming '%s' to '%s'", t->temporary, t->path);
	if (status) {
		remove_temporary(t);
		return status;
	}
	status = durable ? host_file_sync_folder(t->path) : 0;
	return status ? error_set_errno(err, status, "folder of '%s'", t->path) : 0;
}

int target_flush(struct target *t, struct error *err)
{
	int status = flush_disk(t->disk, NULL, err);

	if (!status)
		atomic_store(&((struct top *)t->top)->flushed, true);
	return status;
}

int target_finish(struct target *t, struct error *err)
{
	bool durable = !atomic_load(&((struct top *)t->top)->unflushed);
	int status = disk_close(t->top, err);

	t->disk = t->top = NULL;
	if (status && t->temporary)
		remove_temporary(t);
	else if (t->temporary)
		status = name_it(t, durable, err);
	clear(t);
	return status;
}

void target_drop(struct target *t)
{
	if (t->top && t->is_new)
		atomic_store(&((struct top *)t->top)->unflushed, true);
	if (t->disk && t->top)
		disk_close(t->top, NULL);
	else if (t->disk)
		disk_abandon(t->disk);
	if (t->is_new)
		remove_temporary(t);
	clear(t);
}
