/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The nbdkit plugin: NBD requests become disk operations.
 *
 * A disk is opened when nbdkit is ready to serve and before it forks, once for all clients; a connection is
 * no more than a pointer to its export. So one byte view orders the writes of all connections, a flush on one
 * of them covers what was answered on any (can_multi_conn), and a client that comes and goes leaves nothing
 * behind. Engine threads start at the first request, hence after the fork.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "core/exports.h"
#include "core/hot.h"
#include "core/kind.h"
#include "core/open.h"
#include "nbdkit-plugin/command-line.h"
#include "nbdkit-plugin/status.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* nbdkit drops a client that sends or asks for more in one request. */
#define MAX_REQUEST_BYTES (64u << 20)

/* The most runs given in one answer to a block status request. */
#define MAX_RUNS 65536

/* nbdkit loads a plugin once in a process and hands no context to its configuration callbacks. */
static struct export_table table;

/* ------------------------------------------------------------------ configuration */

static int report(struct error *err)
{
	nbdkit_set_error(err->status < 0 ? -err->status : EINVAL);
	nbdkit_error("%s", error_text(err));
	return -1;
}

static int platter_config(const char *key, const char *value)
{
	CLEANUP_ERROR struct error err = {0};

	return exports_config(&table, key, value, &err) < 0 ? report(&err) : 0;
}

static int platter_config_complete(void)
{
	CLEANUP_ERROR struct error err = {0};

	return exports_check(&table, &err) < 0 ? report(&err) : 0;
}

static int platter_get_ready(void)
{
	CLEANUP_ERROR struct error err = {0};
	unsigned flags = command_line_is_read_only() ? OPEN_READ_ONLY : 0;

	nbdkit_debug("disks are opened %s", flags & OPEN_READ_ONLY ? "read-only" : "for reading and writing");
	return exports_open(&table, flags, &err) < 0 ? report(&err) : 0;
}

/* After the last connection has ended; what could not be saved is said while somebody may still read it. */
static void platter_cleanup(void)
{
	CLEANUP_ERROR struct error err = {0};

	if (exports_close(&table, &err) < 0)
		report(&err);
}

static void platter_unload(void)
{
	exports_close(&table, NULL);
	exports_free(&table);
}

static void platter_dump_plugin(void)
{
	printf("platter_version=%s\nplatter_kinds=", PACKAGE_VERSION);
	for (size_t i = 0; disk_kinds[i]; i++)
		printf("%s%s", i > 0 ? "," : "", disk_kinds[i]->name);
	printf("\nplatter_features=exports,multi-conn,extents,fast-zero,fua,cache\n");
}

/* ------------------------------------------------------------------ exports */

static int platter_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
	(void)readonly;
	(void)is_tls;
	for (size_t i = 0; i < table.count; i++)
		if (nbdkit_add_export(exports, table.list[i].name, table.list[i].description) < 0)
			return -1;
	return 0;
}

static const char *platter_default_export(int readonly, int is_tls)
{
	const char *name = exports_default_name(&table);

	(void)readonly;
	(void)is_tls;
	/* Where there is none, .open refuses the empty name and says which names there are. */
	return name ? name : "";
}

static void *platter_open(int readonly)
{
	CLEANUP_ERROR struct error err = {0};
	const char *name = nbdkit_export_name();

	(void)readonly; /* nbdkit sees to it, and the disk is open read-only already: command-line.c */
	if (!name)
		return NULL;
	struct export *e = exports_find(&table, name, &err);
	if (!e)
		report(&err);
	return e;
}

static const char *platter_export_description(void *handle)
{
	const struct export *e = handle;

	return e->description;
}

/* ------------------------------------------------------------------ what the disk can do */

static const struct disk_info *info(void *handle)
{
	const struct export *e = handle;

	return disk_info(bytes_disk(e->bytes));
}

static int64_t platter_get_size(void *handle)
{
	const struct export *e = handle;

	return (int64_t)disk_size(bytes_disk(e->bytes));
}

