/*-------------------------------------------------------------------------
 *
 * dispatcher.c
 *	  Starts queued jobs.
 *
 * A dispatcher that finds another one at work ends at once.  That one might
 * just have seen an empty queue, so it looks again after it has given up its
 * lock.
 *
 * The worker of a job reports through a small queue in shared memory what keeps
 * it from taking the job (its role is gone, or may not connect): nobody else
 * would know but the log.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "libpq/pqformat.h"
#include "libpq/pqmq.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/object_path.h"
#include "tables/advisory_lock.h"
#include "tables/at_commit.h"
#include "tables/catalog.h"
#include "tables/dispatcher.h"
#include "tables/job.h"

/* How often the queue is looked at while jobs wait; ms */
#define LOOK_INTERVAL 500

/* What could not be started is tried again after so long, twice as long each time; ms */
#define PAUSE 1000
#define LAST_PAUSE 60000
#define LAST_PAUSE_OF_ALL 15000
#define MAX_TRIES 3

/*
 * A job that has been started has so long to get its second worker, the
 * uploader, before the next one is started: otherwise that one's worker might
 * take its place.  How often we look meanwhile; ms
 */
#define SETTLING_TIME 1000
#define SETTLING_INTERVAL 50

#define REPORT_QUEUE_SIZE 8192

extern PGDLLEXPORT void s3export_dispatcher_main(Datum arg);

/* ---- in sessions ---- */

static bool
start_dispatcher(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "s3export", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "s3export_dispatcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_type, "s3export dispatcher", sizeof(worker.bgw_type));
	strlcpy(worker.bgw_name, "s3export dispatcher", sizeof(worker.bgw_name));
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/* RegisterDynamicBackgroundWorker raises no error. */
static void
start_queued(const List *entries pg_attribute_unused())
{
	(void) start_dispatcher();
}

/* The jobs of the running transaction */
static PendingList queued = {
	.committed = start_queued,
	.refusal = "cannot PREPARE a transaction that has queued an export",
};

void
dispatcher_start_at_commit(int64 job_id)
{
	at_commit_add(&queued, job_id);
}

bool
dispatcher_is_of_transaction(int64 job_id)
{
	return at_commit_has(&queued, job_id);
}

void
dispatcher_wake(void)
{
	if (!advisory_lock_try_queue())
		return;
	advisory_lock_release_queue();
	(void) start_dispatcher();
}

void
dispatcher_start(void)
{
	if (!RecoveryInProgress() && job_any_queued())
		dispatcher_wake();
}

/* ---- the dispatcher: workers of jobs ---- */

typedef enum StarterState
{
	STARTING, /* nothing has been heard of the worker yet */
	TAKEN,    /* the job was its; if it is queued now it has been put back */
	RESTING   /* until retry_at */
} StarterState;

/* A job that the dispatcher has started, or tried to. */
typedef struct Starter
{
	int64                   job_id;
	StarterState            state;
	dsm_segment            *segment; /* while it is STARTING, as the next two */
	shm_mq_handle          *reports;
	BackgroundWorkerHandle *worker;
	int                     failures;
	int                     pause; /* the last one; ms */
	TimestampTz             retry_at;
	ErrorData               error; /* of the last failure; sqlerrcode 0: it said nothing */
} Starter;

typedef struct Dispatcher
{
	MemoryContext context;      /* for what lives longer than one look */
	MemoryContext look;         /* for one look */
	List         *starters;     /* of Starter */
	List         *served;       /* roles, those that have had a turn last at the end */
	int64         started;      /* the last job that was given a worker */
	int           pause;        /* ms; 0: the last job that was started has all its workers */
	TimestampTz   paused_until; /* as there was no free worker */
	bool          settling;     /* a job has no uploader yet */
	TimestampTz   settled_at;   /* at the latest */
} Dispatcher;

static Starter *
find_starter(Dispatcher *dispatcher, int64 job_id)
{
	ListCell *cell;

	foreach (cell, dispatcher->starters)
	{
		Starter *starter = lfirst(cell);

		if (starter->job_id == job_id)
			return starter;
	}
	return NULL;
}

static Starter *
add_starter(Dispatcher *dispatcher, int64 job_id)
{
	MemoryContext old = MemoryContextSwitchTo(dispatcher->context);
	Starter      *starter = palloc0(sizeof(Starter));

	starter->job_id = job_id;
	starter->state = RESTING;
	dispatcher->starters = lappend(dispatcher->starters, starter);
	MemoryContextSwitchTo(old);
	return starter;
}

static int
next_pause(int pause, int last)
{
	return pause == 0 ? PAUSE : Min(2 * pause, last);
}

static void
rest_starter(Starter *starter)
{
	starter->state = RESTING;
	starter->pause = next_pause(starter->pause, LAST_PAUSE);
	starter->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), starter->pause);
}

