/*-------------------------------------------------------------------------
 *
 * sign.c
 *	  Signs requests read from standard input, for botocore_check.py.
 *
 * A request is a number of lines "name value", the value in hex, and the line
 * "sign".  Its answer is one line: the path and the query as they go over the
 * wire, a tab, and the value of the Authorization header.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "aws/sigv4.h"

#define MAX_HEADERS 64
#define MAX_LINE 65536

typedef struct Input
{
	SigV4Credentials credentials;
	SigV4Request     request;
	SigV4Header      headers[MAX_HEADERS];
	StringInfoData   path;
	StringInfoData   query;
	char            *date;
} Input;

static void
fail(const char *message)
{
	fprintf(stderr, "sign: %s\n", message);
	exit(1);
}

static char *
from_hex(const char *hex)
{
	char        *value = palloc(strlen(hex) / 2 + 1);
	char        *end = value;
	unsigned int byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
		*end++ = (char) byte;
	*end = '\0';
	return value;
}

static void
reset(Input *input)
{
	memset(input, 0, sizeof(*input));
	initStringInfo(&input->path);
	initStringInfo(&input->query);
	input->request.headers = input->headers;
}

static void
set(Input *input, const char *name, char *value)
{
	SigV4Request *request = &input->request;

	if (strcmp(name, "method") == 0)
		request->method = value;
	else if (strcmp(name, "path") == 0)
		sigv4_uri_encode(&input->path, value, true);
	else if (strcmp(name, "query_name") == 0)
	{
		appendStringInfoString(&input->query, input->query.len > 0 ? "&" : "");
		sigv4_uri_encode(&input->query, value, false);
	}
	else if (strcmp(name, "query_value") == 0)
	{
		appendStringInfoChar(&input->query, '=');
		sigv4_uri_encode(&input->query, value, false);
	}
	else if (strcmp(name, "header_name") == 0)
	{
		if (request->nheaders == MAX_HEADERS)
			fail("too many headers");
		input->headers[request->nheaders++].name = value;
	}
	else if (strcmp(name, "header_value") == 0 && request->nheaders > 0)
		input->headers[request->nheaders - 1].value = value;
	else if (strcmp(name, "payload_hash") == 0)
		request->payload_hash = value;
	else if (strcmp(name, "region") == 0)
		request->region = value;
	else if (strcmp(name, "service") == 0)
		request->service = value;
	else if (strcmp(name, "date") == 0)
		input->date = value;
	else if (strcmp(name, "access_key_id") == 0)
		input->credentials.access_key_id = value;
	else if (strcmp(name, "secret_access_key") == 0)
		input->credentials.secret_access_key = value;
	else
		fail("unexpected line");
}

static void
sign(Input *input)
{
	StringInfoData authorization;

	input->request.path = input->path.data;
	input->request.query = input->query.data;
	input->request.normalize_path = strcmp(input->request.service, "s3") != 0;
	input->request.encode_path = input->request.normalize_path;
	initStringInfo(&authorization);
	if (!sigv4_authorization(&authorization, &input->request, &input->credentials, input->date))
		fail("libcrypto failed");
	printf("%s?%s\t%s\n", input->path.data, input->query.data, authorization.data);
	fflush(stdout);
}

int
main(void)
{
	static char line[MAX_LINE];
	Input       input;

	reset(&input);
	while (fgets(line, sizeof(line), stdin))
	{
		char *value = strchr(line, ' ');

		if (value != NULL)
		{
			*value++ = '\0';
			set(&input, line, from_hex(value));
		}
		else
		{
			sign(&input);
			reset(&input);
		}
	}
	return 0;
}
