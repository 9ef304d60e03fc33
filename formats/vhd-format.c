/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/vhd-format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define EPOCH 946684800 /* 2000-01-01 00:00 UTC in Unix time */
#define OUR_VERSION 0x504c0001u

/* The ones' complement of the sum of all bytes but those of the checksum itself. */
static uint32_t checksum_of(const void *data, size_t size, size_t field)
{
	const unsigned char *p = data;
	uint32_t sum = 0;

	for (size_t i = 0; i < size; i++)
		if (i < field || i >= field + 4)
			sum += p[i];
	return ~sum;
}

static uint32_t footer_sum(const struct vhd_footer *f)
{
	return checksum_of(f, sizeof(*f), offsetof(struct vhd_footer, checksum));
}

static uint32_t header_sum(const struct vhd_header *h)
{
	return checksum_of(h, sizeof(*h), offsetof(struct vhd_header, checksum));
}

void vhd_footer_seal(struct vhd_footer *f)
{
	f->checksum = htobe32(footer_sum(f));
}

void vhd_header_seal(struct vhd_header *h)
{
	h->checksum = htobe32(header_sum(h));
}

static int check_sum(const char *where, uint32_t found, uint32_t right, enum vhd_strictness strictness, struct error *err)
{
	if (found == right || strictness == VHD_LAX)
		return 0;
	error_set(err, -EINVAL, "%s: checksum 0x%08" PRIx32 " is wrong, its bytes have 0x%08" PRIx32, where, found, right);
	error_hint(err, "option lax takes it as it is, platter check repairs it");
	return -EINVAL;
}

static int check_version(const char *where, uint32_t version, struct error *err)
{
	if (version >> 16 == VHD_VERSION_1_0 >> 16)
		return 0;
	return error_set(err, -EINVAL, "%s: version %" PRIu32 ".%" PRIu32 " is not 1.x", where, version >> 16, version & 0xffff);
}

int vhd_footer_check(const struct vhd_footer *f, enum vhd_strictness strictness, const char *where, struct error *err)
{
	uint32_t type = be32toh(f->type);
	uint64_t size = be64toh(f->current_size);
	int status;

	if (memcmp(f->cookie, "conectix", 8))
		return error_set(err, -EINVAL, "%s: does not begin with 'conectix'", where);
	status = check_sum(where, be32toh(f->checksum), footer_sum(f), strictness, err);
	if (!status)
		status = check_version(where, be32toh(f->version), err);
	if (status)
		return status;
	if (type < VHD_FIXED || type > VHD_DIFFERENCING)
		return error_set(err, -EINVAL, "%s: disk type %" PRIu32 " is none of 2 (fixed), 3 (dynamic), 4 (differencing)", where, type);
	if (size < VHD_SECTOR || size / VHD_SECTOR > (type == VHD_FIXED ? INT64_MAX / VHD_SECTOR - 1 : UINT32_MAX))
		return error_set(err, -EINVAL, "%s: a size of %" PRIu64 " bytes is impossible", where, size);
	return 0;
}

int vhd_header_check(const struct vhd_header *h, enum vhd_strictness strictness, struct error *err)
{
	static const char where[] = "dynamic header";
	uint32_t block = be32toh(h->block_size);
	int status;

	if (memcmp(h->cookie, "cxsparse", 8))
		return error_set(err, -EINVAL, "%s: does not begin with 'cxsparse'", where);
	status = check_sum(where, be32toh(h->checksum), header_sum(h), strictness, err);
	if (!status)
		status = check_version(where, be32toh(h->version), err);
	if (status)
		return status;
	if (block < VHD_MIN_BLOCK || block > VHD_MAX_BLOCK || (block & (block - 1)))
		return error_set(err, -EINVAL, "%s: block size %" PRIu32 " is not a power of two from %u to %u bytes", where, block,
				 VHD_MIN_BLOCK, VHD_MAX_BLOCK);
	if (be64toh(h->bat_offset) % VHD_SECTOR)
		return error_set(err, -EINVAL, "%s: offset %" PRIu64 " of the BAT is not a whole sector", where, be64toh(h->bat_offset));
	return 0;
}

