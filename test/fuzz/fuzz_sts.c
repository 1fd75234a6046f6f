/*-------------------------------------------------------------------------
 *
 * fuzz_sts.c
 *	  Answers of STS (sts.c, aws_session.c): a session has keys that fit into headers,
 *	  and an end; what is told of a failure is one line of ASCII.
 *
 *-------------------------------------------------------------------------
 */
#include "answer.h"

#include "aws/sts.c"

#define ATTEMPTS 12
#define MAX_TEXT 4096

static StsRole role = {.role_arn = "arn:aws:iam::111122223333:role/exporter",
					   .session_name = "s3export-1",
					   .external_id = "s3export-0123"};

static void
check_text(const char *text, bool needed)
{
	FUZZ_CHECK(text != NULL || !needed);
	FUZZ_CHECK(text == NULL || (fuzz_is_printable(text) && strlen(text) < MAX_TEXT));
}

/* What aws_session.h says of it. */
static void
check_session(const Session *session)
{
	FUZZ_CHECK(aws_names_check_access_key_id(session->keys.access_key_id) == NULL);
	FUZZ_CHECK(aws_names_check_secret(session->keys.secret_access_key) == NULL);
	FUZZ_CHECK(aws_names_check_session_token(session->keys.session_token) == NULL);
	FUZZ_CHECK(session->until > session->since);
	check_text(session->arn, false);
}

static void
check_outcome(void *arg pg_attribute_unused(), Session *session, const CredentialFailure *failure)
{
	if (session != NULL)
	{
		check_session(session);
		aws_session_free(session);
		return;
	}
	check_text(failure->service, true);
	check_text(failure->action, true);
	check_text(failure->message, true);
	check_text(failure->code, false);
	check_text(failure->request_id, false);
	check_text(failure->hint, false);
}

static void
set_up(StsCall *call, Sts *sts, const char *action, bool is_signed)
{
	call->sts = sts;
	call->action = action;
	call->scratch = AllocSetContextCreate(CurrentMemoryContext, "scratch", ALLOCSET_SMALL_SIZES);
	call->hint = no_hint;
	call->finish = no_finish;
	call->access_key_id = is_signed ? "ASIAIOSFODNN7EXAMPLE" : NULL;
	call->request.arg = call;
	initStringInfo(&call->body);
}

/* Judges the one answer as often as it is asked for. */
static void
ask(StsCall *call, HttpResponse *response)
{
	HttpVerdict verdict = HTTP_RETRY;
	int         corrections = 0;

	for (int attempt = 1; attempt <= ATTEMPTS && verdict != HTTP_DONE; attempt++)
	{
		response->attempts = attempt;
		verdict = call_judge(&call->request, response);
		FUZZ_CHECK(!call->taken || verdict == HTTP_DONE);
		corrections += (verdict == HTTP_RETRY_NOW);
	}
	FUZZ_CHECK(corrections <= 3);
	FUZZ_CHECK(!call->taken || response->status == 200);
	call_done(&call->request, response);
}

static void
ask_for_session(Sts *sts, HttpResponse *response, bool web)
{
	RoleSource *source = palloc0(sizeof(RoleSource));

	set_up(&source->call, sts, web ? "sts:AssumeRoleWithWebIdentity" : "sts:AssumeRole", !web);
	source->source.context = CurrentMemoryContext;
	source->source.done = check_outcome;
	source->role = role;
	source->token_file = web ? "/nonexistent/token" : NULL;
	source->call.take = take_session;
	source->call.finish = role_finish;
	source->call.hint = role_hint;
	source->call.duration = SESSION_SECONDS;
	ask(&source->call, response);
}

static void
ask_who_we_are(Sts *sts, HttpResponse *response)
{
	IdentityCall *identity = palloc0(sizeof(IdentityCall));

	set_up(&identity->call, sts, "sts:GetCallerIdentity", true);
	identity->call.take = take_identity;
	ask(&identity->call, response);
	check_text(identity->account, identity->call.taken);
	check_text(identity->arn, identity->call.taken);
	if (!identity->call.taken)
		check_outcome(NULL, NULL, &identity->call.failure);
}

void
fuzz_one(FuzzInput *input)
{
	Sts          *sts = palloc0(sizeof(Sts));
	uint8         flags = fuzz_byte(input);
	HttpResponse *response = answer_read(input, (flags & 4) != 0);

	sts->http = answer_client();
	sts->region = "eu-west-1";
	sts->url = "https://sts.eu-west-1.amazonaws.com/";
	if ((flags & 3) == 0)
		ask_who_we_are(sts, response);
	else
		ask_for_session(sts, response, (flags & 1) != 0);
}
