/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages of vfio-user and what they mean
 *
 * A message has been read whole when it comes here; all of it is the client's, so each field is checked before anything is
 * done, and a command that cannot be carried out is answered with an errno and changes nothing. What clients do that the
 * specification does not tell:
 *
 *   QEMU asks for the minor version 0 and refuses a higher one in the answer; it checks that the text ends with NUL
 *   QEMU asks for region information with no room for capabilities first, and wants their offset even then
 *   QEMU, when a guest sets up an emulated IOMMU, unmaps all of the address space where nothing is mapped, and complains of errors
 *   QEMU maps ROM without a descriptor
 *   SPDK's client must find the doorbells mappable; what it asks of a region is as long as the answer may be; it unmaps memory with the
 *   descriptor that it mapped it by
 *   Cloud Hypervisor's client reads an answer about the device that is as long as its question, of 16 or 20 bytes by its age, and gives
 *   all vectors their descriptors by one message
 *   QEMU switches MSI-X on with a vector 0 that has no descriptor, and takes all back before it gives new ones
 *   QEMU, of INTx, says UNMASK from inside the guest's handler: told again at once, the interrupt would come after the last
 *   access that could take it back. So it is told again a little later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "vmm/vfio-user-internal.h"

/* The shortest wait after UNMASK with which each command of an ATA disk caused one interrupt. */
#define UNMASK_NS UINT64_C(2000000)

/* An unmap is answered after so long, whatever still uses the memory: clients give up after 5 s. */
#define SETTLE_NS UINT64_C(3000000000)

/* But after so long, if a request waits for that memory: only the client, once it has its answer, can bring it back. */
#define MISSED_NS UINT64_C(100000000)
#define LOOK_NS UINT64_C(5000000)

/* The longest text of a client's capabilities. */
#define MAX_VERSION_TEXT 65536u

/* ------------------------------------------------------------------ replies */

static int answer(struct vfio_user_reply *r, const void *body, size_t size)
{
	r->body = malloc(size ? size : 1);
	if (!r->body)
		return -ENOMEM;
	memcpy(r->body, body, size);
	r->size = size;
	return 0;
}

/* The body as a structure of `size` bytes, with nothing behind it unless `more`. */
static int take(const struct vfio_user_message *m, void *to, size_t size, bool more)
{
	if (m->size < size || (!more && m->size > size))
		return -EINVAL;
	memcpy(to, m->body, size);
	return 0;
}

/* ------------------------------------------------------------------ version */

/* A number of the client's capabilities; `fallback` where it says none. */
static uint32_t capability(const json_t *capabilities, const char *name, uint32_t fallback)
{
	const json_t *value = json_object_get(capabilities, name);
	json_int_t n = json_integer_value(value);

	return json_is_integer(value) && n > 0 && n < fallback ? (uint32_t)n : fallback;
}

static int read_capabilities(const struct vfio_user_message *m, struct vfio_user_client *client)
{
	const char *text = (const char *)m->body + sizeof(struct vfio_user_version);
	size_t length = m->size - sizeof(struct vfio_user_version);
	json_t *all;

	if (!length)
		return 0;
	if (length > MAX_VERSION_TEXT || memchr(text, '\0', length) != text + length - 1)
		return -EINVAL;
	all = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(all)) {
		json_decref(all);
		return -EINVAL;
	}
	client->max_transfer = capability(json_object_get(all, "capabilities"), "max_data_xfer_size", VFIO_USER_MAX_TRANSFER);
	json_decref(all);
	return 0;
}

static int greet(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m, struct vfio_user_reply *r)
{
	struct {
		struct vfio_user_version version;
		char text[124];
	} out = {.version = {0, 0}};
	struct vfio_user_version asked;
	int status = take(m, &asked, sizeof(asked), true), length;

	(void)v;
	if (status || client->greeted || asked.major)
		return -EINVAL;
	client->max_transfer = VFIO_USER_MAX_TRANSFER;
	status = read_capabilities(m, client);
	if (status)
		return status;
	length = snprintf(out.text, sizeof(out.text), "{\"capabilities\":{\"max_msg_fds\":%u,\"max_data_xfer_size\":%u}}",
			  VFIO_USER_TOLD_FDS, VFIO_USER_MAX_TRANSFER);
	status = answer(r, &out, sizeof(out.version) + (size_t)length + 1);
	client->greeted = !status;
	return status;
}

