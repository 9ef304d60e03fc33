/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A mount has as many files as its command line says, known before the kernel asks for the first one: a table, in which an
 * inode number is a place. Nothing is added or removed while it is mounted, so looking up takes no lock.
 *
 * st_blocks is what cp, tar and du judge by whether a file is sparse, so it has to be true, though the disk tells only
 * by being asked for its extents. It is asked when somebody wants to know, and again only after a write. The walk is
 * cut short after ALLOCATED_MAX_RUNS runs; then the part seen speaks for the rest.
 */
#include "fuse/files.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/bytes.h"
#include "core/extents.h"
#include "decorators/partitions.h"
#include "fuse/log.h"
#include "fuse/reports.h"

#define ALLOCATED_MAX_RUNS 1024

/* What programs had better read at once, at least. */
#define MIN_PREFERRED_BYTES 4096u

/* ------------------------------------------------------------------ making the table */

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* One more entry, with owner and times; NULL when memory ran out. */
static struct file_entry *add(struct files *files, const struct files_request *r, enum file_kind kind,
			      const char *name, size_t parent, mode_t mode)
{
	struct file_entry *list = reallocarray(files->list, files->count + 1, sizeof(*list)), *e;
	int64_t now = now_ns();

	if (!list)
		return NULL;
	files->list = list;
	e = &list[files->count];
	memset(e, 0, sizeof(*e));
	e->name = strdup(name);
	if (!e->name)
		return NULL;
	e->kind = kind;
	e->parent = parent;
	atomic_init(&e->mode, mode);
	atomic_init(&e->uid, r->options->uid);
	atomic_init(&e->gid, r->options->gid);
	atomic_init(&e->modified_ns, now);
	atomic_init(&e->accessed_ns, now);
	atomic_init(&e->changed_ns, now);
	files->count++;
	return e;
}

/* Who may read a file may enter its folder. */
static mode_t folder_mode(const struct mount_options *o)
{
	mode_t mode = o->mode == (mode_t)-1 ? 0700 : o->mode & 0444;

	return mode | (mode & 0444) >> 2;
}

static mode_t disk_mode(const struct mount_options *o, const struct disk *d)
{
	mode_t mode = o->mode == (mode_t)-1 ? 0600 : o->mode;

	return disk_info(d)->flags & DISK_READ_ONLY ? mode & ~(mode_t)0222 : mode;
}

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "no memory");
}

static int check_name(const char *name, struct error *err)
{
	if (*name == '\0')
		return error_set(err, -EINVAL, "a disk in a folder needs a name: NAME=SPEC");
	if (strchr(name, '/'))
		return error_set(err, -EINVAL, "disk '%s': the name of a file holds no '/'", name);
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, CONTROL_FOLDER) == 0)
		return error_set(err, -EINVAL, "disk '%s': that name is taken", name);
	if (strlen(name) > NAME_MAX)
		return error_set(err, -EINVAL, "disk '%s': the name of a file has at most %d bytes", name,
				 NAME_MAX);
	return 0;
}

static int add_disk(struct files *files, const struct files_request *r, const struct export *e,
		    struct error *err)
{
	const struct disk *d = bytes_disk(e->bytes);
	struct file_entry *entry = add(files, r, FILE_DISK, e->name, 0, disk_mode(r->options, d));

	if (!entry)
		return no_memory(err);
	entry->export = e;
	return 0;
}

static int add_disks(struct files *files, const struct files_request *r, struct error *err)
{
	for (size_t i = 0; i < r->exports->count; i++) {
		const struct export *e = &r->exports->list[i];
		int status = r->single ? 0 : check_name(e->name, err);

		if (!status)
			status = add_disk(files, r, e, err);
		if (status)
			return status;
	}
	return 0;
}

/* ------------------------------------------------------------------ partitions */

/* Through the view of the whole disk, whose range locks then hold for its partitions, too. */
static int add_partition(struct files *files, const struct files_request *r, const struct export *e,
			 const struct partition *p, struct error *err)
{
	char name[NAME_MAX + 1];
	struct file_entry *entry;

	if (snprintf(name, sizeof(name), "%s.p%u", e->name, p->number) > NAME_MAX)
		return error_set(err, -EINVAL, "disk '%s': its name is too long for names of partitions", e->name);
	if (files_find(files, 1, name))
		return error_set(err, -EEXIST, "disk '%s': the name of a partition of disk '%s'", name, e->name);
	entry = add(files, r, FILE_DISK, name, 0, disk_mode(r->options, bytes_disk(e->bytes)));
	if (!entry)
		return no_memory(err);
	entry->export = e;
	entry->partition = p->number;
	entry->window_offset = p->offset;
	entry->window_length = p->size;
	entry->shares_disk = true;
	return 0;
}

