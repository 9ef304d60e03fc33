/* SPDX-License-Identifier: BSD-3-Clause */
/* The footer of a VHD file, as far as it tells what the file is: VHD specification 1.0, "Hard Disk Footer Format". */
#ifndef PLATTER_CLI_VHD_FOOTER_H
#define PLATTER_CLI_VHD_FOOTER_H

#include <stdbool.h>
#include <stdint.h>

#define VHD_FOOTER_SIZE 512u

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

struct vhd_footer {
	uint32_t version;       /* 0x00010000 */
	uint64_t original_size; /* bytes */
	uint64_t current_size;  /* bytes */
	uint32_t type;          /* enum vhd_type, or anything */
	bool sum_is_right;
};

/* False when there is no such footer in these VHD_FOOTER_SIZE bytes. */
bool vhd_footer_read(const unsigned char *data, struct vhd_footer *out);

#endif
