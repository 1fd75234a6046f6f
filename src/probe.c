/*-------------------------------------------------------------------------
 *
 * probe.c
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

#include "probe.h"

#define SESSION_NAME "s3export-check"

typedef struct Probe
{
	const S3Config *config;
	S3Session      *s3;
	int             abort_timeout;
	const char     *prefix;
	const char     *key;  /* of no object */
	const char     *skip; /* why what follows is not checked; NULL: it is */
	void (*emit)(void *arg, const ProbeResult *result);
	void *arg;
	char *location; /* as GetBucketLocation has it; NULL: not known */
} Probe;

static void
pass(Probe *probe, const char *check, const char *action, const char *message)
{
	ProbeResult result = {.check = check, .ok = true, .action = action, .message = message};

	probe->emit(probe->arg, &result);
}

/* "hint" overrides what is generally said about such an error. */
static void
refuse(Probe *probe, const char *check, const char *action, const S3Error *error, const char *hint)
{
	ProbeResult result = {
		.check = check,
		.action = action,
		.code = error->code[0] != '\0' ? error->code : NULL,
		.request_id = error->request_id[0] != '\0' ? error->request_id : NULL,
		.message = s3_error_detail(error),
		.hint = hint != NULL ? hint : s3_error_hint(error),
	};

	probe->emit(probe->arg, &result);
}

static bool
skipped(Probe *probe, const char *check, const char *action)
{
	ProbeResult result = {.check = check, .action = action};

	if (probe->skip == NULL)
		return false;
	result.message = psprintf("Not checked, because %s.", probe->skip);
	probe->emit(probe->arg, &result);
	return true;
}

static void
check_role(Probe *probe, HttpClient *http, Credentials *credentials, const char *role_arn)
{
	const CredentialFailure *failure = NULL;
	const char              *assumed;
	S3Error                  error;

	while (credentials_current(credentials, &failure) == NULL && failure == NULL)
		http_drive(http, -1);
	if (failure == NULL)
	{
		assumed = credentials_assumed_arn(credentials);
		pass(probe, "assume role", "sts:AssumeRole",
			 psprintf("The role was assumed as \"%s\".", assumed ? assumed : role_arn));
		return;
	}
	s3_error_set_credentials(&error, failure, probe->config->bucket);
	refuse(probe, "assume role", "sts:AssumeRole", &error, NULL);
	probe->skip = "the role could not be assumed";
}

