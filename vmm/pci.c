/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Configuration space is 256 bytes with three masks beside it: which bits keep what is written, which are cleared by
 * writing 1, and what a reset gives back. Whatever is special comes after: BARs are nothing but writable bits (the size is what
 * cannot be written), the bit that starts a function level reset never stays.
 *
 *     0x40  power management (PCI PM 1.2, 3.2)     D0 and D3hot; the state survives D3hot (No_Soft_Reset)
 *     0x50  MSI-X (PCI 3.0, 6.8.2)
 *     0x60  PCI Express (Base 5.0, 7.5.3)          an endpoint, version 2, with FLR
 *
 * An Express device has 4 KiB, of which all above 256 reads as zero: there is no extended capability.
 */
#include "vmm/pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { AT_POWER = 0x40, AT_MSIX = 0x50, AT_PCIE = 0x60 };

enum { ID_POWER = 0x01, ID_PCIE = 0x10, ID_MSIX = 0x11 };

/* Registers of capabilities. */
enum {
	POWER_CAPABILITIES = 2,
	POWER_CONTROL = 4,
	MSIX_CONTROL = 2,
	MSIX_TABLE = 4,
	MSIX_PENDING = 8,
	PCIE_CAPABILITIES = 0x02,
	PCIE_DEVICE = 0x04,
	PCIE_CONTROL = 0x08,
	PCIE_STATUS = 0x0a,
	PCIE_LINK = 0x0c,
	PCIE_LINK_STATUS = 0x12,
	PCIE_DEVICE2 = 0x24,
	PCIE_CONTROL2 = 0x28,
	PCIE_LINK2 = 0x2c,
	PCIE_LINK_CONTROL2 = 0x30,
};

#define STATUS_INTERRUPT 0x08u
#define POWER_STATE 0x03u
#define POWER_D3HOT 0x03u
#define POWER_NO_SOFT_RESET 0x08u
#define PCIE_CONTROL_FLR 0x8000u
#define VECTOR_MASKED 1u /* of Vector Control */

/* ------------------------------------------------------------------ bytes */

static uint16_t get_u16(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static void set(uint8_t *at, unsigned bytes, uint32_t value)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

/* A register of `bytes` bytes: what it is after a reset, and which of its bits can be written. */
static void define(struct pci *p, unsigned at, unsigned bytes, uint32_t value, uint32_t writable)
{
	set(p->fresh + at, bytes, value);
	set(p->writable + at, bytes, writable);
}

/* ------------------------------------------------------------------ what there is */

static int check_bars(const struct pci_options *o)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		const struct pci_bar *b = &o->bars[i];
		if (b->type == PCI_BAR_NONE)
			continue;
		if (b->size & (b->size - 1) || b->size < (b->type == PCI_BAR_IO ? 4u : 16u))
			return -EINVAL;
		if (b->type == PCI_BAR_MEMORY64 && (i + 1 == PCI_BARS || o->bars[i + 1].type != PCI_BAR_NONE))
			return -EINVAL;
	}
	return 0;
}

static int check_options(const struct pci_options *o)
{
	if (o->vectors > PCI_MAX_VECTORS || o->pin > 4 || o->class_code >> 24)
		return -EINVAL;
	if (o->vectors && (o->msix_bar >= PCI_BARS || o->bars[o->msix_bar].type < PCI_BAR_MEMORY ||
			   o->bars[o->msix_bar].size < pci_msix_bytes(o->vectors)))
		return -EINVAL;
	return check_bars(o);
}

static void define_bars(struct pci *p)
{
	static const uint8_t kinds[] = {[PCI_BAR_IO] = 1, [PCI_BAR_MEMORY] = 0, [PCI_BAR_MEMORY64] = 4};

	for (unsigned i = 0; i < PCI_BARS; i++) {
		const struct pci_bar *b = &p->options.bars[i];
		if (b->type == PCI_BAR_NONE)
			continue;
		define(p, PCI_BAR + 4 * i, 4, kinds[b->type], ~(b->size - 1));
		if (b->type == PCI_BAR_MEMORY64)
			define(p, PCI_BAR + 4 * ++i, 4, 0, UINT32_MAX);
	}
}