struct vhd_geometry vhd_geometry_of(uint64_t size_bytes)
{
	uint64_t sectors = size_bytes / VHD_SECTOR, cylinders_times_heads;
	uint32_t per_track, heads;

	if (sectors > 65535ull * 16 * 255)
		sectors = 65535ull * 16 * 255;
	if (sectors >= 65535ull * 16 * 63) {
		per_track = 255;
		heads = 16;
		cylinders_times_heads = sectors / per_track;
	} else {
		per_track = 17;
		cylinders_times_heads = sectors / per_track;
		heads = (uint32_t)((cylinders_times_heads + 1023) / 1024);
		if (heads < 4)
			heads = 4;
		if (cylinders_times_heads >= heads * 1024 || heads > 16) {
			per_track = 31;
			heads = 16;
			cylinders_times_heads = sectors / per_track;
		}
		if (cylinders_times_heads >= heads * 1024) {
			per_track = 63;
			heads = 16;
			cylinders_times_heads = sectors / per_track;
		}
	}
	return (struct vhd_geometry){(uint16_t)(cylinders_times_heads / heads), (uint8_t)heads, (uint8_t)per_track};
}

uint64_t vhd_geometry_bytes(const struct vhd_footer *f)
{
	return (uint64_t)be16toh(f->cylinders) * f->heads * f->sectors * VHD_SECTOR;
}

static bool means_geometry(const struct vhd_footer *f)
{
	bool saturated = be16toh(f->cylinders) == 65535 && f->heads == 16 && f->sectors == 255;

	return !saturated && (!memcmp(f->creator, "vpc ", 4) || !memcmp(f->creator, "qemu", 4));
}

uint64_t vhd_disk_size(const struct vhd_footer *f, enum vhd_size_rule rule)
{
	uint64_t size = be64toh(f->current_size) / VHD_SECTOR * VHD_SECTOR, geometry = vhd_geometry_bytes(f);

	if (rule == VHD_SIZE_AUTO)
		rule = means_geometry(f) ? VHD_SIZE_CHS : VHD_SIZE_CURRENT;
	return rule == VHD_SIZE_CHS && geometry && geometry < size ? geometry : size;
}

void vhd_footer_set_size(struct vhd_footer *f, uint64_t size_bytes)
{
	struct vhd_geometry g = vhd_geometry_of(size_bytes);

	f->current_size = htobe64(size_bytes);
	f->cylinders = htobe16(g.cylinders);
	f->heads = g.heads;
	f->sectors = g.sectors;
	if (vhd_disk_size(f, VHD_SIZE_AUTO) == size_bytes)
		return;
	f->cylinders = htobe16(65535);
	f->heads = 16;
	f->sectors = 255;
}

bool vhd_is_by_xen(const struct vhd_footer *f)
{
	return !memcmp(f->creator, "tap", 4) || !memcmp(f->creator, "CTXS", 4);
}

bool vhd_is_ours(const struct vhd_footer *f)
{
	return !memcmp(f->creator, "win ", 4) && f->creator_version == htobe32(OUR_VERSION);
}

uint32_t vhd_time(int64_t unix_seconds)
{
	return unix_seconds < EPOCH ? 0 : (uint32_t)(unix_seconds - EPOCH);
}

/*
 * The creator is Windows', since QEMU takes the size field at its word only for a few creators, of which this is the one that every other
 * reader knows as well. The version says that it is us.
 */
int vhd_footer_init(struct vhd_footer *f, enum vhd_type type, uint64_t size_bytes)
{
	*f = (struct vhd_footer){
		.features = htobe32(2), /* reserved, always set */
		.version = htobe32(VHD_VERSION_1_0),
		.data_offset = htobe64(type == VHD_FIXED ? VHD_NO_OFFSET : VHD_SECTOR),
		.time = htobe32(vhd_time(time(NULL))),
		.creator_version = htobe32(OUR_VERSION),
		.original_size = htobe64(size_bytes),
		.type = htobe32(type),
	};
	memcpy(f->cookie, "conectix", 8);
	memcpy(f->creator, "win ", 4);
	memcpy(f->creator_os, "Wi2k", 4);
	vhd_footer_set_size(f, size_bytes);
	return getrandom(f->id, sizeof(f->id), 0) == sizeof(f->id) ? 0 : -errno;
}
