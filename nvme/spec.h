/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is on the wire: NVM Express Base 2.0 (Base), NVM Command Set 1.0 (NVM), PCIe Transport 1.0. Numbers of figures change with
 * the letter of a revision, so sections are named. Everything is little endian and of alignment 1.
 */
#ifndef PLATTER_NVME_SPEC_H
#define PLATTER_NVME_SPEC_H

#include <stdint.h>

struct le16 {
	uint8_t byte[2];
};
struct le32 {
	uint8_t byte[4];
};
struct le64 {
	uint8_t byte[8];
};

static inline uint16_t get16(struct le16 v)
{
	return (uint16_t)(v.byte[0] | v.byte[1] << 8);
}

static inline uint32_t get32(struct le32 v)
{
	return (uint32_t)v.byte[0] | (uint32_t)v.byte[1] << 8 | (uint32_t)v.byte[2] << 16 | (uint32_t)v.byte[3] << 24;
}

static inline uint64_t get64(struct le64 v)
{
	return (uint64_t)v.byte[0] | (uint64_t)v.byte[1] << 8 | (uint64_t)v.byte[2] << 16 |
	       (uint64_t)v.byte[3] << 24 | (uint64_t)v.byte[4] << 32 | (uint64_t)v.byte[5] << 40 |
	       (uint64_t)v.byte[6] << 48 | (uint64_t)v.byte[7] << 56;
}

static inline struct le16 put16(uint64_t v)
{
	return (struct le16){{(uint8_t)v, (uint8_t)(v >> 8)}};
}

static inline struct le32 put32(uint64_t v)
{
	return (struct le32){{(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)}};
}

static inline struct le64 put64(uint64_t v)
{
	return (struct le64){{(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24), (uint8_t)(v >> 32),
			      (uint8_t)(v >> 40), (uint8_t)(v >> 48), (uint8_t)(v >> 56)}};
}

/* ------------------------------------------------------------------ properties (Base 3.1.3) */

enum nvme_register {
	NVME_REG_CAP = 0x00,   /* 64 bits */
	NVME_REG_VS = 0x08,
	NVME_REG_INTMS = 0x0c,
	NVME_REG_INTMC = 0x10,
	NVME_REG_CC = 0x14,
	NVME_REG_CSTS = 0x1c,
	NVME_REG_NSSR = 0x20,
	NVME_REG_AQA = 0x24,
	NVME_REG_ASQ = 0x28,   /* 64 bits */
	NVME_REG_ACQ = 0x30,   /* 64 bits */
	NVME_REG_CRTO = 0x68,
	NVME_REG_DOORBELLS = 0x1000, /* stride 4 bytes: CAP.DSTRD is 0 */
};

#define NVME_VERSION_2_0 UINT32_C(0x00020000)

#define NVME_CAP_CQR (UINT64_C(1) << 16)
#define NVME_CAP_TO_SHIFT 24
#define NVME_CAP_NSSRS (UINT64_C(1) << 36)
#define NVME_CAP_CSS_NVM (UINT64_C(1) << 37)
#define NVME_CAP_MPSMAX_SHIFT 52
#define NVME_CAP_CRWMS (UINT64_C(1) << 59)

#define NVME_CC_EN 1u
#define NVME_CC_CSS(cc) ((cc) >> 4 & 7)
#define NVME_CC_MPS(cc) ((cc) >> 7 & 15)
#define NVME_CC_AMS(cc) ((cc) >> 11 & 7)
#define NVME_CC_SHN(cc) ((cc) >> 14 & 3)
#define NVME_CC_SHN_MASK (3u << 14)
#define NVME_CC_IOSQES(cc) ((cc) >> 16 & 15)
#define NVME_CC_IOCQES(cc) ((cc) >> 20 & 15)
#define NVME_CC_WRITABLE 0x00fffff1u

#define NVME_CSTS_RDY (1u << 0)
#define NVME_CSTS_CFS (1u << 1)
#define NVME_CSTS_SHST_MASK (3u << 2)
#define NVME_CSTS_SHST_OCCURRING (1u << 2)
#define NVME_CSTS_SHST_COMPLETE (2u << 2)
#define NVME_CSTS_NSSRO (1u << 4)

