/* SPDX-License-Identifier: BSD-3-Clause */
/* The log of a VHDX file: finding what is to be replayed, and replaying it ([MS-VHDX] 2.3). */
#ifndef PLATTER_FORMATS_VHDX_LOG_H
#define PLATTER_FORMATS_VHDX_LOG_H

#include "formats/container.h"
#include "formats/vhdx-header.h"

/* A valid entry. */
struct vhdx_log_entry {
	uint64_t sequence;
	uint32_t offset; /* in the log, bytes; so is `tail` */
	uint32_t length;
	uint32_t tail;
	uint32_t count;  /* descriptors */
	uint64_t flushed_size;
	uint64_t last_size;
};

/* A log with something in it. */
struct vhdx_log {
	struct container *c;
	struct guid guid;
	uint64_t offset; /* in the file */
	uint32_t length;
	struct vhdx_log_entry *active; /* owned; from the tail to the head, to be applied in this order */
	uint32_t count;
	uint32_t valid;      /* valid entries, also those that are not active */
	uint64_t last_size;  /* what the file is to be long, at least */
	char rejected[200];  /* the first entry of this log that is none, and why; "" */
	uint8_t *window;     /* owned: a part of the log that was read last */
	uint64_t window_at;  /* page; UINT64_MAX: none */
};

/*
 * Finds the active sequence of the log whose header says that it is not empty. All entries are checked as the specification
 * says (2.3.2), what they are to change as well. No active sequence, or a file that is shorter than it was when the log was
 * written, is an error that tells which entry was the first that is none, and why.
 */
int vhdx_log_load(struct container *c, const struct vhdx_header *h, struct vhdx_log *out, struct error *err);
void vhdx_log_free(struct vhdx_log *l);

/* One change: `data` of one page, or NULL: `length` zeroes. Returns 0 or a status with `err` set, which ends the replay. */
typedef int vhdx_log_change(void *argument, uint64_t target, uint64_t length, const uint8_t *data, struct error *err);

/* Calls `change` for all changes in their order. */
int vhdx_log_each(struct vhdx_log *l, vhdx_log_change *change, void *argument, struct error *err);

/*
 * Replays into the file, whose header gets a new FileWriteGuid before, and makes it durable; then says so in the header, and makes that
 * durable. Interrupted at any point it can be done again.
 */
int vhdx_log_replay(struct vhdx_log *l, struct vhdx_headers *h, struct error *err);

/*
 * Replays in memory: *out shows `l->c`, which it takes over, as it would be after the replay, and cannot be written to. Refused
 * where more than VHDX_OVERLAY_MAX bytes would have to be kept.
 */
int vhdx_log_overlay(struct vhdx_log *l, struct container **out, struct error *err);

#define VHDX_OVERLAY_MAX (64u << 20)

/* Frees the overlay, but not what it showed, which is the caller's again. */
void vhdx_overlay_undo(struct container *overlay);

/* ------------------------------------------------------------------ making entries */

/* One page to be changed. */
struct vhdx_logged {
	uint64_t target; /* in the file, a multiple of 4 KiB */
	const uint8_t *data;
};

/* Bytes of an entry of `count` pages. */
uint32_t vhdx_log_entry_size(uint32_t count);

/* Writes the entry to `out`, of vhdx_log_entry_size() bytes. Of `e` sequence, tail and the file sizes are taken. */
void vhdx_log_encode(const struct vhdx_log_entry *e, const struct guid *guid, const struct vhdx_logged *pages, uint32_t count,
		     uint8_t *out);

#endif
