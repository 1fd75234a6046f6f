/*-------------------------------------------------------------------------
 *
 * pipe.c
 *	  What passes between scan processes and their uploader: a request, blocks, replies.
 *
 * The segment is a shm_toc of a fixed header, the request, a shm_mq for replies
 * and one for the blocks of each process that scans.  A block travels as a head
 * and its bytes in one message.
 *
 * A leader that gives up detaches: its detach callback sets a flag, and
 * detaching a shm_mq sets the uploader's latch.  The flag is needed because
 * an uploader that waits for S3 does not read its queue.
 *
 * The leader does not wait within shm_mq, as it has something to say meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "libpq/pqmq.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/compat.h"
#include "ipc/pipe.h"

/* Changes with the layout, since an old backend may meet a new library. */
#define PIPE_MAGIC 0x53330005

#define KEY_HEAD 0
#define KEY_REQUEST 1
#define KEY_REPLIES 2
#define KEY_BLOCKS 3 /* the leader's; then those of its workers */

#define BLOCKS_QUEUE_SIZE (1024 * 1024)

/* The most bytes of rows that are sent at once: small against a queue. */
#define MESSAGE_SIZE (BLOCKS_QUEUE_SIZE / 2)
#define REPLIES_QUEUE_SIZE (64 * 1024)

#define LETTER_ERROR 'E'
#define LETTER_NOTICE 'N'
#define LETTER_FIRST_OWN 'a'

typedef struct PipeHead
{
	Oid              database;
	int              leader_pid;
	uint32           request_len;
	int              sources;        /* queues of blocks */
	pg_atomic_uint32 workers_joined; /* in what order does not matter */
	pg_atomic_uint32 leader_gone;

	/* why, when sqlerrcode is not 0; written before leader_gone */
	int  sqlerrcode;
	char message[512];
	char detail[512];
	char hint[512];

	Progress progress;
} PipeHead;

typedef struct BlockHead
{
	uint64 rows;
	uint64 left; /* bytes of the block in messages that follow */
	uint32 kind;
	uint32 folder_size; /* of the string that follows, with its end mark; 0: none */
} BlockHead;

/* A queue of blocks, as the uploader sees it. */
typedef struct BlockQueue
{
	shm_mq_handle *blocks;
	bool           ended;
} BlockQueue;

struct Pipe
{
	dsm_segment   *segment;
	PipeHead      *head;
	shm_mq_handle *blocks;  /* not in the uploader */
	shm_mq_handle *replies; /* not in parallel workers */

	/* leader only */
	BackgroundWorkerHandle *server;
	bool                    tells;
	ProgressDisplay         display;

	/* uploader only */
	BlockQueue *sources; /* the leader's is the first */
	int         next;    /* to be asked for a block */
	int         last;    /* that had one */
	bool        halfway; /* the rest of that block comes first */
	bool        workers_seen;
	uint32      workers_ended;
	PipeBlock   end; /* the leader's */
	ErrorData   leader_error;
};

/* The functions are their modules'. */
static const struct
{
	const char *function;
	const char *type;
	const char *failure;
} servers[] = {
	[PIPE_UPLOADER] = {"s3export_uploader_main", "s3export uploader",
					   "could not start an uploader"},
	[PIPE_CURRENT] = {"s3export_current_main", "s3export current",
					  "could not start a worker that delivers"},
};

/* ---- both ends ---- */

static void *
lookup_in_segment(shm_toc *toc, uint64 key)
{
	return shm_toc_lookup(toc, key, false);
}

Progress *
pipe_progress(Pipe *pipe)
{
	return &pipe->head->progress;
}

/* ---- the leader's end ---- */

static void
leader_detaches(dsm_segment *segment pg_attribute_unused(), Datum arg)
{
	PipeHead *head = (PipeHead *) DatumGetPointer(arg);

	pg_atomic_write_u32(&head->leader_gone, 1);
	pg_write_barrier();
}

/* Whatever it waits for, it ends. */
static void
leader_ends_server(dsm_segment *segment pg_attribute_unused(), Datum arg)
{
	BackgroundWorkerHandle *handle = (BackgroundWorkerHandle *) DatumGetPointer(arg);

	TerminateBackgroundWorker(handle);
	pfree(handle);
}

