/*-------------------------------------------------------------------------
 *
 * pipe.c
 *	  What passes between a leader and its uploader: a request, blocks, replies.
 *
 * The segment is a shm_toc of a fixed header, the request, and two shm_mq.
 * A block travels as a head and its bytes in one message.
 *
 * A leader that gives up detaches: its detach callback sets a flag, and
 * detaching a shm_mq sets the uploader's latch.  The flag is needed because
 * an uploader that waits for S3 does not read its queue.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "libpq/pqmq.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "compat.h"
#include "pipe.h"

/* Changes with the layout, since an old backend may meet a new library. */
#define PIPE_MAGIC 0x53330001

#define KEY_HEAD 0
#define KEY_REQUEST 1
#define KEY_BLOCKS 2
#define KEY_REPLIES 3

#define BLOCKS_QUEUE_SIZE (1024 * 1024)
#define REPLIES_QUEUE_SIZE (64 * 1024)

#define LETTER_ERROR 'E'
#define LETTER_NOTICE 'N'
#define LETTER_FIRST_OWN 'a'

typedef struct PipeHead
{
	Oid              database;
	int              leader_pid;
	uint32           request_len;
	pg_atomic_uint32 leader_gone;

	/* why, when sqlerrcode is not 0; written before leader_gone */
	int  sqlerrcode;
	char message[512];
	char detail[512];
	char hint[512];
} PipeHead;

typedef struct BlockHead
{
	uint64 rows;
	uint64 kind;
} BlockHead;

struct Pipe
{
	dsm_segment            *segment;
	PipeHead               *head;
	shm_mq_handle          *blocks;
	shm_mq_handle          *replies;
	BackgroundWorkerHandle *worker;       /* leader only */
	ErrorData               leader_error; /* uploader only */
};

PGDLLEXPORT void s3export_uploader_main(Datum arg);

/* ---- both ends ---- */

static void *
lookup(shm_toc *toc, uint64 key)
{
	return shm_toc_lookup(toc, key, false);
}

/* ---- the leader's end ---- */

static void
leader_detaches(dsm_segment *segment pg_attribute_unused(), Datum arg)
{
	PipeHead *head = (PipeHead *) DatumGetPointer(arg);

	pg_atomic_write_u32(&head->leader_gone, 1);
	pg_write_barrier();
}

static dsm_segment *
create_segment(const StringInfoData *request)
{
	shm_toc_estimator estimator;
	dsm_segment      *segment;
	shm_toc          *toc;
	PipeHead         *head;
	char             *bytes;
	Size              size;

	shm_toc_initialize_estimator(&estimator);
	shm_toc_estimate_chunk(&estimator, sizeof(PipeHead));
	shm_toc_estimate_chunk(&estimator, request->len);
	shm_toc_estimate_chunk(&estimator, BLOCKS_QUEUE_SIZE);
	shm_toc_estimate_chunk(&estimator, REPLIES_QUEUE_SIZE);
	shm_toc_estimate_keys(&estimator, 4);
	size = shm_toc_estimate(&estimator);

	segment = dsm_create(size, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	if (segment == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start an uploader: too many dynamic shared memory segments"),
				 errhint("Wait until other exports have ended, or raise \"max_connections\", "
						 "which the number of segments depends on.")));

	toc = shm_toc_create(PIPE_MAGIC, dsm_segment_address(segment), size);

	head = shm_toc_allocate(toc, sizeof(PipeHead));
	memset(head, 0, sizeof(PipeHead));
	head->database = MyDatabaseId;
	head->leader_pid = MyProcPid;
	head->request_len = request->len;
	pg_atomic_init_u32(&head->leader_gone, 0);
	shm_toc_insert(toc, KEY_HEAD, head);

	bytes = shm_toc_allocate(toc, request->len);
	memcpy(bytes, request->data, request->len);
	shm_toc_insert(toc, KEY_REQUEST, bytes);

	shm_toc_insert(toc, KEY_BLOCKS,
				   shm_mq_create(shm_toc_allocate(toc, BLOCKS_QUEUE_SIZE), BLOCKS_QUEUE_SIZE));
	shm_toc_insert(toc, KEY_REPLIES,
				   shm_mq_create(shm_toc_allocate(toc, REPLIES_QUEUE_SIZE), REPLIES_QUEUE_SIZE));
	return segment;
}

