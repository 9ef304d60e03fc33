/* SPDX-License-Identifier: BSD-3-Clause */
/* The structures of a VHDX file as they lie in it. Numbers are little-endian, for the accessors of formats/endian.h. [MS-VHDX] 2. */
#ifndef PLATTER_FORMATS_VHDX_FORMAT_H
#define PLATTER_FORMATS_VHDX_FORMAT_H

#include "formats/guid.h"

#define VHDX_MIB (UINT64_C(1) << 20)
#define VHDX_PAGE 4096u /* what the log moves */
#define VHDX_MAX_SIZE (UINT64_C(64) << 40)
#define VHDX_MIN_BLOCK (1u << 20)
#define VHDX_MAX_BLOCK (256u << 20)
#define VHDX_CHUNK_SECTORS (UINT64_C(1) << 23) /* that one sector bitmap block tells of (2.4.2) */
#define VHDX_MAX_FILE (UINT64_C(1) << 50)      /* our own limit: no offset or length beyond 1 PiB is believed */

/* ------------------------------------------------------------------ the first MiB (2.2) */

#define VHDX_SIGNATURE "vhdxfile"
#define VHDX_CREATOR_OFFSET 8u
#define VHDX_CREATOR_BYTES 512u
#define VHDX_HEADER_OFFSET(slot) ((slot) ? UINT64_C(128) << 10 : UINT64_C(64) << 10)
#define VHDX_TABLE_OFFSET(copy) ((copy) ? UINT64_C(256) << 10 : UINT64_C(192) << 10)
#define VHDX_TABLE_BYTES (64u << 10)
#define VHDX_FIRST_LOGGED (UINT64_C(192) << 10) /* the id and the headers are never in the log */

struct vhdx_raw_header { /* 2.2.2; 4 KiB are checksummed */
	char signature[4];
	uint8_t checksum[4];
	uint8_t sequence[8];
	struct guid file_write;
	struct guid data_write;
	struct guid log;
	uint8_t log_version[2];
	uint8_t version[2];
	uint8_t log_length[4];
	uint8_t log_offset[8];
};
_Static_assert(sizeof(struct vhdx_raw_header) == 80, "as in the file");

struct vhdx_raw_table { /* 2.2.3.1; 64 KiB are checksummed */
	char signature[4];
	uint8_t checksum[4];
	uint8_t count[4];
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct vhdx_raw_table) == 16, "as in the file");

struct vhdx_raw_region { /* 2.2.3.2 */
	struct guid id;
	uint8_t offset[8];
	uint8_t length[4];
	uint8_t flags[4];
};
_Static_assert(sizeof(struct vhdx_raw_region) == 32, "as in the file");

#define VHDX_REGION_REQUIRED 1u
#define VHDX_MAX_REGIONS 2047u

/* ------------------------------------------------------------------ the log (2.3) */

struct vhdx_raw_entry { /* 2.3.1.1 */
	char signature[4];
	uint8_t checksum[4];
	uint8_t length[4];
	uint8_t tail[4];
	uint8_t sequence[8];
	uint8_t count[4];
	uint8_t reserved[4];
	struct guid log;
	uint8_t flushed_size[8];
	uint8_t last_size[8];
};
_Static_assert(sizeof(struct vhdx_raw_entry) == 64, "as in the file");

struct vhdx_raw_descriptor { /* 2.3.1.2 and .3 */
	char signature[4];  /* "zero" or "desc" */
	uint8_t trailing[4]; /* desc: the page's last bytes; zero: reserved */
	uint8_t leading[8];  /* desc: its first; zero: the length in bytes */
	uint8_t target[8];
	uint8_t sequence[8];
};
_Static_assert(sizeof(struct vhdx_raw_descriptor) == 32, "as in the file");

struct vhdx_raw_sector { /* 2.3.1.4 */
	char signature[4];
	uint8_t sequence_high[4];
	uint8_t data[4084];
	uint8_t sequence_low[4];
};
_Static_assert(sizeof(struct vhdx_raw_sector) == VHDX_PAGE, "as in the file");

/* How many descriptors the first page of an entry has room for, after the header, and each following one. */
#define VHDX_FIRST_DESCRIPTORS 126u
#define VHDX_MORE_DESCRIPTORS 128u

