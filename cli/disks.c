/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/disks.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>

#include "cli/output.h"
#include "cli/sweep.h"
#include "core/open.h"

#define RUNS_AT_A_TIME 4096u

int with_disk(const char *spec, const char *role, unsigned flags, int (*run)(struct disk *d, void *argument, struct error *err),
	      void *argument, struct error *err)
{
	CLEANUP_ERROR struct error closing = {0};
	struct disk *disk;
	int status = disk_open(spec, flags, &disk, err), closed;

	if (status)
		return role ? error_in_role(err, role, spec) : error_about(err, spec);
	status = run(disk, argument, err);
	if (status && !role)
		error_about(err, spec);
	closed = disk_close(disk, &closing);
	if (closed)
		(void)(role ? error_in_role(&closing, role, spec) : error_about(&closing, spec));
	return !status && closed ? error_move(err, &closing) : status;
}

int work_on_disk(const struct disk_work *w)
{
	CLEANUP_ERROR struct error err = {0};
	const struct verb_arguments *a = w->arguments;
	int status = progress_begin(w->progress, w->verb->name, (enum progress_form)a->numbers[w->progress_row], &err);

	if (!status)
		status = with_disk(a->operands[0], w->role, w->flags, w->run, w->argument, &err);
	if (status)
		verb_failed(w->verb->name, &err);
	progress_end(*w->progress);
	return status ? STATUS_FAILURE : STATUS_OK;
}

struct byte_range range_of(const struct verb_arguments *a, unsigned offset_row, unsigned length_row)
{
	return (struct byte_range){
		.offset_text = a->options[offset_row],
		.length_text = a->options[length_row],
		.offset = a->numbers[offset_row],
		.length = a->numbers[length_row],
	};
}

int range_check(struct byte_range *r, uint64_t size, struct error *err)
{
	if (r->offset > size)
		return error_set(err, -ERANGE, "--offset %s is past the end of the disk, which has %" PRIu64 " bytes",
				 r->offset_text, size);
	if (!r->length_text)
		r->length = size - r->offset;
	if (r->length > size - r->offset)
		return error_set(err, -ERANGE,
				 "%" PRIu64 " bytes at %" PRIu64 " go past the end of the disk, which has %" PRIu64
				 " bytes; at most %" PRIu64 " are there",
				 r->length, r->offset, size, size - r->offset);
	return 0;
}

static int some_extents(struct disk *d, struct extents *out, struct error *err)
{
	CLEANUP_EXTENTS struct extents found = {0};
	uint64_t next = extents_next(out);
	int status;

	extents_init(&found, next, out->end - next, RUNS_AT_A_TIME);
	status = find_extents(d, NULL, &found, err);
	if (status)
		return status;
	for (size_t i = 0; i < found.count; i++)
		extents_add(out, found.list[i].length, found.list[i].flags);
	return out->status ? error_set(err, out->status, "no memory") : 0;
}

int all_extents(struct disk *d, uint64_t offset, uint64_t length, struct extents *out, struct error *err)
{
	int status = 0;

	extents_init(out, offset, length, SIZE_MAX);
	while (!status && extents_next(out) < out->end)
		status = some_extents(d, out, err);
	return status;
}
