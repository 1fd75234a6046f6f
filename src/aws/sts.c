/*-------------------------------------------------------------------------
 *
 * sts.c
 *	  AWS's Security Token Service: who we are, and sessions of roles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <time.h>

#include "utils/memutils.h"

#include "aws/aws_names.h"
#include "aws/sts.h"
#include "base/guc.h"
#include "base/s3_xml.h"
#include "base/secret.h"
#include "base/text_file.h"

#define DEFAULT_REGION "us-east-1"
#define STS_VERSION "2011-06-15"
#define STS_CONTENT_TYPE "application/x-www-form-urlencoded; charset=utf-8"

/* https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html */
#define SESSION_SECONDS 3600
#define SHORTEST_SESSION_SECONDS 900
#define MAX_WEB_TOKEN 20000

/* Codes that may pass, in answers that look final. */
#define MAX_PROVIDER_ATTEMPTS 3

struct Sts
{
	HttpClient   *http;
	char         *url;
	char         *host; /* as in the Host header */
	char         *region;
	AddressPolicy addresses;
};

typedef struct StsCall StsCall;

struct StsCall
{
	Sts        *sts;
	const char *action; /* "sts:AssumeRole" */
	StsSigner   signer; /* keys NULL: the call is not signed */

	/* Writes the parameters; NULL, or why it cannot. */
	const char *(*put_parameters)(StsCall *call);
	/* Takes what is wanted from an answer that is a success; false: it is not there. */
	bool (*take)(StsCall *call, const HttpResponse *response);
	void (*finish)(StsCall *call, bool success);
	/* Says what to do about an error; NULL: nothing of its own. */
	char *(*hint)(StsCall *call, const char *code);

	HttpRequest              request;
	StringInfoData           body;
	MemoryContext            scratch; /* of one attempt, and of "failure" */
	int                      max_attempts;
	int                      duration;      /* s, as asked for; 0: it has none */
	const char              *access_key_id; /* that signed the last attempt */
	bool                     had_token;
	bool                     clock_corrected;
	bool                     taken;
	const CredentialFailure *signer_failure;
	CredentialFailure        failure;
};

/* Sessions of a role, either way. */
typedef struct RoleSource
{
	SessionSource source; /* first */
	StsCall       call;
	StsRole       role;
	const char   *token_file; /* NULL: AssumeRole */
	Session      *session;    /* what the answer held */
} RoleSource;

/* The parts of an error answer. */
typedef struct StsError
{
	char *code; /* "" if there is none, as the next */
	char *message;
	char *request_id;
} StsError;


/* ----------------------------------------------------------------
 * The request
 * ----------------------------------------------------------------
 */

static void
add_parameter(StringInfo body, const char *name, const char *value)
{
	appendStringInfo(body, "%s%s=", body->len > 0 ? "&" : "", name);
	sigv4_uri_encode(body, value, false);
}

/* NULL, or why there is none. */
static const char *
build_body(StsCall *call)
{
	StringInfo  body = &call->body;
	const char *wrong;

	explicit_bzero(body->data, body->maxlen);
	resetStringInfo(body);
	add_parameter(body, "Action", call->action + strlen("sts:"));
	add_parameter(body, "Version", STS_VERSION);
	wrong = call->put_parameters != NULL ? call->put_parameters(call) : NULL;
	call->request.body = body->data;
	call->request.body_len = body->len;
	return wrong;
}

/* The headers and their signature; false when libcrypto fails. */
static bool
sign_call(StsCall *call, HttpAttempt *attempt, const SigV4Credentials *keys)
{
	Sts          *sts = call->sts;
	MemoryContext caller;
	bool          signed_it;
	char          date[SIGV4_DATE_LEN + 1];
	char          hash[SIGV4_SHA256_HEX_LEN + 1];
	SigV4Header   headers[4] = {
		  {"content-type", STS_CONTENT_TYPE}, {"host", sts->host}, {"x-amz-date", date}};
	SigV4Request signing = {
		.method = call->request.method,
		.path = "/",
		.headers = headers,
		.nheaders = 3,
		.payload_hash = hash,
		.region = sts->region,
		.service = "sts",
		.normalize_path = true,
		.encode_path = true,
	};

	sigv4_date(date, http_now(sts->http));
	if (keys->session_token != NULL)
		headers[signing.nheaders++] = (SigV4Header){"x-amz-security-token", keys->session_token};
	for (int i = 0; i < signing.nheaders; i++)
		appendStringInfo(&attempt->headers, "%s: %s\n", headers[i].name, headers[i].value);
	appendStringInfoString(&attempt->headers, "authorization: ");

	caller = MemoryContextSwitchTo(call->scratch);
	signed_it = sigv4_sha256(call->request.body, call->request.body_len, hash) &&
				sigv4_authorization(&attempt->headers, &signing, keys, date);
	MemoryContextSwitchTo(caller);
	appendStringInfoChar(&attempt->headers, '\n');
	return signed_it;
}

