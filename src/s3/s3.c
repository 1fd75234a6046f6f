/*-------------------------------------------------------------------------
 *
 * s3.c
 *	  The S3 requests that s3export makes, and what S3 answers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "s3/s3_internal.h"

#define DEFAULT_REGION "us-east-1"
#define MAX_HEADERS 24

/* SHA-256 of a request without a body */
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct
{
	const char *method;
	const char *action; /* what IAM calls the permission */
} verbs[] = {
	[S3_HEAD_BUCKET] = {"HEAD", "s3:ListBucket"},
	[S3_GET_BUCKET_LOCATION] = {"GET", "s3:GetBucketLocation"},
	[S3_LIST_OBJECTS] = {"GET", "s3:ListBucket"},
	[S3_HEAD_OBJECT] = {"HEAD", "s3:GetObject"},
	[S3_GET_OBJECT] = {"GET", "s3:GetObject"},
	[S3_DELETE_OBJECT] = {"DELETE", "s3:DeleteObject"},
	[S3_PUT_OBJECT] = {"PUT", "s3:PutObject"},
	[S3_CREATE_UPLOAD] = {"POST", "s3:PutObject"},
	[S3_UPLOAD_PART] = {"PUT", "s3:PutObject"},
	[S3_COMPLETE_UPLOAD] = {"POST", "s3:PutObject"},
	[S3_ABORT_UPLOAD] = {"DELETE", "s3:AbortMultipartUpload"},
};

static void ask_region(S3Session *session);


/* ----------
 * Sessions
 * ----------
 */

S3Session *
s3_open(HttpClient *http, const S3Config *config, Credentials *credentials,
		const S3Timeouts *timeouts)
{
	S3Session *session = palloc0(sizeof(S3Session));

	session->http = http;
	session->config = config;
	session->credentials = credentials;
	session->timeouts = *timeouts;
	session->context = CurrentMemoryContext;
	session->scratch =
		AllocSetContextCreate(CurrentMemoryContext, "s3export S3 call", ALLOCSET_DEFAULT_SIZES);
	session->region = config->region ? config->region : DEFAULT_REGION;
	session->region_state = s3_is_aws(session) && !config->region ? REGION_UNKNOWN : REGION_KNOWN;

	if (!s3_is_aws(session))
	{
		const char *wrong = aws_names_parse_endpoint(config->endpoint_url, &session->endpoint);

		if (wrong != NULL)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("invalid S3 endpoint \"%s\"", config->endpoint_url),
							errdetail_internal("%s", wrong)));
	}
	return session;
}

HttpClient *
s3_http(const S3Session *session)
{
	return session->http;
}

const char *
s3_region(const S3Session *session)
{
	return session->region_found ? session->region : NULL;
}

static bool
is_https(const S3Session *session)
{
	return s3_is_aws(session) || session->endpoint.https;
}

bool
s3_signs_payload(const S3Session *session)
{
	switch (session->config->payload_signing)
	{
		case S3_PAYLOAD_SIGNED:
			return true;
		case S3_PAYLOAD_UNSIGNED:
			return false;
		case S3_PAYLOAD_SIGNING_AUTO:
			break;
	}
	return !is_https(session);
}

bool
s3_sends_checksum(const S3Session *session)
{
	return s3_is_aws(session);
}

char *
s3_uri(const S3Session *session, const char *key)
{
	char  *uri = psprintf("s3://%s/%s", session->config->bucket, key);
	size_t size = strlen(uri) + 1;
	char  *clean = palloc(size);

	s3_clean_text(clean, size, uri);
	pfree(uri);
	return clean;
}

void
s3_make_token(char *token)
{
	uint8 bytes[S3_TOKEN_LEN / 2];

	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(token + 2 * i, 3, "%02x", bytes[i]);
}

/* S3 wants the big-endian bytes; the server's own base64 differs by version. */
void
s3_format_crc32c(char *buf, uint32 crc)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint64            bits = (uint64) crc << 4;

	for (int i = 5; i >= 0; i--, bits >>= 6)
		buf[i] = digits[bits & 0x3f];
	strcpy(buf + 6, "==");
}


/* ----------
 * One attempt: URL and headers
 * ----------
 */

typedef struct HeaderList
{
	SigV4Header headers[MAX_HEADERS];
	int         n;
} HeaderList;

