/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/vhd-footer.h"

#include <string.h>

/* Where the fields are; all numbers are big-endian. */
enum { AT_VERSION = 12, AT_ORIGINAL_SIZE = 40, AT_CURRENT_SIZE = 48, AT_TYPE = 60, AT_SUM = 64, AFTER_SUM = 68 };

static uint64_t number(const unsigned char *p, unsigned bytes)
{
	uint64_t n = 0;

	while (bytes--)
		n = n << 8 | *p++;
	return n;
}

/* The ones' complement of the sum of all bytes but its own. */
static uint32_t sum_of(const unsigned char *data)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < VHD_FOOTER_SIZE; i++)
		if (i < AT_SUM || i >= AFTER_SUM)
			sum += data[i];
	return ~sum;
}

bool vhd_footer_read(const unsigned char *data, struct vhd_footer *out)
{
	if (memcmp(data, "conectix", 8) != 0)
		return false;
	*out = (struct vhd_footer){
		.version = (uint32_t)number(data + AT_VERSION, 4),
		.original_size = number(data + AT_ORIGINAL_SIZE, 8),
		.current_size = number(data + AT_CURRENT_SIZE, 8),
		.type = (uint32_t)number(data + AT_TYPE, 4),
		.sum_is_right = number(data + AT_SUM, 4) == sum_of(data),
	};
	return true;
}
