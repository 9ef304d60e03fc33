/* SPDX-License-Identifier: BSD-3-Clause */
/* The PCI side of a device model: configuration space, BARs, capabilities, the MSI-X table. */
#ifndef PLATTER_VMM_PCI_H
#define PLATTER_VMM_PCI_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCI_BARS 6u
#define PCI_MAX_VECTORS 2048u

enum {
	PCI_CONFIG_BYTES = 256,
	PCI_EXPRESS_CONFIG_BYTES = 4096,
};

/* Offsets in configuration space (PCI Local Bus 3.0, 6.1). */
enum pci_register {
	PCI_VENDOR = 0x00,
	PCI_DEVICE = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS = 0x09,
	PCI_CACHE_LINE = 0x0c,
	PCI_LATENCY = 0x0d,
	PCI_BAR = 0x10,
	PCI_SUBSYSTEM_VENDOR = 0x2c,
	PCI_SUBSYSTEM = 0x2e,
	PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
};

enum pci_command {
	PCI_COMMAND_IO = 1 << 0,
	PCI_COMMAND_MEMORY = 1 << 1,
	PCI_COMMAND_MASTER = 1 << 2,
	PCI_COMMAND_NO_INTX = 1 << 10,
};

enum pci_bar_type {
	PCI_BAR_NONE,
	PCI_BAR_IO,
	PCI_BAR_MEMORY,
	PCI_BAR_MEMORY64, /* takes the next BAR as well, which is to be PCI_BAR_NONE */
};

struct pci_bar {
	enum pci_bar_type type;
	uint32_t size; /* bytes, a power of two: at least 4 of I/O, 16 of memory */
};

/* What a device is; frozen. */
struct pci_options {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint8_t revision;
	uint32_t class_code; /* class << 16, subclass << 8, programming interface */
	uint8_t pin;         /* of INTx, 1 to 4; 0: none */
	struct pci_bar bars[PCI_BARS];
	unsigned vectors;    /* MSI-X, up to PCI_MAX_VECTORS; 0: none */
	unsigned msix_bar;   /* of the table, at its beginning, and of the pending bits behind it, at pci_pending_offset() */
	bool express;        /* an endpoint of PCI Express, with function level reset, and power management */
};

/* What a write to configuration space asks for; bits. */
enum pci_wish {
	PCI_WISH_RESET = 1 << 0,   /* function level reset */
	PCI_WISH_COMMAND = 1 << 1, /* the command register has changed */
	PCI_WISH_POWER = 1 << 2,   /* the power state has changed */
};

struct pci_vector {
	uint32_t words[4];     /* as in the table (PCI 3.0, 6.8.2) */
	bool written;          /* somebody has used the table here */
};

/* One thread reads and writes it; the functions that say so may be called by others meanwhile. */
struct pci {
	struct pci_options options;
	size_t size; /* bytes of configuration space */
	uint8_t space[PCI_EXPRESS_CONFIG_BYTES];
	uint8_t writable[PCI_CONFIG_BYTES]; /* bits that keep what is written */
	uint8_t clears[PCI_CONFIG_BYTES];   /* bits that a 1 clears */
	uint8_t fresh[PCI_CONFIG_BYTES];    /* what a reset gives back */
	unsigned power, msix, pcie;         /* where the capabilities are; 0: there is none */
	_Atomic bool master, intx_off, asleep, line;
	struct pci_vector *table;           /* [options.vectors] */
};

/* 0; -ENOMEM; -EINVAL: the options contradict each other or the specification. */
int pci_begin(struct pci *p, const struct pci_options *options);
void pci_end(struct pci *p);

/* As after power-on. */
void pci_reset(struct pci *p);

/* `length` bytes of configuration space from `offset` on, which lie inside it. Writes return enum pci_wish. */
void pci_read(const struct pci *p, unsigned offset, void *to, size_t length);
unsigned pci_write(struct pci *p, unsigned offset, const void *from, size_t length);

/* The device may access memory and send messages. From any thread. */
bool pci_is_master(struct pci *p);

/* INTx is switched off. From any thread. */
bool pci_intx_is_off(struct pci *p);

/* The level of INTx, which the status register shows. From any thread. */
void pci_set_line(struct pci *p, bool high);

/* It is in D3hot: accesses to BARs find nothing. From any thread. */
bool pci_is_asleep(struct pci *p);

/* ------------------------------------------------------------------ the BAR of MSI-X */

/* Where the pending bits are, and how large the BAR has to be, for so many vectors. */
uint32_t pci_pending_offset(unsigned vectors);
uint32_t pci_msix_bytes(unsigned vectors);

/* The table at any byte; 0 behind it. */
uint64_t pci_table_read(const struct pci *p, uint64_t offset, unsigned size);

/* Writes of 4 or 8 bytes in their places; others, and behind the table, are ignored. */
void pci_table_write(struct pci *p, uint64_t offset, unsigned size, uint64_t value);

/*
 * The guest keeps the vector masked, by the table. A client that has a table of its own, as those of VFIO do, never writes to this
 * one: then the answer is no.
 */
bool pci_vector_is_masked(const struct pci *p, unsigned vector);

#endif
