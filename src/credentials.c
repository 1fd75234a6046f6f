/*-------------------------------------------------------------------------
 *
 * credentials.c
 *	  Where the keys that sign requests come from, and how they are renewed.
 *
 * Renewal goes through the same HttpClient as the transfers, which go on
 * meanwhile.  A session is renewed well before its end, and used to its end
 * when that fails: STS may be out of order while S3 is not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <time.h>

#include "utils/datetime.h"
#include "utils/memutils.h"

#include "credentials.h"
#include "guc.h"
#include "names.h"
#include "s3_xml.h"
#include "secret.h"

#define DEFAULT_REGION "us-east-1"

/* https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html */
#define STS_VERSION "2011-06-15"
#define SESSION_SECONDS 3600
#define SHORTEST_SESSION_SECONDS 900
#define STS_CONTENT_TYPE "application/x-www-form-urlencoded; charset=utf-8"

/* Renewal is tried in the last quarter, and waited for in the last tenth. */
#define ADVISORY_SECONDS (15 * 60)
#define MANDATORY_SECONDS (5 * 60)

/* Between renewals that fail while the old session is good. */
#define RENEWAL_PAUSE 10     /* s */
#define MAX_RENEWAL_PAUSE 60 /* s */
#define RENEWAL_ATTEMPTS 3

#define YOUNG_SESSION 60 /* s */

#define MAX_MESSAGE 1024

typedef struct Session
{
	MemoryContext    context; /* holds this too; overwrites the secrets when it goes */
	SigV4Credentials keys;
	char            *assumed_arn;
	time_t           since; /* by our clock, as is the next */
	time_t           until;
} Session;

struct Credentials
{
	MemoryContext    context;
	HttpClient      *http;
	char            *role_arn; /* NULL: "base" is all there is */
	char            *external_id;
	char            *session_name;
	char            *policy;
	char            *sts_url;
	char            *sts_host; /* as in the Host header */
	char            *sts_region;
	SigV4Credentials base;

	Session          *session; /* NULL: none yet */
	bool              renewing;
	int               failures;    /* of renewals, in a row */
	time_t            renew_after; /* after a failure */
	bool              failed;      /* for good: see "failure" */
	CredentialFailure failure;
	MemoryContext     scratch; /* of one attempt, and of "failure" */

	HttpRequest    request; /* AssumeRole */
	StringInfoData body;
	int            duration; /* s, as asked for */
	bool           clock_corrected;
	Session       *renewed; /* what judge found in the answer */
};

/* The parts of an error answer. */
typedef struct StsError
{
	char *code; /* "" if there is none, as the next */
	char *message;
	char *request_id;
} StsError;


/* ----------------------------------------------------------------
 * AssumeRole: the request
 * ----------------------------------------------------------------
 */

static void
add_parameter(StringInfo body, const char *name, const char *value)
{
	appendStringInfo(body, "&%s=", name);
	sigv4_uri_encode(body, value, false);
}

static void
build_assume_role(Credentials *credentials)
{
	StringInfo body = &credentials->body;
	char       duration[16];

	snprintf(duration, sizeof(duration), "%d", credentials->duration);
	resetStringInfo(body);
	appendStringInfoString(body, "Action=AssumeRole");
	add_parameter(body, "Version", STS_VERSION);
	add_parameter(body, "RoleArn", credentials->role_arn);
	add_parameter(body, "RoleSessionName", credentials->session_name);
	add_parameter(body, "DurationSeconds", duration);
	if (credentials->external_id != NULL)
		add_parameter(body, "ExternalId", credentials->external_id);
	if (credentials->policy != NULL)
		add_parameter(body, "Policy", credentials->policy);
	credentials->request.body = body->data;
	credentials->request.body_len = body->len;
}

