/* SPDX-License-Identifier: BSD-3-Clause */
/* What libblkid is given to read: a file in memory with what a disk has of partition tables. */
#ifndef PLATTER_DECORATORS_PARTITIONS_COPY_H
#define PLATTER_DECORATORS_PARTITIONS_COPY_H

#include "core/disk.h"

#define TABLE_TEXT_MAX 200u

struct table_copy {
	struct disk *disk;
	uint32_t block;  /* bytes */
	uint64_t blocks; /* of the disk */
	unsigned char *buffer;
	int fd;
	uint64_t size;             /* what the file is to be taken for, bytes */
	int status;                /* of the first read that failed */
	char trouble[280];            /* its reason */
	char note[TABLE_TEXT_MAX]; /* the first thing that was wrong and left out; "": nothing was */
};

/* Begins a copy of `d`, which holds nothing. On failure there is nothing to be dropped. */
int table_copy_begin(struct table_copy *c, struct disk *d, struct error *err);
void table_copy_drop(struct table_copy *c);

/* Copies what belongs to a GPT to where it is on the disk. A failed read is kept in `c`; failures here are the machine's. */
int table_copy_gpt(struct table_copy *c, struct error *err);

/*
 * Copies what belongs to an MBR, block N of the disk to byte 512 * N: so it is the table of a disk with blocks of 512 bytes,
 * whatever the disk has. What is not whole in the chain of extended boot records is cut off. As above otherwise.
 */
int table_copy_mbr(struct table_copy *c, struct error *err);

/* True when the GPT seems to be one for blocks of another size, which is then in *block. */
bool table_copy_other_block(struct table_copy *c, uint32_t *block);

#endif
