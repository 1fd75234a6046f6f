/*-------------------------------------------------------------------------
 *
 * credentials.c
 *	  Where the keys that sign requests come from, and how they are renewed.
 *
 * Renewal goes through the same HttpClient as the transfers, which go on
 * meanwhile.  A session is renewed well before its end, and used to its end
 * when that fails: STS may be out of order while S3 is not.
 *
 * Keys may be signed for by other keys, up to a role that is assumed with the
 * session of a role of a profile that is assumed with the keys of another.
 * Each of them lives by itself, and is asked for by whoever signs with it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "utils/memutils.h"

#include "aws/ambient_credentials.h"
#include "aws/credentials.h"
#include "aws/instance_metadata.h"
#include "aws/sts.h"
#include "base/guc.h"
#include "base/secret.h"

/*
 * Renewal is tried in the last quarter, and waited for in the last tenth.  The
 * clocks count whole seconds, so the shortest sessions get one or two of them.
 */
#define ADVISORY_SECONDS (15 * 60)
#define MANDATORY_SECONDS (5 * 60)
#define LEAST_ADVISORY_SECONDS 2
#define LEAST_MANDATORY_SECONDS 1

/* Between renewals that fail while the old session is good. */
#define RENEWAL_PAUSE 10     /* s */
#define MAX_RENEWAL_PAUSE 60 /* s */

#define YOUNG_SESSION 60 /* s */

/* Keys and their life. */
typedef struct Keys
{
	SessionSource *source;  /* NULL: the session there is has no end */
	Session       *session; /* NULL: none yet */

	bool                     renewing;
	bool                     superseded; /* what signs the renewal that is under way */
	int                      failures;   /* of renewals, in a row */
	time_t                   renew_after;
	const CredentialFailure *failure; /* they cannot be had; NULL: they can */
} Keys;

struct Credentials
{
	MemoryContext context;
	HttpClient   *http;
	Sts          *sts;
	Keys         *base;
	Keys         *role; /* NULL: "base" is all there is */
};


/* ----------------------------------------------------------------
 * The life of keys
 * ----------------------------------------------------------------
 */

static bool
session_is_good(const Session *session)
{
	return session != NULL && time(NULL) < session->until;
}

static void
log_failed_renewal(const Keys *keys, const CredentialFailure *failure)
{
	ereport(LOG, (errmsg("could not renew %s: %s", keys->source->what, failure->message),
				  errdetail("Those in use are good for another %ld seconds.",
							(long) (keys->session->until - time(NULL)))));
}

/*
 * A session that could not be renewed serves until its end; the pauses between attempts double.
 * The failure counts only when there is no good session any more.
 */
static void
keys_renewed(void *arg, Session *session, const CredentialFailure *failure)
{
	Keys *keys = arg;
	bool  superseded = keys->superseded;

	keys->renewing = keys->superseded = false;
	if (session != NULL)
	{
		if (keys->session != NULL)
			aws_session_free(keys->session);
		keys->session = session;
		keys->failures = 0;
		return;
	}
	/* It was not the present keys that failed. */
	if (superseded)
		return;
	if (!session_is_good(keys->session))
	{
		keys->failure = failure;
		return;
	}
	keys->renew_after =
		time(NULL) + Min(RENEWAL_PAUSE << Min(keys->failures, 4), MAX_RENEWAL_PAUSE);
	keys->failures++;
	log_failed_renewal(keys, failure);
}

static void
start_renewal(Keys *keys)
{
	SessionSource *source = keys->source;

	keys->renewing = true;
	source->brief = session_is_good(keys->session);
	source->done = keys_renewed;
	source->arg = keys;
	source->fetch(source);
}

/* Answers as credentials_current does. */
static const SigV4Credentials *
keys_current(Keys *keys, const CredentialFailure **failure)
{
	Session *session = keys->session;
	time_t   now = time(NULL);
	time_t   length;
	time_t   left;

	*failure = NULL;
	if (keys->source == NULL)
		return &session->keys;
	if (!session_is_good(session))
	{
		*failure = keys->failure;
		if (keys->failure == NULL && !keys->renewing)
			start_renewal(keys);
		return NULL;
	}

	length = session->until - session->since;
	left = session->until - now;
	if (left <= Max(Min(ADVISORY_SECONDS, length / 4), LEAST_ADVISORY_SECONDS) && !keys->renewing &&
		now > session->since && now >= keys->renew_after)
		start_renewal(keys);
	/* Late, a first renewal is waited for; one that fails costs no more time. */
	if (left <= Max(Min(MANDATORY_SECONDS, length / 10), LEAST_MANDATORY_SECONDS) &&
		keys->renewing && keys->failures == 0)
		return NULL;
	return &session->keys;
}