static HttpReadiness
assume_role_prepare(HttpRequest *request, HttpAttempt *attempt, const char **reason)
{
	Credentials  *credentials = request->arg;
	MemoryContext caller;
	bool          signed_it;
	char          date[SIGV4_DATE_LEN + 1];
	char          hash[SIGV4_SHA256_HEX_LEN + 1];
	SigV4Header   headers[4] = {
		  {"content-type", STS_CONTENT_TYPE}, {"host", credentials->sts_host}, {"x-amz-date", date}};
	SigV4Request signing = {
		.method = request->method,
		.path = "/",
		.headers = headers,
		.nheaders = 3,
		.payload_hash = hash,
		.region = credentials->sts_region,
		.service = "sts",
		.normalize_path = true,
		.encode_path = true,
	};

	MemoryContextReset(credentials->scratch);
	sigv4_date(date, http_now(credentials->http));
	if (credentials->base.session_token != NULL)
		headers[signing.nheaders++] =
			(SigV4Header){"x-amz-security-token", credentials->base.session_token};

	appendStringInfoString(&attempt->url, credentials->sts_url);
	for (int i = 0; i < signing.nheaders; i++)
		appendStringInfo(&attempt->headers, "%s: %s\n", headers[i].name, headers[i].value);
	appendStringInfoString(&attempt->headers, "authorization: ");
	caller = MemoryContextSwitchTo(credentials->scratch);
	signed_it = sigv4_sha256(request->body, request->body_len, hash) &&
				sigv4_authorization(&attempt->headers, &signing, &credentials->base, date);
	MemoryContextSwitchTo(caller);
	if (!signed_it)
	{
		*reason = "the request could not be signed";
		return HTTP_GIVE_UP;
	}
	appendStringInfoChar(&attempt->headers, '\n');
	return HTTP_SEND;
}


/* ----------------------------------------------------------------
 * AssumeRole: the answer
 * ----------------------------------------------------------------
 */

/*
 * One line in ASCII, of bounded length.  The lines after the first of
 * SignatureDoesNotMatch repeat what was signed, a session token included.
 */
static char *
clean_text(const char *text)
{
	char *clean = pnstrdup(text, Min(strcspn(text, "\r\n"), MAX_MESSAGE));

	for (char *p = clean; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return clean;
}

/* AWS puts an Error into an ErrorResponse, Ceph answers as S3 does. */
static char *
error_text(const HttpResponse *response, const char *in_aws, const char *in_s3)
{
	char *text = s3_xml_find(response->body, response->body_len, in_aws);

	if (text == NULL)
		text = s3_xml_find(response->body, response->body_len, in_s3);
	return text != NULL ? clean_text(text) : pstrdup("");
}

static void
parse_error(const HttpResponse *response, StsError *error)
{
	error->code = error_text(response, "ErrorResponse/Error/Code", "Error/Code");
	error->message = error_text(response, "ErrorResponse/Error/Message", "Error/Message");
	error->request_id = error_text(response, "ErrorResponse/RequestId", "Error/RequestId");
}

/* "2026-11-22T11:25:45.739239599Z", with any number of decimals; 0: it is not. */
static time_t
parse_timestamp(const char *text)
{
	int year;
	int month;
	int day;
	int hour;
	int minute;
	int second;
	int end = 0;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute, &second,
			   &end) != 6)
		return 0;
	text += end;
	if (*text == '.')
		text += 1 + strspn(text + 1, "0123456789");
	if (strcmp(text, "Z") != 0 || year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 ||
		hour > 23 || minute > 59 || second > 60)
		return 0;
	return (time_t) (date2j(year, month, day) - UNIX_EPOCH_JDATE) * SECS_PER_DAY +
		   hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second;
}

#define SESSION_PATH "AssumeRoleResponse/AssumeRoleResult/"

static char *
secret_from_answer(Session *session, const HttpResponse *response, const char *path)
{
	char *text = s3_xml_find(response->body, response->body_len, path);
	char *secret;

	if (text == NULL || text[0] == '\0')
		return NULL;
	secret = secret_strdup(session->context, text);
	secret_wipe(text);
	return secret;
}

static char *
text_from_answer(Session *session, const HttpResponse *response, const char *path)
{
	char *text = s3_xml_find(response->body, response->body_len, path);

	return text != NULL ? MemoryContextStrdup(session->context, text) : NULL;
}

