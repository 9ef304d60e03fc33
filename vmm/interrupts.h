/* SPDX-License-Identifier: BSD-3-Clause */
/* Interrupts on their way to a client: an eventfd for each vector of MSI-X, and one for INTx. */
#ifndef PLATTER_VMM_INTERRUPTS_H
#define PLATTER_VMM_INTERRUPTS_H

#include <stdbool.h>
#include <stdint.h>

struct interrupts;

/* For so many vectors, of which none has a descriptor. 0 or -ENOMEM. */
int interrupts_create(unsigned vectors, struct interrupts **out);
void interrupts_destroy(struct interrupts *i);

unsigned interrupts_vectors(const struct interrupts *i);

/* ------------------------------------------------------------------ the device; from any thread, never waits */

/* A message. What nobody can be told of now is pending, and told when there is a descriptor that is not masked. */
void interrupts_raise(struct interrupts *i, unsigned vector);

/* The level of INTx. An edge upwards is told, and no other until the line is unmasked again. */
void interrupts_set_line(struct interrupts *i, bool high);

/* Pending bits of 64 vectors from `first` on, which is a multiple of 64. */
uint64_t interrupts_pending(struct interrupts *i, unsigned first);

/* ------------------------------------------------------------------ the client; one at a time */

/* True for a descriptor that a write of 8 bytes neither blocks on, nor fails at, nor ends the process by: an eventfd. */
bool interrupts_can_use(int fd);

/*
 * Gives vector `vector` (or INTx) another descriptor, -1 for none, which is ours from now on; the old one is closed. Waits until
 * nobody writes to that any more.
 */
void interrupts_set_vector(struct interrupts *i, unsigned vector, int fd);
void interrupts_set_intx(struct interrupts *i, int fd);

/* No vector has a descriptor any more. */
void interrupts_clear_vectors(struct interrupts *i);

/* Tells as if the device had raised it: a loopback. */
void interrupts_trigger(struct interrupts *i, unsigned vector);
void interrupts_trigger_intx(struct interrupts *i);

/* A masked vector becomes pending when it is raised. */
void interrupts_mask(struct interrupts *i, unsigned vector, bool masked);

/* Masks INTx, or unmasks it: then the line is told of again if it is high. */
void interrupts_mask_intx(struct interrupts *i, bool masked);

/* INTx may be told of at all: Interrupt Disable of the command register is off, as at first. */
void interrupts_allow_intx(struct interrupts *i, bool allowed);

/* Nothing is pending, the line is low, nothing is masked, INTx is allowed. Descriptors stay. */
void interrupts_reset(struct interrupts *i);

#endif
