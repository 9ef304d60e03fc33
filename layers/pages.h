/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory in pages of 4 KiB: a pool that gives freed ones back to the system, and windows, where 512 of them
 * are in order. */
#ifndef PLATTER_LAYERS_PAGES_H
#define PLATTER_LAYERS_PAGES_H

#include <stdint.h>

#define PAGE_BYTES 4096u
#define WINDOW_BYTES (UINT64_C(2) << 20)
#define WINDOW_PAGES 512u

struct page_pool;

/* An empty pool; NULL when memory ran out. */
struct page_pool *page_pool_create(void);

/* Frees the pool and every page in it. Accepts NULL. */
void page_pool_destroy(struct page_pool *p);

/* A page with any content, aligned to its size; NULL when memory ran out. Any thread. */
void *page_alloc(struct page_pool *p);

/* Gives a page back. Any thread. */
void page_free(struct page_pool *p, void *page);

/* Bytes that the pool's pages take: in use, and all that is mapped and may be resident. */
void page_pool_usage(struct page_pool *p, uint64_t *used, uint64_t *resident);

/*
 * WINDOW_BYTES of address space at a multiple of that, zeroes; NULL when there is none. A page of it takes
 * memory once it is touched, never more than that one. Any thread, as with all functions on windows.
 */
void *window_create(void);

void window_destroy(void *window);

/* Gives back the memory of `count` pages from number `first` on, which are zeroes then. */
void window_give_back(void *window, unsigned first, unsigned count);

#endif