/* HTTP_SEND: *keys sign the call. */
static HttpReadiness
find_keys(StsCall *call, const SigV4Credentials **keys, const char **reason)
{
	*keys = call->signer.keys(call->signer.arg, &call->signer_failure);
	if (*keys != NULL)
	{
		call->access_key_id = pstrdup((*keys)->access_key_id);
		call->had_token = (*keys)->session_token != NULL;
		return HTTP_SEND;
	}
	if (call->signer_failure == NULL)
		return HTTP_NOT_YET;
	*reason = "there are no keys to sign the request with";
	return HTTP_GIVE_UP;
}

/*
 * The body is built anew for each attempt: a token's file may have been renewed, and the session
 * may have become shorter.
 */
static HttpReadiness
call_prepare(HttpRequest *request, HttpAttempt *attempt, const char **reason)
{
	StsCall                *call = request->arg;
	const SigV4Credentials *keys = NULL;
	HttpReadiness           readiness = HTTP_SEND;
	MemoryContext           caller;

	MemoryContextReset(call->scratch);
	caller = MemoryContextSwitchTo(call->scratch);
	call->access_key_id = NULL;
	if (call->signer.keys != NULL)
		readiness = find_keys(call, &keys, reason);
	if (readiness == HTTP_SEND)
	{
		*reason = build_body(call);
		if (*reason != NULL)
			readiness = HTTP_GIVE_UP;
	}
	MemoryContextSwitchTo(caller);
	if (readiness != HTTP_SEND)
		return readiness;

	appendStringInfoString(&attempt->url, call->sts->url);
	if (keys == NULL)
		appendStringInfo(&attempt->headers, "content-type: %s\n", STS_CONTENT_TYPE);
	else if (!sign_call(call, attempt, keys))
	{
		*reason = "the request could not be signed";
		return HTTP_GIVE_UP;
	}
	return HTTP_SEND;
}


/* ----------------------------------------------------------------
 * The answer
 * ----------------------------------------------------------------
 */

/* AWS puts an Error into an ErrorResponse, Ceph answers as S3 does. */
static char *
error_text(const HttpResponse *response, const char *in_aws, const char *in_s3)
{
	char *text = s3_xml_find(response->body, response->body_len, in_aws);

	if (text == NULL)
		text = s3_xml_find(response->body, response->body_len, in_s3);
	return text != NULL ? aws_session_clean_text(text) : pstrdup("");
}

static void
parse_error(const HttpResponse *response, StsError *error)
{
	error->code = error_text(response, "ErrorResponse/Error/Code", "Error/Code");
	error->message = error_text(response, "ErrorResponse/Error/Message", "Error/Message");
	error->request_id = error_text(response, "ErrorResponse/RequestId", "Error/RequestId");
}

static bool
is_clock_error(const StsError *error)
{
	if (strcmp(error->code, "RequestTimeTooSkewed") == 0)
		return true;
	return strcmp(error->code, "SignatureDoesNotMatch") == 0 &&
		   (strncmp(error->message, "Signature expired", 17) == 0 ||
			strncmp(error->message, "Signature not yet current", 25) == 0);
}

/* A role may allow less than an hour; Ceph does not say what it objects to. */
static bool
is_duration_error(const StsError *error)
{
	return (strcmp(error->code, "ValidationError") == 0 ||
			strcmp(error->code, "InvalidArgument") == 0) &&
		   (error->message[0] == '\0' || strstr(error->message, "uration") != NULL);
}

/* An identity provider that STS could not ask, or whose keys it did not know yet. */
static bool
is_provider_error(const StsError *error)
{
	return strcmp(error->code, "IDPCommunicationError") == 0 ||
		   strcmp(error->code, "InvalidIdentityToken") == 0;
}

/*
 * Two errors are mended and tried again at once: a clock that is wrong, and a session that is
 * longer than the role allows.
 */
