/*-------------------------------------------------------------------------
 *
 * s3_answer.c
 *	  What an answer of S3 means: success, an error, or a reason to ask again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/s3_xml.h"
#include "s3/s3_internal.h"

/* A session token that is renewed this often by one call is not the trouble. */
#define MAX_RENEWALS 2

/* Ids, ETags and locations are much shorter. */
#define MAX_KEPT 2048

static char *
keep_header(S3Call *call, const HttpResponse *response, const char *name)
{
	char *value = http_header(response, name);

	if (value == NULL || strlen(value) > MAX_KEPT)
		return NULL;
	return MemoryContextStrdup(call->state->context, value);
}

/*
 * NULL unless it is short and ASCII, as a header's value always is: it goes into
 * URLs, into XML and, in any encoding, into the job's row.
 */
static char *
keep_element(S3Call *call, const HttpResponse *response, const char *path)
{
	char *value = s3_xml_find(response->body, response->body_len, path);

	if (value == NULL || strlen(value) > MAX_KEPT)
		return NULL;
	for (const char *p = value; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			return NULL;
	return MemoryContextStrdup(call->state->context, value);
}

static void
take_head(S3Call *call, const HttpResponse *response)
{
	char *size = http_header(response, "content-length");

	call->found.size = size ? strtoi64(size, NULL, 10) : -1;
	call->found.etag = keep_header(call, response, "etag");
	call->found.token = keep_header(call, response, S3_TOKEN_HEADER);
}

/*
 * Takes what a success has to bring; false when it does not.  S3 begins its
 * answer to CompleteMultipartUpload with status 200 before it knows whether it
 * will succeed, so that only the body tells.  The ETag in it may be empty,
 * which is Ceph's.
 */
static bool
take_success(S3Call *call, const HttpResponse *response)
{
	switch (call->verb)
	{
		case S3_HEAD_BUCKET:
		case S3_GET_OBJECT:
		case S3_DELETE_OBJECT:
		case S3_ABORT_UPLOAD:
			return true;
		case S3_HEAD_OBJECT:
			take_head(call, response);
			return true;
		case S3_GET_BUCKET_LOCATION:
			call->location = keep_element(call, response, "LocationConstraint");
			return call->location != NULL;
		case S3_LIST_OBJECTS:
			call->found_key = keep_element(call, response, "ListBucketResult/Contents/Key");
			return s3_xml_root_is(response->body, response->body_len, "ListBucketResult");
		/* a portal takes anything with status 200 */
		case S3_PUT_OBJECT:
		case S3_UPLOAD_PART:
			call->etag = keep_header(call, response, "etag");
			return call->etag != NULL && call->etag[0] != '\0';
		case S3_CREATE_UPLOAD:
			call->answer_id =
				keep_element(call, response, "InitiateMultipartUploadResult/UploadId");
			return call->answer_id != NULL && call->answer_id[0] != '\0';
		case S3_COMPLETE_UPLOAD:
			call->etag = keep_element(call, response, "CompleteMultipartUploadResult/ETag");
			return call->etag != NULL;
	}
	return false;
}

static bool
is_one_of(const char *value, const char *const *list)
{
	for (; *list != NULL; list++)
	{
		if (strcmp(value, *list) == 0)
			return true;
	}
	return false;
}

static bool
is_expired(const S3Error *error)
{
	return error->refusal == REFUSAL_EXPIRED || s3_error_is(error, "RequestExpired");
}

static bool
is_throttled(const S3Error *error)
{
	static const char *const codes[] = {"SlowDown",
										"SlowDownRead",
										"SlowDownWrite",
										"ServiceUnavailable",
										"Throttling",
										"ThrottlingException",
										"ThrottledException",
										"RequestThrottled",
										"RequestThrottledException",
										"RequestLimitExceeded",
										"BandwidthLimitExceeded",
										"TooManyRequestsException",
										NULL};

	return error->http_status == 503 || error->http_status == 429 || is_one_of(error->code, codes);
}

static bool
is_passing(const S3Call *call)
{
	static const char *const codes[] = {"InternalError", "RequestTimeout",
										"RequestTimeoutException", "PriorRequestNotComplete", NULL};
	const S3Error           *error = &call->error;

	/* a PutObject that met another one; an upload would have to begin anew */
	if (s3_error_is(error, "ConditionalRequestConflict"))
		return call->verb == S3_PUT_OBJECT;
	if (error->http_status < 300 && error->code[0] == '\0')
		return true;
	return error->http_status == 500 || error->http_status == 502 || error->http_status == 504 ||
		   error->http_status == 408 || is_one_of(error->code, codes);
}

static bool
is_wrong_region(const S3Call *call)
{
	const S3Error *error = &call->error;

	if (!s3_is_aws(call->state->session))
		return false;
	return error->http_status == 301 || error->http_status == 307 ||
		   s3_error_is(error, "AuthorizationHeaderMalformed") ||
		   s3_error_is(error, "IllegalLocationConstraintException") ||
		   (error->http_status == 400 && error->region[0] != '\0' &&
			strcmp(error->region, call->state->region_used) != 0);
}

static void
set_region(S3Session *session, const char *region)
{
	if (strcmp(region, session->region) != 0)
		session->region = MemoryContextStrdup(session->context, region);
	session->region_found = true;
	session->region_state = REGION_KNOWN;
}

/* Will another attempt go to the right region? */
static bool
correct_region(const S3Call *call)
{
	S3Session  *session = call->state->session;
	const char *region = call->error.region;

	if (call->state->region_used != session->region)
		return true; /* another call was told */
	if (session->region_corrected)
		return false;
	if (region[0] != '\0' && strcmp(region, session->region) != 0)
	{
		set_region(session, region);
		session->region_corrected = true;
		return true;
	}
	if (session->region_was_asked || call->verb == S3_HEAD_BUCKET)
		return false;
	session->region_state = REGION_UNKNOWN;
	return true;
}

/* S3 names the region in answers of any kind, if it is asked in the right one. */
static void
learn_region(const S3Call *call, const HttpResponse *response)
{
	S3Session *session = call->state->session;
	char      *region;

	if (session->region_found || !s3_is_aws(session))
		return;
	region = http_header(response, "x-amz-bucket-region");
	if (region != NULL && strcmp(region, call->state->region_used) == 0 &&
		call->state->region_used == session->region)
		set_region(session, region);
}

static bool
correct_clock(S3Call *call, const HttpResponse *response)
{
	S3CallState *state = call->state;
	time_t       now = http_date(response);

	if (state->clock_corrected || now == 0)
		return false;
	state->clock_corrected = true;
	http_set_clock(state->session->http, now);
	return true;
}

/* What S3 refused may be asked again in another way, again, or not. */
static HttpVerdict
judge_refusal(S3Call *call, const HttpResponse *response)
{
	S3CallState *state = call->state;
	S3Error     *error = &call->error;

	if (is_wrong_region(call))
		return correct_region(call) ? HTTP_RETRY_NOW : HTTP_DONE;
	if (is_expired(error))
		return state->renewals++ < MAX_RENEWALS && credentials_expired(state->session->credentials)
				   ? HTTP_RETRY_NOW
				   : HTTP_DONE;
	if (s3_error_is(error, "RequestTimeTooSkewed"))
		return correct_clock(call, response) ? HTTP_RETRY_NOW : HTTP_DONE;
	if (s3_error_is(error, "BadDigest") || s3_error_is(error, "XAmzContentSHA256Mismatch"))
	{
		if (state->digest_retried)
			return HTTP_DONE;
		state->digest_retried = true;
		return HTTP_RETRY;
	}
	if (is_throttled(error))
		return HTTP_RETRY_THROTTLED;
	/* whatever the status says: Complete begins to answer before S3 knows */
	if (error->refusal != REFUSAL_NONE)
		return HTTP_DONE;
	/* of what was cut off nobody knows what it would have said */
	if (response->truncated && response->transport_error != NULL)
		return HTTP_RETRY;
	return is_passing(call) ? HTTP_RETRY : HTTP_DONE;
}

/*
 * Puts into the error what a hint may need besides the answer: who asked, and with which
 * settings.
 */
static void
set_error(S3Call *call, const HttpResponse *response)
{
	S3CallState *state = call->state;
	const char  *principal;

	if (state->gave_up && state->credential_failure != NULL)
		s3_error_set_credentials(&call->error, state->credential_failure, state->resource);
	else
		s3_error_set(&call->error, response, state->http.method, state->action, state->resource);
	call->error.aws = s3_is_aws(state->session);
	call->error.region_assumed = !call->error.aws && state->session->config->region == NULL;
	principal = credentials_assumed_arn(state->session->credentials);
	if (principal != NULL)
		s3_clean_text(call->error.principal, sizeof(call->error.principal), principal);
	if (call->verb == S3_PUT_OBJECT || call->verb == S3_CREATE_UPLOAD)
		call->error.encryption = state->session->config->server_side_encryption;
	if (call->verb == S3_PUT_OBJECT || call->verb == S3_UPLOAD_PART)
		call->error.unsigned_body = !s3_is_aws(state->session) && !s3_signs_payload(state->session);

	/* the answers to HEAD have no body to say which of the two it is */
	if (s3_error_is(&call->error, "NotFound") && call->verb == S3_HEAD_BUCKET)
		strlcpy(call->error.code, "NoSuchBucket", sizeof(call->error.code));
}

/*
 * A request is in doubt if it may have been carried out although no answer says so: it was sent
 * and not answered, or a server in between gave up.
 */
static HttpVerdict
judge_answer(S3Call *call, const HttpResponse *response)
{
	S3CallState *state = call->state;
	HttpVerdict  verdict;
	bool         refused; /* by a code, whatever the status */

	call->attempts = response->attempts;
	state->unanswered = false;
	if (state->gave_up)
	{
		set_error(call, response);
		return HTTP_DONE;
	}
	if (response->status == 0)
	{
		set_error(call, response);
		call->in_doubt = call->in_doubt || !response->unsent;
		return response->transport_final ? HTTP_DONE : HTTP_RETRY;
	}

	learn_region(call, response);
	if (response->status >= 200 && response->status < 300 && !response->truncated &&
		take_success(call, response))
	{
		call->ok = true;
		return HTTP_DONE;
	}
	set_error(call, response);
	verdict = judge_refusal(call, response);
	refused = verdict == HTTP_DONE && call->error.code[0] != '\0';
	call->in_doubt = call->in_doubt || (response->status < 300 && !refused) ||
					 response->status == 500 || response->status == 502 || response->status == 504;
	return verdict;
}

HttpVerdict
s3_judge(HttpRequest *request, const HttpResponse *response)
{
	S3Call       *call = request->arg;
	MemoryContext scratch = call->state->session->scratch;
	MemoryContext old = MemoryContextSwitchTo(scratch);
	HttpVerdict   verdict = judge_answer(call, response);

	MemoryContextSwitchTo(old);
	MemoryContextReset(scratch);
	return verdict;
}