static void
add_header(HeaderList *list, const char *name, const char *value)
{
	Assert(list->n < MAX_HEADERS);
	list->headers[list->n].name = name;
	list->headers[list->n++].value = value;
}

/* Is the bucket's name part of the host's? */
static bool
is_virtual_hosted(const S3Session *session)
{
	switch (session->config->addressing)
	{
		case S3_ADDRESSING_PATH:
			return false;
		case S3_ADDRESSING_VIRTUAL:
			return true;
		case S3_ADDRESSING_AUTO:
			break;
	}
	return s3_is_aws(session) && aws_names_bucket_is_dns_label(session->config->bucket);
}

static char *
host_name(const S3Session *session)
{
	StringInfoData host;

	initStringInfo(&host);
	if (is_virtual_hosted(session))
		appendStringInfo(&host, "%s.", session->config->bucket);
	if (s3_is_aws(session))
		appendStringInfo(&host, "s3.%s.%s", session->region,
						 aws_names_region_suffix(session->region));
	else
	{
		appendStringInfoString(&host, session->endpoint.host);
		if (session->endpoint.port != 0)
			appendStringInfo(&host, ":%d", session->endpoint.port);
	}
	return host.data;
}

static char *
wire_path(const S3Call *call)
{
	const S3Session *session = call->state->session;
	StringInfoData   path;

	initStringInfo(&path);
	if (!is_virtual_hosted(session))
	{
		appendStringInfoChar(&path, '/');
		sigv4_uri_encode(&path, session->config->bucket, false);
	}
	appendStringInfoString(&path, call->state->path);
	return path.data;
}

static void
add_checksum_headers(const S3Call *call, HeaderList *list)
{
	if (call->verb == S3_CREATE_UPLOAD)
		add_header(list, "x-amz-checksum-algorithm", "CRC32C");
	else if (call->crc32c != NULL)
		add_header(list, "x-amz-checksum-crc32c", call->crc32c);
	if (call->verb == S3_CREATE_UPLOAD || call->verb == S3_COMPLETE_UPLOAD)
		add_header(list, "x-amz-checksum-type", "FULL_OBJECT");
	if (call->verb == S3_COMPLETE_UPLOAD)
		add_header(list, "x-amz-mp-object-size", psprintf(UINT64_FORMAT, call->object_size));
}

/*
 * What an object is created with.  S3 refuses these headers, or most of them,
 * on requests that do not create one.
 */
static void
add_object_headers(const S3Call *call, const S3Config *config, HeaderList *list)
{
	const struct
	{
		const char *name;
		const char *value;
	} headers[] = {
		{"content-type", config->content_type ? config->content_type : call->content_type},
		{"x-amz-server-side-encryption", config->server_side_encryption},
		{"x-amz-server-side-encryption-aws-kms-key-id", config->kms_key_id},
		{"x-amz-server-side-encryption-bucket-key-enabled", config->bucket_key},
		{"x-amz-storage-class", config->storage_class},
		{"x-amz-tagging", config->tags},
		{"x-amz-acl", config->acl},
	};

	for (size_t i = 0; i < lengthof(headers); i++)
	{
		if (headers[i].value != NULL)
			add_header(list, headers[i].name, headers[i].value);
	}
}

/* What the verb asks for; all of it is signed. */
static void
add_verb_headers(const S3Call *call, HeaderList *list)
{
	const S3Config *config = call->state->session->config;
	bool            creates = call->verb == S3_PUT_OBJECT || call->verb == S3_CREATE_UPLOAD;

	if (creates)
		add_object_headers(call, config, list);
	if (config->expected_bucket_owner)
		add_header(list, "x-amz-expected-bucket-owner", config->expected_bucket_owner);
	if (creates && call->token)
		add_header(list, S3_TOKEN_HEADER, call->token);
	if (call->verb == S3_COMPLETE_UPLOAD)
		add_header(list, "content-type", "application/xml");
	if (call->verb == S3_GET_OBJECT)
		add_header(list, "range", "bytes=0-0");
	if (call->fail_if_exists && (call->verb == S3_PUT_OBJECT || call->verb == S3_COMPLETE_UPLOAD))
		add_header(list, "if-none-match", "*");
	if (s3_sends_checksum(call->state->session))
		add_checksum_headers(call, list);
}

