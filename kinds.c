/* SPDX-License-Identifier: BSD-3-Clause */
/* The registry: the one place that names the kinds of disk this program has. A new kind is a line here and one in kinds.h. */
#include "kinds.h"

/* In the order of the manual. */
const struct disk_kind *const disk_kinds[] = {
	&mem_kind,
	&memdiff_kind,
	&layers_kind,
	&autocache_kind,
	&sql_kind,
	&sqldiff_kind,
	&vhd_kind,
	&file_kind,
	&mmap_kind,
	&vhdx_kind,
	&null_kind,
	&readonly_kind,
	&slice_kind,
	&part_kind,
	&prwrap_kind,
	&striped_kind,
	&delay_kind,
	&fault_kind,
	&crypt_kind,
	&luks_kind,
	NULL,
};

/* What a bare path opens as. A format whose kind is missing is an error, never raw bytes. */
const struct path_ending disk_path_endings[] = {
	{".vhd", "vhd", NULL},
	{".vhdx", "vhdx", NULL},
	{".avhdx", "vhdx", NULL},
	{".iso", "file", "ro"},
	{NULL, NULL, NULL},
};

const char disk_path_kind[] = "file";