static int add_table(struct files *files, const struct files_request *r, size_t whole,
		     const struct partition_table *table, struct error *err)
{
	const struct export *e = files->list[whole].export;

	if (*table->note)
		log_message("%s: %s", e->name, table->note);
	for (size_t i = 0; i < table->count; i++) {
		const struct partition *p = &table->list[i];

		if (p->extended)
			continue;
		if (*p->fault) {
			log_message("%s: partition %u %s", e->name, p->number, p->fault);
			continue;
		}
		int status = add_partition(files, r, e, p, err);
		if (status)
			return status;
		files->list[whole].shares_disk = true;
	}
	return 0;
}

/* The partitions of the disk in place `whole`, behind all disks. One without a table has none. */
static int add_partitions(struct files *files, const struct files_request *r, size_t whole, struct error *err)
{
	CLEANUP_PARTITIONS struct partition_table table = {0};
	CLEANUP_ERROR struct error reason = {0};
	const char *name = files->list[whole].name;
	int status = partitions_list(file_disk(&files->list[whole]), &table, &reason);

	if (status == -ENOENT)
		return 0;
	if (status == -ENODATA) {
		log_message("%s: %s", name, error_text(&reason));
		return 0;
	}
	if (status) {
		error_move(err, &reason);
		return error_prefix(err, "disk '%s'", name);
	}
	return add_table(files, r, whole, &table, err);
}

static int add_all_partitions(struct files *files, const struct files_request *r, struct error *err)
{
	size_t disks = files->count;
	int status = 0;

	for (size_t i = 1; i < disks && !status; i++)
		status = add_partitions(files, r, i, err);
	return status;
}

/* ------------------------------------------------------------------ reports */

static int add_control(struct files *files, const struct files_request *r, struct error *err)
{
	mode_t folder = folder_mode(r->options);
	size_t parent = files->count;

	if (!add(files, r, FILE_FOLDER, CONTROL_FOLDER, 0, folder & ~(mode_t)0222))
		return no_memory(err);
	for (const struct report *report = reports; report->name; report++) {
		struct file_entry *e = add(files, r, FILE_REPORT, report->name, parent, folder & 0444);

		if (!e)
			return no_memory(err);
		e->report = report->make;
	}
	return 0;
}

int files_create(struct files *files, const struct files_request *request, struct error *err)
{
	int status = 0;

	*files = (struct files){.exports = request->exports, .lock = PTHREAD_MUTEX_INITIALIZER};
	if (!request->single && !add(files, request, FILE_FOLDER, "", 0, folder_mode(request->options)))
		status = no_memory(err);
	if (!status)
		status = add_disks(files, request, err);
	if (!status && request->partitions)
		status = add_all_partitions(files, request, err);
	if (!status && request->control)
		status = add_control(files, request, err);
	if (status)
		files_free(files);
	return status;
}

/* ------------------------------------------------------------------ open reports */

struct open_report *files_open_report(struct files *files, char *text)
{
	struct open_report *r = text ? calloc(1, sizeof(*r)) : NULL;

	if (!r) {
		free(text);
		return NULL;
	}
	r->text = text;
	pthread_mutex_lock(&files->lock);
	r->next = files->reports;
	if (r->next)
		r->next->previous = r;
	files->reports = r;
	pthread_mutex_unlock(&files->lock);
	return r;
}

void files_close_report(struct files *files, struct open_report *report)
{
	pthread_mutex_lock(&files->lock);
	if (report->next)
		report->next->previous = report->previous;
	if (report->previous)
		report->previous->next = report->next;
	else
		files->reports = report->next;
	pthread_mutex_unlock(&files->lock);
	free(report->text);
	free(report);
}

void files_free(struct files *files)
{
	/* Where users were cut off, nobody closes them. */
	while (files->reports)
		files_close_report(files, files->reports);
	pthread_mutex_destroy(&files->lock);
	for (size_t i = 0; i < files->count; i++)
		free(files->list[i].name);
	free(files->list);
	*files = (struct files){0};
}

/* ------------------------------------------------------------------ finding */

struct file_entry *files_get(const struct files *files, uint64_t inode)
{
	return inode >= 1 && inode <= files->count ? &files->list[inode - 1] : NULL;
}

uint64_t files_inode(const struct files *files, const struct file_entry *entry)
{
	return (uint64_t)(entry - files->list) + 1;
}

uint64_t files_find(const struct files *files, uint64_t inode, const char *name)
{
	/* The first entry is the root, which no folder holds. */
	for (size_t i = 1; i < files->count; i++)
		if (files->list[i].parent + 1 == inode && strcmp(files->list[i].name, name) == 0)
			return i + 1;
	return 0;
}

/* ------------------------------------------------------------------ one file */

