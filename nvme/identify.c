/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Identify (Base 5.17, NVM 4.1.5): what the controller and its namespaces say of themselves. Limits of a namespace are its
 * disk's. Every namespace that is there is attached, so the lists of allocated ones are those of the active ones.
 */
#include <string.h>

#include "nvme/data.h"
#include "nvme/internal.h"
#include "nvme/limits.h"

enum cns {
	CNS_NAMESPACE = 0x00,
	CNS_CONTROLLER = 0x01,
	CNS_ACTIVE = 0x02,
	CNS_DESCRIPTORS = 0x03,
	CNS_COMMAND_SET_NAMESPACE = 0x05,
	CNS_COMMAND_SET_CONTROLLER = 0x06,
	CNS_COMMAND_SET_ACTIVE = 0x07,
	CNS_INDEPENDENT = 0x08,
	CNS_ALLOCATED = 0x10,
	CNS_ALLOCATED_NAMESPACE = 0x11,
	CNS_ATTACHED_CONTROLLERS = 0x12,
	CNS_CONTROLLERS = 0x13,
	CNS_PRIMARY_CONTROLLER = 0x14,
	CNS_COMMAND_SET_ALLOCATED = 0x1a,
	CNS_COMMAND_SET_ALLOCATED_NAMESPACE = 0x1b,
	CNS_COMMAND_SETS = 0x1c,
};

enum { IDENTIFY_BYTES = 4096, LIST_IDS = 1024 };

/* A reply being made; all of it is sent. */
union reply {
	uint8_t bytes[IDENTIFY_BYTES];
	struct le32 ids[LIST_IDS];
	struct nvme_id_controller controller;
	struct nvme_id_namespace ns;
	struct nvme_id_namespace_independent independent;
	struct nvme_id_controller_nvm nvm;
	struct nvme_id_primary primary;
	struct le64 command_sets[IDENTIFY_BYTES / 8];
};

/* ------------------------------------------------------------------ controller */

static void pad(char *to, size_t room, const char *text)
{
	size_t length = strlen(text);

	memset(to, ' ', room);
	memcpy(to, text, length < room ? length : room);
}

static void fill_identity(const struct nvme *c, struct nvme_id_controller *id)
{
	id->vid = id->ssvid = put16(c->vendor);
	pad(id->sn, sizeof(id->sn), c->serial);
	pad(id->mn, sizeof(id->mn), c->model);
	pad(id->fr, sizeof(id->fr), "1.0");
	memcpy(id->subnqn, c->nqn, strlen(c->nqn));
	id->cntlid = put16(c->controller_id);
	id->ver = put32(NVME_VERSION_2_0);
	id->cntrltype = 1; /* I/O controller */
}

static void fill_admin(const struct nvme *c, struct nvme_id_controller *id)
{
	id->mdts = (uint8_t)c->mdts;
	id->rtd3r = id->rtd3e = put32(1000000); /* microseconds */
	id->oaes = put32(1u << 8);              /* namespace attributes */
	id->ctratt = put32(1u << 0);            /* 128-bit host identifiers */
	id->oacs = put16(1u << 1 | 1u << 4 | 1u << 8); /* Format, Self-test, Doorbell Buffer Config */
	id->acl = 3;
	id->aerl = NVME_AERL;
	id->frmw = 1u << 1 | 1u; /* one slot, read-only */
	id->lpa = 1u << 1 | 1u << 2; /* effects log; offsets */
	id->elpe = NVME_ERROR_ENTRIES - 1;
	id->wctemp = put16(343);
	id->cctemp = put16(353);
	id->edstt = put16(10); /* minutes */
	id->dsto = 1;
	id->kas = put16(1); /* units of 100 ms */
	/* block erase and overwrite; a Sanitize that shall not deallocate is done without deallocating */
	id->sanicap = put32(1u << 1 | 1u << 2 | 1u << 30);
	id->psd[0][0] = 0xc4, id->psd[0][1] = 0x09; /* 25 W */
}

