/* SPDX-License-Identifier: BSD-3-Clause */
/* Going over a disk from end to end, piece by piece, many pieces at a time: what copy, compare and hash have in common. */
#ifndef PLATTER_CLI_SWEEP_H
#define PLATTER_CLI_SWEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/progress.h"
#include "core/disk.h"

/* At most so many threads. */
#define SWEEP_MAX_JOBS 64u

/* What is good for most disks: enough at a time to keep one busy, pieces that stay in a processor's cache. */
#define SWEEP_JOBS "8"
#define SWEEP_PIECE (UINT64_C(512) << 10)

/* The row of a verb's options that says how many threads; `text` is its help. */
#define JOBS_OPTION(text)                                                                                              \
	{                                                                                                              \
		.name = "jobs", .letter = 'j', .argument = "N", .type = OPTION_NUMBER, .fallback = SWEEP_JOBS, .min = 1,  \
		.max = SWEEP_MAX_JOBS, .help = text                                                                    \
	}

/* One piece. They are handed out in the order of their offsets and numbers, without a gap. */
struct piece {
	uint64_t number; /* from 0 */
	uint64_t offset, length; /* bytes */
	unsigned flags;  /* enum extent_flags */
};

/* Filled in by the caller; all must stay until sweep_run() has returned. */
struct sweep {
	struct disk *disk;
	uint64_t offset, length;   /* whole blocks of the disk */
	unsigned jobs;             /* threads, at most; the calling one is one of them */
	uint64_t piece;            /* at most so many bytes of data at a time; 0: SWEEP_PIECE */
	uint64_t zero_piece;       /* at most so many bytes that read as zero at a time; 0: 64 MiB */
	uint64_t align;            /* pieces begin and end at multiples of it but for the end; a power of two; 0: block size */
	size_t buffer_size;        /* of the buffer that `visit` gets; 0: none */
	bool all_data;             /* take all for data; extents are not asked for */
	bool zeroes_are_free;      /* `visit` does nothing with what reads as zero: no thread is made for that */
	struct progress *progress; /* told of every piece that was visited; NULL: nobody */
	void *argument;

	/*
	 * Called by several threads at once. `buffer` is the thread's own, on a page. 0, or what ends the sweep: a negative errno
	 * with `err` set, or SWEEP_ENOUGH.
	 */
	int (*visit)(const struct sweep *s, const struct piece *p, void *buffer, struct error *err);
};

/* From `visit`: no later piece is of interest; earlier ones are still gone through to their end. */
#define SWEEP_ENOUGH 1

/* 0; or the first failure, with `err` set; -EINTR when a signal has asked the work to stop. */
int sweep_run(struct sweep *s, struct error *err);

/* As disk_read() and so on, from and to plain memory, with the failure told in `err`. `name` says which disk; NULL: there is one only. */
int read_piece(struct disk *d, const char *name, void *buffer, size_t size, uint64_t offset, struct error *err);
int write_piece(struct disk *d, const char *name, const void *buffer, size_t size, uint64_t offset, struct error *err);
int zero_piece(struct disk *d, const char *name, uint64_t offset, uint64_t length, unsigned io_flags, struct error *err);
int flush_disk(struct disk *d, const char *name, struct error *err);

/* As disk_extents(), with `out` prepared for it and empty: one run at least is found. */
int find_extents(struct disk *d, const char *name, struct extents *out, struct error *err);

/* The end of the run at *at within [0, size) of `data` that is all zero or has no zero granule; *zero says which. */
size_t zero_run_end(const char *data, size_t size, size_t at, size_t granule, bool *zero);

#endif