static HttpVerdict
judge_error(StsCall *call, const HttpResponse *response)
{
	StsError error;

	if (response->status == 0)
		return response->transport_final ? HTTP_DONE : HTTP_RETRY;
	parse_error(response, &error);
	if (response->status == 503 || response->status == 429 ||
		strncmp(error.code, "Throttling", 10) == 0 ||
		strcmp(error.code, "RequestLimitExceeded") == 0)
		return HTTP_RETRY_THROTTLED;
	if (response->status >= 500 || response->status == 408 || response->truncated)
		return HTTP_RETRY;
	if (is_provider_error(&error) && response->attempts < MAX_PROVIDER_ATTEMPTS)
		return HTTP_RETRY;
	if (is_clock_error(&error) && !call->clock_corrected && http_date(response) != 0)
	{
		call->clock_corrected = true;
		http_set_clock(call->sts->http, http_date(response));
		return HTTP_RETRY_NOW;
	}
	if (is_duration_error(&error) && call->duration > SHORTEST_SESSION_SECONDS)
	{
		call->duration =
			call->duration > SESSION_SECONDS ? SESSION_SECONDS : SHORTEST_SESSION_SECONDS;
		return HTTP_RETRY_NOW;
	}
	return HTTP_DONE;
}

/*
 * An answer with status 200 that lacks what it should have is tried again, as one that was cut.
 */
static HttpVerdict
call_judge(HttpRequest *request, const HttpResponse *response)
{
	StsCall      *call = request->arg;
	MemoryContext caller = MemoryContextSwitchTo(call->scratch);
	HttpVerdict   verdict;

	if (response->status == 200)
	{
		call->taken = call->take(call, response);
		verdict = call->taken ? HTTP_DONE : HTTP_RETRY;
	}
	else
		verdict = judge_error(call, response);
	MemoryContextSwitchTo(caller);

	if (verdict != HTTP_RETRY_NOW && call->max_attempts > 0 &&
		response->attempts >= call->max_attempts)
		verdict = HTTP_DONE;
	return verdict;
}


/* ----------------------------------------------------------------
 * Why it failed
 * ----------------------------------------------------------------
 */

/* Hints that do not depend on the action.  NULL: there is nothing to advise. */
static char *
failure_hint(const StsCall *call, const HttpResponse *response, const StsError *error)
{
	const char *code = error->code;
	const char *key = call->access_key_id;

	if (response->status == 0)
		return response->unsent && response->transport_final && response->attempts == 0
				   ? NULL
				   : psprintf("Check that \"%s\" can be reached from this server.", call->sts->url);
	if (is_clock_error(error))
		return pstrdup("Correct the clock of this server.");
	if (strcmp(code, "RegionDisabledException") == 0)
		return psprintf("Activate STS in region \"%s\" in the account's settings of IAM.",
						call->sts->region);
	if (key == NULL)
		return NULL;
	if (strcmp(code, "InvalidClientTokenId") == 0 || strcmp(code, "InvalidAccessKeyId") == 0)
		return psprintf("Access key \"%s\" does not exist there or is disabled.%s", key,
						strncmp(key, "ASIA", 4) == 0 && !call->had_token
							? " It is a temporary one, which needs its session token."
							: "");
	if (strcmp(code, "SignatureDoesNotMatch") == 0)
		return psprintf("Check the secret access key that belongs to access key \"%s\", and the "
						"clock of this server.",
						key);
	if (strncmp(code, "ExpiredToken", 12) == 0)
		return psprintf("The session of access key \"%s\" is over. Set new keys.", key);
	if (refusal_of(REFUSING_STS, code) == REFUSAL_KEYS)
		return psprintf("Check access key \"%s\" and its owner.", key);
	return NULL;
}

static char *
failure_message(const HttpResponse *response, const StsError *error)
{
	if (response->status == 0)
		return aws_session_clean_text(response->transport_error);
	if (error->message[0] != '\0')
		return error->message;
	if (error->code[0] == '\0' && http_is_refusal(response->status))
		return aws_session_clean_text(
			psprintf("the answer is not one of STS, but %s", http_describe(response)));
	if (response->status == 200)
		return pstrdup("the answer does not hold what was asked for");
	return psprintf("HTTP status %d", response->status);
}

/*
 * A status without a code of STS comes from something in between, such as a proxy: that is no
 * refusal of the keys.
 */