static void fill_nvm(const struct nvme *c, struct nvme_id_controller *id)
{
	id->sqes = NVME_SQE_SHIFT << 4 | NVME_SQE_SHIFT;
	id->cqes = NVME_CQE_SHIFT << 4 | NVME_CQE_SHIFT;
	id->maxcmd = put16(c->max_depth);
	id->nn = put32(c->max_nsid);
	/* Compare, Write Uncorrectable, Dataset, Write Zeroes, Select and Save field, Reservations, Timestamp, Verify, Copy */
	id->oncs = put16(0x1ff);
	id->fuses = put16(1);
	id->vwc = 3u << 1 | 1; /* there is one; Flush may name all namespaces */
	id->acwu = put16(NVME_ACWU_BLOCKS - 1);
	id->ocfs = put16(1);
	id->sgls = put32(1u << 0 | 1u << 16 | 1u << 18); /* any alignment; bit bucket; longer than the data */
}

static uint16_t identify_controller(struct nvme_command *cmd, union reply *r)
{
	fill_identity(cmd->c, &r->controller);
	fill_admin(cmd->c, &r->controller);
	fill_nvm(cmd->c, &r->controller);
	return NVME_OK;
}

/* ------------------------------------------------------------------ namespaces */

/* In logical blocks, one less; as large as the field. */
static struct le16 blocks0(const struct nvme_namespace *n, uint64_t bytes)
{
	uint64_t blocks = bytes >> n->block_shift;

	return put16(blocks ? blocks > 0x10000 ? 0xffff : blocks - 1 : 0);
}

static void fill_granularity(const struct nvme_namespace *n, struct nvme_id_namespace *id)
{
	const struct disk_info *info = disk_info(n->disk);

	id->npwg = id->npwa = blocks0(n, info->physical_block_size);
	id->nows = blocks0(n, info->physical_block_size);
	id->npdg = blocks0(n, info->discard_granularity);
	id->npda = blocks0(n, info->discard_granularity);
	if (info->discard == DISK_DISCARD_ZEROES)
		id->dlfeat = 1;
	id->dlfeat |= 1u << 3; /* Write Zeroes may deallocate */
	id->nsfeat = 1u << 4;  /* the fields above are to be looked at */
	if (info->discard != DISK_DISCARD_IGNORED)
		id->nsfeat |= 1u << 2; /* and reading what was deallocated may be made an error */
}

static void fill_size(const struct nvme_namespace *n, struct nvme_id_namespace *id)
{
	uint64_t bytes = nvme_namespace_size(n);

	id->nsze = id->ncap = id->nuse = put64(bytes >> n->block_shift);
	for (unsigned i = 0; i < 8; i++)
		id->nvmcap[i] = (uint8_t)(bytes >> 8 * i);
	id->mssrl = put16(nvme_copy_range_blocks(n));
	id->mcl = put32(nvme_copy_blocks(n));
	id->msrc = NVME_COPY_RANGES - 1;
}

unsigned nvme_format_shifts(const struct nvme_namespace *n, unsigned shifts[2])
{
	unsigned own = (unsigned)__builtin_ctz(disk_info(n->disk)->block_size);

	shifts[0] = own;
	shifts[1] = 12;
	return own < 12 ? 2 : 1;
}

static void fill_formats(const struct nvme_namespace *n, struct nvme_id_namespace *id)
{
	unsigned shifts[2], count = nvme_format_shifts(n, shifts);

	id->nlbaf = (uint8_t)(count - 1);
	for (unsigned i = 0; i < count; i++) {
		id->lbaf[i].lbads = (uint8_t)shifts[i];
		id->lbaf[i].rp = (uint8_t)(i == 0 && count == 2); /* 4096 is the better one where both are */
		if (shifts[i] == n->block_shift)
			id->flbas = (uint8_t)i;
	}
}

