/*-------------------------------------------------------------------------
 *
 * job_worker.c
 *	  The background worker that runs a queued job, as the job's owner.
 *
 * It is the leader of an export like any other; the session that queued it is
 * gone.  Once the uploader has taken the job over, the uploader records its end.
 * What goes wrong before that is recorded here.
 *
 * A worker that is terminated before that puts its job back: nothing has been
 * done for it, and a server that is shut down runs it after its next start.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq/pqformat.h"
#include "libpq/pqmq.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "base/compat.h"
#include "export/copy_args.h"
#include "export/export.h"
#include "tables/advisory_lock.h"
#include "tables/catalog.h"
#include "tables/dispatcher.h"
#include "tables/job.h"
#include "tables/job_settings.h"
#include "uploader/uploader.h"

extern PGDLLEXPORT void s3export_leader_main(Datum arg);

static int64 claimed_job = 0; /* until its end is recorded, or the uploader's to record */
static volatile sig_atomic_t terminated = false;

static void
handle_terminate(SIGNAL_ARGS)
{
	terminated = true;
	die(postgres_signal_arg);
}

/* Errors go to the dispatcher while it does not know that we have the job. */
static dsm_segment *
report_to_dispatcher(const QueueOrder *order, shm_mq_handle **reports)
{
	dsm_segment *segment = dsm_attach(order->segment);
	shm_mq      *queue;

	if (segment == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("could not attach to the segment of the dispatcher"),
						errdetail("The dispatcher has ended.")));
	queue = dsm_segment_address(segment);
	shm_mq_set_sender(queue, MyProc);
	*reports = shm_mq_attach(queue, segment, NULL);
	pq_redirect_to_shm_mq(segment, *reports);
	return segment;
}

/* The postmaster says so in its file before it ends anybody. */
static bool
server_is_stopping(void)
{
	FILE *file = AllocateFile("postmaster.pid", "r");
	char  line[MAXPGPATH];
	bool  found = false;

	while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL)
		found = strncmp(line, PM_STATUS_STOPPING, strlen(PM_STATUS_STOPPING)) == 0;
	if (file != NULL)
		FreeFile(file);
	return found;
}

/* A fatal error ends us without a way through the error handler below. */
static void
record_exit(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	static const ErrorData unknown = {
		.sqlerrcode = ERRCODE_SYSTEM_ERROR,
		.message = "the background worker of the job ended before the export began",
		.hint = "The server log may say why.",
	};
	static const ErrorData ended = {
		.sqlerrcode = ERRCODE_ADMIN_SHUTDOWN,
		.message = "somebody has ended the background worker of the job before the export began",
	};
	int64 job_id = claimed_job;

	if (job_id == 0)
		return;
	claimed_job = 0;
	AbortOutOfAnyTransaction();
	if (terminated && server_is_stopping())
		job_put_back(job_id, NULL);
	else if (terminated)
		job_fail_early(job_id, JOB_CANCELLED, &ended);
	else
		job_fail_early(job_id, JOB_FAILED, &unknown);
}

static void
apply_settings(const JobClaim *claim)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	job_settings_apply(claim->settings);
	CommitTransactionCommand();
}

/* Background workers have no statement_timeout but the one that they arm. */
static void
run_export(int64 job_id, const JobClaim *claim)
{
	CopyArguments arguments;
	JobTotals     totals;

	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, claim->source);
	StartTransactionCommand();
	if (StatementTimeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
	PushActiveSnapshot(GetTransactionSnapshot());

	copy_args_get(copy_args_from_pairs(claim->arguments), claim->connector_id, &arguments);
	arguments.request.job_id = job_id;
	export_run(arguments.connector, &arguments.format, arguments.workers, &arguments.request,
			   &totals);

	disable_timeout(STATEMENT_TIMEOUT, false);
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);
}

static bool
is_refusal(int64 job_id, const ErrorData *error, int sqlerrcode)
{
	return error->sqlerrcode == sqlerrcode && uploader_was_refused(job_id);
}

/*
 * Rows that an uploader has taken over are left alone: it will hear why we give
 * up, and record that.  Whether it has, only the row can tell.
 */
static void
record_error(int64 job_id, const ErrorData *error)
{
	if (is_refusal(job_id, error, ERRCODE_INSUFFICIENT_RESOURCES))
		job_put_back(job_id, QUEUE_WAITS_FOR_WORKER);
	else if (is_refusal(job_id, error, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED))
		job_put_back(job_id, NULL);
	else
		job_fail_early(job_id,
					   error->sqlerrcode == ERRCODE_QUERY_CANCELED ? JOB_CANCELLED : JOB_FAILED,
					   error);
}

/*
 * Runs a claimed job.  Its error is recorded in its row and in the server log; the worker itself
 * ends well.
 */
static void
run_job(int64 job_id, const JobClaim *claim)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		row_require_proof(&claim->proof, false);
		apply_settings(claim);
		run_export(job_id, claim);
	}
	PG_CATCH();
	{
		ErrorData *error;

		/* Whoever cancels now is too late. */
		HOLD_CANCEL_INTERRUPTS();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		/* The dispatcher says once that there are no workers. */
		if (!is_refusal(job_id, error, ERRCODE_INSUFFICIENT_RESOURCES))
			EmitErrorReport();
		FlushErrorState();
		disable_all_timeouts(false);
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		record_error(job_id, error);
		RESUME_CANCEL_INTERRUPTS();
	}
	PG_END_TRY();
	claimed_job = 0;
}

static void
start_others(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	dispatcher_start();
	PopActiveSnapshot();
	CommitTransactionCommand();
}

void
s3export_leader_main(Datum arg pg_attribute_unused())
{
	QueueOrder     order;
	dsm_segment   *segment;
	shm_mq_handle *reports;
	JobClaim       claim;
	char           outcome;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	pqsignal(SIGTERM, handle_terminate);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	MemoryContextSwitchTo(
		AllocSetContextCreate(TopMemoryContext, "s3export job", ALLOCSET_DEFAULT_SIZES));
	segment = report_to_dispatcher(&order, &reports);
	/* Without a role a worker is connected as the bootstrap superuser. */
	if (!OidIsValid(order.owner))
		ereport(FATAL, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
						errmsg("the role that queued the export does not exist")));
	BackgroundWorkerInitializeConnectionByOid(order.database, order.owner, COMPAT_CONNECT_FLAGS);
	catalog_settle_connection();
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_SESSION);
	before_shmem_exit(record_exit, (Datum) 0);

	advisory_lock_join(order.job_id);
	if (job_claim(order.job_id, &claim))
		claimed_job = order.job_id;
	outcome = claimed_job != 0 ? QUEUE_OUTCOME_TAKEN : QUEUE_OUTCOME_LEFT;
	(void) shm_mq_send(reports, 1, &outcome, true, true);
	dsm_detach(segment);
	if (claimed_job == 0)
		return;
	run_job(order.job_id, &claim);
	advisory_lock_leave(order.job_id);
	start_others();
	pgstat_report_stat(true);
}
