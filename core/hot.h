/* SPDX-License-Identifier: BSD-3-Clause */
/* Functions that nearly every request passes through, put next to each other. */
#ifndef PLATTER_CORE_HOT_H
#define PLATTER_CORE_HOT_H

/*
 * The way of a request leads through a dozen files. Each function on a page of its own is a page more that
 * the processor has to find anew for every request, where a system call makes it forget where pages are
 * (kernel page-table isolation without process-context identifiers, as in many virtual machines), and a line
 * more in its caches. Functions with this mark make up a section, which the linker keeps together. For the
 * way of reads and writes that succeed, in definitions.
 */
#define HOT __attribute__((hot))

#endif
