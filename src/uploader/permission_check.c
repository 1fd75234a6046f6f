/*-------------------------------------------------------------------------
 *
 * permission_check.c
 *	  Does a connector have every permission it needs?  One check, one result.
 *
 * CreateMultipartUpload needs the permission that PutObject and UploadPart
 * need, and has no effect that an abort does not undo.  Reading and deleting
 * are tried on a key that does not exist: S3 looks at permissions first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "uploader/permission_check.h"

#define SESSION_NAME "s3export-check"

/* Between attempts to assume a role that AWS may not know yet; ms */
#define FIRST_ROLE_PAUSE 1000
#define MAX_ROLE_PAUSE 5000

typedef struct Probe
{
	const S3Config *config;
	S3Session      *s3;
	int             abort_timeout;
	const char     *prefix;
	const char     *key;  /* of no object */
	const char     *skip; /* why what follows is not checked; NULL: it is */
	void (*emit)(void *arg, const PermissionResult *result);
	void *arg;
	char *location; /* as GetBucketLocation has it; NULL: not known */
} Probe;

static void
report_passed(Probe *probe, const char *check, const char *action, const char *message)
{
	PermissionResult result = {.check = check, .ok = true, .action = action, .message = message};

	probe->emit(probe->arg, &result);
}

/* "hint" overrides what is generally said about such an error. */
static void
report_refused(Probe *probe, const char *check, const char *action, const S3Error *error,
			   const char *hint)
{
	PermissionResult result = {
		.check = check,
		.action = action,
		.sqlstate = s3_error_sqlstate(error),
		.code = error->code[0] != '\0' ? error->code : NULL,
		.request_id = error->request_id[0] != '\0' ? error->request_id : NULL,
		.message = s3_error_detail(error),
		.hint = hint != NULL ? hint : s3_error_hint(error),
	};

	probe->emit(probe->arg, &result);
}

static bool
report_skipped(Probe *probe, const char *check, const char *action)
{
	PermissionResult result = {.check = check, .skipped = true, .action = action};

	if (probe->skip == NULL)
		return false;
	result.message = psprintf("Not checked, because %s.", probe->skip);
	probe->emit(probe->arg, &result);
	return true;
}

/* Opens the credentials and has the role assumed; *failure is NULL when it was. */
static Credentials *
assume_role(HttpClient *http, const CredentialConfig *config, const CredentialFailure **failure)
{
	Credentials *credentials = credentials_open(http, config, SESSION_NAME, NULL);

	*failure = NULL;
	while (credentials_current(credentials, failure) == NULL && *failure == NULL)
		http_drive(http, -1);
	return credentials;
}

static bool
is_denied(const CredentialFailure *failure)
{
	return failure->code != NULL && strcmp(failure->code, "AccessDenied") == 0;
}

/* A pause of its own name for pg_stat_activity; interrupts end it. */
static void
pause_before_retry(HttpClient *http, long ms)
{
	static uint32 wait_event = 0;
	TimestampTz   until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	for (;;)
	{
		long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left,
						 compat_wait_event(wait_event, "S3exportNewRole"));
		http_drive(http, 0);
	}
}

/*
 * AWS gives the same answer for a role that it does not know yet and for one
 * that does not trust us, so only time can tell.
 */
static Credentials *
assume_new_role(HttpClient *http, const CredentialConfig *config, int wait,
				const CredentialFailure **failure)
{
	TimestampTz  until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait);
	long         pause = FIRST_ROLE_PAUSE;
	Credentials *credentials;

	for (;;)
	{
		long left;

		credentials = assume_role(http, config, failure);
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (*failure == NULL || !is_denied(*failure) || left <= 0)
			return credentials;
		pause_before_retry(http, Min(pause, left));
		pause = Min(pause * 2, MAX_ROLE_PAUSE);
	}
}

static char *
denied_hint(const S3Error *error, int wait)
{
	const char *hint = s3_error_hint(error);

	return psprintf("%s%sA role or trust policy made a moment ago takes a while to be known to "
					"AWS%s.",
					hint ? hint : "", hint ? " " : "",
					wait > 0 ? psprintf(", here more than %d s; a longer role_wait may help",
										(wait + 999) / 1000)
							 : ": try again in a while, or with role_wait => '1 min'");
}

/*
 * A role that was created a moment ago is tried again for as long as "wait" says.  If the role
 * cannot be assumed, all other checks are skipped.
 */
static Credentials *
check_role(Probe *probe, HttpClient *http, const CredentialConfig *config, int wait)
{
	const CredentialFailure *failure;
	Credentials             *credentials = assume_new_role(http, config, wait, &failure);
	const char              *assumed = credentials_assumed_arn(credentials);
	S3Error                  error;

	if (failure == NULL)
	{
		report_passed(
			probe, "assume role", "sts:AssumeRole",
			psprintf("The role was assumed as \"%s\".", assumed ? assumed : config->role_arn));
		return credentials;
	}
	s3_error_set_credentials(&error, failure, probe->config->bucket);
	report_refused(probe, "assume role", "sts:AssumeRole", &error,
				   is_denied(failure) ? denied_hint(&error, wait) : NULL);
	probe->skip = "the role could not be assumed";
	return credentials;
}