static void
record_failure(StsCall *call, const HttpResponse *response)
{
	CredentialFailure *failure = &call->failure;
	MemoryContext      caller;
	StsError           error;

	/* Without keys it is their failure, whatever they were for. */
	if (call->signer_failure != NULL)
	{
		*failure = *call->signer_failure;
		return;
	}
	caller = MemoryContextSwitchTo(call->scratch);
	parse_error(response, &error);
	failure->status = response->status;
	failure->attempts = response->attempts;
	failure->service = "STS";
	failure->action = call->action;
	failure->code = error.code[0] != '\0' ? error.code : NULL;
	failure->foreign = error.code[0] == '\0' && http_is_refusal(response->status);
	failure->refusal = is_clock_error(&error) ? REFUSAL_NONE : refusal_of(REFUSING_STS, error.code);
	failure->message = failure_message(response, &error);
	failure->request_id = error.request_id[0] != '\0' ? error.request_id : NULL;
	if (failure->request_id == NULL)
		failure->request_id = http_header(response, "x-amzn-requestid");
	if (failure->request_id == NULL)
		failure->request_id = http_header(response, "x-amz-request-id");
	failure->hint = failure->code != NULL ? call->hint(call, failure->code) : NULL;
	if (failure->hint == NULL)
		failure->hint = failure_hint(call, response, &error);
	MemoryContextSwitchTo(caller);
}

static void
call_done(HttpRequest *request, const HttpResponse *response)
{
	StsCall *call = request->arg;

	explicit_bzero(call->body.data, call->body.maxlen);
	if (!call->taken)
		record_failure(call, response);
	call->finish(call, call->taken);
}

/* The signer is NULL where the request carries a token of its own, as with a web identity. */
static void
call_init(StsCall *call, Sts *sts, const char *action, const StsSigner *signer)
{
	call->sts = sts;
	call->action = action;
	if (signer != NULL)
		call->signer = *signer;
	call->scratch =
		AllocSetContextCreate(CurrentMemoryContext, "s3export STS call", ALLOCSET_SMALL_SIZES);
	initStringInfo(&call->body);
	/* So that a token in it does not leave copies behind. */
	enlargeStringInfo(&call->body, 3 * MAX_WEB_TOKEN + 8192);
	call->request = (HttpRequest){
		.method = "POST",
		.addresses = sts->addresses,
		.prepare = call_prepare,
		.judge = call_judge,
		.done = call_done,
		.arg = call,
	};
}

static void
call_begin(StsCall *call)
{
	call->taken = false;
	call->clock_corrected = false;
	call->signer_failure = NULL;
	call->request.timeout = guc_request_timeout;
	http_submit(call->sts->http, &call->request);
}


/* ----------------------------------------------------------------
 * Sessions of roles
 * ----------------------------------------------------------------
 */

static RoleSource *
role_source(StsCall *call)
{
	return (RoleSource *) ((char *) call - offsetof(RoleSource, call));
}

/* The token in the file, without the white space that editors leave; NULL: *wrong. */
static char *
read_token(const char *path, const char **wrong)
{
	char *token = text_file_read(path, MAX_WEB_TOKEN);
	char *end;

	if (token == NULL)
	{
		*wrong = psprintf("the web identity token in file \"%s\" could not be read: %s", path,
						  strerror(errno));
		return NULL;
	}
	for (end = token + strlen(token); end > token && strchr(" \t\r\n", end[-1]) != NULL;)
		*--end = '\0';
	if (*token == '\0')
	{
		*wrong = psprintf("the file \"%s\" has no web identity token", path);
		text_file_free(token);
		return NULL;
	}
	return token;
}

/*
 * The parameters of AssumeRole and AssumeRoleWithWebIdentity.  Returns what is wrong with the
 * token's file, or NULL.
 */
static const char *
put_role(StsCall *call)
{
	RoleSource    *source = role_source(call);
	const StsRole *role = &source->role;
	StringInfo     body = &call->body;
	const char    *wrong = NULL;
	char           duration[16];
	char          *token;

	/* A session of a session lasts no longer. */
	if (call->had_token)
		call->duration = Min(call->duration, SESSION_SECONDS);
	snprintf(duration, sizeof(duration), "%d", call->duration);
	add_parameter(body, "RoleArn", role->role_arn);
	add_parameter(body, "RoleSessionName", role->session_name);
	add_parameter(body, "DurationSeconds", duration);
	if (role->external_id != NULL)
		add_parameter(body, "ExternalId", role->external_id);
	if (role->policy != NULL)
		add_parameter(body, "Policy", role->policy);
	if (source->token_file == NULL)
		return NULL;
	token = read_token(source->token_file, &wrong);
	if (token != NULL)
		add_parameter(body, "WebIdentityToken", token);
	text_file_free(token);
	return wrong;
}