/*
 * Signs the request for one attempt.  The date and the session token are part of the signature,
 * so nothing is kept from an attempt before.
 */
static bool
write_attempt(const S3Call *call, const SigV4Credentials *credentials, HttpAttempt *attempt)
{
	S3CallState *state = call->state;
	S3Session   *session = state->session;
	HeaderList   list = {.n = 0};
	char         date[SIGV4_DATE_LEN + 1];
	char        *host = host_name(session);
	char        *path = wire_path(call);
	SigV4Request request = {
		.method = state->http.method,
		.path = path,
		.query = state->query,
		.headers = list.headers,
		.payload_hash = state->payload_hash,
		.region = session->region,
		.service = "s3",
	};

	sigv4_date(date, http_now(session->http));
	add_header(&list, "host", host);
	add_header(&list, "x-amz-date", date);
	add_header(&list, "x-amz-content-sha256", state->payload_hash);
	if (credentials->session_token)
		add_header(&list, "x-amz-security-token", credentials->session_token);
	add_verb_headers(call, &list);
	request.nheaders = list.n;

	appendStringInfo(&attempt->url, "%s://%s%s", is_https(session) ? "https" : "http", host, path);
	if (state->query[0] != '\0')
		appendStringInfo(&attempt->url, "?%s", state->query);
	for (int i = 0; i < list.n; i++)
		appendStringInfo(&attempt->headers, "%s: %s\n", list.headers[i].name,
						 list.headers[i].value);
	appendStringInfoString(&attempt->headers, "authorization: ");
	if (!sigv4_authorization(&attempt->headers, &request, credentials, date))
		return false;
	appendStringInfoChar(&attempt->headers, '\n');
	return true;
}

/*
 * Until S3 has named the region, calls wait for a HeadBucket that is made for
 * this: it costs a signature, where a redirected PutObject costs its body.
 */
static HttpReadiness
region_readiness(const S3Call *call, const char **reason)
{
	S3Session *session = call->state->session;

	if (call->verb == S3_HEAD_BUCKET)
		return HTTP_SEND;
	switch (session->region_state)
	{
		case REGION_KNOWN:
			return HTTP_SEND;
		case REGION_UNKNOWN:
			ask_region(session);
			return HTTP_NOT_YET;
		case REGION_ASKED:
			return HTTP_NOT_YET;
		case REGION_FAILED:
			break;
	}
	*reason = session->region_call.error.message;
	return HTTP_GIVE_UP;
}

/*
 * Keys may be renewed, and the region may be learned, between two attempts: so each attempt asks
 * for both.
 */
static HttpReadiness
prepare_attempt(S3Call *call, HttpAttempt *attempt, const char **reason)
{
	S3CallState            *state = call->state;
	const SigV4Credentials *credentials;
	HttpReadiness           readiness;

	state->credential_failure = NULL;
	credentials = credentials_current(state->session->credentials, &state->credential_failure);
	if (credentials == NULL && state->credential_failure == NULL)
		return HTTP_NOT_YET;
	if (credentials == NULL)
	{
		*reason = state->credential_failure->message;
		return HTTP_GIVE_UP;
	}
	readiness = region_readiness(call, reason);
	if (readiness != HTTP_SEND)
		return readiness;
	if (!write_attempt(call, credentials, attempt))
	{
		*reason = "the request could not be signed";
		return HTTP_GIVE_UP;
	}
	state->region_used = state->session->region;
	return HTTP_SEND;
}

static HttpReadiness
s3_prepare(HttpRequest *request, HttpAttempt *attempt, const char **reason)
{
	S3Call       *call = request->arg;
	S3CallState  *state = call->state;
	MemoryContext old = MemoryContextSwitchTo(state->session->scratch);
	HttpReadiness readiness = prepare_attempt(call, attempt, reason);

	state->gave_up = (readiness == HTTP_GIVE_UP);
	state->unanswered = (readiness == HTTP_SEND);
	MemoryContextSwitchTo(old);
	MemoryContextReset(state->session->scratch);
	return readiness;
}


/* ----------
 * Calls
 * ----------
 */

/* s3_judge has seen the last answer and put it into the call. */
static void
s3_done(HttpRequest *request, const HttpResponse *response)
{
	S3Call *call = request->arg;

	(void) response;
	call->over = true;
	if (call->ok)
		call->in_doubt = false;
	if (call->done)
		call->done(call);
}

