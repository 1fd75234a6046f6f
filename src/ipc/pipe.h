/*-------------------------------------------------------------------------
 *
 * pipe.h
 *	  What passes between scan processes and their uploader: a request, blocks, replies.
 *
 * The leader is the process that wants something uploaded or checked.  It makes
 * a dynamic shared memory segment with the request, queues of blocks towards
 * the uploader and a queue of replies from it, and starts the uploader, a
 * dynamic background worker.  Errors and notices of the uploader come back
 * through the replies and are raised in the leader as they were.
 *
 * Parallel workers of the leader may send blocks too, each through a queue of
 * its own.  Blocks of one process arrive in order, and the leader's header
 * before everybody's rows.
 *
 * Whoever goes away, for whatever reason, detaches the segment, and the other
 * end learns it: nothing has to be said by a process that dies.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PIPE_H
#define PIPE_H

#include "lib/stringinfo.h"
#include "utils/elog.h"

#include "ipc/progress.h"

typedef struct Pipe Pipe;

/* The largest message of CSV that is worth sending at once, in bytes. */
#define PIPE_BLOCK_SIZE (256 * 1024)

typedef enum PipeBlockKind
{
	PIPE_HEADER,   /* the line that begins each file */
	PIPE_ROWS,     /* whole rows, or the first of their bytes */
	PIPE_MORE,     /* the next bytes of these rows; nothing else comes between */
	PIPE_FILE_END, /* no more rows come for "folder" */

	/*
	 * A JSON object of its own, whole, which is none of the files: it is not counted.
	 * "folder" is its name in the folder of the request's path, and comes once.  It
	 * replaces what is there, and is in place before any file appears.
	 */
	PIPE_OBJECT,

	/*
	 * What the manifest with a name says of the file called "folder", whose first rows
	 * have come; NULL: of the whole.  JSON members without braces, in the database's
	 * encoding.  Replaces what was said before.
	 */
	PIPE_DESCRIPTION,

	PIPE_END /* there is no more; without it the sender has failed */
} PipeBlockKind;

typedef struct PipeBlock
{
	PipeBlockKind kind;
	const char   *folder; /* of the partition that the rows are of; NULL: none */
	const char   *data;
	size_t        len;
	size_t        whole; /* of PIPE_ROWS, where it is received: "len" and that of what follows */
	uint64        rows;
} PipeBlock;

/* Who serves a request: a background worker of one of these kinds. */
typedef enum PipeServer
{
	PIPE_UPLOADER,
	PIPE_CURRENT /* decodes and delivers, and is terminated when its leader goes away */
} PipeServer;

/* ---- the leader's end ---- */

/*
 * Starts a server for "request".  Up to "workers" parallel workers may join,
 * after the leader's header.  The pipe belongs to the current resource owner.
 * Raises an error when no worker or segment is to be had.
 */
extern Pipe *pipe_open(PipeServer server, const StringInfoData *request, int workers);

/*
 * From here to pipe_close the leader tells how far it is, in each wait and after
 * each block: progress_begin says how.
 */
extern void pipe_begin_progress(Pipe *pipe, Oid relid);

/* What pipe_join needs. */
extern uint32 pipe_handle(Pipe *pipe);

/*
 * Rows may be of any length, and arrive in pieces.
 *
 * Waits while the queue is full.  When the uploader is gone, raises its error in
 * the leader; in a parallel worker returns false, as the leader will know why.
 * The leader sends PIPE_END when all its workers have ended.
 */
extern bool pipe_send(Pipe *pipe, const PipeBlock *block);

/*
 * Waits for the next reply, a kind and its contents; raises the uploader's
 * errors, shows its notices.  "reply" is valid until the next call.
 */
extern char pipe_wait_reply(Pipe *pipe, StringInfo reply);

/* Tells the uploader why the leader gives up, for the job's row. */
extern void pipe_set_error(Pipe *pipe, const ErrorData *edata);

extern void pipe_close(Pipe *pipe);

/* ---- both ends ---- */

extern Progress *pipe_progress(Pipe *pipe);

/* ---- a parallel worker's end ---- */

/*
 * "number" counts from 0, and no other worker has it.  The pipe belongs to the
 * current resource owner.
 */
extern Pipe *pipe_join(uint32 handle, int number);

extern void pipe_leave(Pipe *pipe);

/* ---- the uploader's end ---- */

/*
 * Attaches to the leader's segment, connects to its database, and sends errors
 * and notices there from now on.  "arg" is the background worker's argument.
 */
extern Pipe *pipe_attach(Datum arg, StringInfo request);

/*
 * The next block, valid until the next call; false when there is none now: the latch will be set.
 * PIPE_END comes once, when every process that joined has sent it.
 */
extern bool pipe_receive(Pipe *pipe, PipeBlock *block);

extern void pipe_reply(Pipe *pipe, char kind, const StringInfoData *reply);

/*
 * Has the leader gone?  If it said why, *error has SQLSTATE, message, detail
 * and hint, else it is NULL.
 */
extern bool pipe_leader_gone(Pipe *pipe, const ErrorData **error);

extern int pipe_leader_pid(Pipe *pipe);

/* ---- anybody else in the same database ---- */

/*
 * How far the export is whose pipe_handle this was; false when it is over, or the
 * segment is none of an export.
 */
extern bool pipe_report(uint32 handle, ProgressReport *report);

#endif /* PIPE_H */
