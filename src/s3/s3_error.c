/*-------------------------------------------------------------------------
 *
 * s3_error.c
 *	  What S3 or STS refused, and how it is told.
 *
 * The body of an error answer is never shown as it came: SignatureDoesNotMatch
 * repeats the signed request with its session token in it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "aws/aws_names.h"
#include "base/s3_xml.h"
#include "s3/s3_error.h"

/* What S3 would have said where an answer has no body, or none that is S3's. */
static const struct
{
	int         status;
	const char *code;
} status_codes[] = {
	{301, "PermanentRedirect"},   {307, "TemporaryRedirect"},  {400, "BadRequest"},
	{401, "Unauthorized"},        {403, "Forbidden"},          {404, "NotFound"},
	{405, "MethodNotAllowed"},    {409, "Conflict"},           {411, "MissingContentLength"},
	{412, "PreconditionFailed"},  {413, "EntityTooLarge"},     {416, "InvalidRange"},
	{429, "TooManyRequests"},     {500, "InternalError"},      {501, "NotImplemented"},
	{502, "BadGateway"},          {503, "ServiceUnavailable"}, {504, "GatewayTimeout"},
	{507, "InsufficientStorage"},
};

#define INVALID_TOKEN_HINT "Check the session token: it does not belong to the access key ID."
#define KMS_KEY_HINT                                                                       \
	"Check that the KMS key is in the bucket's region, is enabled and is not about to be " \
	"deleted."
#define CLOSED_HINT                                                                             \
	"The provider has closed the bucket or the account. Neither other keys nor other policies " \
	"help: ask its support."

static const char *const unsigned_body_hint =
	"Check that the server takes requests whose bodies are not signed; with payload_signing => "
	"'signed' they are.";

/* What a person can do about a code of S3 or STS. */
static const struct
{
	const char *code;
	const char *hint;
} code_hints[] = {
	{"InvalidAccessKeyId",
	 "Check the access key ID: the server does not know it, or it is disabled. "
	 "A temporary key, whose ID begins with ASIA, needs its session token."},
	{"InvalidClientTokenId",
	 "Check the access key ID: the server does not know it, or it is disabled. "
	 "A temporary key, whose ID begins with ASIA, needs its session token."},
	{"SignatureDoesNotMatch",
	 "Check the secret access key. A proxy that changes requests gives this "
	 "answer too."},
	{"RequestTimeTooSkewed",
	 "Set the clock of this server: it differs from that of S3 by more than 15 "
	 "minutes."},
	{"InvalidToken", INVALID_TOKEN_HINT},
	{"InvalidTokenId", INVALID_TOKEN_HINT},
	{"NotSignedUp",
	 "The account of the access key does not have S3: sign up for it, or use another account's key."},
	{"UserSuspended",
	 "The owner of the access key is suspended: have that undone, or use another user's key."},
	{"AllAccessDisabled", CLOSED_HINT},
	{"InvalidPayer", CLOSED_HINT},
	{"AccountProblem", CLOSED_HINT},
	{"KMS.DisabledException", KMS_KEY_HINT},
	{"KMS.NotFoundException", KMS_KEY_HINT},
	{"KMS.KMSInvalidStateException", KMS_KEY_HINT},
	{"NoSuchBucket", "Check the name of the bucket, and the endpoint if one is set."},
	{"NoSuchUpload",
	 "The upload was aborted by somebody else. If the bucket has a lifecycle rule "
	 "AbortIncompleteMultipartUpload, it must allow for the time that an export takes."},
	{"PreconditionFailed", "Choose another path, or use if_exists => 'overwrite'."},
	{"ConditionalRequestConflict", "Somebody else writes the same object. Try again."},
	{"BadDigest",
	 "What S3 received is not what was sent: look for a proxy, a network or memory that "
	 "changes data."},
	{"XAmzContentSHA256Mismatch",
	 "What S3 received is not what was sent: look for a proxy, a network or "
	 "memory that changes data."},
	{"SlowDown",
	 "S3 asks for fewer requests: reduce s3export.max_concurrent_parts, or try again later."},
	{"EntityTooSmall", "Increase s3export.part_size: S3 takes parts of at least 5 MB."},
	{"EntityTooLarge", "Reduce s3export.part_size."},
	{"QuotaExceeded", "The quota of the bucket or of its owner is used up."},
};

