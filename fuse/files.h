/* SPDX-License-Identifier: BSD-3-Clause */
/* The files of a mount: which there are, what they show, and what stat(2) says of them. */
#ifndef PLATTER_FUSE_FILES_H
#define PLATTER_FUSE_FILES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/exports.h"
#include "fuse/options.h"

/* Inode numbers are places in the table plus one; FUSE_ROOT_ID is 1. */
enum file_kind {
	FILE_FOLDER,  /* the root of a mount of several disks, or .platter */
	FILE_DISK,    /* a disk, or a window on one (a partition) */
	FILE_REPORT,  /* its content is made when it is opened */
};

/* Where a mount may be asked what it knows: the folder of reports. */
#define CONTROL_FOLDER ".platter"

struct files;

/*
 * One file. What is atomic changes while others read it; everything else is frozen once the mount is up.
 */
struct file_entry {
	enum file_kind kind;
	char *name;
	size_t parent; /* place of its folder */

	/* FILE_DISK */
	const struct export *export;
	uint64_t window_offset; /* bytes */
	unsigned partition;     /* its number; 0: it is none */
	uint64_t window_length; /* bytes; 0: the whole disk, whatever its size is */
	bool shares_disk;       /* other files show parts of the same disk: the page cache would not know */

	/* FILE_REPORT: text, to be freed; NULL when memory ran out. Called on any thread. */
	char *(*report)(const struct files *files);

	_Atomic uint32_t mode; /* permission bits alone */
	_Atomic uint32_t uid, gid;
	_Atomic int64_t modified_ns, accessed_ns, changed_ns; /* since the epoch */

	/* FILE_DISK: what st_blocks is made of, found out anew after something was written. */
	_Atomic uint32_t writers;      /* open for writing through the page cache, so often */
	_Atomic bool is_forgotten;     /* the kernel is being told to look it up anew */
	_Atomic uint64_t changes;      /* so often it was written */
	_Atomic uint64_t allocated_at; /* `changes` when the next was found, plus one; 0: never */
	_Atomic uint64_t allocated;    /* bytes */
};

/* A report that somebody reads. */
struct open_report {
	struct open_report *next, *previous;
	char *text;
};

struct files {
	pthread_mutex_t lock;       /* protects the next; nothing waits under it */
	struct open_report *reports; /* open ones */
	struct file_entry *list;
	size_t count;
	const struct export_table *exports;
};

/* What a mount shows. */
struct files_request {
	const struct export_table *exports; /* open, and so until files_free() */
	const struct mount_options *options;
	bool single;     /* the root is no folder but the only disk itself */
	bool control;    /* show CONTROL_FOLDER */
	bool partitions; /* a file for each partition of each disk: NAME.p1 */
};

/* Makes the table. Names must be good for files and must not clash. 0, or a negative errno with `err` set. */
int files_create(struct files *files, const struct files_request *request, struct error *err);
void files_free(struct files *files);

/* Keeps `text` (which may be NULL: then so is the result) until it is closed, or the mount ends. NULL when memory ran out. */
struct open_report *files_open_report(struct files *files, char *text);
void files_close_report(struct files *files, struct open_report *report);

/* The entry of `inode`, or NULL. */
struct file_entry *files_get(const struct files *files, uint64_t inode);

/* The inode of `name` in the folder `inode`; 0: there is none. */
uint64_t files_find(const struct files *files, uint64_t inode, const char *name);
uint64_t files_inode(const struct files *files, const struct file_entry *entry);

/* The disk behind a FILE_DISK, its size as seen through the file, and whether it may be written to. */
struct disk *file_disk(const struct file_entry *entry);
uint64_t file_size(const struct file_entry *entry);
bool file_is_read_only(const struct file_entry *entry);

/* Fills in `st`. May ask the disk which of its blocks are in use. */
void file_stat(const struct files *files, struct file_entry *entry, struct stat *st);

/* Something was written: the times change, and the space in use may have. */
void file_touch(struct file_entry *entry);

#endif