/* Does S3 refuse the credentials themselves, whatever they ask for? */
static bool
rejects_credentials(const S3Error *error)
{
	static const char *const codes[] = {
		"InvalidAccessKeyId",   "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken",
		"RequestTimeTooSkewed", "InvalidSecurity",       "NotSignedUp"};

	for (size_t i = 0; i < lengthof(codes); i++)
	{
		if (s3_error_is(error, codes[i]))
			return true;
	}
	return false;
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
 * The answer to HeadBucket has no body.  Status 400 and 403 may mean that the
 * keys are wrong or that the bucket, which does exist, may not be listed; the
 * answer to ListObjects says which.
 */
static void
check_bucket(Probe *probe)
{
	const char *action = "s3:ListBucket";
	S3Call      head = {.verb = S3_HEAD_BUCKET};
	S3Call      list = {.verb = S3_LIST_OBJECTS, .prefix = probe->prefix};

	if (!skipped(probe, "bucket", action))
	{
		if (!s3_perform(probe->s3, &head) && head.error.http_status != 400 &&
			head.error.http_status != 403)
		{
			refuse(probe, "bucket", action, &head.error, NULL);
			probe->skip = "the bucket was not reached";
		}
		else if (!s3_perform(probe->s3, &list) && rejects_credentials(&list.error))
		{
			refuse(probe, "bucket", action, &list.error, NULL);
			probe->skip = "S3 does not accept the credentials";
		}
		else if (!list.ok && list.error.http_status != 403)
		{
			refuse(probe, "bucket", action, &list.error, NULL);
			probe->skip = "the bucket was not reached";
		}
		else
			pass(probe, "bucket", action, bucket_message(probe));
	}

	if (skipped(probe, "list bucket", action))
		return;
	if (list.ok)
		pass(probe, "list bucket", action,
			 psprintf("Objects under \"%s\" can be listed.", probe->prefix));
	else
		refuse(probe, "list bucket", action, &list.error, NULL);
}

static void
check_location(Probe *probe)
{
	const char *action = "s3:GetBucketLocation";
	S3Call      call = {.verb = S3_GET_BUCKET_LOCATION};

	if (skipped(probe, "bucket location", action))
		return;
	if (!s3_perform(probe->s3, &call))
	{
		refuse(probe, "bucket location", action, &call.error, NULL);
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
	pass(probe, "bucket location", action,
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

static void
check_put(Probe *probe)
{
	const char *action = "s3:PutObject";
	const char *encryption = probe->config->server_side_encryption;
	S3Call      call = {.verb = S3_CREATE_UPLOAD, .key = probe->key};
	S3Error     error;
	char       *message;

	if (skipped(probe, "put object", action))
		return;
	if (!s3_perform(probe->s3, &call))
	{
		refuse(probe, "put object", action, &call.error, NULL);
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
	pass(probe, "put object", action, message);
}

static void
check_get(Probe *probe)
{
	const char *action = "s3:GetObject";
	S3Call      call = {.verb = S3_GET_OBJECT, .key = probe->key};
	const char *hint = NULL;

	if (skipped(probe, "get object", action))
		return;
	if (s3_perform(probe->s3, &call) || s3_error_is(&call.error, "NoSuchKey"))
	{
		pass(probe, "get object", action, "An object can be read.");
		return;
	}
	if (call.error.http_status == 403)
		hint =
			psprintf("Allow %s on \"arn:aws:s3:::%s/%s*\", and s3:ListBucket on "
					 "\"arn:aws:s3:::%s\": without the latter, S3 gives this answer for an object "
					 "that does not exist, as the one asked for here, too.",
					 action, probe->config->bucket, probe->prefix, probe->config->bucket);
	refuse(probe, "get object", action, &call.error, hint);
}

static void
check_delete(Probe *probe)
{
	const char *action = "s3:DeleteObject";
	S3Call      call = {.verb = S3_DELETE_OBJECT, .key = probe->key};

	if (skipped(probe, "delete object", action))
		return;
	if (s3_perform(probe->s3, &call) || s3_error_is(&call.error, "NoSuchKey"))
		pass(probe, "delete object", action, "An object can be deleted.");
	else
		refuse(probe, "delete object", action, &call.error, NULL);
}

void
probe_permissions(HttpClient *http, const S3Config *s3, const CredentialConfig *credentials,
				  const S3Timeouts *timeouts, const char *key_prefix, bool need_delete,
				  void (*emit)(void *arg, const ProbeResult *result), void *arg, char **region)
{
	Probe probe = {
		.config = s3,
		.abort_timeout = timeouts->request,
		.prefix = key_prefix,
		.emit = emit,
		.arg = arg,
	};
	Credentials *keys = credentials_open(http, credentials, SESSION_NAME, NULL);
	char         token[S3_TOKEN_LEN + 1];
	const char  *found;

	s3_make_token(token);
	probe.key = psprintf("%ss3export-check-%s", key_prefix, token);
	probe.s3 = s3_open(http, s3, keys, timeouts);

	if (credentials->role_arn != NULL)
		check_role(&probe, http, keys, credentials->role_arn);
	check_bucket(&probe);
	check_location(&probe);
	check_put(&probe);
	check_get(&probe);
	if (need_delete)
		check_delete(&probe);

	found = s3_region(probe.s3);
	if (found == NULL && s3->endpoint_url == NULL)
		found = probe.location;
	*region = found ? pstrdup(found) : NULL;
}