/*
 * A role that trusts us without the external ID can be used through us by
 * anybody who knows its ARN.
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html
 */
static void
check_external_id(Probe *probe, HttpClient *http, const CredentialConfig *config)
{
	CredentialConfig         without = *config;
	const CredentialFailure *failure;
	PermissionResult         result = {
				.check = "external id", .action = "sts:AssumeRole", .advisory = true};
	S3Error error;

	if (report_skipped(probe, result.check, result.action))
		return;
	without.external_id = NULL;
	(void) assume_role(http, &without, &failure);
	if (failure != NULL && is_denied(failure))
	{
		report_passed(probe, result.check, result.action,
					  "The role cannot be assumed without the external ID.");
		return;
	}
	if (failure == NULL)
	{
		result.message = psprintf("Role \"%s\" can be assumed without the external ID, so whoever "
								  "uses the same base identity can use it.",
								  config->role_arn);
		result.hint =
			psprintf("Add the condition that sts:ExternalId is \"%s\" to its trust policy, "
					 "as s3export.trust_policy() shows it.",
					 config->external_id);
	}
	else
	{
		s3_error_set_credentials(&error, failure, probe->config->bucket);
		result.code = failure->code;
		result.request_id = failure->request_id;
		result.message = psprintf("Whether the role can be assumed without the external ID could "
								  "not be found out: %s",
								  s3_error_detail(&error));
		result.hint = s3_error_hint(&error);
	}
	probe->emit(probe->arg, &result);
}

/* Why nothing else is tried, when even the bucket could not be looked at. */
static const char *
why_unreached(const S3Error *error)
{
	if (error->refusal != REFUSAL_NONE)
		return "S3 does not accept the credentials";
	if (s3_error_is(error, "RequestTimeTooSkewed"))
		return "S3 does not accept the clock of this server";
	return "the bucket was not reached";
}

static char *
bucket_message(const Probe *probe)
{
	const char *region = s3_region(probe->s3);

	if (region == NULL)
		return psprintf("The bucket \"%s\" was reached.", probe->config->bucket);
	if (probe->config->region != NULL && strcmp(region, probe->config->region) != 0)
		return psprintf("The bucket \"%s\" was reached. Its region is \"%s\", not \"%s\" as "
						"configured.",
						probe->config->bucket, region, probe->config->region);
	return psprintf("The bucket \"%s\" was reached. Its region is \"%s\".", probe->config->bucket,
					region);
}

/*
 * The answer to HeadBucket has no body.  Status 400, 401 and 403 may mean that the
 * keys are wrong, that the bucket, which does exist, may not be listed, or that
 * something else has answered; the answer to ListObjects says which.
 */
static bool
needs_more_words(const S3Error *error)
{
	return error->http_status == 400 || error->http_status == 401 || error->http_status == 403;
}

/*
 * An answer to HeadBucket has no body to say what is wrong: listing is asked then, and its error
 * is told.
 */
static void
check_bucket(Probe *probe)
{
	const char *action = "s3:ListBucket";
	S3Call      head = {.verb = S3_HEAD_BUCKET};
	S3Call      list = {.verb = S3_LIST_OBJECTS, .prefix = probe->prefix};

	if (!report_skipped(probe, "bucket", action))
	{
		const S3Error *error = NULL;

		if (!s3_perform(probe->s3, &head) && !needs_more_words(&head.error))
			error = &head.error;
		else if (!s3_perform(probe->s3, &list) && list.error.refusal != REFUSAL_PERMISSION)
			error = &list.error;
		if (error == NULL)
			report_passed(probe, "bucket", action, bucket_message(probe));
		else
		{
			report_refused(probe, "bucket", action, error, NULL);
			probe->skip = why_unreached(error);
		}
	}

	if (report_skipped(probe, "list bucket", action))
		return;
	if (list.ok)
		report_passed(probe, "list bucket", action,
					  psprintf("Objects under \"%s\" can be listed.", probe->prefix));
	else
		report_refused(probe, "list bucket", action, &list.error, NULL);
}