/* ------------------------------------------------------------------ block allocation table (2.5) */

enum vhdx_state {
	VHDX_NOT_PRESENT = 0,
	VHDX_UNDEFINED = 1,
	VHDX_ZERO = 2,
	VHDX_UNMAPPED = 3,
	VHDX_UNMAPPED_095 = 5, /* of the draft 0.95; QEMU knows it */
	VHDX_FULL = 6,         /* a sector bitmap block: present */
	VHDX_PARTIAL = 7,
};

#define VHDX_STATE(entry) ((enum vhdx_state)((entry)&7))
#define VHDX_OFFSET(entry) ((entry) & ~(VHDX_MIB - 1))
#define VHDX_RESERVED(entry) ((entry) & (VHDX_MIB - 1) & ~UINT64_C(7))

/* ------------------------------------------------------------------ metadata (2.6) */

#define VHDX_METADATA_TABLE_BYTES (64u << 10)
#define VHDX_MAX_ITEMS 2047u
#define VHDX_MAX_USER_ITEMS 1024u
#define VHDX_MAX_ITEM_BYTES (1u << 20)

struct vhdx_raw_items { /* 2.6.1.1 */
	char signature[8];
	uint8_t reserved[2];
	uint8_t count[2];
	uint8_t reserved2[20];
};
_Static_assert(sizeof(struct vhdx_raw_items) == 32, "as in the file");

struct vhdx_raw_item { /* 2.6.1.2 */
	struct guid id;
	uint8_t offset[4];
	uint8_t length[4];
	uint8_t flags[4];
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct vhdx_raw_item) == 32, "as in the file");

#define VHDX_ITEM_USER 1u
#define VHDX_ITEM_VIRTUAL_DISK 2u
#define VHDX_ITEM_REQUIRED 4u

#define VHDX_LEAVE_ALLOCATED 1u /* file parameters (2.6.2.1) */
#define VHDX_HAS_PARENT 2u

struct vhdx_raw_locator { /* 2.6.2.6.1 */
	struct guid type;
	uint8_t reserved[2];
	uint8_t count[2];
};
_Static_assert(sizeof(struct vhdx_raw_locator) == 20, "as in the file");

struct vhdx_raw_pair { /* 2.6.2.6.2; offsets from the beginning of the item */
	uint8_t key_offset[4];
	uint8_t value_offset[4];
	uint8_t key_length[2];
	uint8_t value_length[2];
};
_Static_assert(sizeof(struct vhdx_raw_pair) == 12, "as in the file");

/* ------------------------------------------------------------------ names */

#define VHDX_REGION_BAT GUID_INIT(0x2dc27766, 0xf623, 0x4200, 0x9d64, 0x115e9bfd4a08)
#define VHDX_REGION_METADATA GUID_INIT(0x8b7ca206, 0x4790, 0x4b9a, 0xb8fe, 0x575f050f886e)
#define VHDX_ITEM_PARAMETERS GUID_INIT(0xcaa16737, 0xfa36, 0x4d43, 0xb3b6, 0x33f0aa44e76b)
#define VHDX_ITEM_SIZE GUID_INIT(0x2fa54224, 0xcd1b, 0x4876, 0xb211, 0x5dbed83bf4b8)
#define VHDX_ITEM_ID GUID_INIT(0xbeca12ab, 0xb2e6, 0x4523, 0x93ef, 0xc309e000c746)
#define VHDX_ITEM_LOGICAL GUID_INIT(0x8141bf1d, 0xa96f, 0x4709, 0xba47, 0xf233a8faab5f)
#define VHDX_ITEM_PHYSICAL GUID_INIT(0xcda348c7, 0x445d, 0x4471, 0x9cc9, 0xe9885251c556)
#define VHDX_ITEM_LOCATOR GUID_INIT(0xa8d35f2d, 0xb30b, 0x454d, 0xabf7, 0xd3d84834ab0c)
#define VHDX_ITEM_INCOMPLETE GUID_INIT(0x71cc85f0, 0x1b69, 0x4e28, 0x9558, 0xc3bf83ae75d3) /* OpenVMM's, while it creates */
#define VHDX_LOCATOR_TYPE GUID_INIT(0xb04aefb7, 0xd19e, 0x4a81, 0xb789, 0x25b8e9445913)

#endif
