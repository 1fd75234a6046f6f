/*-------------------------------------------------------------------------
 *
 * s3_client.c
 *	  What every request of the uploader needs to talk to S3.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/timeout.h"

#include "aws/iam_policy.h"
#include "base/guc.h"
#include "ipc/pipe.h"
#include "uploader/s3_client.h"

static volatile sig_atomic_t cancel_requested = false;

/* A timeout interrupts a wait for a lock by the same signal. */
void
s3_client_handle_cancel(SIGNAL_ARGS)
{
	int save_errno = errno;

	if (get_timeout_indicator(LOCK_TIMEOUT, false))
	{
		StatementCancelHandler(postgres_signal_arg);
		return;
	}
	cancel_requested = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

bool
s3_client_cancel_requested(void)
{
	return cancel_requested;
}

HttpClient *
s3_client_open_http(int connections, int retry_timeout)
{
	HttpOptions options = {
		.connect_timeout = guc_connect_timeout,
		.retry_timeout = retry_timeout,
		.max_connections = connections,
		.ca_file = guc_ca_file[0] ? guc_ca_file : NULL,
		.proxy = guc_proxy[0] ? guc_proxy : NULL,
	};

	return http_open(&options);
}

S3Timeouts
s3_client_timeouts(void)
{
	return (S3Timeouts){
		.request = guc_request_timeout,
		.stall = guc_stall_timeout,
		.complete = guc_complete_timeout,
	};
}

static char *
session_policy(const Connector *connector, const char *key, bool is_prefix, bool may_delete)
{
	const S3Config *s3 = &connector->s3;
	const char     *partition = connector->credentials.role_arn + strlen("arn:");
	PolicyScope     scope = {
			.partition = pnstrdup(partition, strcspn(partition, ":")),
			.bucket = s3->bucket,
			.need_delete = may_delete,
			.sets_acl = s3->acl != NULL,
			.sets_tags = s3->tags != NULL,
			.uses_kms = s3->server_side_encryption != NULL &&
						strcmp(s3->server_side_encryption, "aws:kms") == 0,
    };

	return iam_policy_for_session(&scope, key, is_prefix);
}

Credentials *
s3_client_open_credentials(HttpClient *http, const Connector *connector, const char *label,
						   const char *key, bool is_prefix, bool may_delete)
{
	const CredentialConfig *config = &connector->credentials;
	char                   *policy = NULL;

	if (config->role_arn != NULL)
		policy = session_policy(connector, key, is_prefix, may_delete);
	return credentials_open(http, config, psprintf("s3export-%s", label), policy);
}

void
s3_client_watch_shutdown(void *arg pg_attribute_unused())
{
	if (ShutdownRequestPending)
		ereport(ERROR, (errcode(ERRCODE_ADMIN_SHUTDOWN),
						errmsg("terminating the uploader due to administrator command")));
}

void
s3_client_watch_leader(void *pipe)
{
	const ErrorData *error;

	s3_client_watch_shutdown(NULL);
	if (cancel_requested)
		ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
						errmsg("canceling the export due to user request")));
	if (!pipe_leader_gone(pipe, &error))
		return;
	if (error == NULL)
		ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
						errmsg("the session that ran the export has ended")));
	ereport(ERROR, (errcode(error->sqlerrcode), errmsg_internal("%s", error->message),
					error->detail ? errdetail_internal("%s", error->detail) : 0,
					error->hint ? errhint("%s", error->hint) : 0));
}