/* The location is the bucket's region: a connector keeps it, or is warned that it names another. */
static void
check_location(Probe *probe)
{
	const char *action = "s3:GetBucketLocation";
	S3Call      call = {.verb = S3_GET_BUCKET_LOCATION};

	if (report_skipped(probe, "bucket location", action))
		return;
	if (!s3_perform(probe->s3, &call))
	{
		report_refused(probe, "bucket location", action, &call.error, NULL);
		return;
	}

	/* https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLocation.html */
	if (call.location[0] == '\0')
		probe->location = pstrdup("us-east-1");
	else if (strcmp(call.location, "EU") == 0)
		probe->location = pstrdup("eu-west-1");
	else
	{
		probe->location = palloc(strlen(call.location) + 1);
		s3_clean_text(probe->location, strlen(call.location) + 1, call.location);
	}
	report_passed(probe, "bucket location", action,
				  psprintf("The location of the bucket is \"%s\".", probe->location));
}

/* Within a short time, so that a cancel may wait for it. */
static bool
abort_upload(Probe *probe, const char *upload_id, S3Error *error)
{
	bool ok;

	HOLD_INTERRUPTS();
	ok = s3_abort_upload(probe->s3, probe->key, upload_id, probe->abort_timeout, error);
	RESUME_INTERRUPTS();
	return ok;
}

/* An upload is begun and aborted, so that nothing appears in the bucket. */
static void
check_put(Probe *probe)
{
	const char *action = "s3:PutObject";
	const char *encryption = probe->config->server_side_encryption;
	S3Call      call = {.verb = S3_CREATE_UPLOAD, .key = probe->key};
	S3Error     error;
	char       *message;

	if (report_skipped(probe, "put object", action))
		return;
	if (!s3_perform(probe->s3, &call))
	{
		report_refused(probe, "put object", action, &call.error, NULL);
		return;
	}

	if (encryption != NULL)
		message = psprintf("An upload with server-side encryption %s was started.", encryption);
	else
		message = pstrdup("An upload was started.");
	if (abort_upload(probe, call.answer_id, &error))
		message = psprintf("%s It was aborted again.", message);
	else
		message = psprintf("%s It could not be aborted and is left under the key \"%s\": %s "
						   "Allow s3:AbortMultipartUpload, without which every export that fails "
						   "leaves its parts in the bucket.",
						   message, probe->key, s3_error_detail(&error));
	report_passed(probe, "put object", action, message);
}

/*
 * An object that does not exist is asked for.  S3 says so only to those who may list the bucket.
 */
static void
check_get(Probe *probe)
{
	const char *action = "s3:GetObject";
	S3Call      call = {.verb = S3_GET_OBJECT, .key = probe->key};
	const char *hint = NULL;

	if (report_skipped(probe, "get object", action))
		return;
	if (s3_perform(probe->s3, &call) || s3_error_is(&call.error, "NoSuchKey"))
	{
		report_passed(probe, "get object", action, "An object can be read.");
		return;
	}
	if (call.error.refusal == REFUSAL_PERMISSION)
		hint =
			psprintf("Allow %s on \"arn:aws:s3:::%s/%s*\", and s3:ListBucket on "
					 "\"arn:aws:s3:::%s\": without the latter, S3 gives this answer for an object "
					 "that does not exist, as the one asked for here, too.",
					 action, probe->config->bucket, probe->prefix, probe->config->bucket);
	report_refused(probe, "get object", action, &call.error, hint);
}

static void
check_delete(Probe *probe)
{
	const char *action = "s3:DeleteObject";
	S3Call      call = {.verb = S3_DELETE_OBJECT, .key = probe->key};

	if (report_skipped(probe, "delete object", action))
		return;
	if (s3_perform(probe->s3, &call) || s3_error_is(&call.error, "NoSuchKey"))
		report_passed(probe, "delete object", action, "An object can be deleted.");
	else
		report_refused(probe, "delete object", action, &call.error, NULL);
}

char *
permission_check_all(HttpClient *http, const S3Timeouts *timeouts, const PermissionCheck *check)
{
	const CredentialConfig *credentials = check->credentials;
	Probe                   probe = {
						  .config = check->s3,
						  .abort_timeout = timeouts->request,
						  .prefix = check->key_prefix,
						  .emit = check->emit,
						  .arg = check->arg,
    };
	Credentials *keys;
	char         token[S3_TOKEN_LEN + 1];
	const char  *region;

	s3_make_token(token);
	probe.key = psprintf("%ss3export-check-%s", check->key_prefix, token);
	if (credentials->role_arn != NULL)
		keys = check_role(&probe, http, credentials, check->wait);
	else
		keys = credentials_open(http, credentials, SESSION_NAME, NULL);
	if (credentials->external_id != NULL)
		check_external_id(&probe, http, credentials);
	probe.s3 = s3_open(http, check->s3, keys, timeouts);

	check_bucket(&probe);
	check_location(&probe);
	check_put(&probe);
	check_get(&probe);
	if (check->need_delete)
		check_delete(&probe);

	region = s3_region(probe.s3);
	if (region == NULL && check->s3->endpoint_url == NULL)
		region = probe.location;
	return region != NULL ? pstrdup(region) : NULL;
}