static bool
keys_expired(Keys *keys)
{
	Session *session = keys->session;

	if (keys->source == NULL)
		return false;
	if (session != NULL &&
		time(NULL) - session->since >= Min(YOUNG_SESSION, (session->until - session->since) / 2))
		session->until = session->since;
	return true;
}

/* As an StsSigner has it. */
static const SigV4Credentials *
signing_keys(void *arg, const CredentialFailure **failure)
{
	return keys_current(arg, failure);
}

static const SigV4Credentials *
signing_base(void *arg, const CredentialFailure **failure)
{
	return keys_current(((Credentials *) arg)->base, failure);
}


/* ----------------------------------------------------------------
 * Opening
 * ----------------------------------------------------------------
 */

static Keys *
keys_of_source(SessionSource *source)
{
	Keys *keys = palloc0(sizeof(Keys));

	keys->source = source;
	return keys;
}

/* NULL when they are malformed. */
static Keys *
keys_without_end(const SigV4Credentials *values)
{
	Keys *keys = palloc0(sizeof(Keys));

	keys->session = aws_session_create(CurrentMemoryContext, values, NULL);
	return keys->session != NULL ? keys : NULL;
}

/* The opened secret has a memory context of its own, which wipes it when it goes. */
static Keys *
open_stored(const CredentialConfig *config)
{
	MemoryContext    context;
	Secret          *secret;
	SigV4Credentials values;
	Keys            *keys;

	if (config->access_key_id == NULL || config->sealed == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 config->role_arn != NULL
					 ? errmsg("the keys that assume role \"%s\" are missing", config->role_arn)
					 : errmsg("the connector's credentials are missing"),
				 config->role_arn != NULL ? errhint("Set them with s3export.set_identity.")
										  : errhint("Set them with s3export.set_credentials.")));
	context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export opened secret", ALLOCSET_SMALL_SIZES);
	secret = secret_open(context, config->sealed, config->credential_id);
	values = (SigV4Credentials){config->access_key_id, secret->secret, secret->token};
	keys = keys_without_end(&values);
	MemoryContextDelete(context);
	if (keys == NULL)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("stored credentials are malformed"),
						errhint("Set them again.")));
	return keys;
}

static void
refuse_ambient(const Ambient *ambient, const char *wrong)
{
	ereport(ERROR, (errcode(ERRCODE_CONFIG_FILE_ERROR),
					errmsg("cannot use the ambient credentials in %s", ambient->found_in),
					errdetail("%s", wrong)));
}

static StsRole
role_of_profile(const AmbientRole *role, const char *session_name)
{
	return (StsRole){
		.role_arn = role->role_arn,
		.session_name = role->session_name != NULL ? role->session_name : session_name,
		.external_id = role->external_id,
		.duration = role->duration,
	};
}

static Keys *
open_ambient_keys(const Ambient *ambient)
{
	Keys *keys = keys_without_end(&ambient->keys);

	if (keys == NULL)
		refuse_ambient(ambient, "The keys have spaces, or characters that are not allowed.");
	return keys;
}

/*
 * Keys that expire come from a source that fetches them again: a web identity, a container or an
 * instance.
 */
static Keys *
open_ambient_source(HttpClient *http, Sts *sts, const Ambient *ambient, const char *session_name)
{
	SessionSource *source;
	const char    *wrong = NULL;
	StsRole        role;

	if (ambient->kind == AMBIENT_WEB_IDENTITY)
	{
		role = role_of_profile(&ambient->web_identity, session_name);
		source = sts_assume_role_with_web_identity(sts, &role, ambient->token_file);
	}
	else if (ambient->kind == AMBIENT_CONTAINER)
		source = instance_metadata_of_container(http, ambient->url, ambient->token_file,
												ambient->token, &wrong);
	else
		source = instance_metadata_of_instance(http, ambient->url, &wrong);
	if (wrong != NULL)
		refuse_ambient(ambient, wrong);
	return keys_of_source(source);
}