/* The query is encoded here, in the order that the signature wants. */
static char *
make_query(const S3Call *call)
{
	StringInfoData query;

	initStringInfo(&query);
	switch (call->verb)
	{
		case S3_GET_BUCKET_LOCATION:
			appendStringInfoString(&query, "location=");
			break;
		case S3_LIST_OBJECTS:
			appendStringInfoString(&query, "list-type=2&max-keys=1&prefix=");
			sigv4_uri_encode(&query, call->prefix ? call->prefix : "", false);
			break;
		case S3_CREATE_UPLOAD:
			appendStringInfoString(&query, "uploads=");
			break;
		case S3_UPLOAD_PART:
			appendStringInfo(&query, "partNumber=%d&uploadId=", call->part_number);
			sigv4_uri_encode(&query, call->upload_id, false);
			break;
		case S3_COMPLETE_UPLOAD:
		case S3_ABORT_UPLOAD:
			appendStringInfoString(&query, "uploadId=");
			sigv4_uri_encode(&query, call->upload_id, false);
			break;
		default:
			break;
	}
	return query.data;
}

static void
append_escaped(StringInfo buf, const char *text)
{
	for (; *text; text++)
	{
		if (*text == '&')
			appendStringInfoString(buf, "&amp;");
		else if (*text == '<')
			appendStringInfoString(buf, "&lt;");
		else if (*text == '>')
			appendStringInfoString(buf, "&gt;");
		else
			appendStringInfoChar(buf, *text);
	}
}

/* https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html */
static void
make_part_list(StringInfo buf, const S3Call *call)
{
	appendStringInfoString(buf, "<CompleteMultipartUpload "
								"xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
	for (int i = 0; i < call->nparts; i++)
	{
		const S3Part *part = &call->parts[i];

		appendStringInfo(buf, "<Part><PartNumber>%d</PartNumber><ETag>", part->number);
		append_escaped(buf, part->etag);
		appendStringInfoString(buf, "</ETag>");
		if (part->crc32c[0] != '\0')
			appendStringInfo(buf, "<ChecksumCRC32C>%s</ChecksumCRC32C>", part->crc32c);
		appendStringInfoString(buf, "</Part>");
	}
	appendStringInfoString(buf, "</CompleteMultipartUpload>");
}

/*
 * The body of an object or a part is the caller's and is not copied.  Other bodies are short,
 * and always signed.
 */
static void
set_body(S3Call *call)
{
	S3CallState *state = call->state;
	bool         given = call->verb == S3_PUT_OBJECT || call->verb == S3_UPLOAD_PART;

	if (given)
	{
		state->http.body = call->body ? call->body : "";
		state->http.body_len = call->body_len;
		state->payload_hash =
			s3_signs_payload(state->session) ? call->sha256 : SIGV4_UNSIGNED_PAYLOAD;
		return;
	}

	state->payload_hash = EMPTY_SHA256;
	if (call->verb == S3_CREATE_UPLOAD)
		state->http.body = ""; /* S3 wants a content-length of 0 */
	else if (call->verb == S3_COMPLETE_UPLOAD)
	{
		StringInfoData list;

		initStringInfo(&list);
		make_part_list(&list, call);
		if (!sigv4_sha256(list.data, list.len, state->body_sha256))
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
							errmsg("could not compute the SHA-256 of a request")));
		state->http.body = list.data;
		state->http.body_len = list.len;
		state->payload_hash = state->body_sha256;
	}
}

static void
set_timeouts(S3CallState *state, S3Verb verb)
{
	const S3Timeouts *timeouts = &state->session->timeouts;

	switch (verb)
	{
		case S3_PUT_OBJECT:
		case S3_UPLOAD_PART:
			state->http.stall_timeout = timeouts->stall;
			break;
		case S3_COMPLETE_UPLOAD:
			/* no stall: S3 sends single blanks while it is at work */
			state->http.timeout = timeouts->complete;
			break;
		default:
			state->http.timeout = timeouts->request;
			break;
	}
}