static char *
answer_text(StsCall *call, const HttpResponse *response, const char *name)
{
	const char *verb = call->action + strlen("sts:");
	char       *path = psprintf("%sResponse/%sResult/%s", verb, verb, name);

	return s3_xml_find(response->body, response->body_len, path);
}

/*
 * The end of the session is told by the clock of STS: the difference to the date of the answer
 * counts, not the clock of this server.
 */
static bool
take_session(StsCall *call, const HttpResponse *response)
{
	RoleSource *source = role_source(call);
	char       *secret = answer_text(call, response, "Credentials/SecretAccessKey");
	char       *token = answer_text(call, response, "Credentials/SessionToken");
	char       *arn = answer_text(call, response, "AssumedRoleUser/Arn");
	time_t      server_now = http_date(response);

	SigV4Credentials keys = {
		.access_key_id = answer_text(call, response, "Credentials/AccessKeyId"),
		.secret_access_key = secret,
		.session_token = token,
	};

	source->session = token == NULL
						  ? NULL
						  : aws_session_create(source->source.context, &keys,
											   arn != NULL ? aws_session_clean_text(arn) : NULL);
	secret_wipe(secret);
	secret_wipe(token);
	if (source->session == NULL)
		return false;
	if (aws_session_set_end(source->session, answer_text(call, response, "Credentials/Expiration"),
							server_now != 0 ? server_now : http_now(call->sts->http)))
		return true;
	aws_session_free(source->session);
	source->session = NULL;
	return false;
}

static char *
access_denied_hint(const StsCall *call, const StsRole *role)
{
	return psprintf(
		"Check that role \"%s\" exists, that its trust policy allows sts:AssumeRole to "
		"the owner of access key \"%s\", and that %s.",
		role->role_arn, call->access_key_id,
		role->external_id != NULL
			? psprintf("a condition on sts:ExternalId in it says \"%s\"", role->external_id)
			: "it has no condition on sts:ExternalId, since none is sent");
}

/* "Its token was written at ...": the usual fault is one that nobody renews. */
static char *
token_hint(const char *path)
{
	struct stat status;
	char        when[64] = "";
	struct tm   tm;

	if (stat(path, &status) == 0 && gmtime_r(&status.st_mtime, &tm) != NULL)
		strftime(when, sizeof(when), " It was written at %Y-%m-%d %H:%M:%S UTC.", &tm);
	return psprintf(
		"Check that the token in file \"%s\" is renewed, and that it was issued for the "
		"audience that the identity provider in IAM has.%s",
		path, when);
}

/*
 * STS answers AccessDenied both for a role that does not exist and for a trust policy that does
 * not allow the identity.
 */
static char *
role_hint(StsCall *call, const char *code)
{
	const RoleSource *source = role_source(call);
	const StsRole    *role = &source->role;

	if (source->token_file != NULL)
	{
		if (strcmp(code, "AccessDenied") == 0)
			return psprintf("Check that role \"%s\" exists, and that its trust policy allows "
							"sts:AssumeRoleWithWebIdentity to the token's issuer and subject.",
							role->role_arn);
		if (strncmp(code, "ExpiredToken", 12) == 0 || strcmp(code, "IDPRejectedClaim") == 0 ||
			strcmp(code, "InvalidIdentityToken") == 0)
			return token_hint(source->token_file);
	}
	else if (strcmp(code, "AccessDenied") == 0)
		return access_denied_hint(call, role);
	if (strcmp(code, "NoSuchEntity") == 0 || strcmp(code, "NoSuchRole") == 0)
		return psprintf("Check that role \"%s\" exists.", role->role_arn);
	if (strcmp(code, "ValidationError") == 0 || strcmp(code, "InvalidArgument") == 0)
		return psprintf("Check role \"%s\"%s, and that the role allows sessions of %d seconds.",
						role->role_arn, role->external_id != NULL ? " and the external ID" : "",
						call->duration);
	return NULL;
}