void
s3_clean_text(char *dst, size_t dst_size, const char *src)
{
	const bool utf8 = GetDatabaseEncoding() == PG_UTF8;
	size_t     left = strlen(src);
	size_t     len = 0;

	while (left > 0)
	{
		const unsigned char *c = (const unsigned char *) src;
		size_t               n = 1;
		char                 replacement = '\0';

		if (*c < 0x20 || *c == 0x7f)
			replacement = ' ';
		else if (IS_HIGHBIT_SET(*c))
		{
			n = pg_utf_mblen(c);
			if (n > left || !pg_utf8_islegal(c, (int) n))
			{
				n = 1;
				replacement = '?';
			}
			else if (*c == 0xC2 && c[1] < 0xA0) /* C1 control characters */
				replacement = ' ';
			else if (!utf8)
				replacement = '?';
		}

		if (len + (replacement ? 1 : n) >= dst_size)
			break;
		if (replacement)
			dst[len++] = replacement;
		else
		{
			memcpy(dst + len, src, n);
			len += n;
		}
		src += n;
		left -= n;
	}
	dst[len] = '\0';
}

static void
clean_or_empty(char *dst, size_t dst_size, char *src)
{
	dst[0] = '\0';
	if (src != NULL)
	{
		s3_clean_text(dst, dst_size, src);
		pfree(src);
	}
}

/* A region comes from the network and ends up in a host name. */
static void
set_region(S3Error *error, const HttpResponse *response)
{
	char *region = http_header(response, "x-amz-bucket-region");

	if (region == NULL)
		region = s3_xml_find(response->body, response->body_len, "Error/Region");
	if (region != NULL && strlen(region) < sizeof(error->region) &&
		aws_names_check_region(region) == NULL)
		strlcpy(error->region, region, sizeof(error->region));
}

/* The answers to HEAD have no body, whoever sends them. */
static bool
is_foreign(const HttpResponse *response, const char *method)
{
	if (response->status == 401 || response->status == 403)
		return strcmp(method, "HEAD") != 0;
	return http_is_refusal(response->status);
}

/*
 * A refusal is one in an error document of S3's only, and a server that fails
 * may say what it likes.
 */
static void
set_code(S3Error *error, const HttpResponse *response, const char *method)
{
	char *code = s3_xml_find(response->body, response->body_len, "Error/Code");

	if (code != NULL && code[0] != '\0')
	{
		if (response->status < 500)
			error->refusal = refusal_of(REFUSING_S3, code);
		clean_or_empty(error->code, sizeof(error->code), code);
		return;
	}
	error->foreign = is_foreign(response, method);
	if (error->foreign)
		return;
	/* of an answer to HEAD, from some stores */
	clean_or_empty(error->code, sizeof(error->code), http_header(response, "x-amz-error-code"));
	for (size_t i = 0; error->code[0] == '\0' && i < lengthof(status_codes); i++)
	{
		if (status_codes[i].status == response->status)
			strlcpy(error->code, status_codes[i].code, sizeof(error->code));
	}
}

/* Both clocks, of which one must be wrong. */
static void
add_times(S3Error *error, const HttpResponse *response)
{
	size_t len = strlen(error->message);
	char   ours[64];
	char   theirs[64];

	clean_or_empty(ours, sizeof(ours),
				   s3_xml_find(response->body, response->body_len, "Error/RequestTime"));
	clean_or_empty(theirs, sizeof(theirs),
				   s3_xml_find(response->body, response->body_len, "Error/ServerTime"));
	if (ours[0] != '\0' && theirs[0] != '\0')
		snprintf(error->message + len, sizeof(error->message) - len,
				 " It was sent at %s and received at %s.", ours, theirs);
}

/* S3's own, or what is wrong with the answer. */
static void
set_message(S3Error *error, const HttpResponse *response)
{
	clean_or_empty(error->message, sizeof(error->message),
				   s3_xml_find(response->body, response->body_len, "Error/Message"));
	if (error->message[0] != '\0')
		return;
	if (response->truncated && error->code[0] == '\0')
		strlcpy(error->message, "the answer is incomplete", sizeof(error->message));
	else if (error->foreign)
		s3_clean_text(error->message, sizeof(error->message),
					  psprintf("the answer is not one of S3, but %s", http_describe(response)));
	else if (response->status < 300 && error->code[0] == '\0')
		strlcpy(error->message, "the answer is not one of S3", sizeof(error->message));
}