static int platter_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	uint32_t physical = info(handle)->physical_block_size;

	/* The protocol allows 512 bytes to 32 MiB here; clients take less than a page for no advice at all.
	 */
	if (physical < 4096)
		physical = 4096;
	if (physical > 32u << 20)
		physical = 32u << 20;
	*minimum = 1;
	*preferred = physical;
	*maximum = MAX_REQUEST_BYTES;
	return 0;
}

static int platter_can_write(void *handle)
{
	return !(info(handle)->flags & DISK_READ_ONLY);
}

static int platter_is_rotational(void *handle)
{
	return (info(handle)->flags & DISK_ROTATIONAL) != 0;
}

static int platter_can_trim(void *handle)
{
	return info(handle)->discard != DISK_DISCARD_IGNORED;
}

static int platter_can_fast_zero(void *handle)
{
	return (info(handle)->flags & DISK_FAST_ZERO) != 0;
}

static int platter_can_fua(void *handle)
{
	return info(handle)->flags & DISK_FUA ? NBDKIT_FUA_NATIVE : NBDKIT_FUA_EMULATE;
}

static int platter_can_cache(void *handle)
{
	(void)handle;
	return NBDKIT_CACHE_NATIVE;
}

/* Flush, zero and extents work on every disk; connections to one export share it. */
static int always(void *handle)
{
	(void)handle;
	return 1;
}

/* ------------------------------------------------------------------ requests */

/* What one request carries down the tree, and what it is called when it fails. */
struct request {
	const char *name;
	bool writing;
	struct failure failure;
	struct io io;
};

static void begin(struct request *r, const char *name, bool writing, unsigned io_flags)
{
	r->name = name;
	r->writing = writing;
	atomic_init(&r->failure.claimed, 0); /* empty; its text need not be cleared for every request */
	r->failure.text[0] = '\0';
	r->io = (struct io){.flags = io_flags, .failure = &r->failure};
}

static void log_failure(const struct request *r, int status, uint64_t offset, uint64_t count)
{
	CLEANUP_ERROR struct error unexplained = {0};
	const char *text = r->failure.text;

	if (*text == '\0') {
		error_set_errno(&unexplained, status, "failed");
		text = error_text(&unexplained);
	}
	if (count > 0)
		nbdkit_error("%s of %" PRIu64 " bytes at %" PRIu64 ": %s", r->name, count, offset, text);
	else
		nbdkit_error("%s: %s", r->name, text);
}

static int end(const struct request *r, int status, uint64_t offset, uint64_t count)
{
	if (status == 0)
		return 0;
	/* "Not fast" is an answer, after which the client writes zeroes itself, and no failure. */
	if (status != -EOPNOTSUPP || (r->io.flags & IO_FAST_ONLY) == 0)
		log_failure(r, status, offset, count);
	/* Last, so that nothing above can change it; errno itself says nothing here (errno_is_preserved is
	 * 0). */
	nbdkit_set_error(status_to_nbd(status, r->writing));
	return -1;
}

static unsigned fua(uint32_t flags)
{
	return flags & NBDKIT_FLAG_FUA ? IO_FUA : 0;
}

HOT static int platter_pread(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
	const struct export *e = handle;
	struct request r;

	(void)flags;
	begin(&r, "read", false, 0);
	return end(&r, bytes_read(e->bytes, &VEC_FLAT(buffer, count), offset, &r.io), offset, count);
}

HOT static int platter_pwrite(void *handle, const void *buffer, uint32_t count, uint64_t offset,
			      uint32_t flags)
{
	const struct export *e = handle;
	struct request r;

	begin(&r, "write", true, fua(flags));
	return end(&r, bytes_write(e->bytes, &VEC_FLAT(buffer, count), offset, &r.io), offset, count);
}

static int platter_flush(void *handle, uint32_t flags)
{
	const struct export *e = handle;
	struct request r;

	(void)flags;
	begin(&r, "flush", true, 0);
	return end(&r, bytes_flush(e->bytes, &r.io), 0, 0);
}

