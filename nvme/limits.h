/* SPDX-License-Identifier: BSD-3-Clause */
/* What Identify tells of limits, and commands keep to. */
#ifndef PLATTER_NVME_LIMITS_H
#define PLATTER_NVME_LIMITS_H

#include "nvme/internal.h"

/* Compare and Write: blocks, one less in ACWU. */
#define NVME_ACWU_BLOCKS 1u

/* Copy: source ranges (MSRC is one less), bytes of one range (MSSRL) and of all (MCL). */
#define NVME_COPY_RANGES 128u
#define NVME_COPY_RANGE_BYTES (UINT64_C(1) << 20)
#define NVME_COPY_BYTES (UINT64_C(4) << 20)

static inline uint64_t nvme_copy_range_blocks(const struct nvme_namespace *n)
{
	return NVME_COPY_RANGE_BYTES >> n->block_shift;
}

static inline uint64_t nvme_copy_blocks(const struct nvme_namespace *n)
{
	return NVME_COPY_BYTES >> n->block_shift;
}

/* Blocks that were made unreadable are remembered in so many ranges a namespace. */
#define NVME_BAD_RANGES 4096u

#endif