/* ------------------------------------------------------------------ memory */

static int map_memory(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
		      struct vfio_user_reply *r)
{
	struct vfio_user_dma_map map;
	unsigned access;
	int status = take(m, &map, sizeof(map), false);

	(void)client, (void)r;
	if (status || map.argsz < sizeof(map) || m->nr_fds > 1 ||
	    map.flags & ~(uint32_t)(VFIO_USER_MAP_READ | VFIO_USER_MAP_WRITE))
		return -EINVAL;
	access = (map.flags & VFIO_USER_MAP_READ ? GUEST_READ : 0u) | (map.flags & VFIO_USER_MAP_WRITE ? GUEST_WRITE : 0u);
	return guest_memory_add(v->memory, map.address, map.size, access, m->nr_fds ? m->fds[0] : -1, map.offset);
}

/* A wait that somebody may give up on: the one who comes last frees it. */
struct settling {
	struct vfio_user *v;
	struct wait_signal done;
	_Atomic bool left; /* by one of the two */
};

static void leave_settling(struct settling *s)
{
	if (atomic_exchange(&s->left, true))
		free(s);
}

static void settle_main(void *argument)
{
	struct settling *s = argument;
	struct vfio_user *v = s->v;

	guest_memory_settle(v->memory);
	wait_signal_raise(&s->done);
	leave_settling(s);
	vfio_user_ended(v);
}

/*
 * Waits until nobody uses what was taken away, or long enough: then what is under way ends in memory that only we have mapped,
 * and that goes with it.
 */
static void settle(struct vfio_user *v)
{
	struct settling *s = calloc(1, sizeof(*s));

	if (!s)
		return; /* the next one, or the end of the client, unmaps it */
	s->v = v;
	if (vfio_user_spawn(v, settle_main, s)) {
		free(s);
		return;
	}
	for (uint64_t begin = wait_now(), waited = 0; waited < SETTLE_NS; waited = wait_now() - begin)
		if (!wait_signal_wait(&s->done, 0, LOOK_NS) || (waited > MISSED_NS && guest_memory_is_missed(v->memory)))
			break;
	leave_settling(s);
}

static int unmap_memory(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
			struct vfio_user_reply *r)
{
	struct vfio_user_dma_unmap unmap;
	int status = take(m, &unmap, sizeof(unmap), false);

	(void)client;
	if (status || unmap.argsz < sizeof(unmap))
		return -EINVAL;
	if (unmap.flags == VFIO_USER_UNMAP_ALL) {
		if (unmap.address || unmap.size)
			return -EINVAL;
		guest_memory_clear(v->memory);
	} else if (unmap.flags) {
		return unmap.flags & VFIO_USER_UNMAP_DIRTY ? -EOPNOTSUPP : -EINVAL;
	} else {
		status = guest_memory_remove(v->memory, unmap.address, unmap.size);
	}
	if (status == -ENOENT) {
		unmap.size = 0; /* of what was asked for so much was unmapped, as linux/vfio.h has it */
		return answer(r, &unmap, sizeof(unmap));
	}
	if (status)
		return status;
	settle(v);
	return answer(r, &unmap, sizeof(unmap));
}

/* ------------------------------------------------------------------ what the device is */

static int device_info(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
		       struct vfio_user_reply *r)
{
	struct vfio_user_device_info info;
	size_t size = m->size == sizeof(info) ? sizeof(info) : VFIO_USER_DEVICE_INFO_BYTES;

	(void)v, (void)client;
	if (take(m, &info, size, false) || info.argsz < size)
		return -EINVAL;
	info = (struct vfio_user_device_info){
		.argsz = (uint32_t)size,
		.flags = VFIO_USER_DEVICE_RESETS | VFIO_USER_DEVICE_PCI,
		.regions = VFIO_USER_REGIONS,
		.irqs = VFIO_USER_IRQS,
	};
	return answer(r, &info, size);
}

