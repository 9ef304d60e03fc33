/* SPDX-License-Identifier: BSD-3-Clause */
/* platter measure SPEC */
#include "cli/verb.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#include "cli/disks.h"
#include "cli/output.h"
#include "cli/sweep.h"
#include "core/tree-text.h"

enum { OPTION_SCAN, OPTION_JSON, OPTION_JOBS, OPTION_PROGRESS };

/* Zeroes are looked for in pieces of so many bytes, as convert does. */
#define GRANULE 4096u

struct job {
	const struct verb_arguments *arguments;
	struct progress *progress;
	uint64_t size, data, zero, hole; /* bytes */
	size_t runs;
	_Atomic uint64_t not_zero; /* bytes of data that are, found by --scan */
};

static int scan_piece(const struct sweep *s, const struct piece *p, void *buffer, struct error *err)
{
	struct job *job = s->argument;
	size_t size = (size_t)p->length, at = 0;
	int status;

	if (p->flags & EXTENT_ZERO)
		return 0;
	status = read_piece(s->disk, NULL, buffer, size, p->offset, err);
	while (!status && at < size) {
		bool zero;
		size_t end = zero_run_end(buffer, size, at, GRANULE, &zero);
		if (!zero)
			atomic_fetch_add(&job->not_zero, end - at);
		at = end;
	}
	return status;
}

static int scan(struct job *job, struct disk *d, struct error *err)
{
	struct sweep s = {
		.disk = d,
		.length = job->size,
		.jobs = (unsigned)job->arguments->numbers[OPTION_JOBS],
		.buffer_size = SWEEP_PIECE,
		.progress = job->progress,
		.argument = job,
		.visit = scan_piece,
	};

	progress_phase(job->progress, "scan", job->size);
	return sweep_run(&s, err);
}

static int measure_disk(struct disk *d, void *argument, struct error *err)
{
	CLEANUP_EXTENTS struct extents all = {0};
	struct job *job = argument;
	int status;

	job->size = disk_size(d);
	status = all_extents(d, 0, job->size, &all, err);
	if (status)
		return status;
	job->runs = all.count;
	for (size_t i = 0; i < all.count; i++) {
		const struct extent *e = &all.list[i];
		uint64_t *sort = !(e->flags & EXTENT_ZERO) ? &job->data : e->flags & EXTENT_HOLE ? &job->hole : &job->zero;
		*sort += e->length;
	}
	return job->arguments->options[OPTION_SCAN] ? scan(job, d, err) : 0;
}

static void print_row(const char *name, uint64_t bytes, const char *meaning)
{
	char text[BYTES_TEXT_MAX];

	printf("%-10s %s%s\n", name, print_bytes(bytes, text), meaning);
}

static int print_measures(struct job *job)
{
	bool scanned = job->arguments->options[OPTION_SCAN] != NULL;
	uint64_t needed = scanned ? atomic_load(&job->not_zero) : job->data;

	if (job->arguments->options[OPTION_JSON])
		return print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "size", (json_int_t)job->size,
					    "data_bytes", (json_int_t)job->data, "zero_bytes", (json_int_t)job->zero,
					    "hole_bytes", (json_int_t)job->hole, "runs", (json_int_t)job->runs,
					    "required_bytes", (json_int_t)needed, "scanned", scanned));
	print_row("size", job->size, ": what a raw file needs that holds all of it");
	print_row("data", job->data, ", allocated");
	print_row("zero", job->zero, ", allocated, reads as zeroes");
	print_row("hole", job->hole, ", takes no space");
	printf("%-10s %zu\n", "runs", job->runs);
	print_row("required", needed, scanned ? ": what a sparse copy takes" : ": what a sparse copy takes at most (--scan looks)");
	return STATUS_OK;
}

static int measure(const struct verb_arguments *a)
{
	struct job job = {.arguments = a};
	int status = work_on_disk(&(struct disk_work){
		.verb = &verb_measure,
		.arguments = a,
		.progress_row = OPTION_PROGRESS,
		.progress = &job.progress,
		.flags = OPEN_READ_ONLY,
		.run = measure_disk,
		.argument = &job,
	});

	return status ? status : print_measures(&job);
}

const struct verb verb_measure = {
	.name = "measure",
	.operands = "SPEC",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "Say how much space a copy of a disk would take",
	.options =
		(const struct verb_option[]){
			[OPTION_SCAN] = {.name = "scan", .help = "read the data, and count what of it is zeroes"},
			[OPTION_JSON] = {.name = "json", .help = "print JSON"},
			[OPTION_JOBS] = JOBS_OPTION("read so many pieces at a time"),
			[OPTION_PROGRESS] = PROGRESS_OPTION,
			{0},
		},
	.run = measure,
};