static BackgroundWorkerHandle *
start_worker(dsm_segment *segment)
{
	BackgroundWorker        worker;
	BackgroundWorkerHandle *handle;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "s3export", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "s3export_uploader_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_type, "s3export uploader", sizeof(worker.bgw_type));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "s3export uploader for PID %d", MyProcPid);
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(segment));
	worker.bgw_notify_pid = MyProcPid;

	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
						errmsg("could not start an uploader: no background worker is free"),
						errhint("Wait until other exports have ended, or raise "
								"\"max_worker_processes\".")));
	return handle;
}

Pipe *
pipe_open(const StringInfoData *request)
{
	Pipe    *pipe = palloc0(sizeof(Pipe));
	shm_toc *toc;
	shm_mq  *blocks;
	shm_mq  *replies;

	pipe->segment = create_segment(request);
	toc = shm_toc_attach(PIPE_MAGIC, dsm_segment_address(pipe->segment));
	pipe->head = lookup(toc, KEY_HEAD);
	blocks = lookup(toc, KEY_BLOCKS);
	replies = lookup(toc, KEY_REPLIES);
	shm_mq_set_sender(blocks, MyProc);
	shm_mq_set_receiver(replies, MyProc);

	pipe->worker = start_worker(pipe->segment);

	/* With the handle, waiting ends when the worker dies before it attaches. */
	pipe->blocks = shm_mq_attach(blocks, pipe->segment, pipe->worker);
	pipe->replies = shm_mq_attach(replies, pipe->segment, pipe->worker);

	/* Registered last, hence called first: the flag is set before the latch. */
	on_dsm_detach(pipe->segment, leader_detaches, PointerGetDatum(pipe->head));
	return pipe;
}

static void
raise_uploader_error(StringInfo message)
{
	ErrorData edata;

	pq_parse_errornotice(message, &edata);

	/* Death of the uploader is not death of this session. */
	if (edata.elevel > ERROR)
		edata.elevel = ERROR;
	edata.context = NULL;
	ThrowErrorData(&edata);
}

/* Takes one message off the replies; false: there is none, and none was waited for. */
static bool
take_reply(Pipe *pipe, bool nowait, char *letter, StringInfo reply)
{
	Size          len;
	void         *data;
	shm_mq_result result = shm_mq_receive(pipe->replies, &len, &data, nowait);

	if (result == SHM_MQ_WOULD_BLOCK)
		return false;
	if (result == SHM_MQ_DETACHED)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE), errmsg("lost connection to the uploader"),
				 errdetail("The background worker that uploads ended without a word."),
				 errhint("The server log may say more.  Nothing was put in place unless the job's "
						 "row in s3export.jobs says so.")));

	resetStringInfo(reply);
	appendBinaryStringInfo(reply, data, (int) len);
	*letter = (char) pq_getmsgbyte(reply);
	if (*letter == LETTER_ERROR || *letter == LETTER_NOTICE)
		raise_uploader_error(reply); /* returns after a notice */
	return true;
}

void
pipe_send(Pipe *pipe, PipeBlockKind kind, const char *data, size_t len, uint64 rows)
{
	BlockHead     head = {.rows = rows, .kind = kind};
	shm_mq_iovec  iov[2] = {{(const char *) &head, sizeof(head)}, {data, len}};
	shm_mq_result result = shm_mq_sendv(pipe->blocks, iov, len > 0 ? 2 : 1, false, true);

	if (result == SHM_MQ_DETACHED)
	{
		StringInfoData reply;

		/* The uploader has failed; this raises its error, or says that it has none. */
		initStringInfo(&reply);
		for (;;)
			(void) pipe_wait_reply(pipe, &reply);
	}
}