static void define_header(struct pci *p)
{
	const struct pci_options *o = &p->options;
	uint32_t command = PCI_COMMAND_MASTER | 0x140u /* SERR#, parity */ | (o->pin ? PCI_COMMAND_NO_INTX : 0u);

	for (unsigned i = 0; i < PCI_BARS; i++)
		if (o->bars[i].type)
			command |= o->bars[i].type == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
	define(p, PCI_VENDOR, 2, o->vendor, 0);
	define(p, PCI_DEVICE, 2, o->device, 0);
	define(p, PCI_COMMAND, 2, 0, command);
	define(p, PCI_REVISION, 1, o->revision, 0);
	define(p, PCI_CLASS, 3, o->class_code, 0);
	define(p, PCI_CACHE_LINE, 1, 0, 0xff);
	define(p, PCI_SUBSYSTEM_VENDOR, 2, o->subsystem_vendor, 0);
	define(p, PCI_SUBSYSTEM, 2, o->subsystem, 0);
	define(p, PCI_INTERRUPT_LINE, 1, 0, 0xff);
	define(p, PCI_INTERRUPT_PIN, 1, o->pin, 0);
	define_bars(p);
}

/* The list of capabilities begins with what is defined last. */
static void define_capability(struct pci *p, unsigned at, uint8_t id)
{
	define(p, at, 1, id, 0);
	define(p, at + 1, 1, p->fresh[PCI_CAPABILITIES], 0);
	define(p, PCI_CAPABILITIES, 1, at, 0);
	define(p, PCI_STATUS, 2, 0x10, 0); /* there is a list */
}

static void define_pcie(struct pci *p)
{
	p->pcie = AT_PCIE;
	define_capability(p, AT_PCIE, ID_PCIE);
	define(p, AT_PCIE + PCIE_CAPABILITIES, 2, 0x0002, 0);      /* version 2, an endpoint */
	define(p, AT_PCIE + PCIE_DEVICE, 4, 0x10008000, 0);        /* FLR, role-based errors, 128 bytes */
	define(p, AT_PCIE + PCIE_CONTROL, 2, 0x2810, 0x78ff);      /* but for FLR, which does not stay */
	set(p->clears + AT_PCIE + PCIE_STATUS, 2, 0x000f);
	define(p, AT_PCIE + PCIE_LINK, 4, 0x00000044, 0);          /* 16 GT/s, 4 lanes */
	define(p, AT_PCIE + PCIE_LINK_STATUS, 2, 0x0044, 0);
	define(p, AT_PCIE + PCIE_DEVICE2, 4, 0x00000010, 0);       /* completion timeouts can be switched off */
	define(p, AT_PCIE + PCIE_CONTROL2, 2, 0, 0x0010);
	define(p, AT_PCIE + PCIE_LINK2, 4, 0x0000001e, 0);         /* 2.5 to 16 GT/s */
	define(p, AT_PCIE + PCIE_LINK_CONTROL2, 2, 0x0004, 0x000f);
}

static void define_msix(struct pci *p)
{
	const struct pci_options *o = &p->options;

	p->msix = AT_MSIX;
	define_capability(p, AT_MSIX, ID_MSIX);
	define(p, AT_MSIX + MSIX_CONTROL, 2, o->vectors - 1, 0xc000); /* enable, function mask */
	define(p, AT_MSIX + MSIX_TABLE, 4, o->msix_bar, 0);
	define(p, AT_MSIX + MSIX_PENDING, 4, pci_pending_offset(o->vectors) | o->msix_bar, 0);
}

static void define_power(struct pci *p)
{
	p->power = AT_POWER;
	define_capability(p, AT_POWER, ID_POWER);
	define(p, AT_POWER + POWER_CAPABILITIES, 2, 0x0003, 0); /* version 1.2; D0 and D3 alone */
	define(p, AT_POWER + POWER_CONTROL, 2, POWER_NO_SOFT_RESET, POWER_STATE);
}

int pci_begin(struct pci *p, const struct pci_options *options)
{
	int status = check_options(options);

	if (status)
		return status;
	memset(p, 0, sizeof(*p));
	p->options = *options;
	p->size = options->express ? PCI_EXPRESS_CONFIG_BYTES : PCI_CONFIG_BYTES;
	if (options->vectors) {
		p->table = calloc(options->vectors, sizeof(*p->table));
		if (!p->table)
			return -ENOMEM;
	}
	define_header(p);
	if (options->express)
		define_pcie(p);
	if (options->vectors)
		define_msix(p);
	if (options->express)
		define_power(p);
	pci_reset(p);
	return 0;
}

void pci_end(struct pci *p)
{
	free(p->table);
	p->table = NULL;
}

/* ------------------------------------------------------------------ configuration space */

static unsigned command(const struct pci *p)
{
	return get_u16(p->space + PCI_COMMAND);
}

static unsigned power_state(const struct pci *p)
{
	return p->power ? p->space[p->power + POWER_CONTROL] & POWER_STATE : 0;
}

