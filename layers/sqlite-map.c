/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SQLite can map a file itself, but then a file that shrinks, or that its storage cannot deliver, kills the process with SIGBUS
 * wherever SQLite happens to touch it. Here it reads as ever, and only the reading is another one: of the methods of the open file
 * (https://www.sqlite.org/c3ref/io_methods.html) xRead is replaced, by one that copies from a map what lies in it. What cannot be
 * copied is read with the real one, which then says what is wrong.
 *
 *   the database only      the log is read with system calls: it is short, and begun anew again and again
 *   one map, for all       that is as long as the file was when it was made; what is beyond is read with system calls
 *   changed by renew       after a commit, when no connection is in use, if the file has grown
 *   from the claim's file  no other descriptor is opened: closing one would take SQLite's locks away (see core/claim.h)
 *
 * A checkpoint writes into the file while others read the map. It writes no page that one of them would look for there, whether with
 * a system call or not: that is how WAL works ("Write-Ahead Logging", section 2.2). But the map must show what was written,
 * which it does where both are the page cache. So file systems are named here.
 */
#include "layers/sqlite-map.h"

#include <linux/magic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "core/safe-copy.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

static bool shows_what_is_written(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return false;
	switch ((uint32_t)fs.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case TMPFS_MAGIC:
	case OVERLAYFS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}

void db_map_drop(struct db_map *m)
{
	if (m->at)
		munmap((void *)m->at, m->size);
	*m = (struct db_map){0};
}

void db_map_renew(struct db_map *m, int fd)
{
	struct stat st;
	void *at;

	if (fstat(fd, &st) || (uint64_t)st.st_size <= m->size || (uint64_t)st.st_size > SIZE_MAX)
		return;
	if (!shows_what_is_written(fd))
		return;
	at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return;
	db_map_drop(m);
	*m = (struct db_map){.at = at, .size = (size_t)st.st_size};
}

static int mapped_read(sqlite3_file *file, void *to, int size, sqlite3_int64 offset)
{
	const struct mapped_file *f = (const struct mapped_file *)file->pMethods;
	const struct db_map *m = f->map;

	if (offset >= 0 && size >= 0 && (uint64_t)offset + (uint64_t)size <= m->size &&
	    !safe_copy(to, m->at + offset, (size_t)size))
		return SQLITE_OK;
	return f->real->xRead(file, to, size, offset);
}

void mapped_file_attach(struct mapped_file *f, sqlite3 *sql, const struct db_map *map)
{
	sqlite3_file *file = NULL;

	if (sqlite3_file_control(sql, "main", SQLITE_FCNTL_FILE_POINTER, &file) || !file || !file->pMethods)
		return;
	f->real = file->pMethods;
	f->map = map;
	f->methods = *f->real;
	if (f->methods.iVersion > 3) /* what a later version adds is not in the copy */
		f->methods.iVersion = 3;
	f->methods.xRead = mapped_read;
	file->pMethods = &f->methods;
}