static void fill_namespace(const struct nvme_namespace *n, struct nvme_id_namespace *id)
{
	const struct disk_info *info = disk_info(n->disk);

	fill_size(n, id);
	fill_granularity(n, id);
	fill_formats(n, id);
	id->rescap = n->reservation_types;
	id->nsattr = n->read_only;
	memcpy(id->eui64, n->eui64, sizeof(id->eui64));
	if (info->flags & DISK_HAS_ID)
		memcpy(id->nguid, info->id, sizeof(id->nguid));
}

/* A block of zeroes stands for a namespace that is not there (Base 5.17.2). */
static uint16_t check_nsid(struct nvme_command *cmd)
{
	uint32_t nsid = nvme_nsid(cmd);

	if (!nsid || nsid > cmd->c->max_nsid)
		return nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	return NVME_OK;
}

/* FFFFFFFFh asks for what all namespaces have in common, which with namespace management alone is a question; here it is none. */
static uint16_t identify_namespace(struct nvme_command *cmd, union reply *r)
{
	struct nvme_namespace *n = nvme_namespace(cmd->c, nvme_nsid(cmd));

	if (n)
		fill_namespace(n, &r->ns);
	return check_nsid(cmd);
}

static uint16_t identify_independent(struct nvme_command *cmd, union reply *r)
{
	struct nvme_namespace *n = nvme_namespace(cmd->c, nvme_nsid(cmd));

	if (n) {
		r->independent.rescap = n->reservation_types;
		r->independent.nsattr = n->read_only;
		r->independent.nstat = 1; /* ready */
	}
	return check_nsid(cmd);
}

/* Base 5.17.2.3: type, length, two reserved bytes, the identifier. */
static void add_descriptor(union reply *r, size_t *at, uint8_t type, const uint8_t *id, uint8_t length)
{
	static const uint8_t none[16];

	if (type != 4 && !memcmp(id, none, length))
		return;
	r->bytes[*at] = type;
	r->bytes[*at + 1] = length;
	memcpy(&r->bytes[*at + 4], id, length);
	*at += 4u + length;
}

static uint16_t identify_descriptors(struct nvme_command *cmd, union reply *r)
{
	struct nvme_namespace *n = nvme_namespace(cmd->c, nvme_nsid(cmd));
	static const uint8_t command_set_nvm[1];
	size_t at = 0;

	if (!n)
		return nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	add_descriptor(r, &at, 1, n->eui64, sizeof(n->eui64));
	if (disk_info(n->disk)->flags & DISK_HAS_ID)
		add_descriptor(r, &at, 2, disk_info(n->disk)->id, 16);
	add_descriptor(r, &at, 3, n->uuid, sizeof(n->uuid));
	add_descriptor(r, &at, 4, command_set_nvm, 1);
	return NVME_OK;
}

/* ------------------------------------------------------------------ lists */

static uint16_t list_namespaces(struct nvme_command *cmd, union reply *r)
{
	uint32_t after = nvme_nsid(cmd);
	size_t count = 0;

	if (after >= NVME_NSID_ALL - 1)
		return nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	for (uint32_t id = after + 1; id <= cmd->c->max_nsid && count < LIST_IDS; id++)
		if (nvme_namespace(cmd->c, id))
			r->ids[count++] = put32(id);
	return NVME_OK;
}

/* One controller there is: this one. A list of 16-bit ids behind their number. */
static uint16_t list_controllers(struct nvme_command *cmd, union reply *r)
{
	uint16_t from = (uint16_t)(nvme_cdw10(cmd) >> 16), own = cmd->c->controller_id;
	struct le16 *list = (struct le16 *)r->bytes;

	if (from > own)
		return NVME_OK;
	list[0] = put16(1);
	list[1] = put16(own);
	return NVME_OK;
}

static uint16_t list_attached_controllers(struct nvme_command *cmd, union reply *r)
{
	if (!nvme_namespace(cmd->c, nvme_nsid(cmd)))
		return nvme_fail_field(cmd, NVME_INVALID_NAMESPACE, 4, 0);
	return list_controllers(cmd, r);
}