char
pipe_wait_reply(Pipe *pipe, StringInfo reply)
{
	char letter = 0;

	do
		(void) take_reply(pipe, false, &letter, reply);
	while (letter < LETTER_FIRST_OWN);
	return letter;
}

void
pipe_set_error(Pipe *pipe, const ErrorData *edata)
{
	PipeHead *head = pipe->head;

	strlcpy(head->message, edata->message ? edata->message : "", sizeof(head->message));
	strlcpy(head->detail, edata->detail ? edata->detail : "", sizeof(head->detail));
	strlcpy(head->hint, edata->hint ? edata->hint : "", sizeof(head->hint));
	pg_write_barrier();
	head->sqlerrcode = edata->sqlerrcode;
}

void
pipe_close(Pipe *pipe)
{
	dsm_detach(pipe->segment);
	pfree(pipe->worker);
	pfree(pipe);
}

/* ---- the uploader's end ---- */

Pipe *
pipe_attach(Datum arg, StringInfo request)
{
	Pipe    *pipe = palloc0(sizeof(Pipe));
	shm_toc *toc = NULL;
	shm_mq  *blocks;
	shm_mq  *replies;

	CurrentResourceOwner = ResourceOwnerCreate(NULL, "s3export uploader");
	pipe->segment = dsm_attach(DatumGetUInt32(arg));
	if (pipe->segment != NULL)
		toc = shm_toc_attach(PIPE_MAGIC, dsm_segment_address(pipe->segment));
	if (toc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not attach to the segment of the export"),
				 errdetail("The session that asked for it has ended, or runs another version of "
						   "the library.")));

	pipe->head = lookup(toc, KEY_HEAD);
	appendBinaryStringInfo(request, lookup(toc, KEY_REQUEST), (int) pipe->head->request_len);
	blocks = lookup(toc, KEY_BLOCKS);
	replies = lookup(toc, KEY_REPLIES);
	shm_mq_set_receiver(blocks, MyProc);
	shm_mq_set_sender(replies, MyProc);
	pipe->blocks = shm_mq_attach(blocks, pipe->segment, NULL);
	pipe->replies = shm_mq_attach(replies, pipe->segment, NULL);
	pq_redirect_to_shm_mq(pipe->segment, pipe->replies);

	BackgroundWorkerInitializeConnectionByOid(pipe->head->database, InvalidOid, 0);
	return pipe;
}

bool
pipe_receive(Pipe *pipe, PipeBlock *block)
{
	Size          len;
	void         *data;
	BlockHead     head;
	shm_mq_result result = shm_mq_receive(pipe->blocks, &len, &data, true);

	/* A leader that went away is noticed by whoever asks pipe_leader_gone. */
	if (result != SHM_MQ_SUCCESS)
		return false;

	memcpy(&head, data, sizeof(head));
	block->kind = (PipeBlockKind) head.kind;
	block->rows = head.rows;
	block->data = (const char *) data + sizeof(head);
	block->len = len - sizeof(head);
	return true;
}

void
pipe_reply(Pipe *pipe, char letter, const StringInfoData *reply)
{
	shm_mq_iovec iov[2] = {{&letter, 1}, {reply->data, reply->len}};

	Assert(letter >= LETTER_FIRST_OWN);

	/* A leader that is gone needs no reply. */
	(void) shm_mq_sendv(pipe->replies, iov, 2, false, true);
}

bool
pipe_leader_gone(Pipe *pipe, const ErrorData **error)
{
	PipeHead *head = pipe->head;

	*error = NULL;
	if (pg_atomic_read_u32(&head->leader_gone) == 0)
		return false;

	pg_read_barrier();
	if (head->sqlerrcode != 0)
	{
		pipe->leader_error.sqlerrcode = head->sqlerrcode;
		pipe->leader_error.message = head->message;
		pipe->leader_error.detail = head->detail[0] ? head->detail : NULL;
		pipe->leader_error.hint = head->hint[0] ? head->hint : NULL;
		*error = &pipe->leader_error;
	}
	return true;
}

int
pipe_leader_pid(Pipe *pipe)
{
	return pipe->head->leader_pid;
}
