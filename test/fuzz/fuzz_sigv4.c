/*-------------------------------------------------------------------------
 *
 * fuzz_sigv4.c
 *	  Signatures (sigv4.c): what is signed has the lines that it should have and
 *	  no others, and depends on the order of nothing that has no order.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include "aws/sigv4.c"

#define MAX_HEADERS 8

static const SigV4Credentials keys = {.access_key_id = "AKIDEXAMPLE",
									  .secret_access_key =
										  "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"};

static char *
repeated(const char *text)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < 500 && buf.len < 4096; i++)
		appendStringInfoString(&buf, text);
	return buf.data;
}

/* Query strings as s3.c makes them: what is in them is encoded. */
static char *
make_query(FuzzInput *input, bool backwards)
{
	StringInfoData query;
	char          *parts[3];

	initStringInfo(&query);
	for (size_t i = 0; i < lengthof(parts); i++)
	{
		StringInfoData part;

		initStringInfo(&part);
		sigv4_uri_encode(&part, fuzz_string(input), false);
		appendStringInfoChar(&part, '=');
		sigv4_uri_encode(&part, fuzz_string(input), false);
		parts[i] = part.data;
	}
	for (size_t i = 0; i < lengthof(parts); i++)
		appendStringInfo(&query, "%s%s", i > 0 ? "&" : "",
						 parts[backwards ? lengthof(parts) - 1 - i : i]);
	return query.data;
}

/* Names of their own; values are anything. */
static int
make_headers(FuzzInput *input, SigV4Header *headers)
{
	int n = fuzz_byte(input) % (MAX_HEADERS + 1);

	for (int i = 0; i < n; i++)
		headers[i] = (SigV4Header){psprintf("X-Amz-%c", 'a' + i), fuzz_string(input)};
	return n;
}

static int
count_lines(const char *text)
{
	int lines = 1;

	for (; *text != '\0'; text++)
		lines += (*text == '\n');
	return lines;
}

/* Method, path, query, each header, an empty line, their names, the hash. */
static void
check_canonical(const SigV4Request *request)
{
	StringInfoData buf;

	initStringInfo(&buf);
	sigv4_canonical_request(&buf, request);
	FUZZ_CHECK(strlen(buf.data) == (size_t) buf.len);
	FUZZ_CHECK(strchr(buf.data, '\r') == NULL);
	FUZZ_CHECK(count_lines(buf.data) == 6 + Max(request->nheaders, 1));
	FUZZ_CHECK(strcmp(buf.data + buf.len - strlen(request->payload_hash), request->payload_hash) ==
			   0);
}

static char *
authorize(const SigV4Request *request)
{
	StringInfoData buf;

	initStringInfo(&buf);
	FUZZ_CHECK(sigv4_authorization(&buf, request, &keys, "20130524T000000Z"));
	FUZZ_CHECK(fuzz_is_printable(buf.data));
	return buf.data;
}

/* A copy that stays behind when memory moves would have the session token in it. */
static void
check_wiping(const SigV4Request *request)
{
	char hex[SIGV4_SHA256_HEX_LEN + 1];

	fuzz_repallocs = 0;
	FUZZ_CHECK(hash_canonical_request(request, hex));
	FUZZ_CHECK(fuzz_repallocs <= 1); /* by enlargeStringInfo, of an empty buffer */
}

static void
check_normalized(const char *path)
{
	char *normalized = normalize_path(path);
	char *framed = psprintf("%s/", normalized);

	FUZZ_CHECK(normalized[0] == '/');
	FUZZ_CHECK(strstr(framed, "/../") == NULL && strstr(framed, "/./") == NULL &&
			   strstr(normalized, "//") == NULL);
	FUZZ_CHECK(strcmp(normalize_path(normalized), normalized) == 0);
}

/* In pieces it is the same hash. */
static void
check_hash(const char *data, size_t len, uint8 piece)
{
	SigV4Hash *hash = sigv4_hash_create();
	char       whole[SIGV4_SHA256_HEX_LEN + 1];
	char       pieces[SIGV4_SHA256_HEX_LEN + 1];

	FUZZ_CHECK(sigv4_sha256(data, len, whole) && sigv4_hash_init(hash));
	for (size_t i = 0; i < len; i += piece + 1)
		FUZZ_CHECK(sigv4_hash_update(hash, data + i, Min((size_t) piece + 1, len - i)));
	FUZZ_CHECK(sigv4_hash_final(hash, pieces) && strcmp(whole, pieces) == 0);
	sigv4_hash_free(hash);
}

void
fuzz_one(FuzzInput *input)
{
	SigV4Header    headers[MAX_HEADERS];
	SigV4Header    backwards[MAX_HEADERS];
	uint8          flags = fuzz_byte(input);
	char          *raw = fuzz_string(input);
	StringInfoData path;
	FuzzInput      same = *input;
	SigV4Request   request = {
		  .method = "PUT",
		  .payload_hash = SIGV4_UNSIGNED_PAYLOAD,
		  .region = "eu-west-1",
		  .service = "s3",
		  .normalize_path = (flags & 1) != 0,
		  .encode_path = (flags & 2) != 0,
    };
	char *first;

	check_hash(raw, strlen(raw), flags);
	check_normalized(raw);
	initStringInfo(&path);
	appendStringInfoChar(&path, '/');
	sigv4_uri_encode(&path, raw, true);
	request.path = path.data;
	request.query = make_query(input, false);
	request.nheaders = make_headers(input, headers);
	request.headers = headers;
	check_canonical(&request);
	check_wiping(&request);
	first = authorize(&request);

	request.query = make_query(&same, true);
	for (int i = 0; i < request.nheaders; i++)
		backwards[i] = headers[request.nheaders - 1 - i];
	request.headers = backwards;
	FUZZ_CHECK(strcmp(first, authorize(&request)) == 0);

	/* longer than a buffer is at first, and unencoded, as from nobody here */
	request.query = repeated(raw);
	request.path = request.query;
	check_wiping(&request);
}
