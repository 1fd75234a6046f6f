/*-------------------------------------------------------------------------
 *
 * answer.c
 *	  Answers of a hostile server, as http_wire.c hands them on.
 *
 * What libcurl does with the bytes before it calls back is done here in a few
 * lines: it tells lines apart, and takes no NUL in any of them.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http_wire.c"

#include "answer.h"

#define CLIENT_SIZE 4096

/* The names that http.c is asked for by those who read answers, and others. */
static const char *const names[] = {"etag", "content-length", "date", "x-amz-request-id", "a", ""};

/* Three digits after the first blank; 0: it is no status line. */
static long
status_of(const char *line, size_t len)
{
	const char *blank = memchr(line, ' ', len);

	if (len < 5 || memcmp(line, "HTTP/", 5) != 0 || blank == NULL || line + len - blank < 4)
		return 0;
	for (int i = 1; i <= 3; i++)
		if (!isdigit((unsigned char) blank[i]))
			return 0;
	return (blank[1] - '0') * 100 + (blank[2] - '0') * 10 + (blank[3] - '0');
}

/* In memory of its own, as exact as can be. */
static size_t
call_back(size_t (*callback)(char *, size_t, size_t, void *), const char *data, size_t len,
		  Exchange *exchange)
{
	char  *copy = palloc(len);
	size_t taken;

	memcpy(copy, data, len);
	taken = callback(copy, 1, len, exchange);
	pfree(copy);
	return taken;
}

/* Returns what comes after the empty line. */
static const char *
read_head(Exchange *exchange, const char *p, const char *end)
{
	while (p < end)
	{
		const char *newline = memchr(p, '\n', end - p);
		const char *next = newline != NULL ? newline + 1 : end;

		if (next - p <= 2 && (*p == '\r' || *p == '\n'))
			return next;
		if (memchr(p, '\0', next - p) == NULL)
		{
			if (exchange->status == 0)
				exchange->status = status_of(p, next - p);
			FUZZ_CHECK(call_back(header_callback, p, next - p, exchange) == (size_t) (next - p));
		}
		p = next;
	}
	return end;
}

static void
free_exchange(void *arg)
{
	Exchange *exchange = arg;

	received_free(&exchange->head);
	received_free(&exchange->body);
}

/* What http.h says of an answer. */
static void
check_response(const HttpResponse *response)
{
	FUZZ_CHECK(response->body_len <= MAX_BODY);
	FUZZ_CHECK(response->body[response->body_len] == '\0');
	FUZZ_CHECK(strlen(response->headers->data) <= (size_t) response->headers->len);
	FUZZ_CHECK(response->headers->len <= MAX_HEAD);
	FUZZ_CHECK(http_date(response) >= 0);
	FUZZ_CHECK(response->transport_error == NULL || fuzz_is_printable(response->transport_error));
	for (size_t i = 0; i < lengthof(names); i++)
	{
		char *value = http_header(response, names[i]);

		FUZZ_CHECK(value == NULL || fuzz_is_printable(value));
	}
}

HttpResponse *
answer_read(FuzzInput *input, bool cut)
{
	Exchange              *exchange = palloc0(sizeof(Exchange));
	HttpResponse          *response = palloc0(sizeof(HttpResponse));
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	size_t                 len;
	const char            *data = fuzz_rest(input, &len);
	const char            *body = read_head(exchange, data, data + len);

	callback->func = free_exchange;
	callback->arg = exchange;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);

	len -= body - data;
	exchange->request_bytes = 1;
	exchange->code = cut ? CURLE_PARTIAL_FILE : CURLE_OK;
	if (len > 0 && call_back(body_callback, body, len, exchange) != len)
		exchange->code = CURLE_WRITE_ERROR;
	if (exchange->status == 0)
		exchange->code = CURLE_GOT_NOTHING;
	exchange_response(exchange, response);
	check_response(response);
	return response;
}

HttpClient *
answer_client(void)
{
	return palloc0(CLIENT_SIZE);
}
