/* SPDX-License-Identifier: BSD-3-Clause */
/* What lies where in a VHD: Virtual Hard Disk Image Format Specification 1.0 (Microsoft, 2006), and what writers make of it. */
#ifndef PLATTER_FORMATS_VHD_FORMAT_H
#define PLATTER_FORMATS_VHD_FORMAT_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

#define VHD_SECTOR 512u
#define VHD_SECTOR_SHIFT 9
#define VHD_ABSENT UINT32_MAX         /* an entry of the BAT: the block is not there */
#define VHD_NO_OFFSET UINT64_MAX
#define VHD_VERSION_1_0 0x00010000u
#define VHD_MAX_SECTORS 0xff000000ull /* 2040 GiB: what Windows makes, and what 32 bits of sectors leave room for */
#define VHD_MIN_BLOCK 4096u
#define VHD_MAX_BLOCK (256u << 20)
#define VHD_DEFAULT_BLOCK (2u << 20)
#define VHD_LOCATORS 8u

/* The numbers of the "Disk Type" field. */
enum vhd_type {
	VHD_FIXED = 2,
	VHD_DYNAMIC = 3,
	VHD_DIFFERENCING = 4,
};

/* All numbers are big-endian: be64toh() and the like, always. */
struct vhd_footer {
	char cookie[8]; /* "conectix" */
	uint32_t features;
	uint32_t version;
	uint64_t data_offset; /* of the header; all ones where there is none */
	uint32_t time;        /* seconds since 2000-01-01 UTC */
	char creator[4];
	uint32_t creator_version;
	char creator_os[4];
	uint64_t original_size;
	uint64_t current_size;
	uint16_t cylinders;
	uint8_t heads;
	uint8_t sectors;
	uint32_t type;
	uint32_t checksum;
	uint8_t id[16];
	uint8_t saved_state;
	uint8_t reserved[427]; /* not always zero: Windows 10 leaves whatever was there */
} __attribute__((packed));

struct vhd_locator {
	char code[4]; /* "W2ru", "W2ku", "MacX", ... */
	uint32_t space; /* by the text sectors, in fact mostly bytes: not to be relied on */
	uint32_t length; /* bytes */
	uint32_t reserved;
	uint64_t offset;
} __attribute__((packed));

struct vhd_header {
	char cookie[8]; /* "cxsparse" */
	uint64_t next;  /* all ones */
	uint64_t bat_offset;
	uint32_t version;
	uint32_t max_entries;
	uint32_t block_size;
	uint32_t checksum;
	uint8_t parent_id[16];
	uint32_t parent_time;
	uint32_t reserved1;
	uint8_t parent_name[512]; /* UTF-16BE */
	struct vhd_locator locators[VHD_LOCATORS];
	uint8_t reserved2[256];
} __attribute__((packed));

_Static_assert(sizeof(struct vhd_footer) == 512, "the footer is one sector");
_Static_assert(sizeof(struct vhd_header) == 1024, "the header is two sectors");
_Static_assert(offsetof(struct vhd_footer, checksum) == 64 && offsetof(struct vhd_footer, id) == 68, "as in the specification");
_Static_assert(offsetof(struct vhd_header, parent_name) == 64 && offsetof(struct vhd_header, locators) == 576, "as in the specification");

/* What libvhdi accepts and others do not: checksums that are wrong. */
enum vhd_strictness {
	VHD_STRICT,
	VHD_LAX,
};

/* Cookie, version, type, size and checksum. `where` names the footer in the message. -EINVAL. */
int vhd_footer_check(const struct vhd_footer *f, enum vhd_strictness strictness, const char *where, struct error *err);

/* Cookie, version, checksum, block size and the offset of the BAT as such; not whether they suit the file. -EINVAL. */
int vhd_header_check(const struct vhd_header *h, enum vhd_strictness strictness, struct error *err);

/* Puts the right checksum in. */
void vhd_footer_seal(struct vhd_footer *f);
void vhd_header_seal(struct vhd_header *h);

struct vhd_geometry {
	uint16_t cylinders;
	uint8_t heads;
	uint8_t sectors;
};

/* "CHS Calculation" of the specification. */
struct vhd_geometry vhd_geometry_of(uint64_t size_bytes);

/* Cylinders times heads times sectors, in bytes. */
uint64_t vhd_geometry_bytes(const struct vhd_footer *f);

enum vhd_size_rule {
	VHD_SIZE_AUTO,    /* as the creator meant it */
	VHD_SIZE_CURRENT, /* the field of that name */
	VHD_SIZE_CHS,
};

/*
 * The size of the disk in bytes, whole sectors. Virtual PC shows what its geometry makes, and so does QEMU's old creator "qemu", each up to
 * a cylinder less than the size field says; both mean the field where the geometry has reached its end. Everybody else
 * means the field. (QEMU as a reader takes the geometry for creators it does not know: vbox, dutl.)
 */
uint64_t vhd_disk_size(const struct vhd_footer *f, enum vhd_size_rule rule);

/* Sets size and geometry so that every reader sees this size. */
void vhd_footer_set_size(struct vhd_footer *f, uint64_t size_bytes);

/* Written by Xen's tools: sector bitmaps count in dynamic disks, too, since new blocks on a volume hold what was there before. */
bool vhd_is_by_xen(const struct vhd_footer *f);

/* Written by us: what lies between the last block and the footer after a crash is nobody else's. */
bool vhd_is_ours(const struct vhd_footer *f);

/* A footer for a new image, without a checksum; `time` and `id` are random or now. -errno without random bytes. */
int vhd_footer_init(struct vhd_footer *f, enum vhd_type type, uint64_t size_bytes);

/* Now, as footers say it. */
uint32_t vhd_time(int64_t unix_seconds);

/* Bytes of the bitmap before each block, whole sectors. */
static inline uint32_t vhd_bitmap_bytes(uint32_t block_size)
{
	uint32_t bytes = block_size / VHD_SECTOR / 8;

	return bytes < VHD_SECTOR ? VHD_SECTOR : bytes;
}

static inline uint32_t vhd_blocks_of(uint64_t size_bytes, uint32_t block_size)
{
	return (uint32_t)((size_bytes + block_size - 1) / block_size);
}

/* Bytes that a BAT of so many entries takes, whole sectors. */
static inline uint64_t vhd_bat_bytes(uint32_t entries)
{
	return ((uint64_t)entries * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
}

#endif
