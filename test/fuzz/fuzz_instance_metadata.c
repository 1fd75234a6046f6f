/*-------------------------------------------------------------------------
 *
 * fuzz_instance_metadata.c
 *	  Answers of the metadata services (instance_metadata.c, aws_session.c): what of them goes
 *	  into the next request fits into a header and a URL.
 *
 *-------------------------------------------------------------------------
 */
#include "answer.h"

#include "aws/instance_metadata.c"

#define MAX_TEXT 4096

static void
check_text(const char *text)
{
	FUZZ_CHECK(text == NULL || (fuzz_is_printable(text) && strlen(text) < MAX_TEXT));
}

static void
check_session(const Session *session)
{
	FUZZ_CHECK(aws_names_check_access_key_id(session->keys.access_key_id) == NULL);
	FUZZ_CHECK(aws_names_check_secret(session->keys.secret_access_key) == NULL);
	FUZZ_CHECK(aws_names_check_session_token(session->keys.session_token) == NULL);
	FUZZ_CHECK(session->until > session->since);
}

/* The headers and the URL that follow from it are one line each. */
static void
check_next_request(MetadataSource *source)
{
	HttpAttempt attempt;
	const char *reason = NULL;
	char       *line_end;

	initStringInfo(&attempt.url);
	initStringInfo(&attempt.headers);
	source->step = GET_KEYS;
	if (source->role == NULL)
		source->role = "exporter";
	if (source->instance_token == NULL)
		source->instance_token = "token";
	FUZZ_CHECK(prepare_request(&source->request, &attempt, &reason) == HTTP_SEND);
	line_end = strchr(attempt.headers.data, '\n');
	FUZZ_CHECK(line_end != NULL && line_end[1] == '\0');
	*line_end = '\0';
	FUZZ_CHECK(fuzz_is_printable(attempt.headers.data));
	FUZZ_CHECK(fuzz_is_printable(attempt.url.data) && strpbrk(attempt.url.data, " ?#") == NULL);
}

void
fuzz_one(FuzzInput *input)
{
	MetadataSource *source = palloc0(sizeof(MetadataSource));
	uint8           flags = fuzz_byte(input);
	HttpResponse   *response = answer_read(input, (flags & 4) != 0);
	HttpVerdict     verdict;

	source->http = answer_client();
	source->service = "The instance metadata service";
	source->origin = "http://169.254.169.254";
	source->source.context = CurrentMemoryContext;
	source->source.brief = (flags & 8) != 0;
	source->scratch = AllocSetContextCreate(CurrentMemoryContext, "scratch", ALLOCSET_SMALL_SIZES);
	source->step = (flags & 3) % (GET_KEYS + 1);
	source->request.arg = source;
	response->attempts = 1;

	verdict = judge_answer(&source->request, response);
	if (step_succeeded(source))
	{
		FUZZ_CHECK(verdict == HTTP_DONE && response->status == 200 && !response->truncated);
		if (source->session != NULL)
			check_session(source->session);
		check_next_request(source);
		return;
	}
	record_failure(source, response);
	check_text(source->failure.code);
	check_text(source->failure.message);
	check_text(source->failure.hint);
	FUZZ_CHECK(source->failure.message != NULL);
}
