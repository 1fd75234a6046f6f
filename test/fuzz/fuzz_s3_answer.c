/*-------------------------------------------------------------------------
 *
 * fuzz_s3_answer.c
 *	  Answers of S3 (http_wire.c, s3_answer.c, s3_error.c): whatever comes, what
 *	  is kept of it is fit for URLs, XML, log and screen, and retries end.
 *
 *-------------------------------------------------------------------------
 */
#include "answer.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "s3/s3_internal.h"
#include "base/s3_xml.h"

#define ATTEMPTS 12
#define MAX_CORRECTIONS 6

static bool renewable;
static bool signs_payload;
static char assumed[] = "arn:aws:sts::111122223333:assumed-role/exporter/s3export-1";

bool
credentials_expired(Credentials *credentials pg_attribute_unused())
{
	return renewable;
}

const char *
credentials_assumed_arn(Credentials *credentials pg_attribute_unused())
{
	return renewable ? assumed : NULL;
}

bool
s3_signs_payload(const S3Session *session pg_attribute_unused())
{
	return signs_payload;
}

static void
check_text(const char *text, size_t size)
{
	FUZZ_CHECK(strlen(text) < size);
	FUZZ_CHECK(fuzz_is_clean(text));
	FUZZ_CHECK(fuzz_encoding == PG_UTF8 || fuzz_is_printable(text));
}

static void
check_error(const S3Error *error)
{
	char *detail = s3_error_detail(error);
	char *hint = s3_error_hint(error);

	check_text(error->code, sizeof(error->code));
	check_text(error->message, sizeof(error->message));
	check_text(error->request_id, sizeof(error->request_id));
	check_text(error->host_id, sizeof(error->host_id));
	check_text(error->resource, sizeof(error->resource));
	check_text(detail, 4096);
	FUZZ_CHECK(detail[strlen(detail) - 1] == '.');
	if (hint != NULL)
		check_text(hint, 4096);
	FUZZ_CHECK(error->region[0] == '\0' || aws_names_check_region(error->region) == NULL);
	FUZZ_CHECK(s3_error_sqlstate(error) != 0);
}

/* It goes into URLs, into XML and into the job's row. */
static void
check_kept(const char *value)
{
	FUZZ_CHECK(value == NULL || (fuzz_is_printable(value) && strlen(value) < 8192));
}

/* Nobody but S3 says that credentials are refused, in an error document. */
static void
check_refusal(const S3Call *call, const HttpResponse *response)
{
	const char *code = s3_xml_find(response->body, response->body_len, "Error/Code");

	if (s3_error_sqlstate(&call->error) == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION)
		FUZZ_CHECK(response->status < 500 && code != NULL &&
				   refusal_of(REFUSING_S3, code) != REFUSAL_NONE);
}

static void
check_call(const S3Call *call, const HttpResponse *response)
{
	check_kept(call->answer_id);
	check_kept(call->etag);
	check_kept(call->found.etag);
	check_kept(call->found.token);
	FUZZ_CHECK(aws_names_check_region(call->state->session->region) == NULL);
	if (!call->ok)
	{
		check_error(&call->error);
		check_refusal(call, response);
		return;
	}
	FUZZ_CHECK(response->status >= 200 && response->status < 300 && !response->truncated);
	FUZZ_CHECK(call->verb != S3_CREATE_UPLOAD || (call->answer_id && call->answer_id[0]));
	FUZZ_CHECK(call->verb != S3_PUT_OBJECT || (call->etag && call->etag[0]));
	FUZZ_CHECK(call->verb != S3_UPLOAD_PART || (call->etag && call->etag[0]));
	FUZZ_CHECK(call->verb != S3_COMPLETE_UPLOAD || call->etag);
	FUZZ_CHECK(call->verb != S3_GET_BUCKET_LOCATION || call->location);
}

/* As s3.c does before an attempt. */
static void
prepare(S3Call *call)
{
	S3Session *session = call->state->session;

	if (session->region_state == REGION_UNKNOWN)
	{
		session->region_state = REGION_KNOWN;
		session->region_was_asked = true;
	}
	call->state->region_used = session->region;
}

static void
open_session(S3Session *session, S3Config *config, uint8 flags)
{
	config->bucket = "exports";
	config->endpoint_url = (flags & 1) ? "http://127.0.0.1:9000" : NULL;
	config->server_side_encryption = (flags & 2) ? "aws:kms" : NULL;
	renewable = (flags & 4) != 0;
	signs_payload = (flags & 64) != 0;
	fuzz_encoding = (flags & 8) ? PG_LATIN1 : PG_UTF8;
	session->config = config;
	session->http = answer_client();
	session->context = CurrentMemoryContext;
	session->scratch = AllocSetContextCreate(CurrentMemoryContext, "scratch", ALLOCSET_SMALL_SIZES);
	session->region_state = (flags & 16) ? REGION_UNKNOWN : REGION_KNOWN;
	session->region = "us-east-1";
}

void
fuzz_one(FuzzInput *input)
{
	S3Config      config = {0};
	S3Session     session = {0};
	S3CallState   state = {.session = &session,
						   .context = CurrentMemoryContext,
						   .action = "s3:PutObject",
						   .resource = "exports/daily/orders.csv"};
	S3Call        call = {.verb = fuzz_byte(input) % (S3_ABORT_UPLOAD + 1), .state = &state};
	HttpRequest   request = {.arg = &call};
	HttpVerdict   verdict = HTTP_RETRY;
	int           corrections = 0;
	uint8         flags = fuzz_byte(input);
	HttpResponse *response;

	state.http.method = call.verb == S3_HEAD_BUCKET || call.verb == S3_HEAD_OBJECT ? "HEAD" : "PUT";
	open_session(&session, &config, flags);
	response = answer_read(input, (flags & 32) != 0);
	for (int attempt = 1; attempt <= ATTEMPTS && verdict != HTTP_DONE; attempt++)
	{
		prepare(&call);
		response->attempts = attempt;
		verdict = s3_judge(&request, response);
		FUZZ_CHECK(!call.ok || verdict == HTTP_DONE);
		check_call(&call, response);
		corrections += (verdict == HTTP_RETRY_NOW);
	}
	FUZZ_CHECK(corrections <= MAX_CORRECTIONS);
}
