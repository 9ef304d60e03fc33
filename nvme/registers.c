/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Registers: what a guest's accesses to the BAR do at once, on whatever thread they come. That is little: values are stored under a
 * short lock, and whoever has to act on them is woken. A doorbell is a store and a signal.
 *
 * 64-bit registers may be written in halves. A write that is of neither 4 nor 8 bytes, or not in its place, is ignored, and
 * reads are answered at any byte (Base 3.1.3 leaves both open).
 */
#include <endian.h>
#include <limits.h>
#include <string.h>

#include "nvme/internal.h"

/* ------------------------------------------------------------------ status and interrupts */

void nvme_change_csts(struct nvme *c, uint32_t clear, uint32_t set)
{
	short_lock_exclusive(&c->lock);
	c->regs.csts = (c->regs.csts & ~clear) | set;
	short_unlock_exclusive(&c->lock);
}

void nvme_set_fatal(struct nvme *c)
{
	nvme_change_csts(c, 0, NVME_CSTS_CFS);
}

uint32_t nvme_csts(struct nvme *c)
{
	uint32_t csts;

	short_lock_shared(&c->lock);
	csts = c->regs.csts;
	short_unlock_shared(&c->lock);
	return csts;
}

static bool is_masked(struct nvme *c, unsigned vector)
{
	bool masked;

	if (vector >= 32)
		return false;
	short_lock_exclusive(&c->lock);
	masked = c->regs.intms >> vector & 1;
	if (masked)
		c->vectors_masked |= UINT32_C(1) << vector;
	short_unlock_exclusive(&c->lock);
	return masked;
}

void nvme_interrupt(struct nvme *c, unsigned vector)
{
	if (atomic_load_explicit(&c->any_masked, memory_order_relaxed) && is_masked(c, vector))
		return;
	c->host->ops->raise(c->host, vector);
}

/* Under the lock. Of the pin INTMS has one bit (PCIe Transport 1.0, 3.5.1.1). */
static void set_line(struct nvme *c)
{
	bool high = atomic_load(&c->pin) && c->asserting && !(c->regs.intms & 1);

	if (high == c->line)
		return;
	c->line = high;
	c->host->ops->set_line(c->host, high);
}

bool nvme_assert_pin(struct nvme *c, unsigned index, bool on)
{
	struct nvme_bell *bell = &c->bells[index];
	bool changed;

	short_lock_exclusive(&c->lock);
	changed = bell->asserts != on;
	bell->asserts = on;
	if (changed) {
		c->asserting += on ? 1u : UINT_MAX;
		set_line(c);
	}
	short_unlock_exclusive(&c->lock);
	return changed && on;
}

void nvme_use_pin(struct nvme *c, bool pin)
{
	short_lock_exclusive(&c->lock);
	atomic_store(&c->pin, pin);
	set_line(c);
	short_unlock_exclusive(&c->lock);
	for (unsigned i = 1; i < NVME_BELLS; i += 2)
		wait_signal_raise(&c->bells[i].posted);
}

/* Under the lock. */
static void mask(struct nvme *c, uint32_t mask)
{
	c->regs.intms = mask;
	atomic_store(&c->any_masked, mask != 0);
	set_line(c);
}

/* What was held back and may come now. Under the lock. */
static uint32_t unmask(struct nvme *c, uint32_t bits)
{
	uint32_t raise = c->vectors_masked & bits;

	mask(c, c->regs.intms & ~bits);
	c->vectors_masked &= ~bits;
	return raise;
}

/* ------------------------------------------------------------------ reading */

static uint64_t capabilities(const struct nvme *c)
{
	return (c->max_depth - 1) | NVME_CAP_CQR | UINT64_C(0xff) << NVME_CAP_TO_SHIFT | NVME_CAP_NSSRS |
	       NVME_CAP_CSS_NVM | (uint64_t)(NVME_PAGE_MAX_SHIFT - NVME_PAGE_MIN_SHIFT) << NVME_CAP_MPSMAX_SHIFT |
	       NVME_CAP_CRWMS;
}

/* The first 4 KiB as bytes would lie there. */
static void show(struct nvme *c, struct le32 out[32])
{
	struct nvme_registers r;
	uint64_t cap = capabilities(c);

	short_lock_shared(&c->lock);
	r = c->regs;
	if (c->stuck)
		r.csts = c->stuck_csts;
	short_unlock_shared(&c->lock);
	memset(out, 0, 32 * sizeof(out[0]));
	out[NVME_REG_CAP / 4] = put32(cap);
	out[NVME_REG_CAP / 4 + 1] = put32(cap >> 32);
	out[NVME_REG_VS / 4] = put32(NVME_VERSION_2_0);
	out[NVME_REG_INTMS / 4] = out[NVME_REG_INTMC / 4] = put32(r.intms);
	out[NVME_REG_CC / 4] = put32(r.cc);
	out[NVME_REG_CSTS / 4] = put32(r.csts);
	out[NVME_REG_AQA / 4] = put32(r.aqa);
	out[NVME_REG_ASQ / 4] = put32(r.asq);
	out[NVME_REG_ASQ / 4 + 1] = put32(r.asq >> 32);
	out[NVME_REG_ACQ / 4] = put32(r.acq);
	out[NVME_REG_ACQ / 4 + 1] = put32(r.acq >> 32);
	out[NVME_REG_CRTO / 4] = put32(0xff); /* in units of 500 ms, as CAP.TO */
}

uint64_t nvme_bar_read(struct nvme *c, uint64_t offset, unsigned size)
{
	struct le32 registers[34] = {0};
	struct le64 value = {{0}};

	if (offset >= 32 * sizeof(registers[0]) || !size || size > sizeof(value))
		return 0; /* doorbells are not to be read */
	show(c, registers);
	memcpy(&value, (const uint8_t *)registers + offset, size);
	return get64(value);
}