struct disk *file_disk(const struct file_entry *entry)
{
	return bytes_disk(entry->export->bytes);
}

uint64_t file_size(const struct file_entry *entry)
{
	uint64_t size;

	if (entry->kind != FILE_DISK)
		return 0;
	size = disk_size(file_disk(entry));
	if (!entry->window_length)
		return size;
	/* A disk that shrank may have cut the window. */
	if (size <= entry->window_offset)
		return 0;
	size -= entry->window_offset;
	return size < entry->window_length ? size : entry->window_length;
}

bool file_is_read_only(const struct file_entry *entry)
{
	return entry->kind != FILE_DISK || (disk_info(file_disk(entry))->flags & DISK_READ_ONLY);
}

/* Bytes of `runs` that take space, of all that they cover. */
static uint64_t count_allocated(const struct extents *runs)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < runs->count; i++)
		if (!(runs->list[i].flags & EXTENT_HOLE))
			bytes += runs->list[i].length;
	return bytes;
}

/* Adds what up to *left runs from `at` on tell. Returns where they end; `at` when nothing is told. */
static uint64_t add_allocated(const struct file_entry *entry, uint64_t at, uint64_t end, size_t *left,
			      uint64_t *used)
{
	CLEANUP_EXTENTS struct extents runs;

	extents_init(&runs, at, end - at, *left);
	if (bytes_extents(entry->export->bytes, &runs, &io_plain))
		return at;
	*used += count_allocated(&runs);
	*left -= runs.count < *left ? runs.count : *left;
	return extents_next(&runs);
}

static uint64_t find_allocated(const struct file_entry *entry, uint64_t size)
{
	uint64_t begin = entry->window_offset, at = begin, used = 0;
	size_t left = ALLOCATED_MAX_RUNS;

	for (uint64_t before = at - 1; at < begin + size && at != before && left > 0;) {
		before = at;
		at = add_allocated(entry, at, begin + size, &left, &used);
	}
	if (at >= begin + size)
		return used;
	/* What is not known is as full as what is; nothing known at all: all of it. */
	return at > begin ? (uint64_t)((double)used / (double)(at - begin) * (double)size) : size;
}

static uint64_t file_allocated(struct file_entry *entry)
{
	uint64_t changes = atomic_load(&entry->changes), bytes;

	if (entry->kind != FILE_DISK)
		return 0;
	if (atomic_load(&entry->allocated_at) == changes + 1)
		return atomic_load(&entry->allocated);
	bytes = find_allocated(entry, file_size(entry));
	atomic_store(&entry->allocated, bytes);
	atomic_store(&entry->allocated_at, changes + 1);
	return bytes;
}

static struct timespec timespec_of(int64_t ns)
{
	struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	if (t.tv_nsec < 0) { /* before 1970 */
		t.tv_nsec += 1000000000;
		t.tv_sec--;
	}
	return t;
}

static mode_t type_of(const struct file_entry *entry)
{
	return entry->kind == FILE_FOLDER ? S_IFDIR : S_IFREG;
}

static unsigned folders_in(const struct files *files, const struct file_entry *entry)
{
	unsigned n = 0;

	for (size_t i = 1; i < files->count; i++)
		n += files->list[i].kind == FILE_FOLDER && &files->list[files->list[i].parent] == entry;
	return n;
}

static blksize_t preferred_bytes(const struct file_entry *entry)
{
	uint32_t bytes = entry->kind == FILE_DISK ? disk_info(file_disk(entry))->physical_block_size : 0;

	return bytes < MIN_PREFERRED_BYTES ? MIN_PREFERRED_BYTES : bytes;
}

void file_stat(const struct files *files, struct file_entry *entry, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = files_inode(files, entry);
	st->st_mode = type_of(entry) | atomic_load(&entry->mode);
	st->st_nlink = entry->kind == FILE_FOLDER ? 2 + folders_in(files, entry) : 1;
	st->st_uid = atomic_load(&entry->uid);
	st->st_gid = atomic_load(&entry->gid);
	st->st_size = (off_t)file_size(entry);
	st->st_blksize = preferred_bytes(entry);
	st->st_blocks = (blkcnt_t)((file_allocated(entry) + 511) / 512);
	st->st_mtim = timespec_of(atomic_load(&entry->modified_ns));
	st->st_atim = timespec_of(atomic_load(&entry->accessed_ns));
	st->st_ctim = timespec_of(atomic_load(&entry->changed_ns));
}

void file_touch(struct file_entry *entry)
{
	int64_t now = now_ns();

	atomic_store_explicit(&entry->modified_ns, now, memory_order_relaxed);
	atomic_store_explicit(&entry->changed_ns, now, memory_order_relaxed);
	atomic_fetch_add_explicit(&entry->changes, 1, memory_order_relaxed);
}
