/*-------------------------------------------------------------------------
 *
 * guc.c
 *	  The settings of s3export.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "postmaster/bgworker_internals.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/message.h"

int   guc_upload_memory = 128 * 1024;
int   guc_part_size = 8 * 1024;
int   guc_max_concurrent_parts = 16;
int   guc_max_parallel_workers = 2;
int   guc_max_running_jobs = 3;
int   guc_max_queued_jobs = 1000;
int   guc_max_running_jobs_per_role = -1;
int   guc_max_queued_jobs_per_role = -1;
int   guc_max_exports_per_role = -1;
int   guc_connect_timeout = 5000;
int   guc_request_timeout = 30000;
int   guc_stall_timeout = 30000;
int   guc_complete_timeout = 15 * 60 * 1000;
int   guc_retry_timeout = 5 * 60 * 1000;
int   guc_progress_notice = PROGRESS_NOTICE_AUTO;
char *guc_allowed_endpoints = "";
char *guc_allowed_sts_endpoints = "";
char *guc_ca_file = "";
char *guc_proxy = "";
char *guc_key_file = "";
bool  guc_allow_ambient_credentials = false;
int   guc_job_retention = 30 * MINS_PER_HOUR * HOURS_PER_DAY;
bool  guc_fast_output = true;

static const struct config_enum_entry progress_notice_options[] = {
	{"auto", PROGRESS_NOTICE_AUTO, false}, {"on", PROGRESS_NOTICE_ON, false},
	{"true", PROGRESS_NOTICE_ON, true},    {"yes", PROGRESS_NOTICE_ON, true},
	{"1", PROGRESS_NOTICE_ON, true},       {"off", PROGRESS_NOTICE_OFF, false},
	{"false", PROGRESS_NOTICE_OFF, true},  {"no", PROGRESS_NOTICE_OFF, true},
	{"0", PROGRESS_NOTICE_OFF, true},      {NULL, 0, false},
};

/* What a session may have set for the uploads it starts. */
const char *const guc_session_settings[] = {
	"s3export.upload_memory",    "s3export.part_size",       "s3export.max_concurrent_parts",
	"s3export.connect_timeout",  "s3export.request_timeout", "s3export.stall_timeout",
	"s3export.complete_timeout", "s3export.retry_timeout",   NULL,
};

void
guc_serialize(StringInfo buf)
{
	for (int i = 0; guc_session_settings[i] != NULL; i++)
		message_put_string(buf, GetConfigOption(guc_session_settings[i], false, false));
}

void
guc_restore(StringInfo buf)
{
	for (int i = 0; guc_session_settings[i] != NULL; i++)
		SetConfigOption(guc_session_settings[i], message_get_string(buf), PGC_SUSET, PGC_S_SESSION);
}

