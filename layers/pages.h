/* SPDX-License-Identifier: BSD-3-Clause */
/* A pool of 4 KiB pages that gives freed memory back to the system. */
#ifndef PLATTER_LAYERS_PAGES_H
#define PLATTER_LAYERS_PAGES_H

#include <stdint.h>

#define PAGE_BYTES 4096u

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

#endif