static void
pause_all(Dispatcher *dispatcher)
{
	if (dispatcher->pause == 0)
		ereport(LOG, (errmsg("queued exports wait for a free background worker"),
					  errhint("If it happens often, raise \"max_worker_processes\", or lower "
							  "\"s3export.max_running_jobs\".")));
	dispatcher->pause = next_pause(dispatcher->pause, LAST_PAUSE_OF_ALL);
	dispatcher->paused_until =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), dispatcher->pause);
}

/*
 * The worker starts on a primary only, and is never restarted: the queue decides what runs
 * again.
 */
static void
fill_worker(BackgroundWorker *worker, const JobEntry *job, dsm_segment *segment)
{
	QueueOrder order = {
		.database = MyDatabaseId,
		.owner = job->owner,
		.job_id = job->job_id,
		.segment = dsm_segment_handle(segment),
	};

	StaticAssertStmt(sizeof(order) <= BGW_EXTRALEN, "QueueOrder is too large");
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker->bgw_library_name, "s3export", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, "s3export_leader_main", sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_type, "s3export job", sizeof(worker->bgw_type));
	snprintf(worker->bgw_name, sizeof(worker->bgw_name), "s3export job " INT64_FORMAT, job->job_id);
	memcpy(worker->bgw_extra, &order, sizeof(order));
	worker->bgw_notify_pid = MyProcPid;
}