/* ------------------------------------------------------------------ writing */

/* Bits of CC that may change while the controller is enabled. */
#define CC_ANY_TIME (NVME_CC_SHN_MASK | 0x00ff0000u)

/* Under the lock. */
static void write_cc(struct nvme *c, uint32_t value)
{
	uint32_t old = c->regs.cc;

	value &= NVME_CC_WRITABLE;
	if (old & NVME_CC_EN && value & NVME_CC_EN)
		value = (old & ~CC_ANY_TIME) | (value & CC_ANY_TIME);
	if (old & NVME_CC_EN && !(value & NVME_CC_EN))
		c->reset_wanted = true;
	if (NVME_CC_SHN(value) && NVME_CC_SHN(value) != NVME_CC_SHN(old)) {
		c->shutdown_wanted = true;
		c->regs.csts = (c->regs.csts & ~NVME_CSTS_SHST_MASK) | NVME_CSTS_SHST_OCCURRING;
	}
	c->regs.cc = value;
}

/* Under the lock: everything begins anew, but for what the control fiber has to end first. */
static void reset_subsystem(struct nvme *c)
{
	c->reset_wanted = c->reset_all = c->subsystem_reset = true;
	c->regs.cc = 0;
}

static uint64_t with_half(uint64_t old, bool high, uint32_t value)
{
	return high ? (old & UINT32_MAX) | (uint64_t)value << 32 : (old & ~(uint64_t)UINT32_MAX) | value;
}

/* Under the lock. True when the control fiber has to look. */
static bool write_register(struct nvme *c, uint64_t offset, uint32_t value, uint32_t *raise)
{
	bool enabled = c->regs.cc & NVME_CC_EN;

	switch (offset) {
	case NVME_REG_INTMS:
		mask(c, c->regs.intms | value);
		return false;
	case NVME_REG_INTMC:
		*raise = unmask(c, value);
		return false;
	case NVME_REG_CC:
		write_cc(c, value);
		return true;
	case NVME_REG_CSTS:
		c->regs.csts &= ~(value & NVME_CSTS_NSSRO);
		return false;
	case NVME_REG_NSSR:
		if (value == NVME_NSSR_MAGIC)
			reset_subsystem(c);
		return value == NVME_NSSR_MAGIC;
	case NVME_REG_AQA:
		if (!enabled)
			c->regs.aqa = value & 0x0fff0fff;
		return false;
	case NVME_REG_ASQ:
	case NVME_REG_ASQ + 4:
		if (!enabled)
			c->regs.asq = with_half(c->regs.asq, offset != NVME_REG_ASQ, value) & ~UINT64_C(0xfff);
		return false;
	case NVME_REG_ACQ:
	case NVME_REG_ACQ + 4:
		if (!enabled)
			c->regs.acq = with_half(c->regs.acq, offset != NVME_REG_ACQ, value) & ~UINT64_C(0xfff);
		return false;
	default:
		return false;
	}
}

/*
 * A completion queue was rung for. The pin goes down at once, since what the guest waits for is that: its queue's fiber, which alone knows
 * what is left, puts it up again.
 */
static void acknowledge(struct nvme *c, unsigned index)
{
	if (!(index & 1) || !atomic_load_explicit(&c->pin, memory_order_relaxed))
		return;
	nvme_assert_pin(c, index, false);
	wait_signal_raise(&c->bells[index].posted);
}

static void ring(struct nvme *c, uint64_t offset, uint32_t value)
{
	uint64_t index = (offset - NVME_REG_DOORBELLS) / 4;

	if (index >= NVME_BELLS || !atomic_load_explicit(&c->bells[index].used, memory_order_acquire)) {
		if (nvme_csts(c) & NVME_CSTS_RDY)
			nvme_event(c, NVME_EVENT_DOORBELL_REGISTER);
		return;
	}
	atomic_store_explicit(&c->doorbells[index], htole32(value), memory_order_release);
	wait_signal_raise(&c->bells[index].rung);
	acknowledge(c, (unsigned)index);
}

static void write32(struct nvme *c, uint64_t offset, uint32_t value)
{
	uint32_t raise = 0;
	bool look;

	if (offset >= NVME_REG_DOORBELLS) {
		ring(c, offset, value);
		return;
	}
	short_lock_exclusive(&c->lock);
	look = write_register(c, offset, value, &raise);
	short_unlock_exclusive(&c->lock);
	if (look)
		wait_signal_raise(&c->control);
	for (unsigned v = 0; v < 32; v++)
		if (raise >> v & 1)
			c->host->ops->raise(c->host, v);
}

void nvme_bar_write(struct nvme *c, uint64_t offset, unsigned size, uint64_t value)
{
	if ((size != 4 && size != 8) || offset % size || offset >= NVME_BAR_BYTES)
		return;
	write32(c, offset, (uint32_t)value);
	if (size == 8 && offset < NVME_REG_DOORBELLS)
		write32(c, offset + 4, (uint32_t)(value >> 32));
}

bool nvme_poll(struct nvme *c)
{
	unsigned count = atomic_load_explicit(&c->nr_bells, memory_order_acquire);
	bool any = false;

	for (unsigned i = 0; i < count; i++) {
		uint32_t value = atomic_load_explicit(&c->doorbells[i], memory_order_acquire);
		/* looked at first: most have not changed, and an exchange each would cost a microsecond a call */
		if (atomic_load_explicit(&c->bells[i].polled, memory_order_relaxed) == value)
			continue;
		if (atomic_exchange_explicit(&c->bells[i].polled, value, memory_order_relaxed) != value) {
			wait_signal_raise(&c->bells[i].rung);
			acknowledge(c, i);
		}
		any = true;
	}
	return any;
}