/* Bytes of a region; 0: there is none. */
static uint64_t region_size(const struct vfio_user *v, uint32_t index)
{
	const struct pci *p = v->device->pci;

	if (index == VFIO_USER_REGION_CONFIG)
		return p->size;
	return index < PCI_BARS && p->options.bars[index].type ? p->options.bars[index].size : 0;
}

static int region_info(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
		       struct vfio_user_reply *r)
{
	const struct vmm_shared *shared = &v->device->shared;
	struct {
		struct vfio_user_region_info info;
		struct vfio_user_sparse sparse;
	} out = {.sparse = {.id = 1, .version = 1, .areas = 1, .offset = shared->offset, .size = shared->size}};
	struct vfio_user_region_info asked;
	bool maps, room;
	int status;

	(void)client;
	if (take(m, &asked, sizeof(asked), true) || asked.argsz < sizeof(asked) || asked.index >= VFIO_USER_REGIONS)
		return -EINVAL;
	maps = shared->fd >= 0 && asked.index == shared->bar;
	room = maps && asked.argsz >= sizeof(out);
	out.info = (struct vfio_user_region_info){
		.argsz = maps ? sizeof(out) : sizeof(out.info),
		.index = asked.index,
		.size = region_size(v, asked.index),
	};
	if (out.info.size)
		out.info.flags = VFIO_USER_REGION_CAN_READ | VFIO_USER_REGION_CAN_WRITE;
	if (maps) {
		out.info.flags |= VFIO_USER_REGION_CAN_MAP | VFIO_USER_REGION_CAPS;
		out.info.cap_offset = sizeof(out.info);
	}
	status = answer(r, &out, room ? sizeof(out) : sizeof(out.info));
	if (!status && room)
		r->fd = shared->fd;
	return status;
}

/* ------------------------------------------------------------------ interrupts */

/* How many there are of an index. */
static uint32_t irq_count(const struct vfio_user *v, uint32_t index)
{
	if (index == VFIO_USER_IRQ_INTX)
		return v->device->pci->options.pin ? 1 : 0;
	return index == VFIO_USER_IRQ_MSIX ? v->device->pci->options.vectors : 0;
}

static int irq_info(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
		    struct vfio_user_reply *r)
{
	struct vfio_user_irq_info info;

	(void)client;
	if (take(m, &info, sizeof(info), false) || info.argsz < sizeof(info) || info.index >= VFIO_USER_IRQS)
		return -EINVAL;
	info.argsz = sizeof(info);
	info.count = irq_count(v, info.index);
	info.flags = 0;
	if (info.count)
		info.flags = info.index == VFIO_USER_IRQ_INTX
				     ? VFIO_USER_IRQ_EVENTFD | VFIO_USER_IRQ_MASKABLE | VFIO_USER_IRQ_AUTOMASKED
				     : VFIO_USER_IRQ_EVENTFD | VFIO_USER_IRQ_NORESIZE;
	return answer(r, &info, sizeof(info));
}

static void unmask_main(void *argument)
{
	struct vfio_user *v = argument;

	wait_sleep(UNMASK_NS);
	atomic_store(&v->unmasking, false);
	interrupts_mask_intx(v->device->interrupts, false);
	vfio_user_ended(v);
}

static void unmask_intx(struct vfio_user *v)
{
	if (atomic_exchange(&v->unmasking, true))
		return;
	if (vfio_user_spawn(v, unmask_main, v)) {
		atomic_store(&v->unmasking, false);
		interrupts_mask_intx(v->device->interrupts, false);
	}
}

/* MASK, UNMASK, or a loopback, of one. */
static void act_on(struct vfio_user *v, uint32_t index, uint32_t vector, uint32_t action)
{
	struct interrupts *i = v->device->interrupts;

	if (index == VFIO_USER_IRQ_MSIX) {
		if (action == VFIO_USER_IRQ_TRIGGER)
			interrupts_trigger(i, vector);
		else
			interrupts_mask(i, vector, action == VFIO_USER_IRQ_MASK);
	} else if (action == VFIO_USER_IRQ_TRIGGER) {
		interrupts_trigger_intx(i);
	} else if (action == VFIO_USER_IRQ_MASK) {
		interrupts_mask_intx(i, true);
	} else {
		unmask_intx(v);
	}
}

