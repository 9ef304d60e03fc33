/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making a database: SQLite builds it in memory, and its image is put into place as a whole. It is written and synced under
 * a name nobody uses, then renamed without overwriting, then the folder is synced. So there is never half a database
 * under the name that was asked for; what a crash can leave is the other name.
 */
#include "layers/sqlite-schema.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------------ the image */

/*
 * Pages of 4 KiB: a block of 4 KiB then takes one page of its own and an eighth of another, whereas larger pages are
 * read whole for it and leave room that no further block fits in (docs/formats/sqlite-layer.md has the figures).
 */
static const char start_text[] =
	"PRAGMA page_size=4096; PRAGMA application_id=0x506c7472; PRAGMA user_version=1";
_Static_assert(SCHEMA_APPLICATION_ID == 0x506c7472, "as it stands in start_text");

static int put_meta(sqlite3 *sql, const char *key, int64_t number, const void *blob, int size)
{
	sqlite3_stmt *s;
	int rc = sqlite3_prepare_v2(sql, "INSERT INTO meta VALUES(?,?)", -1, &s, NULL);

	if (rc)
		return rc;
	sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
	if (blob)
		sqlite3_bind_blob(s, 2, blob, size, SQLITE_STATIC);
	else
		sqlite3_bind_int64(s, 2, number);
	sqlite3_step(s);
	return sqlite3_finalize(s);
}

static int fill_image(sqlite3 *sql, const struct db_geometry *g)
{
	int rc = sqlite3_exec(sql, start_text, NULL, NULL, NULL);

	for (unsigned i = 0; i < SCHEMA_TABLES && !rc; i++)
		rc = sqlite3_exec(sql, schema_tables[i][1], NULL, NULL, NULL);
	if (!rc)
		rc = put_meta(sql, "size", (int64_t)g->size, NULL, 0);
	if (!rc)
		rc = put_meta(sql, "block_size", g->block_size, NULL, 0);
	if (!rc)
		rc = put_meta(sql, "physical_block_size", g->physical_block_size, NULL, 0);
	if (!rc && g->has_id)
		rc = put_meta(sql, "id", 0, g->id, sizeof(g->id));
	return rc;
}

/* To be freed with sqlite3_free(). */
static unsigned char *make_image(const struct db_geometry *g, sqlite3_int64 *size, struct error *err)
{
	unsigned char *image = NULL;
	sqlite3 *sql = NULL;
	int rc = sqlite3_open_v2(":memory:", &sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);

	if (!rc)
		rc = fill_image(sql, g);
	if (!rc)
		image = sqlite3_serialize(sql, "main", size, 0);
	if (!image)
		error_set(err, -ENOMEM, "cannot make a database: %s", sqlite3_errstr(rc ? rc : SQLITE_NOMEM));
	sqlite3_close(sql);
	return image;
}

/* ------------------------------------------------------------------ its place */

static int write_all(int fd, const unsigned char *bytes, size_t size)
{
	while (size) {
		ssize_t n = write(fd, bytes, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		bytes += n;
		size -= (size_t)n;
	}
	return fsync(fd) ? -errno : 0;
}

/* Opens a new file beside `path`; its name is to be freed. */
static int open_beside(const char *path, char **name)
{
	uint64_t random;
	int fd;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	if (asprintf(name, "%s.new-%016" PRIx64, path, random) < 0) {
		*name = NULL;
		return -ENOMEM;
	}
	fd = open(*name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
	return fd < 0 ? -errno : fd;
}

/* Where the file system has no such rename, a link does as well. */
static int move_without_overwriting(const char *from, const char *to)
{
	if (!renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (link(from, to))
		return -errno;
	unlink(from);
	return 0;
}

static int sync_folder(const char *path)
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

static int place_image(const char *path, const unsigned char *image, size_t size)
{
	char *name = NULL;
	int fd = open_beside(path, &name), status = fd < 0 ? fd : 0;

	if (!status) {
		status = write_all(fd, image, size);
		if (close(fd) && !status)
			status = -errno;
		if (!status)
			status = move_without_overwriting(name, path);
		if (status)
			unlink(name);
	}
	free(name);
	if (status)
		return status;
	status = sync_folder(path);
	if (status)
		unlink(path);
	return status;
}

/* A log or journal that another database left would be taken for that of the new one. Empty ones are harmless. */
static int check_beside(const char *path, struct error *err)
{
	static const char *const endings[] = {"-wal", "-journal"};
	struct stat st;
	char *name;
	int status = 0;

	for (unsigned i = 0; i < 2 && !status; i++) {
		if (asprintf(&name, "%s%s", path, endings[i]) < 0)
			return error_set(err, -ENOMEM, "no memory");
		if (!stat(name, &st) && st.st_size)
			status = error_set(err, -EEXIST, "'%s' is left from another database of that name: remove it, "
					   "or bring the database back", name);
		free(name);
	}
	return status;
}

int schema_create(const char *path, const struct db_geometry *g, struct error *err)
{
	sqlite3_int64 size = 0;
	unsigned char *image;
	int status;

	if (!access(path, F_OK))
		return error_set(err, -EEXIST, "'%s' exists already; create never overwrites a file", path);
	status = check_beside(path, err);
	if (status)
		return status;
	image = make_image(g, &size, err);
	if (!image)
		return -ENOMEM;
	status = place_image(path, image, (size_t)size);
	sqlite3_free(image);
	if (status == -EEXIST)
		return error_set(err, status, "'%s' exists already; create never overwrites a file", path);
	return status ? error_set_errno(err, status, "cannot create '%s'", path) : 0;
}
