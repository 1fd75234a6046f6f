/*-------------------------------------------------------------------------
 *
 * instance_metadata.c
 *	  Sessions that the machine hands out: to containers, to EC2 instances.
 *
 * These services answer at once or not at all, and on a machine that has none
 * nobody answers, so attempts are short, and few.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "aws/aws_names.h"
#include "aws/instance_metadata.h"
#include "base/json_text.h"
#include "base/secret.h"
#include "base/text_file.h"

#define TIMEOUT 2000 /* ms, for one attempt */
#define MAX_TOKEN_FILE 16384

/* https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html */
#define TOKEN_PATH "/latest/api/token"
#define TOKEN_SECONDS "21600"
#define ROLE_PATH "/latest/meta-data/iam/security-credentials/"
#define MAX_ROLE_NAME 64

/* Where a fetch stands; a container's has the last step only. */
typedef enum Step
{
	GET_TOKEN,
	GET_ROLE,
	GET_KEYS
} Step;

typedef struct MetadataSource
{
	SessionSource source; /* first */
	HttpClient   *http;
	const char   *service; /* in words */
	char         *origin;  /* "http://169.254.169.254" */
	char         *path;    /* of a container's credentials; may be a secret */
	const char   *token_file;
	const char   *token; /* a container's; NULL: none */

	Step          step;
	HttpRequest   request;
	MemoryContext scratch; /* of one fetch; holds the next two */
	char         *instance_token;
	char         *role;
	Session      *session; /* what the answer held */
	bool          over;    /* a session that has ended */

	CredentialFailure failure;
} MetadataSource;


/* ----------------------------------------------------------------
 * The request
 * ----------------------------------------------------------------
 */

static bool
is_instance(const MetadataSource *source)
{
	return source->path == NULL;
}

/* Is it fit for a header? */
static bool
is_printable(const char *value)
{
	for (; *value != '\0'; value++)
		if (*value < ' ' || *value > '~')
			return false;
	return true;
}

/* False with *reason: there should be one. */
static bool
add_authorization(MetadataSource *source, HttpAttempt *attempt, const char **reason)
{
	char       *from_file = NULL;
	const char *token = source->token;
	bool        right;

	if (source->token_file != NULL)
	{
		from_file = text_file_read(source->token_file, MAX_TOKEN_FILE);
		if (from_file == NULL)
		{
			*reason = psprintf("the authorization token in file \"%s\" could not be read: %s",
							   source->token_file, strerror(errno));
			return false;
		}
		from_file[strcspn(from_file, "\r\n")] = '\0';
		token = from_file;
	}
	if (token == NULL)
		return true;
	right = is_printable(token);
	if (right)
		appendStringInfo(&attempt->headers, "authorization: %s\n", token);
	else
		*reason = "the container's authorization token has characters that are not allowed";
	text_file_free(from_file);
	return right;
}

/*
 * An instance is asked three times: for a token, for the name of its role, for the keys.  A
 * container answers at once.
 */
static HttpReadiness
prepare_request(HttpRequest *request, HttpAttempt *attempt, const char **reason)
{
	MetadataSource *source = request->arg;
	MemoryContext   caller = MemoryContextSwitchTo(source->scratch);
	HttpReadiness   readiness = HTTP_SEND;

	appendStringInfoString(&attempt->url, source->origin);
	if (!is_instance(source))
	{
		appendStringInfoString(&attempt->url, source->path);
		if (!add_authorization(source, attempt, reason))
			readiness = HTTP_GIVE_UP;
	}
	else if (source->step == GET_TOKEN)
	{
		appendStringInfoString(&attempt->url, TOKEN_PATH);
		appendStringInfoString(&attempt->headers,
							   "x-aws-ec2-metadata-token-ttl-seconds: " TOKEN_SECONDS "\n");
	}
	else
	{
		appendStringInfoString(&attempt->url, ROLE_PATH);
		if (source->step == GET_KEYS)
			sigv4_uri_encode(&attempt->url, source->role, false);
		appendStringInfo(&attempt->headers, "x-aws-ec2-metadata-token: %s\n",
						 source->instance_token);
	}
	MemoryContextSwitchTo(caller);
	return readiness;
}


/* ----------------------------------------------------------------
 * The answer
 * ----------------------------------------------------------------
 */