/* What others may ask for meanwhile. */
static void tell(struct pci *p)
{
	atomic_store(&p->master, command(p) & PCI_COMMAND_MASTER);
	atomic_store(&p->intx_off, command(p) & PCI_COMMAND_NO_INTX);
	atomic_store(&p->asleep, power_state(p) == POWER_D3HOT);
}

void pci_reset(struct pci *p)
{
	memcpy(p->space, p->fresh, sizeof(p->fresh));
	for (unsigned i = 0; i < p->options.vectors; i++)
		p->table[i] = (struct pci_vector){.words[3] = VECTOR_MASKED};
	pci_set_line(p, false);
	tell(p);
}

void pci_read(const struct pci *p, unsigned offset, void *to, size_t length)
{
	memcpy(to, p->space + offset, length);
	if (offset <= PCI_STATUS && PCI_STATUS - offset < length && atomic_load(&p->line))
		((uint8_t *)to)[PCI_STATUS - offset] |= STATUS_INTERRUPT;
}

static void write_byte(struct pci *p, unsigned at, uint8_t value)
{
	uint8_t keep = p->writable[at];

	p->space[at] = (uint8_t)((p->space[at] & ~keep) | (value & keep));
	p->space[at] &= (uint8_t)~(value & p->clears[at]);
}

unsigned pci_write(struct pci *p, unsigned offset, const void *from, size_t length)
{
	unsigned before = command(p), state = power_state(p), wishes = 0;
	unsigned flr = p->pcie ? p->pcie + PCIE_CONTROL + 1 : PCI_EXPRESS_CONFIG_BYTES;
	const uint8_t *bytes = from;

	for (size_t i = 0; i < length && offset + i < PCI_CONFIG_BYTES; i++) {
		write_byte(p, offset + (unsigned)i, bytes[i]);
		if (offset + i == flr && bytes[i] & PCIE_CONTROL_FLR >> 8)
			wishes |= PCI_WISH_RESET;
	}
	/* a state that is not there leaves what was (PCI PM 1.2, 3.2.4) */
	if (power_state(p) != 0 && power_state(p) != POWER_D3HOT)
		p->space[p->power + POWER_CONTROL] =
			(uint8_t)((p->space[p->power + POWER_CONTROL] & ~POWER_STATE) | state);
	tell(p);
	return wishes | (command(p) != before ? PCI_WISH_COMMAND : 0u) | (power_state(p) != state ? PCI_WISH_POWER : 0u);
}

bool pci_is_master(struct pci *p)
{
	return atomic_load_explicit(&p->master, memory_order_relaxed);
}

bool pci_intx_is_off(struct pci *p)
{
	return atomic_load_explicit(&p->intx_off, memory_order_relaxed);
}

void pci_set_line(struct pci *p, bool high)
{
	atomic_store(&p->line, high);
}

bool pci_is_asleep(struct pci *p)
{
	return atomic_load_explicit(&p->asleep, memory_order_relaxed);
}

/* ------------------------------------------------------------------ MSI-X */

#define VECTOR_BYTES 16u
#define TABLE_UNIT 4096u /* pending bits are on a page of their own */

uint32_t pci_pending_offset(unsigned vectors)
{
	return (vectors * VECTOR_BYTES + TABLE_UNIT - 1) / TABLE_UNIT * TABLE_UNIT;
}

uint32_t pci_msix_bytes(unsigned vectors)
{
	uint32_t needed = pci_pending_offset(vectors) + TABLE_UNIT, size = TABLE_UNIT;

	while (size < needed)
		size *= 2;
	return size;
}

uint64_t pci_table_read(const struct pci *p, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size && offset + i < (uint64_t)p->options.vectors * VECTOR_BYTES; i++) {
		uint64_t at = offset + i;
		uint32_t word = p->table[at / VECTOR_BYTES].words[at % VECTOR_BYTES / 4];
		value |= (uint64_t)(word >> 8 * (at % 4) & 0xff) << 8 * i;
	}
	return value;
}

void pci_table_write(struct pci *p, uint64_t offset, unsigned size, uint64_t value)
{
	if ((size != 4 && size != 8) || offset % size || offset >= (uint64_t)p->options.vectors * VECTOR_BYTES)
		return;
	for (unsigned i = 0; i < size; i += 4) {
		struct pci_vector *v = &p->table[(offset + i) / VECTOR_BYTES];
		v->words[(offset + i) % VECTOR_BYTES / 4] = (uint32_t)(value >> 8 * i);
		v->written = true;
	}
}

bool pci_vector_is_masked(const struct pci *p, unsigned vector)
{
	return vector < p->options.vectors && p->table[vector].written && p->table[vector].words[3] & VECTOR_MASKED;
}