/* False: there is no free worker, or no shared memory. */
static bool
start_worker(Dispatcher *dispatcher, Starter *starter, const JobEntry *job)
{
	MemoryContext    old = MemoryContextSwitchTo(dispatcher->context);
	dsm_segment     *segment = dsm_create(REPORT_QUEUE_SIZE, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	BackgroundWorker worker;
	shm_mq          *reports;
	bool             started = false;

	if (segment != NULL)
	{
		reports = shm_mq_create(dsm_segment_address(segment), REPORT_QUEUE_SIZE);
		shm_mq_set_receiver(reports, MyProc);
		fill_worker(&worker, job, segment);
		started = RegisterDynamicBackgroundWorker(&worker, &starter->worker);
		if (started)
		{
			starter->state = STARTING;
			starter->segment = segment;
			starter->reports = shm_mq_attach(reports, segment, starter->worker);
			starter->error.sqlerrcode = 0;
		}
		else
			dsm_detach(segment);
	}
	MemoryContextSwitchTo(old);
	return started;
}

static void
end_starting(Starter *starter)
{
	shm_mq_detach(starter->reports);
	dsm_detach(starter->segment);
	pfree(starter->worker);
	starter->segment = NULL;
}

/* Hears what a worker that is starting has to say. */
static void
receive_outcome(Dispatcher *dispatcher, Starter *starter)
{
	Size           len;
	void          *data;
	shm_mq_result  result;
	StringInfoData message;
	char           outcome = 0;
	MemoryContext  old = MemoryContextSwitchTo(dispatcher->context);

	while ((result = shm_mq_receive(starter->reports, &len, &data, true)) == SHM_MQ_SUCCESS)
	{
		initStringInfo(&message);
		appendBinaryStringInfo(&message, data, (int) len);
		outcome = (char) pq_getmsgbyte(&message);
		if (outcome == 'E')
			pq_parse_errornotice(&message, &starter->error);
		pfree(message.data);
		if (outcome == QUEUE_OUTCOME_TAKEN || outcome == QUEUE_OUTCOME_LEFT)
			break;
	}
	MemoryContextSwitchTo(old);
	if (result == SHM_MQ_WOULD_BLOCK)
		return;

	end_starting(starter);
	if (outcome == QUEUE_OUTCOME_TAKEN)
	{
		starter->state = TAKEN;
		starter->failures = 0;
		starter->pause = 0;
		return;
	}
	if (outcome != QUEUE_OUTCOME_LEFT)
		starter->failures++;
	rest_starter(starter);
}

/* What keeps a worker from its job for good is the job's error. */
static void
give_up(Starter *starter)
{
	static const ErrorData silence = {
		.sqlerrcode = ERRCODE_SYSTEM_ERROR,
		.message = "the background worker of the job ended before it could begin",
		.hint = "The server log may say why.",
	};

	job_fail_queued(starter->job_id, starter->error.sqlerrcode != 0 ? &starter->error : &silence);
	starter->failures = 0;
}

/* ---- the dispatcher: which job is next ---- */

/* A row of a process that has died says "running" until somebody recovers it. */
static bool
is_running(const JobEntry *job)
{
	return !job->queued && (advisory_lock_is_held_by(job->job_id, job->uploader_pid) ||
							advisory_lock_is_held_by(job->job_id, job->leader_pid));
}

static bool
is_starting(Dispatcher *dispatcher, const JobEntry *job)
{
	const Starter *starter = find_starter(dispatcher, job->job_id);

	return starter != NULL && starter->state == STARTING;
}

/*
 * The job, of those that run or come first, that has to end before this one.  No
 * two write to a path that has the job's id in it.
 */
static const JobEntry *
find_rival(List *busy, const JobEntry *job)
{
	ListCell *cell;

	if (job->path == NULL || object_path_names_job(job->path))
		return NULL;
	foreach (cell, busy)
	{
		const JobEntry *other = lfirst(cell);

		if (other->connector_id == job->connector_id && other->path != NULL &&
			strcmp(other->path, job->path) == 0)
			return other;
	}
	return NULL;
}

static bool
is_settling(const Dispatcher *dispatcher)
{
	return dispatcher->settling && GetCurrentTimestamp() < dispatcher->settled_at;
}

static void
note_turn(Dispatcher *dispatcher, Oid role)
{
	MemoryContext old = MemoryContextSwitchTo(dispatcher->context);

	dispatcher->served = list_delete_oid(dispatcher->served, role);
	dispatcher->served = lappend_oid(dispatcher->served, role);
	MemoryContextSwitchTo(old);
}

static const char *const as_before = "";

/*
 * Why the job, which nothing is in the way of, has not been started, or
 * as_before; NULL: it has.
 */
static const char *
try_start(Dispatcher *dispatcher, const JobEntry *job)
{
	Starter    *starter = find_starter(dispatcher, job->job_id);
	TimestampTz now = GetCurrentTimestamp();

	if (starter == NULL)
	{
		starter = add_starter(dispatcher, job->job_id);

		/* An earlier dispatcher has just tried it. */
		if (job->waiting_for != NULL && strcmp(job->waiting_for, QUEUE_WAITS_FOR_WORKER) == 0)
			pause_all(dispatcher);
	}
	if (starter->state == TAKEN)
	{
		starter->state = RESTING;
		if (!job->again)
			pause_all(dispatcher);
	}
	if (now < dispatcher->paused_until)
		return QUEUE_WAITS_FOR_WORKER;
	if (now < starter->retry_at)
		return "another try to start its worker";
	if (is_settling(dispatcher))
		return as_before;
	/* Its worker could not have it: somebody is about to cancel it, and may take long. */
	if (!job_is_free(job->job_id))
	{
		rest_starter(starter);
		return as_before;
	}
	if (start_worker(dispatcher, starter, job))
	{
		dispatcher->started = job->job_id;
		note_turn(dispatcher, job->owner);
		dispatcher->settling = true;
		dispatcher->settled_at = TimestampTzPlusMilliseconds(now, SETTLING_TIME);
		return NULL;
	}
	pause_all(dispatcher);
	return QUEUE_WAITS_FOR_WORKER;
}

/* ---- the dispatcher: whose turn it is ---- */

/* How many jobs of a role run, and how many of its queued ones have been given their turns. */
typedef struct Share
{
	Oid  role;
	int  exports; /* that run, whether they were queued or not */
	int  jobs;    /* of them, those that were */
	int  turns;
	bool limited;
} Share;

static Share *
share_of(List **shares, const JobEntry *job)
{
	Share    *share;
	ListCell *cell;

	foreach (cell, *shares)
	{
		share = lfirst(cell);
		if (share->role == job->owner)
			return share;
	}
	share = palloc0(sizeof(Share));
	share->role = job->owner;
	share->limited = job->limited;
	*shares = lappend(*shares, share);
	return share;
}

static void
count_running(List **shares, const JobEntry *job)
{
	Share *share = share_of(shares, job);

	share->exports++;
	share->jobs += job->background;
	share->turns += job->background;
}

/* NULL: the role may have another one. */
static const char *
limit_of_role(const Share *share)
{
	if (share->limited && share->jobs >= guc_running_jobs_of_role())
		return "jobs of its role that are running";
	if (share->limited && share->exports >= guc_exports_of_role())
		return "exports of its role that are running";
	return NULL;
}

static int
compare_turns(const ListCell *a, const ListCell *b)
{
	const JobEntry *one = lfirst(a);
	const JobEntry *other = lfirst(b);

	if (one->turn != other->turn)
		return one->turn < other->turn ? -1 : 1;
	if (one->served != other->served)
		return one->served < other->served ? -1 : 1;
	return one->job_id < other->job_id ? -1 : one->job_id > other->job_id;
}

static int
last_turn(const Dispatcher *dispatcher, Oid role)
{
	int       n = 0;
	ListCell *cell;

	foreach (cell, dispatcher->served)
	{
		n++;
		if (lfirst_oid(cell) == role)
			return n;
	}
	return 0;
}

/*
 * The queued jobs: each role's next one in turn, first those of roles that run few, and of
 * these whose last turn is longest ago.
 */
static List *
take_turns(const Dispatcher *dispatcher, List *jobs, List **shares)
{
	List     *turns = NIL;
	ListCell *cell;

	foreach (cell, jobs)
	{
		JobEntry *job = lfirst(cell);

		if (!job->queued)
			continue;
		job->turn = share_of(shares, job)->turns;
		if (!job->resting)
			share_of(shares, job)->turns++;
		job->served = last_turn(dispatcher, job->owner);
		turns = lappend(turns, job);
	}
	list_sort(turns, compare_turns);
	return turns;
}

/* The last job that was started has its uploader, or has ended: there are workers. */
static bool
has_workers(const Dispatcher *dispatcher, List *jobs)
{
	ListCell *cell;

	foreach (cell, jobs)
	{
		const JobEntry *job = lfirst(cell);

		if (job->job_id == dispatcher->started)
			return job->again || (!job->queued && job->uploader_pid != 0);
	}
	return dispatcher->started != 0;
}

static const char *
describe_running(int running)
{
	if (running == 0)
		return "s3export.max_running_jobs to be more than 0";
	return running == 1 ? "1 job that is running" : psprintf("%d jobs that are running", running);
}

/* Starts what can be, and tells the others why not.  Returns how many are queued. */
static int
start_jobs(Dispatcher *dispatcher, List *jobs)
{
	List     *busy = NIL;
	List     *changed = NIL;
	List     *shares = NIL;
	int       running = 0;
	int       queued = 0;
	ListCell *cell;

	dispatcher->settling = false;
	if (has_workers(dispatcher, jobs))
		dispatcher->pause = 0;
	foreach (cell, jobs)
	{
		JobEntry *job = lfirst(cell);

		if (!is_running(job) && !is_starting(dispatcher, job))
			continue;
		busy = lappend(busy, job);
		running += job->background;
		count_running(&shares, job);
		if (job->background && job->uploader_pid == 0)
			dispatcher->settling = true;
	}
	foreach (cell, take_turns(dispatcher, jobs, &shares))
	{
		JobEntry       *job = lfirst(cell);
		const JobEntry *rival;
		const char     *waiting_for;

		queued++;
		if (is_starting(dispatcher, job))
			continue;
		if (job->resting)
			waiting_for = JOB_RESTS;
		else if ((rival = find_rival(busy, job)) != NULL)
			waiting_for =
				psprintf("job " INT64_FORMAT ", which writes the same object", rival->job_id);
		else if (running >= guc_max_running_jobs)
			waiting_for = describe_running(running);
		else if ((waiting_for = limit_of_role(share_of(&shares, job))) == NULL)
			waiting_for = try_start(dispatcher, job);

		busy = lappend(busy, job);
		if (waiting_for == NULL)
		{
			running++;
			count_running(&shares, job);
		}
		else if (waiting_for != as_before &&
				 (job->waiting_for == NULL || strcmp(job->waiting_for, waiting_for) != 0))
		{
			job->waiting_for = unconstify(char *, waiting_for);
			changed = lappend(changed, job);
		}
	}
	if (changed != NIL)
		job_set_waiting(changed);
	return queued;
}

static bool
is_queued(List *jobs, int64 job_id)
{
	ListCell *cell;

	foreach (cell, jobs)
	{
		const JobEntry *job = lfirst(cell);

		if (job->job_id == job_id)
			return job->queued;
	}
	return false;
}

static void
hear_workers(Dispatcher *dispatcher)
{
	ListCell *cell;

	foreach (cell, dispatcher->starters)
	{
		Starter *starter = lfirst(cell);

		if (starter->state == STARTING)
			receive_outcome(dispatcher, starter);
		if (starter->failures >= MAX_TRIES)
			give_up(starter);
	}
}

/* Forgets the jobs that are queued no more. */
static void
forget_starters(Dispatcher *dispatcher, List *jobs)
{
	ListCell *cell;

	foreach (cell, dispatcher->starters)
	{
		Starter *starter = lfirst(cell);

		if (starter->state == STARTING || is_queued(jobs, starter->job_id))
			continue;
		pfree(starter);
		dispatcher->starters = foreach_delete_current(dispatcher->starters, cell);
	}
}

/*
 * Ends when nothing is left to start.  The next job that is queued, or that ends, starts another
 * dispatcher.
 */
static void
dispatch_jobs(void)
{
	Dispatcher dispatcher = {
		.context = CurrentMemoryContext,
		.look =
			AllocSetContextCreate(CurrentMemoryContext, "s3export look", ALLOCSET_DEFAULT_SIZES),
	};

	for (;;)
	{
		static uint32 wait_event = 0;
		List         *jobs;

		MemoryContextSwitchTo(dispatcher.look);

		/* In this order: whoever has said that he took a job has made its row say so. */
		hear_workers(&dispatcher);
		jobs = job_list_unfinished();
		forget_starters(&dispatcher, jobs);
		if (start_jobs(&dispatcher, jobs) == 0)
			break;
		MemoryContextSwitchTo(dispatcher.context);
		MemoryContextReset(dispatcher.look);

		pgstat_report_stat(false);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 is_settling(&dispatcher) ? SETTLING_INTERVAL : LOOK_INTERVAL,
						 compat_wait_event(wait_event, "S3exportQueue"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
	MemoryContextSwitchTo(dispatcher.context);
	MemoryContextDelete(dispatcher.look);
}

/* In a transaction of its own. */
static bool
any_queued(void)
{
	bool any;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	any = job_any_queued();
	CommitTransactionCommand();
	return any;
}

void
s3export_dispatcher_main(Datum arg)
{
	MemoryContext context;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	catalog_settle_session("s3export dispatcher");

	context =
		AllocSetContextCreate(TopMemoryContext, "s3export dispatcher", ALLOCSET_DEFAULT_SIZES);
	do
	{
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		if (!advisory_lock_try_queue())
			return;
		dispatch_jobs();
		advisory_lock_release_queue();
	} while (any_queued());
}