#define NVME_NSSR_MAGIC UINT32_C(0x4e564d65)

/* ------------------------------------------------------------------ queue entries (Base 3.3.3) */

struct nvme_sqe {
	uint8_t opcode;
	uint8_t flags; /* FUSE 1:0, PSDT 7:6 */
	struct le16 cid;
	struct le32 nsid;
	struct le32 cdw2, cdw3;
	struct le64 mptr;
	struct le64 prp1, prp2; /* or one SGL descriptor */
	struct le32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
_Static_assert(sizeof(struct nvme_sqe) == 64, "submission queue entry");

#define NVME_FUSE(flags) ((flags)&3)
#define NVME_FUSE_FIRST 1u
#define NVME_FUSE_SECOND 2u
#define NVME_PSDT(flags) ((flags) >> 6)

struct nvme_cqe {
	struct le32 dw0, dw1;
	struct le16 sqhd, sqid;
	struct le16 cid;
	struct le16 status; /* P 0, SC 8:1, SCT 11:9, CRD 13:12, M 14, DNR 15 */
};
_Static_assert(sizeof(struct nvme_cqe) == 16, "completion queue entry");

struct nvme_sgl { /* Base 4.1.2 */
	struct le64 address;
	struct le32 length;
	uint8_t reserved[3];
	uint8_t type; /* subtype 3:0, type 7:4 */
};
_Static_assert(sizeof(struct nvme_sgl) == 16, "SGL descriptor");

enum nvme_sgl_type {
	NVME_SGL_DATA = 0,
	NVME_SGL_BUCKET = 1,
	NVME_SGL_SEGMENT = 2,
	NVME_SGL_LAST_SEGMENT = 3,
};

#define NVME_NSID_ALL UINT32_C(0xffffffff)

enum nvme_admin_opcode {
	NVME_ADMIN_DELETE_SQ = 0x00,
	NVME_ADMIN_CREATE_SQ = 0x01,
	NVME_ADMIN_GET_LOG = 0x02,
	NVME_ADMIN_DELETE_CQ = 0x04,
	NVME_ADMIN_CREATE_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_ASYNC_EVENT = 0x0c,
	NVME_ADMIN_SELF_TEST = 0x14,
	NVME_ADMIN_KEEP_ALIVE = 0x18,
	NVME_ADMIN_DOORBELL_BUFFER = 0x7c,
	NVME_ADMIN_FORMAT = 0x80,
	NVME_ADMIN_SANITIZE = 0x84,
};

enum nvme_io_opcode {
	NVME_IO_FLUSH = 0x00,
	NVME_IO_WRITE = 0x01,
	NVME_IO_READ = 0x02,
	NVME_IO_WRITE_UNCORRECTABLE = 0x04,
	NVME_IO_COMPARE = 0x05,
	NVME_IO_WRITE_ZEROES = 0x08,
	NVME_IO_DATASET = 0x09,
	NVME_IO_VERIFY = 0x0c,
	NVME_IO_RESERVATION_REGISTER = 0x0d,
	NVME_IO_RESERVATION_REPORT = 0x0e,
	NVME_IO_RESERVATION_ACQUIRE = 0x11,
	NVME_IO_RESERVATION_RELEASE = 0x15,
	NVME_IO_COPY = 0x19,
};

/* ------------------------------------------------------------------ status (Base 3.3.3.2.1): SCT << 8 | SC */

enum nvme_status {
	NVME_OK = 0x000,
	NVME_INVALID_OPCODE = 0x001,
	NVME_INVALID_FIELD = 0x002,
	NVME_CID_CONFLICT = 0x003,
	NVME_DATA_TRANSFER_ERROR = 0x004,
	NVME_INTERNAL_ERROR = 0x006,
	NVME_ABORT_REQUESTED = 0x007,
	NVME_ABORT_SQ_DELETED = 0x008,
	NVME_ABORT_FAILED_FUSED = 0x009,
	NVME_ABORT_MISSING_FUSED = 0x00a,
	NVME_INVALID_NAMESPACE = 0x00b,
	NVME_SEQUENCE_ERROR = 0x00c,
	NVME_SGL_INVALID_SEGMENT = 0x00d,
	NVME_SGL_INVALID_COUNT = 0x00e,
	NVME_SGL_INVALID_LENGTH = 0x00f,
	NVME_SGL_INVALID_TYPE = 0x011,
	NVME_PRP_INVALID_OFFSET = 0x013,
	NVME_ATOMIC_UNIT_EXCEEDED = 0x014,
	NVME_HOST_ID_INCONSISTENT = 0x018,
	NVME_KEEP_ALIVE_EXPIRED = 0x019,
	NVME_PREEMPTED = 0x01b,
	NVME_SANITIZE_FAILED = 0x01c,
	NVME_SANITIZE_IN_PROGRESS = 0x01d,
	NVME_WRITE_PROTECTED = 0x020,
	NVME_LBA_OUT_OF_RANGE = 0x080,
	NVME_CAPACITY_EXCEEDED = 0x081,
	NVME_NAMESPACE_NOT_READY = 0x082,
	NVME_RESERVATION_CONFLICT = 0x083,
	NVME_FORMAT_IN_PROGRESS = 0x084,