/* NULL if the answer is not what it should be. */
static Session *
parse_session(Credentials *credentials, const HttpResponse *response)
{
	MemoryContext context =
		AllocSetContextCreate(credentials->context, "s3export session", ALLOCSET_SMALL_SIZES);
	Session *session = MemoryContextAllocZero(context, sizeof(Session));
	time_t   server_now = http_date(response);
	char    *expiration;

	session->context = context;
	session->keys.access_key_id =
		text_from_answer(session, response, SESSION_PATH "Credentials/AccessKeyId");
	session->keys.secret_access_key =
		secret_from_answer(session, response, SESSION_PATH "Credentials/SecretAccessKey");
	session->keys.session_token =
		secret_from_answer(session, response, SESSION_PATH "Credentials/SessionToken");
	session->assumed_arn = text_from_answer(session, response, SESSION_PATH "AssumedRoleUser/Arn");
	expiration = text_from_answer(session, response, SESSION_PATH "Credentials/Expiration");

	/* The end is by the server's clock, of which only the distance counts. */
	if (server_now == 0)
		server_now = http_now(credentials->http);
	session->since = time(NULL);
	if (expiration != NULL && parse_timestamp(expiration) != 0)
		session->until = session->since + (parse_timestamp(expiration) - server_now);

	if (session->keys.access_key_id == NULL || session->keys.secret_access_key == NULL ||
		session->keys.session_token == NULL || session->until <= session->since)
	{
		MemoryContextDelete(context);
		return NULL;
	}
	return session;
}

static bool
session_is_good(const Session *session)
{
	return session != NULL && time(NULL) < session->until;
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

static HttpVerdict
judge_error(Credentials *credentials, const HttpResponse *response)
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
	if (is_clock_error(&error) && !credentials->clock_corrected && http_date(response) != 0)
	{
		credentials->clock_corrected = true;
		http_set_clock(credentials->http, http_date(response));
		return HTTP_RETRY_NOW;
	}
	if (is_duration_error(&error) && credentials->duration > SHORTEST_SESSION_SECONDS)
	{
		credentials->duration = SHORTEST_SESSION_SECONDS;
		build_assume_role(credentials);
		return HTTP_RETRY_NOW;
	}
	return HTTP_DONE;
}

static HttpVerdict
assume_role_judge(HttpRequest *request, const HttpResponse *response)
{
	Credentials  *credentials = request->arg;
	MemoryContext caller = MemoryContextSwitchTo(credentials->scratch);
	HttpVerdict   verdict;

	if (response->status == 200)
	{
		credentials->renewed = parse_session(credentials, response);
		verdict = credentials->renewed != NULL ? HTTP_DONE : HTTP_RETRY;
	}
	else
		verdict = judge_error(credentials, response);
	MemoryContextSwitchTo(caller);

	/* While there is something to fall back on, nobody needs to wait long. */
	if (verdict != HTTP_RETRY_NOW && response->attempts >= RENEWAL_ATTEMPTS &&
		session_is_good(credentials->session))
		verdict = HTTP_DONE;
	return verdict;
}


/* ----------------------------------------------------------------
 * Why it failed
 * ----------------------------------------------------------------
 */

static char *
access_denied_hint(const Credentials *credentials)
{
	return psprintf(
		"Check that role \"%s\" exists, that its trust policy allows sts:AssumeRole to "
		"the owner of access key \"%s\", and that %s.",
		credentials->role_arn, credentials->base.access_key_id,
		credentials->external_id != NULL
			? psprintf("a condition on sts:ExternalId in it says \"%s\"", credentials->external_id)
			: "it has no condition on sts:ExternalId, since none is sent");
}