void
s3_error_set(S3Error *error, const HttpResponse *response, const char *method, const char *action,
			 const char *resource)
{
	char *request_id;

	memset(error, 0, sizeof(*error));
	error->http_status = response->status;
	error->attempts = response->attempts;
	error->action = action;
	s3_clean_text(error->resource, sizeof(error->resource), resource);

	if (response->status == 0)
	{
		s3_clean_text(error->message, sizeof(error->message),
					  response->transport_error ? response->transport_error : "");
		error->exhausted = response->exhausted;
		error->stalled = response->stalled;
		return;
	}

	set_code(error, response, method);
	set_region(error, response);
	set_message(error, response);
	if (s3_error_is(error, "RequestTimeTooSkewed"))
		add_times(error, response);
	request_id = http_header(response, "x-amz-request-id");
	if (request_id == NULL)
		request_id = s3_xml_find(response->body, response->body_len, "Error/RequestId");
	clean_or_empty(error->request_id, sizeof(error->request_id), request_id);
	clean_or_empty(error->host_id, sizeof(error->host_id), http_header(response, "x-amz-id-2"));
}

void
s3_error_set_credentials(S3Error *error, const CredentialFailure *failure, const char *resource)
{
	memset(error, 0, sizeof(*error));
	error->http_status = failure->status;
	error->attempts = failure->attempts;
	error->service = failure->service;
	error->action = failure->action;
	error->refusal = failure->refusal;
	error->foreign = failure->foreign;
	s3_clean_text(error->resource, sizeof(error->resource), resource);
	s3_clean_text(error->code, sizeof(error->code), failure->code ? failure->code : "");
	if (failure->message != NULL &&
		strcmp(failure->message, psprintf("HTTP status %d", failure->status)) != 0)
		s3_clean_text(error->message, sizeof(error->message), failure->message);
	s3_clean_text(error->request_id, sizeof(error->request_id),
				  failure->request_id ? failure->request_id : "");
	s3_clean_text(error->hint, sizeof(error->hint), failure->hint ? failure->hint : "");
}

bool
s3_error_is(const S3Error *error, const char *code)
{
	return strcmp(error->code, code) == 0;
}

bool
s3_error_is_precondition(const S3Error *error)
{
	return error->http_status == 412 || s3_error_is(error, "PreconditionFailed");
}

/* Was it who was to give us keys, and not S3? */
static bool
is_session_error(const S3Error *error)
{
	return error->service != NULL;
}

static const char *
who_was_asked(const S3Error *error)
{
	return is_session_error(error) ? error->service : "S3";
}

/* A status that refuses, with a code that says nothing of credentials. */
static bool
is_unknown_refusal(const S3Error *error)
{
	return (error->http_status == 401 || error->http_status == 403) && error->code[0] != '\0' &&
		   error->refusal == REFUSAL_NONE;
}

/* The code may be a general one where the status is not. */
static bool
is_no_space(const S3Error *error)
{
	return error->http_status == 507 || s3_error_is(error, "InsufficientStorage");
}

int
s3_error_sqlstate(const S3Error *error)
{
	if (error->exhausted)
		return ERRCODE_INSUFFICIENT_RESOURCES;
	if (error->http_status == 0 || error->foreign)
		return ERRCODE_CONNECTION_FAILURE;
	if (s3_error_is(error, "QuotaExceeded") || is_no_space(error) ||
		s3_error_is(error, "EntityTooLarge") || s3_error_is(error, "EntityTooSmall"))
		return ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	if (error->refusal != REFUSAL_NONE)
		return ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
	if (s3_error_is(error, "NoSuchBucket"))
		return ERRCODE_UNDEFINED_OBJECT;
	if (s3_error_is_precondition(error))
		return ERRCODE_DUPLICATE_OBJECT;
	if (s3_error_is(error, "BadDigest") || s3_error_is(error, "XAmzContentSHA256Mismatch"))
		return ERRCODE_IO_ERROR;
	return ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
}