/*
 * One segment has all that the two sides share: the head with the progress, the request, a queue
 * for replies, and a queue for the blocks of each sender.
 */
static dsm_segment *
create_segment(PipeServer server, const StringInfoData *request, int sources)
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
	shm_toc_estimate_chunk(&estimator, REPLIES_QUEUE_SIZE);
	for (int i = 0; i < sources; i++)
		shm_toc_estimate_chunk(&estimator, BLOCKS_QUEUE_SIZE);
	shm_toc_estimate_keys(&estimator, KEY_BLOCKS + sources);
	size = shm_toc_estimate(&estimator);

	segment = dsm_create(size, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	if (segment == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("%s: too many dynamic shared memory segments", servers[server].failure),
				 errhint("Wait until other exports have ended, or raise \"max_connections\", "
						 "which the number of segments depends on.")));

	toc = shm_toc_create(PIPE_MAGIC, dsm_segment_address(segment), size);

	head = shm_toc_allocate(toc, sizeof(PipeHead));
	memset(head, 0, sizeof(PipeHead));
	head->database = MyDatabaseId;
	head->leader_pid = MyProcPid;
	head->request_len = request->len;
	head->sources = sources;
	pg_atomic_init_u32(&head->workers_joined, 0);
	pg_atomic_init_u32(&head->leader_gone, 0);
	progress_init(&head->progress);
	shm_toc_insert(toc, KEY_HEAD, head);

	bytes = shm_toc_allocate(toc, request->len);
	memcpy(bytes, request->data, request->len);
	shm_toc_insert(toc, KEY_REQUEST, bytes);

	shm_toc_insert(toc, KEY_REPLIES,
				   shm_mq_create(shm_toc_allocate(toc, REPLIES_QUEUE_SIZE), REPLIES_QUEUE_SIZE));
	for (int i = 0; i < sources; i++)
		shm_toc_insert(toc, KEY_BLOCKS + i,
					   shm_mq_create(shm_toc_allocate(toc, BLOCKS_QUEUE_SIZE), BLOCKS_QUEUE_SIZE));
	return segment;
}

/* The worker is told the segment, and tells this process when it starts and ends. */
static BackgroundWorkerHandle *
start_server(PipeServer server, dsm_segment *segment)
{
	BackgroundWorker        worker;
	BackgroundWorkerHandle *handle;
	MemoryContext           caller = CurrentMemoryContext;
	bool                    started;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "s3export", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, servers[server].function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_type, servers[server].type, sizeof(worker.bgw_type));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "%s for PID %d", servers[server].type,
			 MyProcPid);
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(segment));
	worker.bgw_notify_pid = MyProcPid;

	/* An abort frees the caller's context before it detaches the segment, which ends the server. */
	if (server == PIPE_CURRENT)
		MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(caller);
	if (!started)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
						errmsg("%s: no background worker is free", servers[server].failure),
						errhint("Wait until other exports have ended, or raise "
								"\"max_worker_processes\".")));
	return handle;
}

Pipe *
pipe_open(PipeServer server, const StringInfoData *request, int workers)
{
	Pipe    *pipe = palloc0(sizeof(Pipe));
	shm_toc *toc;
	shm_mq  *blocks;
	shm_mq  *replies;

	pipe->segment = create_segment(server, request, 1 + workers);
	toc = shm_toc_attach(PIPE_MAGIC, dsm_segment_address(pipe->segment));
	pipe->head = lookup_in_segment(toc, KEY_HEAD);
	blocks = lookup_in_segment(toc, KEY_BLOCKS);
	replies = lookup_in_segment(toc, KEY_REPLIES);
	shm_mq_set_sender(blocks, MyProc);
	shm_mq_set_receiver(replies, MyProc);

	pipe->server = start_server(server, pipe->segment);
	if (server == PIPE_CURRENT)
		on_dsm_detach(pipe->segment, leader_ends_server, PointerGetDatum(pipe->server));

	/* With the handle, waiting ends when the uploader dies before it attaches. */
	pipe->blocks = shm_mq_attach(blocks, pipe->segment, pipe->server);
	pipe->replies = shm_mq_attach(replies, pipe->segment, pipe->server);

	/* Registered last, hence called first: the flag is set before the latch. */
	on_dsm_detach(pipe->segment, leader_detaches, PointerGetDatum(pipe->head));
	return pipe;
}

