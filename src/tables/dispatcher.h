/*-------------------------------------------------------------------------
 *
 * dispatcher.h
 *	  Starts queued jobs.
 *
 * Each database that has queued jobs has one dispatcher, a background worker
 * that starts another one for each job, as its owner: the jobs of a role in the order of
 * their ids, and roles in turn.  It ends when none is queued any more.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCHER_H
#define DISPATCHER_H

#define QUEUE_WAITS_FOR_WORKER "a free background worker"

/*
 * Starts a dispatcher when the transaction commits and has not rolled back to a
 * savepoint before this job.  Until then it cannot be prepared.
 */
extern void dispatcher_start_at_commit(int64 job_id);

/* Has this transaction queued that job? */
extern bool dispatcher_is_of_transaction(int64 job_id);

/*
 * Starts a dispatcher if jobs are queued and there is none, in the caller's
 * transaction.  A free worker is not to be had at every time: then later calls
 * make up for it.
 */
extern void dispatcher_start(void);

/* Starts the dispatcher for a caller that knows of queued jobs; needs no transaction. */
extern void dispatcher_wake(void);

/* What the worker of a job is told, in bgw_extra. */
typedef struct QueueOrder
{
	Oid    database;
	Oid    owner;
	int64  job_id;
	uint32 segment; /* with a shm_mq for its errors */
} QueueOrder;

/* Its word that it has taken the job, or that the job is nobody's to take now. */
#define QUEUE_OUTCOME_TAKEN 't'
#define QUEUE_OUTCOME_LEFT 'l'

#endif /* DISPATCHER_H */