static void
append_sentence_end(StringInfo buf)
{
	if (buf->data[buf->len - 1] != '.')
		appendStringInfoChar(buf, '.');
}

char *
s3_error_detail(const S3Error *error)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (error->http_status == 0)
		appendStringInfo(&buf, "No answer came to %s", error->action);
	else if (error->foreign)
		appendStringInfo(&buf, "HTTP status %d came to %s", error->http_status, error->action);
	else if (error->code[0] != '\0')
		appendStringInfo(&buf, "%s answered %s (HTTP status %d) to %s", who_was_asked(error),
						 error->code, error->http_status, error->action);
	else
		appendStringInfo(&buf, "%s answered with HTTP status %d to %s", who_was_asked(error),
						 error->http_status, error->action);
	if (error->message[0] != '\0')
		appendStringInfo(&buf, ": %s", error->message);
	append_sentence_end(&buf);

	if (error->request_id[0] != '\0')
		appendStringInfo(&buf, " Request ID %s, ", error->request_id);
	else if (error->attempts > 0)
		appendStringInfoChar(&buf, ' ');
	if (error->attempts > 0)
		appendStringInfo(&buf, "%d %s.", error->attempts,
						 error->attempts == 1 ? "attempt" : "attempts");
	else if (error->request_id[0] != '\0')
	{
		buf.len -= 2;
		buf.data[buf.len] = '\0';
		append_sentence_end(&buf);
	}
	return buf.data;
}

/* Policies name folders rather than single keys. */
static char *
access_denied_hint(const S3Error *error)
{
	StringInfoData buf;
	const char    *slash = strrchr(error->resource, '/');
	int len = slash ? (int) (slash + 1 - error->resource) : (int) strlen(error->resource);

	initStringInfo(&buf);
	appendStringInfo(&buf,
					 "Check that the policies of the user or role and of the bucket allow %s "
					 "on \"arn:aws:s3:::%.*s%s\" to ",
					 error->action, len, error->resource, slash ? "*" : "");
	if (error->principal[0] != '\0')
		appendStringInfo(&buf, "\"%s\".", error->principal);
	else
		appendStringInfoString(&buf, "the owner of the access key.");
	if (error->encryption != NULL && strncmp(error->encryption, "aws:kms", 7) == 0)
		appendStringInfo(&buf,
						 " Encryption by %s needs kms:GenerateDataKey and kms:Decrypt on its "
						 "key, too.",
						 error->encryption);
	appendStringInfoString(&buf, " A policy takes up to some minutes to become effective.");
	if (error->unsigned_body)
		appendStringInfoString(&buf, " Some servers answer so to bodies that are not signed: with "
									 "payload_signing => 'signed' they are.");
	return buf.data;
}

static bool
is_region_error(const S3Error *error)
{
	return error->http_status == 301 || error->http_status == 307 ||
		   s3_error_is(error, "AuthorizationHeaderMalformed") ||
		   s3_error_is(error, "IllegalLocationConstraintException");
}

/* Something has come in between, and says no more than that. */
static char *
foreign_hint(const S3Error *error)
{
	if (error->http_status == 407)
		return pstrdup("The proxy wants to know who asks: put the user name and password that it "
					   "expects into the URL of the setting \"s3export.proxy\".");
	return psprintf("Something between this server and %s refuses the request, such as a proxy, a "
					"firewall or a gateway. Look at the setting \"s3export.proxy\" and at the "
					"endpoint: the credentials are not the matter.",
					who_was_asked(error));
}

static char *
region_hint(const S3Error *error)
{
	if (error->region[0] != '\0')
		return psprintf("Set the region to \"%s\".", error->region);
	return pstrdup("Check the region and the endpoint: this answer normally comes from those of "
				   "another region.");
}

static char *
refusal_hint(const S3Error *error)
{
	if (error->refusal == REFUSAL_PERMISSION)
		return access_denied_hint(error);
	if (error->refusal == REFUSAL_KEYS)
		return pstrdup("Check the access key ID and the secret access key.");
	if (error->principal[0] != '\0')
		return pstrdup(
			"The role's session was renewed and is refused all the same: check the clocks "
			"of the servers.");
	return pstrdup("Set new credentials with s3export.set_credentials(), or use a role, whose "
				   "sessions are renewed.");
}