	NVME_CQ_INVALID = 0x100,
	NVME_QID_INVALID = 0x101,
	NVME_QUEUE_SIZE_INVALID = 0x102,
	NVME_ASYNC_LIMIT = 0x105,
	NVME_VECTOR_INVALID = 0x108,
	NVME_LOG_PAGE_INVALID = 0x109,
	NVME_FORMAT_INVALID = 0x10a,
	NVME_QUEUE_DELETION_INVALID = 0x10c,
	NVME_FEATURE_NOT_SAVEABLE = 0x10d,
	NVME_FEATURE_NOT_CHANGEABLE = 0x10e,
	NVME_FEATURE_NOT_PER_NAMESPACE = 0x10f,
	NVME_SELF_TEST_IN_PROGRESS = 0x11d,
	NVME_READ_ONLY_RANGE = 0x182,
	NVME_SIZE_LIMIT_EXCEEDED = 0x183,

	NVME_WRITE_FAULT = 0x280,
	NVME_UNRECOVERED_READ = 0x281,
	NVME_GUARD_CHECK = 0x282,
	NVME_APPLICATION_TAG_CHECK = 0x283,
	NVME_REFERENCE_TAG_CHECK = 0x284,
	NVME_COMPARE_FAILURE = 0x285,
	NVME_DEALLOCATED = 0x287,
};

/* ------------------------------------------------------------------ Identify (Base 5.17, NVM 4.1.5) */

struct nvme_id_controller {
	struct le16 vid, ssvid;
	char sn[20], mn[40], fr[8];
	uint8_t rab, ieee[3], cmic, mdts;
	struct le16 cntlid;
	struct le32 ver, rtd3r, rtd3e, oaes, ctratt;
	struct le16 rrls;
	uint8_t reserved102[9];
	uint8_t cntrltype;
	uint8_t fguid[16];
	struct le16 crdt[3];
	uint8_t reserved134[122];
	struct le16 oacs;
	uint8_t acl, aerl, frmw, lpa, elpe, npss, avscc, apsta;
	struct le16 wctemp, cctemp, mtfa;
	struct le32 hmpre, hmmin;
	uint8_t tnvmcap[16], unvmcap[16];
	struct le32 rpmbs;
	struct le16 edstt;
	uint8_t dsto, fwug;
	struct le16 kas, hctma, mntmt, mxtmt;
	struct le32 sanicap;
	uint8_t reserved332[180];
	uint8_t sqes, cqes;
	struct le16 maxcmd;
	struct le32 nn;
	struct le16 oncs, fuses;
	uint8_t fna, vwc;
	struct le16 awun, awupf;
	uint8_t icsvscc, nwpc;
	struct le16 acwu, ocfs;
	struct le32 sgls, mnan;
	uint8_t reserved544[224];
	char subnqn[256];
	uint8_t reserved1024[1024];
	uint8_t psd[32][32];
	uint8_t vs[1024];
};
_Static_assert(sizeof(struct nvme_id_controller) == 4096, "Identify Controller");
_Static_assert(__builtin_offsetof(struct nvme_id_controller, oacs) == 256, "Identify Controller");
_Static_assert(__builtin_offsetof(struct nvme_id_controller, sanicap) == 328, "Identify Controller");
_Static_assert(__builtin_offsetof(struct nvme_id_controller, subnqn) == 768, "Identify Controller");

struct nvme_lbaf {
	struct le16 ms;
	uint8_t lbads, rp;
};

#define NVME_LBAFS 64u

struct nvme_id_namespace {
	struct le64 nsze, ncap, nuse;
	uint8_t nsfeat, nlbaf, flbas, mc, dpc, dps, nmic, rescap, fpi, dlfeat;
	struct le16 nawun, nawupf, nacwu, nabsn, nabo, nabspf, noiob;
	uint8_t nvmcap[16];
	struct le16 npwg, npwa, npdg, npda, nows, mssrl;
	struct le32 mcl;
	uint8_t msrc;
	uint8_t reserved81[11];
	struct le32 anagrpid;
	uint8_t reserved96[3];
	uint8_t nsattr;
	struct le16 nvmsetid, endgid;
	uint8_t nguid[16], eui64[8];
	struct nvme_lbaf lbaf[NVME_LBAFS];
	uint8_t vs[3712];
};
_Static_assert(sizeof(struct nvme_id_namespace) == 4096, "Identify Namespace");
_Static_assert(__builtin_offsetof(struct nvme_id_namespace, nguid) == 104, "Identify Namespace");

struct nvme_id_namespace_independent { /* CNS 08h */
	uint8_t nsfeat, nmic, rescap, fpi;
	struct le32 anagrpid;
	uint8_t nsattr, reserved9;
	struct le16 nvmsetid, endgid;
	uint8_t nstat;
	uint8_t reserved15[4081];
};
_Static_assert(sizeof(struct nvme_id_namespace_independent) == 4096, "Identify Namespace, independent");

struct nvme_id_controller_nvm { /* CNS 06h, CSI 0; NVM 4.1.5.4 */
	uint8_t vsl, wzsl, wusl, dmrl;
	struct le32 dmrsl;
	struct le64 dmsl;
	uint8_t reserved16[4080];
};
_Static_assert(sizeof(struct nvme_id_controller_nvm) == 4096, "Identify Controller, NVM");

struct nvme_id_primary { /* CNS 14h */
	struct le16 cntlid, portid;
	uint8_t crt, reserved5[27];
	struct le32 vqfrt, vqrfa;
	struct le16 vqrfap, vqprt, vqfrsm, vqgran;
	uint8_t reserved48[16];
	struct le32 vifrt, virfa;
	struct le16 virfap, viprt, vifrsm, vigran;
	uint8_t reserved80[4016];
};
_Static_assert(sizeof(struct nvme_id_primary) == 4096, "Primary Controller Capabilities");
_Static_assert(__builtin_offsetof(struct nvme_id_primary, viprt) == 74, "Primary Controller Capabilities");

/* ------------------------------------------------------------------ log pages (Base 5.16) */

struct nvme_log_error {
	struct le64 count;
	struct le16 sqid, cid, status, location;
	struct le64 lba;
	struct le32 nsid;
	uint8_t vs, trtype, reserved30[2];
	struct le64 specific;
	struct le16 transport_specific;
	uint8_t reserved42[22];
};
_Static_assert(sizeof(struct nvme_log_error) == 64, "Error Information");

struct nvme_log_smart {
	uint8_t critical_warning;
	struct le16 temperature;
	uint8_t spare, spare_threshold, used, endurance_warning;
	uint8_t reserved7[25];
	uint8_t units_read[16], units_written[16], reads[16], writes[16], busy_minutes[16], power_cycles[16];
	uint8_t power_on_hours[16], unsafe_shutdowns[16], media_errors[16], error_entries[16];
	struct le32 warning_minutes, critical_minutes;
	struct le16 sensors[8];
	uint8_t reserved216[296];
};
_Static_assert(sizeof(struct nvme_log_smart) == 512, "SMART / Health Information");

struct nvme_log_reservation {
	struct le64 count;
	uint8_t type, available;
	uint8_t reserved10[2];
	struct le32 nsid;
	uint8_t reserved16[48];
};
_Static_assert(sizeof(struct nvme_log_reservation) == 64, "Reservation Notification");

struct nvme_log_sanitize {
	struct le16 progress, status;
	struct le32 cdw10;
	struct le32 seconds[6];
	uint8_t reserved32[480];
};
_Static_assert(sizeof(struct nvme_log_sanitize) == 512, "Sanitize Status");

struct nvme_self_test_result {
	uint8_t status, segment, valid, reserved;
	struct le64 power_on_hours;
	struct le32 nsid;
	struct le64 lba;
	uint8_t sct, sc, vs[2];
};
_Static_assert(sizeof(struct nvme_self_test_result) == 28, "Self-test Result");

#define NVME_SELF_TEST_RESULTS 20u

struct nvme_log_self_test {
	uint8_t operation, completion, reserved2[2];
	struct nvme_self_test_result results[NVME_SELF_TEST_RESULTS];
};
_Static_assert(sizeof(struct nvme_log_self_test) == 564, "Device Self-test");

enum nvme_log {
	NVME_LOG_SUPPORTED = 0x00,
	NVME_LOG_ERRORS = 0x01,
	NVME_LOG_SMART = 0x02,
	NVME_LOG_FIRMWARE = 0x03,
	NVME_LOG_CHANGED_NAMESPACES = 0x04,
	NVME_LOG_EFFECTS = 0x05,
	NVME_LOG_SELF_TEST = 0x06,
	NVME_LOG_FEATURES = 0x12,
	NVME_LOG_RESERVATION = 0x80,
	NVME_LOG_SANITIZE = 0x81,
};

/* ------------------------------------------------------------------ what commands carry (NVM 3, Base 7) */

struct nvme_dsm_range {
	struct le32 attributes, blocks;
	struct le64 lba;
};
_Static_assert(sizeof(struct nvme_dsm_range) == 16, "Dataset Management range");

struct nvme_copy_range { /* descriptor format 0 */
	struct le64 reserved0;
	struct le64 lba;
	struct le16 blocks; /* one less */
	uint8_t reserved18[14];
};
_Static_assert(sizeof(struct nvme_copy_range) == 32, "Copy source range");

struct nvme_reservation_keys {
	struct le64 current, other;
};
_Static_assert(sizeof(struct nvme_reservation_keys) == 16, "Reservation Register, Acquire");

struct nvme_reservation_status {
	struct le32 generation;
	uint8_t type;
	struct le16 registrants;
	uint8_t reserved7[2];
	uint8_t ptpls;
	uint8_t reserved10[14];
};
_Static_assert(sizeof(struct nvme_reservation_status) == 24, "Reservation Status");

struct nvme_registrant {
	struct le16 cntlid;
	uint8_t holds, reserved3[5];
	uint8_t hostid[8];
	struct le64 key;
};
_Static_assert(sizeof(struct nvme_registrant) == 24, "Registered Controller");

struct nvme_registrant_extended {
	struct le16 cntlid;
	uint8_t holds, reserved3[5];
	struct le64 key;
	uint8_t hostid[16];
	uint8_t reserved32[32];
};
_Static_assert(sizeof(struct nvme_registrant_extended) == 64, "Registered Controller, extended");

enum nvme_feature {
	NVME_FEATURE_ARBITRATION = 0x01,
	NVME_FEATURE_POWER = 0x02,
	NVME_FEATURE_TEMPERATURE = 0x04,
	NVME_FEATURE_ERROR_RECOVERY = 0x05,
	NVME_FEATURE_WRITE_CACHE = 0x06,
	NVME_FEATURE_QUEUES = 0x07,
	NVME_FEATURE_COALESCING = 0x08,
	NVME_FEATURE_VECTOR = 0x09,
	NVME_FEATURE_ATOMICITY = 0x0a,
	NVME_FEATURE_ASYNC_EVENTS = 0x0b,
	NVME_FEATURE_TIMESTAMP = 0x0e,
	NVME_FEATURE_KEEP_ALIVE = 0x0f,
	NVME_FEATURE_SANITIZE = 0x17,
	NVME_FEATURE_HOST_ID = 0x81,
	NVME_FEATURE_RESERVATION_MASK = 0x82,
	NVME_FEATURE_RESERVATION_PERSISTENCE = 0x83,
};

#endif