/* A code, which only an instance's answer has, may tell a failure with status 200. */
static bool
take_keys(MetadataSource *source, const HttpResponse *response)
{
	const char *json = response->body;
	size_t      len = response->body_len;
	char       *code = json_text_find(json, len, "Code");
	char       *expiration = json_text_find(json, len, "Expiration");
	char       *secret = json_text_find(json, len, "SecretAccessKey");
	char       *token = json_text_find(json, len, "Token");
	time_t      server_now = http_date(response);

	SigV4Credentials keys = {
		.access_key_id = json_text_find(json, len, "AccessKeyId"),
		.secret_access_key = secret,
		.session_token = token,
	};

	if (token != NULL && (code == NULL || strcmp(code, "Success") == 0))
		source->session = aws_session_create(source->source.context, &keys, NULL);
	secret_wipe(secret);
	secret_wipe(token);
	if (source->session == NULL)
		return false;
	if (aws_session_set_end(source->session, expiration,
							server_now != 0 ? server_now : http_now(source->http)))
		return true;
	aws_session_free(source->session);
	source->session = NULL;
	source->over = true;
	return false;
}

static bool
take_token(MetadataSource *source, const HttpResponse *response)
{
	if (aws_names_check_session_token(response->body) != NULL)
		return false;
	source->instance_token = secret_strdup(source->scratch, response->body);
	return true;
}

/* The first of the lines, of which there has been one so far. */
static bool
take_role(MetadataSource *source, const HttpResponse *response)
{
	size_t len = strcspn(response->body, "\r\n");

	char *role;

	if (len == 0 || len > MAX_ROLE_NAME)
		return false;
	role = pnstrdup(response->body, len);
	if (!is_printable(role) || strpbrk(role, " /<>\"{}") != NULL)
		return false;
	source->role = role;
	return true;
}

static bool
take_answer(MetadataSource *source, const HttpResponse *response)
{
	switch (source->step)
	{
		case GET_TOKEN:
			return take_token(source, response);
		case GET_ROLE:
			return take_role(source, response);
		default:
			return take_keys(source, response);
	}
}

/*
 * A session that has expired already is asked for again, since the service may renew it late.
 */
static HttpVerdict
judge_answer(HttpRequest *request, const HttpResponse *response)
{
	MetadataSource *source = request->arg;
	MemoryContext   caller;
	bool            taken = false;

	source->over = false;
	if (response->status == 200 && !response->truncated)
	{
		caller = MemoryContextSwitchTo(source->scratch);
		taken = take_answer(source, response);
		MemoryContextSwitchTo(caller);
	}
	if (taken || response->transport_final)
		return HTTP_DONE;
	/* The next one may be late; without one there is nothing to do but wait for it. */
	if (source->over && !source->source.brief)
		return HTTP_RETRY;
	if (response->attempts >= SESSION_BRIEF_ATTEMPTS)
		return HTTP_DONE;
	/* What is refused or is not there will not be there in a second either. */
	return response->status >= 300 && response->status < 500 && response->status != 429
			   ? HTTP_DONE
			   : HTTP_RETRY;
}


/* ----------------------------------------------------------------
 * Why it failed
 * ----------------------------------------------------------------
 */

static char *
instance_hint(const MetadataSource *source, const HttpResponse *response)
{
	if (response->status == 0)
		return pstrdup(
			"If this server does not run on EC2, set AWS_EC2_METADATA_DISABLED=true in its "
			"environment, and give it other ambient credentials. If it runs in a container on EC2, "
			"the instance's metadata options have to allow a hop limit of 2.");
	if (source->step == GET_TOKEN)
		return pstrdup("Version 2 of the instance metadata service has to be enabled; version 1 is "
					   "not used.");
	if (response->status == 404)
		return pstrdup("Attach an instance profile with an IAM role to the instance.");
	return psprintf("Check the IAM role of the instance, and that \"%s\" is its metadata service.",
					source->origin);
}

static char *
container_hint(const MetadataSource *source, const HttpResponse *response)
{
	if (response->status == 0 && response->attempts > 0)
		return psprintf("Check that \"%s\" can be reached from this server.", source->origin);
	if (response->status == 0 || response->status == 401 || response->status == 403)
		return pstrdup("Check AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE or "
					   "AWS_CONTAINER_AUTHORIZATION_TOKEN in the server's environment.");
	return psprintf("Check the IAM role of the container, and that \"%s\" is where its "
					"credentials are.",
					source->origin);
}

static char *
error_member(const HttpResponse *response, const char *name, const char *other_name)
{
	char *text = json_text_find(response->body, response->body_len, name);

	if (text == NULL)
		text = json_text_find(response->body, response->body_len, other_name);
	return text != NULL && text[0] != '\0' ? aws_session_clean_text(text) : NULL;
}

/*
 * The service answers with status 200 also when it has no keys: then the member "Code" says why.
 */
