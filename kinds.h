/* SPDX-License-Identifier: BSD-3-Clause */
/* The kinds of disk this program has, each defined in its own file; listed in kinds.c. */
#ifndef PLATTER_KINDS_H
#define PLATTER_KINDS_H

#include "core/kind.h"

extern const struct disk_kind autocache_kind;
extern const struct disk_kind delay_kind;
extern const struct disk_kind crypt_kind;
extern const struct disk_kind fault_kind;
extern const struct disk_kind file_kind;
extern const struct disk_kind mem_kind;
extern const struct disk_kind memdiff_kind;
extern const struct disk_kind layers_kind;
extern const struct disk_kind luks_kind;
extern const struct disk_kind mmap_kind;
extern const struct disk_kind null_kind;
extern const struct disk_kind part_kind;
extern const struct disk_kind prwrap_kind;
extern const struct disk_kind readonly_kind;
extern const struct disk_kind slice_kind;
extern const struct disk_kind sql_kind;
extern const struct disk_kind sqldiff_kind;
extern const struct disk_kind striped_kind;
extern const struct disk_kind vhd_kind;
extern const struct disk_kind vhdx_kind;

#endif