/* What a region has to do with keys that are not known, or signatures that do not match. */
static const char *
more_of_keys(const S3Error *error)
{
	if (error->aws && s3_error_is(error, "InvalidAccessKeyId"))
		return " A key of AWS in China or of GovCloud is known in the regions there alone: set the "
			   "region.";
	if (error->region_assumed && s3_error_is(error, "SignatureDoesNotMatch"))
		return " The connector has no region, and \"us-east-1\" was signed for: set the region "
			   "that the server expects.";
	return "";
}

/* What is known of the code, but for those that need more than it; NULL: nothing. */
static char *
code_hint(const S3Error *error)
{
	if (error->unsigned_body && s3_error_is(error, "XAmzContentSHA256Mismatch"))
		return pstrdup(unsigned_body_hint);
	for (size_t i = 0; i < lengthof(code_hints); i++)
	{
		if (s3_error_is(error, code_hints[i].code))
			return psprintf("%s%s", code_hints[i].hint, more_of_keys(error));
	}
	return error->refusal != REFUSAL_NONE ? refusal_hint(error) : NULL;
}

/* For answers whose code says nothing. */
static char *
status_hint(const S3Error *error)
{
	const int status = error->http_status;

	if (status == 503 || status == 429)
		return is_session_error(error)
				   ? pstrdup("Try again later.")
				   : pstrdup("S3 asks for fewer requests: reduce s3export.max_concurrent_parts, or "
							 "try again later.");
	if (is_no_space(error))
		return pstrdup("The server has no space left.");
	if (status >= 500 && status != 501)
		return pstrdup("The server fails, and did so until s3export.retry_timeout was over. If it "
					   "is your own, look at its logs and its disks; else try again later.");
	if (is_session_error(error))
		return NULL;
	if (status < 300 && error->code[0] == '\0')
		return pstrdup("Something else than S3 may have answered, such as a proxy or a portal: "
					   "look at the setting \"s3export.proxy\" and at the endpoint.");
	if (error->encryption != NULL && (status == 400 || status == 501))
		return psprintf("Check that the server supports server_side_encryption '%s'.",
						error->encryption);
	if (error->unsigned_body && (status == 400 || status == 501))
		return pstrdup(unsigned_body_hint);
	return NULL;
}

char *
s3_error_hint(const S3Error *error)
{
	char *hint = NULL;

	if (error->hint[0] != '\0')
		return pstrdup(error->hint);
	if (error->exhausted)
		return pstrdup("Try again when the server has more to give, or raise its limits: "
					   "\"max_files_per_process\" and \"ulimit -n\", or \"ulimit -v\".");
	if (error->stalled)
		return pstrdup("If the server is only slow to take data or to answer, raise "
					   "s3export.stall_timeout. Else check what lies between, and the setting "
					   "s3export.proxy.");
	if (error->http_status == 0)
		return pstrdup("Check that the server can reach the endpoint, and the settings "
					   "s3export.proxy and s3export.ca_file where they apply.");
	if (error->foreign)
		return foreign_hint(error);
	if (!is_session_error(error) && is_region_error(error))
		return region_hint(error);
	/* What is said of S3's codes does not fit others'. */
	if (!is_session_error(error))
		hint = code_hint(error);
	if (hint == NULL && is_unknown_refusal(error))
		hint = psprintf("s3export does not know this code and does not take it for a refusal of "
						"the credentials: look it up in the documentation of %s.",
						is_session_error(error) ? error->service : "the server");
	return hint != NULL ? hint : status_hint(error);
}

void
s3_report(int elevel, const S3Error *error, const char *what)
{
	char *detail = s3_error_detail(error);
	char *hint = s3_error_hint(error);
	bool  exists = s3_error_is_precondition(error);

	if (is_session_error(error))
		what = "could not get credentials for object";
	ereport(elevel, (errcode(s3_error_sqlstate(error)),
					 exists ? errmsg("object \"s3://%s\" already exists", error->resource)
							: errmsg("%s \"s3://%s\"", what, error->resource),
					 errdetail_internal("%s", detail), hint ? errhint("%s", hint) : 0));
}
