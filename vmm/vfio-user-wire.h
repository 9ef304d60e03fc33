/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The vfio-user protocol, version 0 (QEMU, docs/interop/vfio-user.rst; flags and capabilities are those of linux/vfio.h). Numbers are
 * in the order of the host's bytes, since both ends are on it.
 */
#ifndef PLATTER_VMM_VFIO_USER_WIRE_H
#define PLATTER_VMM_VFIO_USER_WIRE_H

#include <stdint.h>

enum vfio_user_command {
	VFIO_USER_VERSION = 1,
	VFIO_USER_DMA_MAP = 2,
	VFIO_USER_DMA_UNMAP = 3,
	VFIO_USER_DEVICE_GET_INFO = 4,
	VFIO_USER_GET_REGION_INFO = 5,
	VFIO_USER_GET_REGION_IO_FDS = 6,
	VFIO_USER_GET_IRQ_INFO = 7,
	VFIO_USER_SET_IRQS = 8,
	VFIO_USER_REGION_READ = 9,
	VFIO_USER_REGION_WRITE = 10,
	VFIO_USER_DMA_READ = 11,  /* from the server, as the next one */
	VFIO_USER_DMA_WRITE = 12,
	VFIO_USER_DEVICE_RESET = 13,
};

enum vfio_user_flags {
	VFIO_USER_TYPE_MASK = 0x0f,
	VFIO_USER_TYPE_COMMAND = 0x00,
	VFIO_USER_TYPE_REPLY = 0x01,
	VFIO_USER_NO_REPLY = 0x10,
	VFIO_USER_ERROR = 0x20,
};

struct vfio_user_header {
	uint16_t id, command;
	uint32_t size; /* with this header */
	uint32_t flags;
	uint32_t error; /* errno */
};

struct vfio_user_version {
	uint16_t major, minor; /* then a text in JSON, ended by NUL */
};

enum { VFIO_USER_MAP_READ = 1, VFIO_USER_MAP_WRITE = 2 };

struct vfio_user_dma_map {
	uint32_t argsz, flags;
	uint64_t offset, address, size;
};

enum { VFIO_USER_UNMAP_DIRTY = 1, VFIO_USER_UNMAP_ALL = 2 };

struct vfio_user_dma_unmap {
	uint32_t argsz, flags;
	uint64_t address, size;
};

enum { VFIO_USER_DEVICE_RESETS = 1, VFIO_USER_DEVICE_PCI = 2 };

struct vfio_user_device_info {
	uint32_t argsz, flags, regions, irqs;
	uint32_t cap_offset; /* only towards clients that have it in what they ask */
};

#define VFIO_USER_DEVICE_INFO_BYTES 16u /* without it */

/* Indexes of regions and interrupts of a PCI device. */
enum {
	VFIO_USER_REGION_CONFIG = 7,
	VFIO_USER_REGIONS = 9,
	VFIO_USER_IRQ_INTX = 0,
	VFIO_USER_IRQ_MSIX = 2,
	VFIO_USER_IRQS = 5,
};

enum { VFIO_USER_REGION_CAN_READ = 1, VFIO_USER_REGION_CAN_WRITE = 2, VFIO_USER_REGION_CAN_MAP = 4, VFIO_USER_REGION_CAPS = 8 };

struct vfio_user_region_info {
	uint32_t argsz, flags, index, cap_offset;
	uint64_t size, offset;
};

/* The capability that says which parts of a region can be mapped, with one of them. */
struct vfio_user_sparse {
	uint16_t id, version; /* 1, 1 */
	uint32_t next, areas, reserved;
	uint64_t offset, size;
};

enum { VFIO_USER_IRQ_EVENTFD = 1, VFIO_USER_IRQ_MASKABLE = 2, VFIO_USER_IRQ_AUTOMASKED = 4, VFIO_USER_IRQ_NORESIZE = 8 };

struct vfio_user_irq_info {
	uint32_t argsz, flags, index, count;
};

enum {
	VFIO_USER_IRQ_DATA_NONE = 0x01,
	VFIO_USER_IRQ_DATA_BOOL = 0x02,
	VFIO_USER_IRQ_DATA_EVENTFD = 0x04,
	VFIO_USER_IRQ_DATA_MASK = 0x07,
	VFIO_USER_IRQ_MASK = 0x08,
	VFIO_USER_IRQ_UNMASK = 0x10,
	VFIO_USER_IRQ_TRIGGER = 0x20,
	VFIO_USER_IRQ_ACTION_MASK = 0x38,
};

struct vfio_user_irq_set {
	uint32_t argsz, flags, index, start, count; /* then a byte for each, with DATA_BOOL */
};

struct vfio_user_region_access {
	uint64_t offset;
	uint32_t region, count; /* then the data */
};

struct vfio_user_dma_access {
	uint64_t address, count; /* then the data */
};

_Static_assert(sizeof(struct vfio_user_header) == 16, "as on the wire");
_Static_assert(sizeof(struct vfio_user_version) == 4, "as on the wire");
_Static_assert(sizeof(struct vfio_user_dma_map) == 32, "as on the wire");
_Static_assert(sizeof(struct vfio_user_dma_unmap) == 24, "as on the wire");
_Static_assert(sizeof(struct vfio_user_device_info) == 20, "as on the wire");
_Static_assert(sizeof(struct vfio_user_region_info) == 32, "as on the wire");
_Static_assert(sizeof(struct vfio_user_sparse) == 32, "as on the wire");
_Static_assert(sizeof(struct vfio_user_irq_info) == 16, "as on the wire");
_Static_assert(sizeof(struct vfio_user_irq_set) == 20, "as on the wire");
_Static_assert(sizeof(struct vfio_user_region_access) == 16, "as on the wire");
_Static_assert(sizeof(struct vfio_user_dma_access) == 16, "as on the wire");

/*
 * Descriptors that one message may bring: what we tell clients, of which QEMU takes 16 at most, and what we take, since Cloud Hypervisor
 * brings those of all vectors at once, whatever it was told.
 */
#define VFIO_USER_TOLD_FDS 8u
#define VFIO_USER_MAX_FDS 128u

/* Bytes that one access may move: what we tell clients. */
#define VFIO_USER_MAX_TRANSFER (UINT32_C(1) << 20)

#endif