static char *
failure_hint(const Credentials *credentials, const HttpResponse *response, const StsError *error)
{
	const char *code = error->code;
	const char *key = credentials->base.access_key_id;

	if (response->status == 0)
		return psprintf("Check that \"%s\" can be reached from this server.", credentials->sts_url);
	if (is_clock_error(error))
		return pstrdup("Correct the clock of this server.");
	if (strcmp(code, "AccessDenied") == 0)
		return access_denied_hint(credentials);
	if (strcmp(code, "InvalidClientTokenId") == 0 || strcmp(code, "InvalidAccessKeyId") == 0)
		return psprintf("Access key \"%s\" does not exist there or is disabled.%s", key,
						strncmp(key, "ASIA", 4) == 0 && credentials->base.session_token == NULL
							? " It is a temporary one, which needs its session token."
							: "");
	if (strcmp(code, "SignatureDoesNotMatch") == 0)
		return psprintf("Check the secret access key that belongs to access key \"%s\", and the "
						"clock of this server.",
						key);
	if (strncmp(code, "ExpiredToken", 12) == 0)
		return psprintf("The session of access key \"%s\" is over. Set new keys.", key);
	if (strcmp(code, "RegionDisabledException") == 0)
		return psprintf("Activate STS in region \"%s\" in the account's settings of IAM.",
						credentials->sts_region);
	if (strcmp(code, "NoSuchEntity") == 0 || strcmp(code, "NoSuchRole") == 0)
		return psprintf("Check that role \"%s\" exists.", credentials->role_arn);
	if (strcmp(code, "ValidationError") == 0 || strcmp(code, "InvalidArgument") == 0)
		return psprintf(
			"Check role \"%s\" and the external ID, and that the role allows sessions of "
			"%d seconds.",
			credentials->role_arn, credentials->duration);
	return NULL;
}

static void
record_failure(Credentials *credentials, const HttpResponse *response)
{
	CredentialFailure *failure = &credentials->failure;
	MemoryContext      caller = MemoryContextSwitchTo(credentials->scratch);
	StsError           error;

	parse_error(response, &error);
	failure->status = response->status;
	failure->code = error.code[0] != '\0' ? error.code : NULL;
	failure->request_id = error.request_id[0] != '\0' ? error.request_id : NULL;
	if (failure->request_id == NULL)
		failure->request_id = http_header(response, "x-amzn-requestid");
	if (failure->request_id == NULL)
		failure->request_id = http_header(response, "x-amz-request-id");
	if (response->status == 0)
		failure->message = pstrdup(response->transport_error);
	else if (error.message[0] != '\0')
		failure->message = error.message;
	else if (response->status == 200)
		failure->message = pstrdup("the answer holds no valid session");
	else
		failure->message = psprintf("HTTP status %d", response->status);
	failure->hint = failure_hint(credentials, response, &error);
	MemoryContextSwitchTo(caller);
}

static void
assume_role_done(HttpRequest *request, const HttpResponse *response)
{
	Credentials *credentials = request->arg;

	credentials->renewing = false;
	if (credentials->renewed != NULL)
	{
		if (credentials->session != NULL)
			MemoryContextDelete(credentials->session->context);
		credentials->session = credentials->renewed;
		credentials->renewed = NULL;
		credentials->failures = 0;
		return;
	}

	record_failure(credentials, response);
	if (!session_is_good(credentials->session))
	{
		credentials->failed = true;
		return;
	}
	credentials->failures++;
	credentials->renew_after =
		time(NULL) + Min(RENEWAL_PAUSE << Min(credentials->failures - 1, 4), MAX_RENEWAL_PAUSE);
	ereport(LOG, (errmsg("could not renew the session of role \"%s\": %s", credentials->role_arn,
						 credentials->failure.message),
				  errdetail("The session in use is good for another %ld seconds.",
							(long) (credentials->session->until - time(NULL)))));
}


/* ----------------------------------------------------------------
 * For those who sign
 * ----------------------------------------------------------------
 */

static void
start_renewal(Credentials *credentials)
{
	HttpRequest *request = &credentials->request;

	credentials->renewing = true;
	credentials->clock_corrected = false;
	build_assume_role(credentials);
	request->method = "POST";
	request->timeout = guc_request_timeout;
	request->prepare = assume_role_prepare;
	request->judge = assume_role_judge;
	request->done = assume_role_done;
	request->arg = credentials;
	http_submit(credentials->http, request);
}