/* Returns after a notice, and leaves nothing behind: there may be many. */
static void
raise_uploader_error(StringInfo message)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export message", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	ErrorData     edata;

	pq_parse_errornotice(message, &edata);

	/* Death of the uploader is not death of this session. */
	if (edata.elevel > ERROR)
		edata.elevel = ERROR;
	edata.context = NULL;
	ThrowErrorData(&edata);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/* Takes one message off the replies; false: there is none now. */
static bool
take_reply(Pipe *pipe, char *kind, StringInfo reply)
{
	Size          len;
	void         *data;
	shm_mq_result result = shm_mq_receive(pipe->replies, &len, &data, true);

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
	*kind = (char) pq_getmsgbyte(reply);
	if (*kind == LETTER_ERROR || *kind == LETTER_NOTICE)
		raise_uploader_error(reply);
	return true;
}

/* For the latch, which whoever is at the other end of a queue sets. */
static void
wait_for_uploader(Pipe *pipe, uint32 wait_event)
{
	int  events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	long timeout = pipe->tells ? progress_update(&pipe->display) : -1;

	if (timeout >= 0)
		events |= WL_TIMEOUT;
	(void) WaitLatch(MyLatch, events, timeout, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

void
pipe_begin_progress(Pipe *pipe, Oid relid)
{
	progress_begin(&pipe->display, &pipe->head->progress, relid);
	pipe->tells = true;
}

uint32
pipe_handle(Pipe *pipe)
{
	return dsm_segment_handle(pipe->segment);
}

/* An uploader that has more to say than its queue holds takes no blocks until it is heard. */
static void
hear_uploader(Pipe *pipe)
{
	StringInfoData reply;
	char           kind;

	if (pipe->replies == NULL)
		return;
	initStringInfo(&reply);
	while (take_reply(pipe, &kind, &reply))
		if (kind >= LETTER_FIRST_OWN)
			elog(ERROR, "unexpected reply \"%c\" of the uploader", kind);
	pfree(reply.data);
}

/* False when the uploader is gone. */
static bool
send_message(Pipe *pipe, const BlockHead *head, const char *folder, const char *data, size_t len)
{
	static uint32 wait_event = 0;
	shm_mq_iovec  iov[3] = {{(const char *) head, sizeof(*head)}};
	int           count = 1;
	shm_mq_result result;

	if (folder != NULL)
		iov[count++] = (shm_mq_iovec){folder, head->folder_size};
	if (len > 0)
		iov[count++] = (shm_mq_iovec){data, len};
	while ((result = shm_mq_sendv(pipe->blocks, iov, count, true, true)) == SHM_MQ_WOULD_BLOCK)
	{
		wait_for_uploader(pipe, compat_wait_event(wait_event, "S3exportSend"));
		hear_uploader(pipe);
	}
	return result != SHM_MQ_DETACHED;
}

/* A message takes as much of the uploader's memory as it has bytes, and no limit knows of that. */
static bool
send_block(Pipe *pipe, const PipeBlock *block)
{
	BlockHead   head = {.rows = block->rows, .kind = block->kind};
	const char *folder = block->folder;
	const char *data = block->data;
	size_t      left = block->len;

	do
	{
		size_t len = block->kind == PIPE_ROWS ? Min(left, MESSAGE_SIZE) : left;

		left -= len;
		head.left = left;
		head.folder_size = folder != NULL ? (uint32) strlen(folder) + 1 : 0;
		if (!send_message(pipe, &head, folder, data, len))
			return false;
		data += len;
		folder = NULL;
		head.kind = PIPE_MORE;
		head.rows = 0;
	} while (left > 0);
	return true;
}

bool
pipe_send(Pipe *pipe, const PipeBlock *block)
{
	StringInfoData reply;

	if (block->kind == PIPE_HEADER || block->kind == PIPE_ROWS)
		progress_add_block(&pipe->head->progress, block->rows, block->len);
	if (send_block(pipe, block))
	{
		if (pipe->tells)
			(void) progress_update(&pipe->display);
		return true;
	}
	if (pipe->replies == NULL)
		return false;

	/* The uploader has failed; this raises its error, or says that it has none. */
	initStringInfo(&reply);
	for (;;)
		(void) pipe_wait_reply(pipe, &reply);
}

char
pipe_wait_reply(Pipe *pipe, StringInfo reply)
{
	static uint32 wait_event = 0;
	char          kind = 0;

	do
	{
		if (!take_reply(pipe, &kind, reply))
			wait_for_uploader(pipe, compat_wait_event(wait_event, "S3exportReply"));
	} while (kind < LETTER_FIRST_OWN);
	return kind;
}

/* As much of a text as there is room for; no character is cut. */
static void
put_text(char *dst, size_t size, const char *text)
{
	size_t len = text != NULL ? strlen(text) : 0;

	if (len >= size)
		len = pg_mbcliplen(text, (int) Min(len, INT_MAX), (int) size - 1);
	memcpy(dst, text != NULL ? text : "", len);
	dst[len] = '\0';
}

void
pipe_set_error(Pipe *pipe, const ErrorData *edata)
{
	PipeHead *head = pipe->head;

	put_text(head->message, sizeof(head->message), edata->message);
	put_text(head->detail, sizeof(head->detail), edata->detail);
	put_text(head->hint, sizeof(head->hint), edata->hint);
	pg_write_barrier();
	head->sqlerrcode = edata->sqlerrcode;
}

void
pipe_close(Pipe *pipe)
{
	if (pipe->tells)
		progress_end(&pipe->display);
	cancel_on_dsm_detach(pipe->segment, leader_ends_server, PointerGetDatum(pipe->server));
	dsm_detach(pipe->segment);
	pfree(pipe->server);
	pfree(pipe);
}

/* ---- the ends of those that the leader has started ---- */

static shm_toc *
attach_segment(Pipe *pipe, dsm_handle handle)
{
	shm_toc *toc = NULL;

	pipe->segment = dsm_attach(handle);
	if (pipe->segment != NULL)
		toc = shm_toc_attach(PIPE_MAGIC, dsm_segment_address(pipe->segment));
	if (toc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not attach to the segment of the export"),
				 errdetail("The session that asked for it has ended, or runs another version of "
						   "the library.")));
	pipe->head = lookup_in_segment(toc, KEY_HEAD);
	return toc;
}

Pipe *
pipe_join(uint32 handle, int number)
{
	Pipe    *pipe = palloc0(sizeof(Pipe));
	shm_toc *toc = attach_segment(pipe, handle);
	shm_mq  *blocks = lookup_in_segment(toc, KEY_BLOCKS + 1 + number);

	shm_mq_set_sender(blocks, MyProc);
	pipe->blocks = shm_mq_attach(blocks, pipe->segment, NULL);
	(void) pg_atomic_fetch_add_u32(&pipe->head->workers_joined, 1);
	return pipe;
}

void
pipe_leave(Pipe *pipe)
{
	dsm_detach(pipe->segment);
	pfree(pipe);
}

Pipe *
pipe_attach(Datum arg, StringInfo request)
{
	Pipe    *pipe = palloc0(sizeof(Pipe));
	shm_toc *toc;
	shm_mq  *replies;

	CurrentResourceOwner = ResourceOwnerCreate(NULL, "s3export uploader");
	toc = attach_segment(pipe, DatumGetUInt32(arg));
	appendBinaryStringInfo(request, lookup_in_segment(toc, KEY_REQUEST),
						   (int) pipe->head->request_len);

	pipe->sources = palloc0(pipe->head->sources * sizeof(BlockQueue));
	for (int i = 0; i < pipe->head->sources; i++)
	{
		shm_mq *blocks = lookup_in_segment(toc, KEY_BLOCKS + i);

		shm_mq_set_receiver(blocks, MyProc);
		pipe->sources[i].blocks = shm_mq_attach(blocks, pipe->segment, NULL);
	}
	replies = lookup_in_segment(toc, KEY_REPLIES);
	shm_mq_set_sender(replies, MyProc);
	pipe->replies = shm_mq_attach(replies, pipe->segment, NULL);
	pq_redirect_to_shm_mq(pipe->segment, pipe->replies);

	BackgroundWorkerInitializeConnectionByOid(pipe->head->database, InvalidOid, 0);
	return pipe;
}

/* ---- the uploader's end: blocks ---- */

/*
 * Takes the next message of one sender, if there is one.  The block's data stay in the queue
 * until the next call.
 */
static bool
take_block(Pipe *pipe, BlockQueue *source, PipeBlock *block)
{
	Size          len;
	void         *data;
	BlockHead     head;
	shm_mq_result result;

	if (source->ended)
		return false;
	result = shm_mq_receive(source->blocks, &len, &data, true);

	/*
	 * A leader that went away is noticed by whoever asks pipe_leader_gone.  One
	 * that lost a worker will go away; it must not have reported success.
	 */
	if (result == SHM_MQ_DETACHED && pipe->sources[0].ended)
		elog(ERROR, "a parallel worker of the export ended too early");
	if (result != SHM_MQ_SUCCESS)
		return false;

	memcpy(&head, data, sizeof(head));
	block->kind = (PipeBlockKind) head.kind;
	block->rows = head.rows;
	block->folder = head.folder_size > 0 ? (const char *) data + sizeof(head) : NULL;
	block->data = (const char *) data + sizeof(head) + head.folder_size;
	block->len = len - sizeof(head) - head.folder_size;
	block->whole = block->len + head.left;
	pipe->halfway = head.left > 0;
	return true;
}

static void
source_ends(Pipe *pipe, int number, const PipeBlock *block)
{
	pipe->sources[number].ended = true;
	if (number == 0)
		pipe->end = *block;
	else
		pipe->workers_ended++;
}

/*
 * When the leader has ended all workers have, so no more can join.  Their last
 * blocks may still be in their queues.
 */
static bool
all_ended(Pipe *pipe)
{
	return pipe->sources[0].ended &&
		   pipe->workers_ended == pg_atomic_read_u32(&pipe->head->workers_joined);
}

/*
 * The header was in the leader's queue before any worker joined: so whoever
 * knows that one has joined, and asks the leader's queue next, has it before
 * their rows.
 */
static int
count_sources(Pipe *pipe)
{
	if (!pipe->workers_seen && pg_atomic_read_u32(&pipe->head->workers_joined) > 0)
	{
		pg_read_barrier();
		pipe->workers_seen = true;
		pipe->next = 0;
	}
	return pipe->workers_seen ? pipe->head->sources : 1;
}

bool
pipe_receive(Pipe *pipe, PipeBlock *block)
{
	int sources;

	if (pipe->halfway)
		return take_block(pipe, &pipe->sources[pipe->last], block);

	sources = count_sources(pipe);
	for (int i = 0; i < sources; i++)
	{
		int number = pipe->next;

		pipe->next = (number + 1) % sources;
		if (!take_block(pipe, &pipe->sources[number], block))
			continue;
		pipe->last = number;
		if (block->kind != PIPE_END)
			return true;
		source_ends(pipe, number, block);
	}
	if (!all_ended(pipe))
		return false;
	*block = pipe->end;
	return true;
}

/* ---- the uploader's end: replies ---- */

void
pipe_reply(Pipe *pipe, char kind, const StringInfoData *reply)
{
	shm_mq_iovec iov[2] = {{&kind, 1}, {reply->data, reply->len}};

	Assert(kind >= LETTER_FIRST_OWN);

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

/* ---- anybody else ---- */

/* The handle may have become that of something else. */
static bool
read_progress(dsm_segment *segment, ProgressReport *report)
{
	shm_toc  *toc = shm_toc_attach(PIPE_MAGIC, dsm_segment_address(segment));
	PipeHead *head = toc != NULL ? shm_toc_lookup(toc, KEY_HEAD, true) : NULL;

	if (head == NULL || head->database != MyDatabaseId)
		return false;
	progress_report(&head->progress, report);
	return true;
}

bool
pipe_report(uint32 handle, ProgressReport *report)
{
	dsm_segment *segment = dsm_find_mapping(handle);
	bool         found;

	/* The leader itself may ask, in a function that its query calls. */
	if (segment != NULL)
		return read_progress(segment, report);
	segment = dsm_attach(handle);
	if (segment == NULL)
		return false;
	found = read_progress(segment, report);
	dsm_detach(segment);
	return found;
}
