/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuse/options.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/nearest.h"
#include "core/spec.h"

/* One option: a flag, or one with a value, which `set` takes. */
struct row {
	const char *name;
	size_t flag; /* offset of the bool it sets; unused with `set` */
	int (*set)(struct mount_options *o, const char *value, struct error *err);
};

/* ------------------------------------------------------------------ values */

/* A number up to `max` in base `base`, whole and nothing behind it. */
static bool read_number(const char *text, int base, unsigned long max, unsigned long *out)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoul(text, &end, base);
	return *end == '\0' && errno == 0 && *out <= max;
}

static int set_uid(struct mount_options *o, const char *value, struct error *err)
{
	unsigned long number;
	const struct passwd *user;

	/* The last number is what system calls take for "unchanged". */
	if (read_number(value, 10, UINT32_MAX - 1, &number)) {
		o->uid = (uid_t)number;
		return 0;
	}
	user = getpwnam(value);
	if (!user)
		return error_set(err, -EINVAL, "uid=%s: there is no such user", value);
	o->uid = user->pw_uid;
	return 0;
}

static int set_gid(struct mount_options *o, const char *value, struct error *err)
{
	unsigned long number;
	const struct group *group;

	if (read_number(value, 10, UINT32_MAX - 1, &number)) {
		o->gid = (gid_t)number;
		return 0;
	}
	group = getgrnam(value);
	if (!group)
		return error_set(err, -EINVAL, "gid=%s: there is no such group", value);
	o->gid = group->gr_gid;
	return 0;
}

static int set_mode(struct mount_options *o, const char *value, struct error *err)
{
	unsigned long number;

	if (!read_number(value, 8, 0777, &number))
		return error_set(err, -EINVAL, "mode=%s: expected octal permissions, 0 to 777", value);
	o->mode = (mode_t)number;
	return 0;
}

static int set_threads(struct mount_options *o, const char *value, struct error *err)
{
	unsigned long number;

	if (!read_number(value, 10, MOUNT_MAX_THREADS, &number) || number == 0)
		return error_set(err, -EINVAL, "threads=%s: expected a number from 1 to %u", value,
				 MOUNT_MAX_THREADS);
	o->threads = (unsigned)number;
	return 0;
}

/* ------------------------------------------------------------------ the table */

#define FLAG(field) .flag = offsetof(struct mount_options, field)

static const struct row rows[] = {
	{.name = "allow_other", FLAG(allow_other)},
	{.name = "auto_unmount", FLAG(auto_unmount)},
	{.name = "direct_io", FLAG(direct_io)},
	{.name = "gid", .set = set_gid},
	{.name = "mode", .set = set_mode},
	{.name = "no_io_uring", FLAG(no_io_uring)},
	{.name = "parallel_direct_writes", FLAG(parallel)},
	{.name = "ro", FLAG(read_only)},
	{.name = "threads", .set = set_threads},
	{.name = "uid", .set = set_uid},
	{.name = "writeback", FLAG(writeback)},
};

const char mount_options_help[] =
	"Options of -o, with commas between them:\n"
	"  allow_other          let other users in (user_allow_other in /etc/fuse.conf)\n"
	"  auto_unmount         unmount even when the server is killed\n"
	"  direct_io            keep nothing in the kernel's page cache\n"
	"  parallel_direct_writes\n"
	"                       with direct_io: writers of one file need not wait for each other\n"
	"  no_io_uring          take requests from /dev/fuse, even where the kernel offers rings\n"
	"  writeback            gather writes in the page cache\n"
	"  ro                   open all disks read-only\n"
	"  uid=USER, gid=GROUP  who owns the files (default: who mounts)\n"
	"  mode=OCTAL           their permissions (default: 600, read-only disks 400)\n"
	"  threads=N            at most so many requests at once (default: 32)\n";

static const struct row *find_row(const char *name, size_t length, struct error *err)
{
	struct nearest nearest = nearest_to(name, length);

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0)
			return &rows[i];
		nearest_try(&nearest, rows[i].name);
	}
	error_set(err, -EINVAL, "there is no mount option '%.*s'", (int)length, name);
	if (nearest.word)
		error_hint(err, "did you mean '%s'?", nearest.word);
	return NULL;
}

static int apply(struct mount_options *o, const char *option, struct error *err)
{
	size_t length = strcspn(option, "=");
	const struct row *row = find_row(option, length, err);

	if (!row)
		return -EINVAL;
	if (row->set && option[length] == '\0')
		return error_set(err, -EINVAL, "mount option %s wants a value: %s=", row->name, row->name);
	if (row->set)
		return row->set(o, option + length + 1, err);
	if (option[length] != '\0')
		return error_set(err, -EINVAL, "mount option %s takes no value", row->name);
	*(bool *)((char *)o + row->flag) = true;
	return 0;
}

void mount_options_init(struct mount_options *o)
{
	*o = (struct mount_options){
		.uid = geteuid(),
		.gid = getegid(),
		.mode = (mode_t)-1,
		.threads = MOUNT_DEFAULT_THREADS,
	};
}

int mount_options_parse(struct mount_options *o, const char *text, struct error *err)
{
	char *copy = strdup(text), *next = copy, *option;
	int status = 0;

	if (!copy)
		return error_set(err, -ENOMEM, "no memory");
	while (status == 0 && (option = strsep(&next, ",")))
		if (*option != '\0')
			status = apply(o, option, err);
	free(copy);
	if (status == 0 && o->parallel && !o->direct_io)
		return error_set(err, -EINVAL, "mount option parallel_direct_writes works with direct_io only");
	if (status == 0 && o->writeback && o->direct_io)
		return error_set(err, -EINVAL, "mount options writeback and direct_io exclude each other");
	return status;
}