void vfio_user_set_intx(struct vfio_user *v, int fd)
{
	interrupts_set_intx(v->device->interrupts, fd);
	if (v->device->ops->use_pin)
		v->device->ops->use_pin(v->device, fd >= 0);
}

static int set_eventfds(struct vfio_user *v, const struct vfio_user_irq_set *set, struct vfio_user_message *m)
{
	struct interrupts *i = v->device->interrupts;

	if ((set->flags & VFIO_USER_IRQ_ACTION_MASK) != VFIO_USER_IRQ_TRIGGER || !set->count ||
	    (m->nr_fds && m->nr_fds != set->count))
		return -EINVAL;
	for (unsigned n = 0; n < m->nr_fds; n++)
		if (!interrupts_can_use(m->fds[n]))
			return -EINVAL;
	for (uint32_t n = 0; n < set->count; n++) {
		int fd = m->nr_fds ? m->fds[n] : -1;
		if (m->nr_fds)
			m->fds[n] = -1;
		if (set->index == VFIO_USER_IRQ_MSIX)
			interrupts_set_vector(i, set->start + n, fd);
		else
			vfio_user_set_intx(v, fd);
	}
	return 0;
}

static void disable_irqs(struct vfio_user *v, uint32_t index)
{
	if (index == VFIO_USER_IRQ_MSIX)
		interrupts_clear_vectors(v->device->interrupts);
	else if (index == VFIO_USER_IRQ_INTX)
		vfio_user_set_intx(v, -1);
}

/* One bit each of what the data are and of what is to be done. */
static bool is_one_each(uint32_t flags)
{
	uint32_t data = flags & VFIO_USER_IRQ_DATA_MASK, action = flags & VFIO_USER_IRQ_ACTION_MASK;

	return data && !(data & (data - 1)) && action && !(action & (action - 1)) && (data | action) == flags;
}

static int set_irqs(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
		    struct vfio_user_reply *r)
{
	struct vfio_user_irq_set set;
	const uint8_t *bools = m->body + sizeof(set);
	uint32_t action;
	bool has_bools;

	(void)client, (void)r;
	if (take(m, &set, sizeof(set), true) || set.argsz < sizeof(set) || set.index >= VFIO_USER_IRQS || !is_one_each(set.flags))
		return -EINVAL;
	if (set.start > irq_count(v, set.index) || set.count > irq_count(v, set.index) - set.start)
		return -EINVAL;
	has_bools = set.flags & VFIO_USER_IRQ_DATA_BOOL;
	if (m->size != sizeof(set) + (has_bools ? set.count : 0u))
		return -EINVAL;
	if (set.flags & VFIO_USER_IRQ_DATA_EVENTFD)
		return set_eventfds(v, &set, m);
	action = set.flags & VFIO_USER_IRQ_ACTION_MASK;
	if (m->nr_fds || (!set.count && (has_bools || action != VFIO_USER_IRQ_TRIGGER)))
		return -EINVAL;
	if (!set.count)
		disable_irqs(v, set.index);
	for (uint32_t n = 0; n < set.count; n++)
		if (!has_bools || bools[n])
			act_on(v, set.index, set.start + n, action);
	return 0;
}

/* ------------------------------------------------------------------ regions */

/* The largest access that begins at `offset`, is aligned and no longer than `left`. */
static unsigned access_size(uint64_t offset, uint32_t left)
{
	unsigned size = 8;

	while (offset % size || size > left)
		size /= 2;
	return size;
}

static void read_bar(struct vmm_device *d, unsigned bar, uint64_t offset, uint8_t *to, uint32_t count)
{
	if (pci_is_asleep(d->pci)) {
		memset(to, 0xff, count);
		return;
	}
	while (count) {
		unsigned size = access_size(offset, count);
		uint64_t value = d->ops->read(d, bar, offset, size);
		for (unsigned i = 0; i < size; i++)
			*to++ = (uint8_t)(value >> 8 * i);
		offset += size;
		count -= size;
	}
}