/*
 * The STS that ambient credentials are shown to is for the server's owner to
 * choose, and not for that of a connector: a token of web identity is all that
 * it takes to be us.
 */
static Keys *
open_ambient(HttpClient *http, const CredentialConfig *config, const char *session_name)
{
	Ambient  *ambient;
	Sts      *sts;
	StsRole   role;
	StsSigner signer = {.keys = signing_keys};
	Keys     *keys;

	if (!guc_allow_ambient_credentials)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("ambient credentials are not allowed"),
						errhint("The server's administrator can allow them with the setting "
								"\"%s\".",
								"s3export.allow_ambient_credentials")));
	ambient = ambient_credentials_find();
	sts = sts_open(http, ambient->sts_endpoint_url,
				   ambient->region != NULL ? ambient->region : config->region);
	if (ambient->kind == AMBIENT_KEYS)
		keys = open_ambient_keys(ambient);
	else
		keys = open_ambient_source(http, sts, ambient, session_name);
	ambient_credentials_wipe(ambient);
	if (ambient->role.role_arn == NULL)
		return keys;

	role = role_of_profile(&ambient->role, session_name);
	signer.arg = keys;
	return keys_of_source(sts_assume_role(sts, &role, &signer));
}

static Keys *
open_base(HttpClient *http, const CredentialConfig *config, const char *session_name)
{
	return config->ambient ? open_ambient(http, config, session_name) : open_stored(config);
}

static char *
copy_string(const char *value)
{
	return value != NULL ? pstrdup(value) : NULL;
}

#define DEFAULT_SESSION_NAME "s3export"

Credentials *
credentials_open(HttpClient *http, const CredentialConfig *config, const char *session_name,
				 const char *policy)
{
	Credentials *credentials = palloc0(sizeof(Credentials));
	StsSigner    signer = {.keys = signing_base, .arg = credentials};
	StsRole      role = {
			 .role_arn = copy_string(config->role_arn),
			 .session_name = pstrdup(session_name != NULL ? session_name : DEFAULT_SESSION_NAME),
			 .external_id = copy_string(config->external_id),
			 .policy = copy_string(policy),
    };

	credentials->context = CurrentMemoryContext;
	credentials->http = http;
	credentials->base = open_base(http, config, role.session_name);
	credentials->sts = sts_open(http, config->sts_endpoint_url, config->region);
	if (role.role_arn != NULL)
		credentials->role = keys_of_source(sts_assume_role(credentials->sts, &role, &signer));
	return credentials;
}


/* ----------------------------------------------------------------
 * For those who sign
 * ----------------------------------------------------------------
 */

/* Those that sign S3's requests. */
static Keys *
last_keys(const Credentials *credentials)
{
	return credentials->role != NULL ? credentials->role : credentials->base;
}

const SigV4Credentials *
credentials_current(Credentials *credentials, const CredentialFailure **failure)
{
	return keys_current(last_keys(credentials), failure);
}

bool
credentials_expired(Credentials *credentials)
{
	return keys_expired(last_keys(credentials));
}

const char *
credentials_assumed_arn(Credentials *credentials)
{
	const Session *session = last_keys(credentials)->session;

	return session != NULL ? session->arn : NULL;
}

bool
credentials_caller_identity(Credentials *credentials, char **account, char **arn,
							const CredentialFailure **failure)
{
	StsSigner signer = {.keys = signing_base, .arg = credentials};

	return sts_caller_identity(credentials->sts, &signer, account, arn, failure);
}

void
credentials_replace(Credentials *credentials, const CredentialConfig *config)
{
	MemoryContext caller = MemoryContextSwitchTo(credentials->context);
	Keys         *old = credentials->base;
	Keys         *role = credentials->role;

	credentials->base = open_base(credentials->http, config, DEFAULT_SESSION_NAME);
	MemoryContextSwitchTo(caller);
	/* A session's source may still have a request under way. */
	if (old->source == NULL)
		aws_session_free(old->session);
	if (role == NULL)
		return;
	role->superseded = role->renewing;
	role->failure = NULL;
	role->failures = 0;
	role->renew_after = 0;
}