/* ------------------------------------------------------------------ controllers there could be */

static uint16_t check_controller(struct nvme_command *cmd, bool any)
{
	uint16_t id = (uint16_t)(nvme_cdw10(cmd) >> 16);

	return id == cmd->c->controller_id || (any && id == 0xffff) ? NVME_OK : nvme_fail_field(cmd, NVME_INVALID_FIELD, 42, 0);
}

/* There are no secondary ones: all queues and vectors are its own (Base 5.17.2, CNS 14h). */
static uint16_t identify_primary(struct nvme_command *cmd, union reply *r)
{
	r->primary.cntlid = put16(cmd->c->controller_id);
	r->primary.vqprt = put16(cmd->c->max_queues + 1);
	r->primary.viprt = put16(cmd->c->max_vectors);
	return check_controller(cmd, false);
}

/* One combination of command sets: NVM alone (Base 5.17.2, CNS 1Ch). */
static uint16_t list_command_sets(struct nvme_command *cmd, union reply *r)
{
	r->command_sets[0] = put64(1u << 0);
	return check_controller(cmd, true);
}

/* ------------------------------------------------------------------ the command */

static uint16_t nothing(struct nvme_command *cmd, union reply *r)
{
	(void)cmd;
	(void)r;
	return NVME_OK; /* NVM, Identify Controller: no limits beyond MDTS */
}

static uint16_t nothing_of_namespace(struct nvme_command *cmd, union reply *r)
{
	(void)r;
	return check_nsid(cmd); /* NVM: there is no protection information to tell of */
}

static const struct {
	uint16_t (*fill)(struct nvme_command *cmd, union reply *r);
	bool of_command_set; /* CSI counts: only that of NVM is there */
} rows[256] = {
	[CNS_NAMESPACE] = {identify_namespace, false},
	[CNS_CONTROLLER] = {identify_controller, false},
	[CNS_ACTIVE] = {list_namespaces, false},
	[CNS_DESCRIPTORS] = {identify_descriptors, false},
	[CNS_COMMAND_SET_NAMESPACE] = {nothing_of_namespace, true},
	[CNS_COMMAND_SET_CONTROLLER] = {nothing, true},
	[CNS_COMMAND_SET_ACTIVE] = {list_namespaces, true},
	[CNS_INDEPENDENT] = {identify_independent, false},
	[CNS_ALLOCATED] = {list_namespaces, false},
	[CNS_ALLOCATED_NAMESPACE] = {identify_namespace, false},
	[CNS_ATTACHED_CONTROLLERS] = {list_attached_controllers, false},
	[CNS_CONTROLLERS] = {list_controllers, false},
	[CNS_PRIMARY_CONTROLLER] = {identify_primary, false},
	[CNS_COMMAND_SET_ALLOCATED] = {list_namespaces, true},
	[CNS_COMMAND_SET_ALLOCATED_NAMESPACE] = {nothing_of_namespace, true},
	[CNS_COMMAND_SETS] = {list_command_sets, false},
};

uint16_t nvme_admin_identify(struct nvme_command *cmd, struct nvme_namespace *n)
{
	uint8_t cns = (uint8_t)nvme_cdw10(cmd), command_set = (uint8_t)(nvme_cdw11(cmd) >> 24);
	union reply r = {{0}};
	_Atomic uint32_t *place;
	uint16_t status;

	(void)n;
	if (!rows[cns].fill)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 40, 0);
	if (rows[cns].of_command_set && command_set)
		return nvme_fail_field(cmd, NVME_INVALID_FIELD, 47, 0);
	place = grace_enter(&cmd->c->inside);
	status = rows[cns].fill(cmd, &r);
	grace_leave(&cmd->c->inside, place);
	return status ? status : nvme_data_send(cmd, &r, sizeof(r));
}