/* Whatever does not change between attempts is made once, in the caller's memory context. */
static S3CallState *
make_state(S3Session *session, S3Call *call)
{
	S3CallState   *state = palloc0(sizeof(S3CallState));
	StringInfoData path;

	call->state = state;
	state->session = session;
	state->context = CurrentMemoryContext;

	initStringInfo(&path);
	appendStringInfoChar(&path, '/');
	if (call->key)
		sigv4_uri_encode(&path, call->key, true);
	state->path = path.data;
	state->query = make_query(call);
	state->resource = call->key ? psprintf("%s/%s", session->config->bucket, call->key)
								: pstrdup(session->config->bucket);

	state->action = verbs[call->verb].action;
	state->http.method = verbs[call->verb].method;
	state->http.addresses = s3_is_aws(session) ? ADDRESS_REMOTE : ADDRESS_LOCAL;
	state->http.prepare = s3_prepare;
	state->http.judge = s3_judge;
	state->http.done = s3_done;
	state->http.arg = call;
	set_body(call);
	set_timeouts(state, call->verb);
	return state;
}

void
s3_submit(S3Session *session, S3Call *call)
{
	S3CallState *state = make_state(session, call);

	call->over = call->ok = call->in_doubt = false;
	call->attempts = 0;
	if (session->region_state == REGION_FAILED)
		session->region_state = REGION_UNKNOWN;
	http_submit(session->http, &state->http);
}

void
s3_cancel(S3Call *call)
{
	if (call->state == NULL || call->over)
		return;
	http_cancel(call->state->session->http, &call->state->http);
	call->over = true;
	call->in_doubt = call->in_doubt || call->state->unanswered;
}

bool
s3_perform(S3Session *session, S3Call *call)
{
	call->done = NULL;
	s3_submit(session, call);
	PG_TRY();
	{
		while (!call->over)
			http_drive(session->http, -1);
	}
	PG_CATCH();
	{
		s3_cancel(call);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return call->ok;
}

/* Keeps the error of an attempt that was answered. */
static void
timed_out(S3Call *call, int timeout)
{
	char         text[64];
	HttpResponse none = {.attempts = call->attempts, .transport_error = text};

	s3_cancel(call);
	if (call->error.action != NULL)
		return;
	snprintf(text, sizeof(text), "it took more than %d ms", timeout);
	s3_error_set(&call->error, &none, call->state->http.method, call->state->action,
				 call->state->resource);
}

bool
s3_wait_until(S3Session *session, S3Call *call, int timeout)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);

	PG_TRY();
	{
		while (!call->over)
		{
			long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

			if (left <= 0)
				break;
			http_drive(session->http, left);
		}
	}
	PG_FINALLY();
	{
		if (!call->over)
			timed_out(call, timeout);
	}
	PG_END_TRY();
	return call->ok;
}

bool
s3_perform_until(S3Session *session, S3Call *call, int timeout)
{
	call->done = NULL;
	s3_submit(session, call);
	return s3_wait_until(session, call, timeout);
}

bool
s3_head_object(S3Session *session, const char *key, S3Object *object, S3Error *error)
{
	S3Call call = {.verb = S3_HEAD_OBJECT, .key = key};

	if (!s3_perform(session, &call))
	{
		*error = call.error;
		return false;
	}
	*object = call.found;
	return true;
}

bool
s3_abort_upload(S3Session *session, const char *key, const char *upload_id, int timeout,
				S3Error *error)
{
	S3Call call = {.verb = S3_ABORT_UPLOAD, .key = key, .upload_id = upload_id};

	if (s3_perform_until(session, &call, timeout) || s3_error_is(&call.error, "NoSuchUpload"))
		return true;
	*error = call.error;
	return false;
}

static void
region_asked(S3Call *call)
{
	S3Session *session = call->arg;

	if (session->region_state != REGION_ASKED)
		return; /* it was told */
	session->region_state = call->error.http_status == 0 ? REGION_FAILED : REGION_KNOWN;
}

static void
ask_region(S3Session *session)
{
	MemoryContext old = MemoryContextSwitchTo(session->context);

	session->region_state = REGION_ASKED;
	session->region_was_asked = true;
	memset(&session->region_call, 0, sizeof(S3Call));
	session->region_call.verb = S3_HEAD_BUCKET;
	session->region_call.done = region_asked;
	session->region_call.arg = session;
	s3_submit(session, &session->region_call);
	MemoryContextSwitchTo(old);
}