static int platter_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	const struct export *e = handle;
	struct request r;

	begin(&r, "trim", true, fua(flags));
	return end(&r, bytes_discard(e->bytes, offset, count, &r.io), offset, count);
}

static int platter_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	const struct export *e = handle;
	struct request r;
	unsigned io_flags = fua(flags);

	if (flags & NBDKIT_FLAG_MAY_TRIM)
		io_flags |= IO_MAY_UNMAP;
	if (flags & NBDKIT_FLAG_FAST_ZERO)
		io_flags |= IO_FAST_ONLY;
	begin(&r, "write of zeroes", true, io_flags);
	return end(&r, bytes_write_zeroes(e->bytes, offset, count, &r.io), offset, count);
}

static int platter_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	const struct export *e = handle;
	struct request r;

	(void)flags;
	begin(&r, "prefetch", false, 0);
	return end(&r, bytes_prefetch(e->bytes, offset, count, &r.io), offset, count);
}

static int add_runs(struct nbdkit_extents *to, const struct extents *from)
{
	for (size_t i = 0; i < from->count; i++) {
		const struct extent *run = &from->list[i];
		uint32_t type = 0;
		if (run->flags & EXTENT_ZERO)
			type |= NBDKIT_EXTENT_ZERO;
		if (run->flags & EXTENT_HOLE)
			type |= NBDKIT_EXTENT_HOLE;
		if (nbdkit_add_extent(to, run->offset, run->length, type) < 0)
			return -1; /* nbdkit said why */
	}
	return 0;
}

static int platter_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
			   struct nbdkit_extents *extents)
{
	const struct export *e = handle;
	CLEANUP_EXTENTS struct extents runs;
	struct request r;

	begin(&r, "block status", false, 0);
	extents_init(&runs, offset, count, flags & NBDKIT_FLAG_REQ_ONE ? 1 : MAX_RUNS);
	if (end(&r, bytes_extents(e->bytes, &runs, &r.io), offset, count) < 0)
		return -1;
	return add_runs(extents, &runs);
}

/* ------------------------------------------------------------------ */

#define CONFIG_HELP                                                                                  \
	"[disk=]SPEC          the unnamed disk: mem:1G, file:disk.img, memdiff:file:base.img, ...\n" \
	"NAME=SPEC            a disk exported as NAME, as often as needed\n"                         \
	"export=NAME=SPEC     the same for any name (in double quotes if there is a '=' in it)\n"    \
	"exports=FILE         a list of them: a line each, NAME SPEC or NAME=SPEC\n"                 \
	"'platter kinds' lists the kinds of disks that can stand in a SPEC."

static struct nbdkit_plugin plugin = {
	.name = "platter",
	.longname = "Platter composed disks",
	.version = PACKAGE_VERSION,
	.description =
		"Serves virtual disks that are composed of layers: RAM, files, differencing disks, ...",
	.magic_config_key = "disk",
	.config = platter_config,
	.config_complete = platter_config_complete,
	.config_help = CONFIG_HELP,
	.get_ready = platter_get_ready,
	.cleanup = platter_cleanup,
	.unload = platter_unload,
	.dump_plugin = platter_dump_plugin,
	.list_exports = platter_list_exports,
	.default_export = platter_default_export,
	.export_description = platter_export_description,
	.open = platter_open,
	.get_size = platter_get_size,
	.block_size = platter_block_size,
	.can_write = platter_can_write,
	.can_flush = always,
	.is_rotational = platter_is_rotational,
	.can_trim = platter_can_trim,
	.can_zero = always,
	.can_fast_zero = platter_can_fast_zero,
	.can_fua = platter_can_fua,
	.can_multi_conn = always,
	.can_extents = always,
	.can_cache = platter_can_cache,
	.pread = platter_pread,
	.pwrite = platter_pwrite,
	.flush = platter_flush,
	.trim = platter_trim,
	.zero = platter_zero,
	.extents = platter_extents,
	.cache = platter_cache,
};

NBDKIT_REGISTER_PLUGIN(plugin)
