/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What Azure asks of an uploaded image, from "Prepare a Windows VHD or VHDX to upload to Azure" and "Upload a VHD to Azure": a fixed
 * VHD, whose virtual size is whole MiB and at most 32 TiB (of an operating system, 2 TiB; it says 4095 GiB for some), and which is
 * as long as the disk plus the footer. The virtual size is the footer's current size; Hyper-V does not go by the geometry.
 */
#include "cli/lint-azure.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "cli/output.h"
#include "cli/vhd-footer.h"

#define MIB (UINT64_C(1) << 20)
#define MAX_SYSTEM (UINT64_C(2) << 40)
#define MAX_DATA (UINT64_C(32) << 40)

struct lint {
	json_t *problems;
	const char *path;
	int fd;
	uint64_t size; /* of the file */
};

static void problem(struct lint *l, const char *mend, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void problem(struct lint *l, const char *mend, const char *format, ...)
{
	char text[256];
	va_list list;

	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	json_array_append_new(l->problems, json_pack("{s:s, s:s}", "problem", text, "mend", mend ? mend : "no memory to tell"));
}

/* A copy that is right in all respects; the options are for reading. To be freed; NULL when memory ran out. */
static char *copy_command(const struct lint *l, const char *kind, const char *options)
{
	char *command;
	int length = asprintf(&command, "platter convert '%s:%s%s' 'vhd:NEW.vhd;type=fixed'", kind, l->path, options);

	return length < 0 ? NULL : command;
}

static char *resize_command(const struct lint *l, const char *kind, uint64_t size)
{
	char *command;
	int length = asprintf(&command, "platter resize '%s:%s' %" PRIu64, kind, l->path, size);

	return length < 0 ? NULL : command;
}

static int read_at(const struct lint *l, void *data, size_t size, uint64_t offset, struct error *err)
{
	ssize_t n = pread(l->fd, data, size, (off_t)offset);

	if (n < 0)
		return error_set_errno(err, -errno, "reading '%s'", l->path);
	return n == (ssize_t)size ? 0 : error_set(err, -EIO, "'%s' became shorter while it was read", l->path);
}

/* ------------------------------------------------------------------ what can be wrong */

static void check_size(struct lint *l, const char *kind, uint64_t size)
{
	uint64_t rounded = size > UINT64_MAX - MIB ? size : (size + MIB - 1) / MIB * MIB;

	if (size % MIB > 0) {
		char *mend = resize_command(l, kind, rounded);
		problem(l, mend, "the disk has %" PRIu64 " bytes, which is not whole MiB", size);
		free(mend);
	}
	if (size > MAX_DATA)
		problem(l, "use a smaller disk", "the disk has %" PRIu64 " bytes, more than 32 TiB", size);
	else if (size > MAX_SYSTEM)
		problem(l, "use it for data only, or a smaller disk",
			"the disk has %" PRIu64 " bytes; one with an operating system may have at most 2 TiB", size);
}

static void check_footer(struct lint *l, const struct vhd_footer *f)
{
	char *copy = copy_command(l, "vhd", ""), *mending = copy_command(l, "vhd", ";lax");

	check_size(l, "vhd", f->current_size);
	if (!f->sum_is_right)
		problem(l, mending, "the checksum of the VHD footer is wrong");
	if (f->version != 0x00010000)
		problem(l, copy, "the VHD footer is of version 0x%08" PRIx32 ", not 0x00010000", f->version);
	if (f->type != VHD_FIXED)
		problem(l, copy, "it is a %s VHD, not a fixed one",
			f->type == VHD_DYNAMIC        ? "dynamic"
			: f->type == VHD_DIFFERENCING ? "differencing"
						      : "strange");
	else if (f->current_size != l->size - VHD_FOOTER_SIZE)
		problem(l, copy, "the file has %" PRIu64 " bytes; a disk of %" PRIu64 " bytes and the footer are %" PRIu64,
			l->size, f->current_size, f->current_size + VHD_FOOTER_SIZE);
	if (f->current_size != f->original_size)
		problem(l, "nothing has to be done: the current size is what counts",
			"note: the disk was resized, from %" PRIu64 " to %" PRIu64 " bytes", f->original_size, f->current_size);
	free(mending);
	free(copy);
}

static void check_no_vhd(struct lint *l, const char *head)
{
	bool vhdx = memcmp(head, "vhdxfile", 8) == 0;
	char *copy = copy_command(l, vhdx ? "vhdx" : "file", "");

	if (vhdx) {
		problem(l, copy, "it is a vhdx image, not a VHD");
	} else if (memcmp(head, "QFI\xfb", 4) == 0) {
		problem(l, "qemu-img convert -f qcow2 -O vpc -o subformat=fixed,force_size IMAGE NEW.vhd",
			"it is a qcow2 image, not a VHD");
	} else {
		check_size(l, "file", l->size); /* first, so that the copy is right */
		problem(l, copy, "there is no VHD footer at the end");
	}
	free(copy);
}

/* ------------------------------------------------------------------ */

static int look(struct lint *l, struct error *err)
{
	unsigned char block[VHD_FOOTER_SIZE];
	char head[8];
	struct vhd_footer footer;
	int status;

	if (l->size < sizeof(block)) {
		problem(l, "is it the right file?", "the file has only %" PRIu64 " bytes", l->size);
		return 0;
	}
	status = read_at(l, block, sizeof(block), l->size - sizeof(block), err);
	if (!status)
		status = read_at(l, head, sizeof(head), 0, err);
	if (status)
		return status;
	if (vhd_footer_read(block, &footer))
		check_footer(l, &footer);
	else
		check_no_vhd(l, head);
	return 0;
}

static bool is_note(const json_t *p)
{
	return strncmp(json_string_value(json_object_get(p, "problem")), "note: ", 6) == 0;
}

/* 1 when there is a problem that is not just a note. */
static int print_problems(struct lint *l, bool as_json)
{
	bool accepted = true;
	json_t *p;
	size_t i;

	json_array_foreach(l->problems, i, p)
		accepted = accepted && is_note(p);
	if (as_json) {
		print_json(json_pack("{s:s, s:s, s:b, s:O}", "file", l->path, "for", "azure", "accepted", accepted, "problems",
				     l->problems));
		return !accepted;
	}
	json_array_foreach(l->problems, i, p)
		printf("%s\n    to mend it: %s\n", json_string_value(json_object_get(p, "problem")),
		       json_string_value(json_object_get(p, "mend")));
	printf("Azure would %saccept '%s'\n", accepted ? "" : "not ", l->path);
	return !accepted;
}

static int open_file(struct lint *l, struct error *err)
{
	struct stat st;

	l->fd = open(l->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (l->fd < 0 || fstat(l->fd, &st))
		return error_set_errno(err, -errno, "'%s'", l->path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "'%s' is not a regular file", l->path);
	l->size = (uint64_t)st.st_size;
	return 0;
}

int lint_azure(const char *path, bool as_json, struct error *err)
{
	struct lint l = {.problems = json_array(), .path = path, .fd = -1};
	int status = open_file(&l, err);

	if (!status)
		status = look(&l, err);
	if (!status)
		status = print_problems(&l, as_json);
	if (l.fd >= 0)
		close(l.fd);
	json_decref(l.problems);
	return status;
}