static void write_bar(struct vmm_device *d, unsigned bar, uint64_t offset, const uint8_t *from, uint32_t count)
{
	while (count && !pci_is_asleep(d->pci)) {
		unsigned size = access_size(offset, count);
		uint64_t value = 0;
		for (unsigned i = 0; i < size; i++)
			value |= (uint64_t)*from++ << 8 * i;
		d->ops->write(d, bar, offset, size, value);
		offset += size;
		count -= size;
	}
}

static int check_access(const struct vfio_user *v, const struct vfio_user_region_access *a)
{
	uint64_t size = a->region < VFIO_USER_REGIONS ? region_size(v, a->region) : 0;

	if (!a->count || a->count > VFIO_USER_MAX_TRANSFER || a->count > size || a->offset > size - a->count)
		return -EINVAL;
	return 0;
}

static int read_region(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
		       struct vfio_user_reply *r)
{
	struct vfio_user_region_access a;
	uint8_t *data;

	(void)client;
	if (take(m, &a, sizeof(a), false) || check_access(v, &a))
		return -EINVAL;
	r->body = malloc(sizeof(a) + a.count);
	if (!r->body)
		return -ENOMEM;
	r->size = sizeof(a) + a.count;
	memcpy(r->body, &a, sizeof(a));
	data = (uint8_t *)r->body + sizeof(a);
	if (a.region == VFIO_USER_REGION_CONFIG)
		pci_read(v->device->pci, (unsigned)a.offset, data, a.count);
	else
		read_bar(v->device, a.region, a.offset, data, a.count);
	return 0;
}

void vfio_user_reset_device(struct vfio_user *v)
{
	v->device->ops->reset(v->device);
	pci_reset(v->device->pci);
	interrupts_reset(v->device->interrupts);
}

static void write_config(struct vfio_user *v, unsigned offset, const void *data, size_t length)
{
	unsigned wishes = pci_write(v->device->pci, offset, data, length);

	if (wishes & PCI_WISH_COMMAND)
		interrupts_allow_intx(v->device->interrupts, !pci_intx_is_off(v->device->pci));
	if (wishes & PCI_WISH_RESET)
		vfio_user_reset_device(v);
}

static int write_region(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
			struct vfio_user_reply *r)
{
	struct vfio_user_region_access a;
	const uint8_t *data = m->body + sizeof(a);

	(void)client;
	if (take(m, &a, sizeof(a), true) || check_access(v, &a) || m->size != sizeof(a) + a.count)
		return -EINVAL;
	if (a.region == VFIO_USER_REGION_CONFIG)
		write_config(v, (unsigned)a.offset, data, a.count);
	else
		write_bar(v->device, a.region, a.offset, data, a.count);
	return m->header.flags & VFIO_USER_NO_REPLY ? 0 : answer(r, &a, sizeof(a));
}

static int reset_device(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
			struct vfio_user_reply *r)
{
	(void)client, (void)r;
	if (m->size)
		return -EINVAL;
	vfio_user_reset_device(v);
	return 0;
}

/* ------------------------------------------------------------------ all of them */

static int (*const handlers[])(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
			       struct vfio_user_reply *r) = {
	[VFIO_USER_VERSION] = greet,
	[VFIO_USER_DMA_MAP] = map_memory,
	[VFIO_USER_DMA_UNMAP] = unmap_memory,
	[VFIO_USER_DEVICE_GET_INFO] = device_info,
	[VFIO_USER_GET_REGION_INFO] = region_info,
	[VFIO_USER_GET_IRQ_INFO] = irq_info,
	[VFIO_USER_SET_IRQS] = set_irqs,
	[VFIO_USER_REGION_READ] = read_region,
	[VFIO_USER_REGION_WRITE] = write_region,
	[VFIO_USER_DEVICE_RESET] = reset_device,
};

int vfio_user_handle(struct vfio_user *v, struct vfio_user_client *client, struct vfio_user_message *m,
		     struct vfio_user_reply *r)
{
	unsigned command = m->header.command;

	*r = (struct vfio_user_reply){.fd = -1};
	if (command != VFIO_USER_VERSION && !client->greeted)
		return -EPROTO;
	if (command >= sizeof(handlers) / sizeof(handlers[0]) || !handlers[command])
		return -EOPNOTSUPP;
	return handlers[command](v, client, m, r);
}