const SigV4Credentials *
credentials_current(Credentials *credentials, const CredentialFailure **failure)
{
	Session *session = credentials->session;
	time_t   now = time(NULL);

	*failure = NULL;
	if (credentials->role_arn == NULL)
		return &credentials->base;

	if (session_is_good(session))
	{
		time_t length = session->until - session->since;
		time_t left = session->until - now;

		if (left <= Min(ADVISORY_SECONDS, length / 4) && !credentials->renewing &&
			now >= credentials->renew_after)
			start_renewal(credentials);
		/* Late, a first renewal is waited for; one that fails costs no more time. */
		if (left <= Min(MANDATORY_SECONDS, length / 10) && credentials->renewing &&
			credentials->failures == 0)
			return NULL;
		return &session->keys;
	}

	if (credentials->failed)
		*failure = &credentials->failure;
	else if (!credentials->renewing)
		start_renewal(credentials);
	return NULL;
}

bool
credentials_expired(Credentials *credentials)
{
	Session *session = credentials->session;

	if (credentials->role_arn == NULL)
		return false;
	if (session != NULL && time(NULL) - session->since >= YOUNG_SESSION)
		session->until = session->since;
	return true;
}

const char *
credentials_assumed_arn(Credentials *credentials)
{
	return credentials->session != NULL ? credentials->session->assumed_arn : NULL;
}


/* ----------------------------------------------------------------
 * Opening
 * ----------------------------------------------------------------
 */

static char *
copy(const char *value)
{
	return value != NULL ? pstrdup(value) : NULL;
}

static void
open_secret(Credentials *credentials, const CredentialConfig *config)
{
	Secret *secret;

	if (config->access_key_id == NULL || config->sealed == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 config->role_arn != NULL
					 ? errmsg("the keys that assume role \"%s\" are missing", config->role_arn)
					 : errmsg("the connector's credentials are missing"),
				 config->role_arn != NULL ? errhint("Set them with s3export.set_identity.")
										  : errhint("Set them with s3export.set_credentials.")));
	secret = secret_open(credentials->context, config->sealed, config->credential_id);
	credentials->base.access_key_id = pstrdup(config->access_key_id);
	credentials->base.secret_access_key = secret->secret;
	credentials->base.session_token = secret->token;
}

static void
open_sts(Credentials *credentials, const CredentialConfig *config)
{
	NamesEndpoint endpoint;
	const char   *wrong;

	credentials->sts_region = pstrdup(config->region != NULL ? config->region : DEFAULT_REGION);
	credentials->request.addresses =
		config->sts_endpoint_url != NULL ? ADDRESS_LOCAL : ADDRESS_REMOTE;
	if (config->sts_endpoint_url == NULL)
	{
		/* The global endpoint's sessions are not valid in every region. */
		credentials->sts_host = psprintf("sts.%s.%s", credentials->sts_region,
										 names_region_suffix(credentials->sts_region));
		credentials->sts_url = psprintf("https://%s/", credentials->sts_host);
		return;
	}
	wrong = names_parse_endpoint(config->sts_endpoint_url, &endpoint);
	if (wrong != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid STS endpoint \"%s\"", config->sts_endpoint_url),
						errdetail("%s", wrong)));
	credentials->sts_host =
		endpoint.port == 0 ? endpoint.host : psprintf("%s:%d", endpoint.host, endpoint.port);
	credentials->sts_url = psprintf("%s/", endpoint.url);
}

Credentials *
credentials_open(HttpClient *http, const CredentialConfig *config, const char *session_name,
				 const char *policy)
{
	Credentials *credentials = palloc0(sizeof(Credentials));

	credentials->context = CurrentMemoryContext;
	credentials->http = http;
	credentials->duration = SESSION_SECONDS;
	open_secret(credentials, config);
	if (config->role_arn == NULL)
		return credentials;

	credentials->role_arn = pstrdup(config->role_arn);
	credentials->external_id = copy(config->external_id);
	credentials->session_name = pstrdup(session_name);
	credentials->policy = copy(policy);
	credentials->scratch =
		AllocSetContextCreate(CurrentMemoryContext, "s3export STS call", ALLOCSET_SMALL_SIZES);
	initStringInfo(&credentials->body);
	open_sts(credentials, config);
	return credentials;
}
