/* SPDX-License-Identifier: BSD-3-Clause */
/* The partitions of a disk, GPT and MBR: which there are, and each as a disk. For any door, and for the kind part. */
#ifndef PLATTER_DECORATORS_PARTITIONS_H
#define PLATTER_DECORATORS_PARTITIONS_H

#include "core/disk.h"

#define PARTITION_ID_MAX 40u
#define PARTITION_NAME_MAX 112u /* of 36 UTF-16 units as UTF-8 */
#define PARTITION_TEXT_MAX 200u

/* Everything about it is a stranger's, but checked: texts are UTF-8 without control characters. */
struct partition {
	unsigned number; /* as Linux counts: from 1; logical ones of an MBR from 5 */
	uint64_t offset; /* bytes. Where `fault` is empty: whole blocks, and inside the disk */
	uint64_t size;
	char type[PARTITION_ID_MAX];   /* GPT: a UUID, lower case; MBR: "0x83" */
	char uuid[PARTITION_ID_MAX];   /* as Linux' PARTUUID; MBR: "1b2c3d4e-01", "" where the disk has no number */
	char name[PARTITION_NAME_MAX]; /* GPT: the label; "": none */
	bool extended;                 /* MBR: holds logical partitions, and is no disk */
	unsigned overlaps;             /* the number of another one that has blocks in common with it; 0: none */
	char fault[PARTITION_TEXT_MAX]; /* why it cannot be opened, as in "partition 3 FAULT"; "": it can */
};

struct partition_table {
	const char *scheme;            /* "gpt", "mbr"; a static string */
	char id[PARTITION_ID_MAX];     /* GPT: UUID of the disk; MBR: "1b2c3d4e"; "": none */
	char note[PARTITION_TEXT_MAX]; /* what is damaged though it could be read, "" mostly: worth a warning */
	size_t count;
	struct partition *list; /* by number; also those with a fault, and extended ones, which have one */
};

#define CLEANUP_PARTITIONS __attribute__((cleanup(partitions_clear)))

/*
 * Reads the partition table of `d`, for its block size. `out` is zero-initialised or cleared, and to be cleared with
 * partitions_clear() after a success. -ENOENT: there is no table; -ENODATA: there is one that is damaged; others: the disk could
 * not be read. No table, however damaged, gives a window that is not inside the disk. Makes requests of `d`; no lock of the
 * caller's is needed, and what is written to the table meanwhile may be seen or not. For plain threads (it takes the stack
 * that libblkid takes).
 */
int partitions_list(struct disk *d, struct partition_table *out, struct error *err);

void partitions_clear(struct partition_table *t);

/* The partition of this number; or NULL, with `err` naming those that exist. */
const struct partition *partitions_find(const struct partition_table *t, unsigned number, struct error *err);

/*
 * Opens partition `p` of `table` as a disk of its own over `disk`, which is open already and stays the caller's.
 *
 *   - The new disk holds a reference to `disk` (disk_ref) from here to its end: in which order the caller closes it and
 *     partitions does not matter. disk_close() of a partition flushes `disk` (unless the partition is read-only), but closes it
 *     only where that was the last reference; then it also reports what failed in closing it.
 *   - *out is a root with one reference, the caller's, and is used and closed as what disk_open() returns. Any number of them,
 *     also of the same partition, may be open on one disk, and be used at the same time as it is.
 *   - Nothing of `table` or `p` is needed any more after the call.
 *   - The partition has counters of its own, and its requests count in those of `disk`, too. Its latency is not measured unless
 *     disk_measure_latency() asks for it.
 *   - It does not hear of size changes: what `disk` loses at its end fails with -ERANGE.
 *   - Byte views (core/bytes.h) of different partitions may be used beside each other, since no block is in two that can be written
 *     to; but a view of `disk` itself and one of a partition do not know of each other's range locks. Who offers both for
 *     writing uses the view of the whole for the partition, too, at p->offset.
 *
 * `flags` (enum open_flags): OPEN_READ_ONLY makes it read-only whatever `disk` is. Without it, a partition that overlaps
 * another is refused with -EROFS when `disk` is writable; one with a fault always, with -EINVAL.
 */
int partition_open(struct disk *disk, const struct partition_table *table, const struct partition *p, unsigned flags,
		   struct disk **out, struct error *err);

#endif