static void
record_failure(MetadataSource *source, const HttpResponse *response)
{
	CredentialFailure *failure = &source->failure;
	MemoryContext      caller = MemoryContextSwitchTo(source->scratch);

	memset(failure, 0, sizeof(*failure));
	failure->service = source->service;
	failure->action = "the request for credentials";
	failure->status = response->status;
	failure->attempts = response->attempts;
	failure->code = error_member(response, "Code", "code");
	if (failure->code != NULL && strcmp(failure->code, "Success") == 0)
		failure->code = NULL;
	if (failure->code != NULL && is_instance(source) && response->status == 200)
		failure->refusal = refusal_of(REFUSING_INSTANCE, failure->code);
	failure->message = error_member(response, "Message", "message");
	if (response->status == 0)
		failure->message = aws_session_clean_text(response->transport_error);
	else if (failure->message == NULL && response->status == 200)
		failure->message = "the answer holds no valid credentials";
	else if (failure->message == NULL)
		failure->message = psprintf("HTTP status %d", response->status);
	if (is_instance(source))
		failure->hint = instance_hint(source, response);
	else
		failure->hint = container_hint(source, response);
	MemoryContextSwitchTo(caller);
}

/* Is there what the step was to bring? */
static bool
step_succeeded(const MetadataSource *source)
{
	switch (source->step)
	{
		case GET_TOKEN:
			return source->instance_token != NULL;
		case GET_ROLE:
			return source->role != NULL;
		default:
			return source->session != NULL;
	}
}

static void begin_step(MetadataSource *source, Step step);

static void
step_done(HttpRequest *request, const HttpResponse *response)
{
	MetadataSource *source = request->arg;

	if (!step_succeeded(source))
		record_failure(source, response);
	else if (source->step != GET_KEYS)
	{
		begin_step(source, source->step + 1);
		return;
	}
	source->source.done(source->source.arg, source->session, &source->failure);
}

static void
begin_step(MetadataSource *source, Step step)
{
	source->step = step;
	source->request.method = step == GET_TOKEN ? "PUT" : "GET";
	http_submit(source->http, &source->request);
}

static void
fetch_session(SessionSource *session_source)
{
	MetadataSource *source = (MetadataSource *) session_source;

	MemoryContextReset(source->scratch);
	source->instance_token = source->role = NULL;
	source->session = NULL;
	begin_step(source, is_instance(source) ? GET_TOKEN : GET_KEYS);
}


/* ----------------------------------------------------------------
 * Opening
 * ----------------------------------------------------------------
 */

/* What the steps allocate is in the scratch context, which each fetch empties. */
static MetadataSource *
make_source(HttpClient *http, const char *service, const char *what, const char *origin)
{
	MetadataSource *source = palloc0(sizeof(MetadataSource));

	source->source.context = CurrentMemoryContext;
	source->source.what = what;
	source->source.fetch = fetch_session;
	source->http = http;
	source->service = service;
	source->origin = pstrdup(origin);
	source->scratch = AllocSetContextCreate(CurrentMemoryContext, "s3export metadata request",
											ALLOCSET_SMALL_SIZES);
	source->request = (HttpRequest){
		.timeout = TIMEOUT,
		.direct = true,
		.prepare = prepare_request,
		.judge = judge_answer,
		.done = step_done,
		.arg = source,
	};
	return source;
}

SessionSource *
instance_metadata_of_container(HttpClient *http, const char *url, const char *token_file,
							   const char *token, const char **wrong)
{
	const char     *host = strstr(url, "://");
	int             origin_len;
	NamesEndpoint   endpoint;
	MetadataSource *source;

	origin_len = host != NULL ? (int) (host + 3 - url + strcspn(host + 3, "/?#")) : 0;
	*wrong = aws_names_parse_endpoint(pnstrdup(url, origin_len), &endpoint);
	if (*wrong == NULL && (!is_printable(url) || strpbrk(url, " #") != NULL))
		*wrong = "A URL has no spaces, no fragment and only ASCII characters.";
	if (*wrong != NULL)
		return NULL;

	source = make_source(http, "The container's credentials service",
						 "the credentials of the container", endpoint.url);
	source->path =
		pstrdup(url[origin_len] == '/' ? url + origin_len : psprintf("/%s", url + origin_len));
	source->token_file = token_file != NULL ? pstrdup(token_file) : NULL;
	source->token = token != NULL ? secret_strdup(CurrentMemoryContext, token) : NULL;
	/* A certificate says as much about who is there as the address does. */
	source->request.addresses = endpoint.https ? ADDRESS_LOCAL : ADDRESS_CONTAINER;
	return &source->source;
}

SessionSource *
instance_metadata_of_instance(HttpClient *http, const char *endpoint_url, const char **wrong)
{
	NamesEndpoint   endpoint;
	MetadataSource *source;

	*wrong = aws_names_parse_endpoint(endpoint_url, &endpoint);
	if (*wrong != NULL)
		return NULL;
	source = make_source(http, "The instance metadata service", "the credentials of the instance",
						 endpoint.url);
	source->request.addresses = ADDRESS_INSTANCE;
	return &source->source;
}