static void
role_finish(StsCall *call, bool success)
{
	SessionSource *source = &role_source(call)->source;

	source->done(source->arg, success ? role_source(call)->session : NULL, &call->failure);
}

static void
role_fetch(SessionSource *session_source)
{
	RoleSource *source = (RoleSource *) session_source;

	source->session = NULL;
	source->call.duration = source->role.duration > 0 ? source->role.duration : SESSION_SECONDS;
	source->call.max_attempts = session_source->brief ? SESSION_BRIEF_ATTEMPTS : 0;
	call_begin(&source->call);
}

static RoleSource *
make_role_source(Sts *sts, const StsRole *role, const char *action, const StsSigner *signer)
{
	RoleSource *source = palloc0(sizeof(RoleSource));

	source->source.context = CurrentMemoryContext;
	source->source.what = psprintf("the session of role \"%s\"", role->role_arn);
	source->source.fetch = role_fetch;
	source->role = *role;
	call_init(&source->call, sts, action, signer);
	source->call.put_parameters = put_role;
	source->call.take = take_session;
	source->call.finish = role_finish;
	source->call.hint = role_hint;
	return source;
}

SessionSource *
sts_assume_role(Sts *sts, const StsRole *role, const StsSigner *signer)
{
	return &make_role_source(sts, role, "sts:AssumeRole", signer)->source;
}

SessionSource *
sts_assume_role_with_web_identity(Sts *sts, const StsRole *role, const char *token_file)
{
	RoleSource *source = make_role_source(sts, role, "sts:AssumeRoleWithWebIdentity", NULL);

	source->token_file = pstrdup(token_file);
	return &source->source;
}


/* ----------------------------------------------------------------
 * Who we are
 * ----------------------------------------------------------------
 */

typedef struct IdentityCall
{
	StsCall call; /* first */
	char   *account;
	char   *arn;
} IdentityCall;

static bool
take_identity(StsCall *call, const HttpResponse *response)
{
	IdentityCall *identity = (IdentityCall *) call;
	char         *account = answer_text(call, response, "Account");
	char         *arn = answer_text(call, response, "Arn");

	if (account == NULL || arn == NULL)
		return false;
	identity->account = aws_session_clean_text(account);
	identity->arn = aws_session_clean_text(arn);
	return true;
}

static char *
no_hint(StsCall *call pg_attribute_unused(), const char *code pg_attribute_unused())
{
	return NULL;
}

static void
no_finish(StsCall *call pg_attribute_unused(), bool success pg_attribute_unused())
{
}

bool
sts_caller_identity(Sts *sts, const StsSigner *signer, char **account, char **arn,
					const CredentialFailure **failure)
{
	IdentityCall *identity = palloc0(sizeof(IdentityCall));
	StsCall      *call = &identity->call;

	*account = *arn = NULL;
	*failure = NULL;
	call_init(call, sts, "sts:GetCallerIdentity", signer);
	call->take = take_identity;
	call->finish = no_finish;
	call->hint = no_hint;
	call->request.timeout = guc_request_timeout;
	http_perform(sts->http, &call->request);
	if (call->taken)
	{
		*account = pstrdup(identity->account);
		*arn = pstrdup(identity->arn);
	}
	else
		*failure = &call->failure;
	return call->taken;
}


/* ----------------------------------------------------------------
 * Opening
 * ----------------------------------------------------------------
 */

Sts *
sts_open(HttpClient *http, const char *endpoint_url, const char *region)
{
	Sts          *sts = palloc0(sizeof(Sts));
	NamesEndpoint endpoint;
	const char   *wrong;

	sts->http = http;
	sts->region = pstrdup(region != NULL ? region : DEFAULT_REGION);
	if (endpoint_url == NULL)
	{
		/* The global endpoint's sessions are not valid in every region. */
		sts->host = psprintf("sts.%s.%s", sts->region, aws_names_region_suffix(sts->region));
		sts->url = psprintf("https://%s/", sts->host);
		return sts;
	}
	wrong = aws_names_parse_endpoint(endpoint_url, &endpoint);
	if (wrong != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid STS endpoint \"%s\"", endpoint_url), errdetail("%s", wrong)));
	sts->addresses = ADDRESS_LOCAL;
	sts->host =
		endpoint.port == 0 ? endpoint.host : psprintf("%s:%d", endpoint.host, endpoint.port);
	sts->url = psprintf("%s/", endpoint.url);
	return sts;
}