static void
define_upload_settings(void)
{
	DefineCustomIntVariable(
		"s3export.upload_memory", "Sets the memory for the part buffers of one export.",
		"Parts in flight are at most this, divided by the size of a part, less one.",
		&guc_upload_memory, 128 * 1024, 10 * 1024, MAX_KILOBYTES, PGC_SUSET, GUC_UNIT_KB, NULL,
		NULL, NULL);
	DefineCustomIntVariable(
		"s3export.part_size", "Sets the size of the first parts of a multipart upload.",
		"What fits one part is sent by a single request.  Parts grow when an "
		"object would need more than S3's 10,000.",
		&guc_part_size, 8 * 1024, 5 * 1024, 1024 * 1024, PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("s3export.max_concurrent_parts",
							"Sets the most parts that one export sends at the same time.",
							"It sends as many as bring more through than fewer would.",
							&guc_max_concurrent_parts, 16, 1, 64, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("s3export.max_parallel_workers",
							"Sets the number of parallel workers that help to scan for one export.",
							"0 means none.  They count towards max_parallel_workers.",
							&guc_max_parallel_workers, 2, 0, MAX_PARALLEL_WORKER_LIMIT, PGC_USERSET,
							0, NULL, NULL, NULL);
	DefineCustomEnumVariable("s3export.progress_notice",
							 "Sets whether a notice every 10 seconds tells how far an export is.",
							 "\"auto\" means in psql.", &guc_progress_notice, PROGRESS_NOTICE_AUTO,
							 progress_notice_options, PGC_USERSET, 0, NULL, NULL, NULL);
}

static void
define_queue(void)
{
	DefineCustomIntVariable("s3export.max_running_jobs",
							"Sets the number of queued exports of a database that run at a time.",
							"0 lets them all wait.", &guc_max_running_jobs, 3, 0, 1000, PGC_SIGHUP,
							0, NULL, NULL, NULL);
	DefineCustomIntVariable("s3export.max_queued_jobs",
							"Sets the number of exports of a database that may wait to be run.",
							NULL, &guc_max_queued_jobs, 1000, 0, INT_MAX, PGC_SUSET, 0, NULL, NULL,
							NULL);
}

static int
half_of(int n)
{
	return n / 2 + n % 2;
}

int
guc_running_jobs_of_role(void)
{
	return guc_max_running_jobs_per_role >= 0 ? guc_max_running_jobs_per_role
											  : Max(guc_max_running_jobs - 1, 1);
}

int
guc_queued_jobs_of_role(void)
{
	return guc_max_queued_jobs_per_role >= 0 ? guc_max_queued_jobs_per_role
											 : half_of(guc_max_queued_jobs);
}

int
guc_exports_of_role(void)
{
	return guc_max_exports_per_role >= 0 ? guc_max_exports_per_role : half_of(max_worker_processes);
}

static void
define_limits_per_role(void)
{
	DefineCustomIntVariable(
		"s3export.max_running_jobs_per_role",
		"Sets the number of queued exports of one role that run at a time.",
		"-1 means one less than s3export.max_running_jobs.  Superusers have no limit of their own.",
		&guc_max_running_jobs_per_role, -1, -1, 1000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"s3export.max_queued_jobs_per_role",
		"Sets the number of exports of one role that may wait to be run.",
		"-1 means half of s3export.max_queued_jobs.  Superusers have no limit of their own.",
		&guc_max_queued_jobs_per_role, -1, -1, INT_MAX, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"s3export.max_exports_per_role",
		"Sets the number of exports of one role that run at a time, queued or not.",
		"-1 means half of max_worker_processes.  Superusers have no limit of their own.",
		&guc_max_exports_per_role, -1, -1, 1000, PGC_SUSET, 0, NULL, NULL, NULL);
}

static void
define_timeouts(void)
{
	DefineCustomIntVariable(
		"s3export.connect_timeout", "Sets the time allowed to connect to a server.", NULL,
		&guc_connect_timeout, 5000, 100, INT_MAX, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"s3export.request_timeout", "Sets the time allowed for a request with a short answer.",
		NULL, &guc_request_timeout, 30000, 100, INT_MAX, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("s3export.stall_timeout",
							"Sets the time after which a transfer without progress is tried again.",
							NULL, &guc_stall_timeout, 30000, 1000, INT_MAX, PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable(
		"s3export.complete_timeout", "Sets the time allowed to put a multipart upload together.",
		"S3 may need minutes for a large object.", &guc_complete_timeout, 15 * 60 * 1000, 1000,
		INT_MAX, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("s3export.retry_timeout",
							"Sets the time without any progress after which an export gives up.",
							"Until then failures that can pass are retried.", &guc_retry_timeout,
							5 * 60 * 1000, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
}

static void
define_administration(void)
{
	DefineCustomStringVariable("s3export.allowed_endpoints",
							   "Lists the endpoints, other than AWS's, that connectors may name.",
							   "URLs separated by commas.  Superusers may name any.",
							   &guc_allowed_endpoints, "", PGC_SUSET, GUC_LIST_INPUT, NULL, NULL,
							   NULL);
	DefineCustomStringVariable(
		"s3export.allowed_sts_endpoints",
		"Lists the endpoints, other than AWS's, at which roles may be assumed.",
		"URLs separated by commas.  They see requests of the base identity.  Superusers may name any.",
		&guc_allowed_sts_endpoints, "", PGC_SUSET, GUC_LIST_INPUT, NULL, NULL, NULL);
	DefineCustomStringVariable("s3export.ca_file",
							   "Sets the file of certificates that servers are checked against.",
							   "Empty means libcurl's own.", &guc_ca_file, "", PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("s3export.proxy",
							   "Sets the URL of the proxy that requests go through.",
							   "Empty means none; the environment does not matter.", &guc_proxy, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("s3export.key_file",
							   "Sets the file with the key that seals stored secrets.",
							   "Empty means s3export.key in the data directory, made when needed.",
							   &guc_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"s3export.allow_ambient_credentials",
		"Allows connectors to use the credentials that the server finds around itself.",
		"Those in its environment, its AWS profile, its container or its EC2 instance.",
		&guc_allow_ambient_credentials, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"s3export.job_retention", "Sets the time after which the rows of jobs that have ended go.",
		"-1 keeps them for ever.", &guc_job_retention, 30 * MINS_PER_HOUR * HOURS_PER_DAY, -1,
		INT_MAX, PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomBoolVariable("s3export.fast_output",
							 "Enables output routines of our own for common types.",
							 "They write what the types' output functions write.", &guc_fast_output,
							 true, PGC_USERSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
}

void
guc_define(void)
{
	define_upload_settings();
	define_queue();
	define_limits_per_role();
	define_timeouts();
	define_administration();
	MarkGUCPrefixReserved("s3export");
}
