/*-------------------------------------------------------------------------
 *
 * test_sigv4.c
 *	  Signatures against those that AWS has published.
 *
 * S3's five examples are always run.  AWS's signing test suite, with the rules
 * of the other services, is run where S3EXPORT_SIGV4_VECTORS names its folder:
 * https://github.com/awslabs/aws-c-auth/tree/main/tests/aws-signing-test-suite/v4
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <dirent.h>

#include "aws/sigv4.h"
#include "tap.h"

#define EMPTY_HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define UNRESERVED "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
#define MAX_HEADERS 16
#define SUITE_CASES 38

static char *
canonical_request(const SigV4Request *request)
{
	StringInfoData buf;

	initStringInfo(&buf);
	sigv4_canonical_request(&buf, request);
	return buf.data;
}

static char *
authorization(const SigV4Request *request, const SigV4Credentials *credentials, const char *date)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (!sigv4_authorization(&buf, request, credentials, date))
		return NULL;
	return buf.data;
}

/* What follows "label" in an Authorization header, to the next ',' or the end. */
static char *
field(const char *header, const char *label)
{
	const char *start = header ? strstr(header, label) : NULL;

	if (start == NULL)
		return NULL;
	start += strlen(label);
	return pnstrdup(start, strcspn(start, ","));
}

static char *
encode(const char *value, bool is_path)
{
	StringInfoData buf;

	initStringInfo(&buf);
	sigv4_uri_encode(&buf, value, is_path);
	return buf.data;
}

static char *
repeat(const char *value, int count)
{
	StringInfoData buf;

	initStringInfo(&buf);
	while (count-- > 0)
		appendStringInfoString(&buf, value);
	return buf.data;
}

static void
test_encoding(void)
{
	static const char *const cases[][3] = {
		/* value, as a part of a query, as a path */
		{"", "", ""},
		{"a b", "a%20b", "a%20b"},
		{"a+b", "a%2Bb", "a%2Bb"},
		{"~-_.", "~-_.", "~-_."},
		{"/a//b/", "%2Fa%2F%2Fb%2F", "/a//b/"},
		{"./../.", ".%2F..%2F.", "./../."},
		{"50%", "50%25", "50%25"},
		{"%2F", "%252F", "%252F"},
		{"\xe1\x88\xb4", "%E1%88%B4", "%E1%88%B4"},
		{"\xf0\x9f\x98\x80", "%F0%9F%98%80", "%F0%9F%98%80"},
		{"!*'();:@&=$,?#[]", "%21%2A%27%28%29%3B%3A%40%26%3D%24%2C%3F%23%5B%5D",
		 "%21%2A%27%28%29%3B%3A%40%26%3D%24%2C%3F%23%5B%5D"},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		is(encode(cases[i][0], false), cases[i][1], "\"%s\" encoded", cases[i][0]);
		is(encode(cases[i][0], true), cases[i][2], "\"%s\" encoded as a path", cases[i][0]);
	}

	for (int c = 1; c < 256; c++)
	{
		char  value[] = {(char) c, '\0'};
		char *encoded = psprintf("%%%02X", c);

		is(encode(value, false), strchr(UNRESERVED, c) ? value : encoded, "byte %d encoded", c);
		is(encode(value, true), strchr(UNRESERVED "/", c) ? value : encoded,
		   "byte %d encoded as a path", c);
	}
	is(encode(repeat("\xc3\xa9", 512), true), repeat("%C3%A9", 512), "1024 bytes encoded");
}

static void
test_hashes(void)
{
	char       hex[SIGV4_SHA256_HEX_LEN + 1];
	char      *thousand = repeat("a", 1000);
	SigV4Hash *hash = sigv4_hash_create();

	ok(sigv4_sha256("", 0, hex), "the hash of nothing");
	is(hex, EMPTY_HASH, "is right");
	ok(sigv4_sha256("abc", 3, hex), "the hash of three bytes");
	is(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "is right");

	/* twice: a hash can be used again, and starts anew then */
	for (int round = 0; round < 2; round++)
	{
		bool updated = sigv4_hash_init(hash);

		for (int i = 0; i < 1000; i++)
			updated = updated && sigv4_hash_update(hash, thousand, 1000);
		ok(updated && sigv4_hash_final(hash, hex), "a million bytes in pieces");
		is(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", "are right");
	}
	sigv4_hash_free(hash);
	sigv4_hash_free(NULL);
}

static void
test_dates(void)
{
	char date[SIGV4_DATE_LEN + 1];

	sigv4_date(date, 0);
	is(date, "19700101T000000Z", "the epoch");
	sigv4_date(date, 1440938160);
	is(date, "20150830T123600Z", "a date in UTC");
	sigv4_date(date, 1709251199);
	is(date, "20240229T235959Z", "the last second of a leap day");
}

static void
test_query(void)
{
	static const char *const cases[][2] = {
		{"", ""},
		{"uploads", "uploads="},
		{"partNumber=1&uploadId=a%2Fb", "partNumber=1&uploadId=a%2Fb"},
		{"b=1&a=2", "a=2&b=1"},
		{"a-b=1&a=2", "a=2&a-b=1"},
		{"a=2&a=10&a", "a=&a=10&a=2"},
		{"a=b=c", "a=b=c"},
		{"a=1&%C3%A9=2&B=3", "%C3%A9=2&B=3&a=1"},
	};
	SigV4Request request = {.method = "GET", .path = "/", .payload_hash = EMPTY_HASH};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		request.query = cases[i][0];
		is(canonical_request(&request), psprintf("GET\n/\n%s\n\n\n\n" EMPTY_HASH, cases[i][1]),
		   "query \"%s\"", cases[i][0]);
	}
	request.query = NULL;
	is(canonical_request(&request), "GET\n/\n\n\n\n\n" EMPTY_HASH, "no query");
}

static void
test_headers(void)
{
	static const SigV4Header headers[] = {{"X-B", "  two   spaces\t\tand a tab "},
										  {"x-a_b", "underscore"},
										  {"X-A", "3"},
										  {"x-a", " 1"},
										  {"X-a", "2 "},
										  {"x-empty", "  "}};
	SigV4Request             request = {.method = "GET", .path = "/", .payload_hash = EMPTY_HASH};

	request.headers = headers;
	request.nheaders = lengthof(headers);
	is(canonical_request(&request),
	   "GET\n/\n\nx-a:3,1,2\nx-a_b:underscore\nx-b:two spaces and a tab\nx-empty:\n\n"
	   "x-a;x-a_b;x-b;x-empty\n" EMPTY_HASH,
	   "headers are sorted, joined and trimmed");
}

static void
test_paths(void)
{
	static const char *const cases[][2] = {{"", "/"},
										   {"/", "/"},
										   {"/a/../..", "/"},
										   {"/../a", "/a"},
										   {"/a/b/../c", "/a/c"},
										   {"/a/b/..", "/a"},
										   {"/a/b/../", "/a/"},
										   {"/a/./b//c/", "/a/b/c/"},
										   {"/...", "/..."},
										   {"/.a/..b", "/.a/..b"}};
	SigV4Request             request = {.method = "GET", .payload_hash = EMPTY_HASH};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		request.path = cases[i][0];
		request.normalize_path = true;
		is(canonical_request(&request), psprintf("GET\n%s\n\n\n\n\n" EMPTY_HASH, cases[i][1]),
		   "path \"%s\" normalised", cases[i][0]);
		request.normalize_path = false;
		is(canonical_request(&request), psprintf("GET\n%s\n\n\n\n\n" EMPTY_HASH, cases[i][0]),
		   "path \"%s\" as it is", cases[i][0]);
	}
	request.path = "/a%20b/\xc3\xa9";
	request.encode_path = true;
	is(canonical_request(&request), "GET\n/a%2520b/%C3%A9\n\n\n\n\n" EMPTY_HASH,
	   "a path encoded once more");
}

/*
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 * and, for the last one, .../sigv4-query-string-auth.html
 */
static void
test_s3_examples(void)
{
#define HOST                                     \
	{                                            \
		"Host", "examplebucket.s3.amazonaws.com" \
	}
#define DATE                             \
	{                                    \
		"x-amz-date", "20130524T000000Z" \
	}
#define NO_BODY                            \
	{                                      \
		"x-amz-content-sha256", EMPTY_HASH \
	}
#define BODY_HASH "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"

	static const SigV4Credentials credentials = {"AKIAIOSFODNN7EXAMPLE",
												 "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", NULL};
	static const SigV4Header      range[] = {HOST, {"Range", "bytes=0-9"}, NO_BODY, DATE};
	static const SigV4Header      put[] = {HOST,
										   {"Date", "Fri, 24 May 2013 00:00:00 GMT"},
										   DATE,
										   {"x-amz-storage-class", "REDUCED_REDUNDANCY"},
										   {"x-amz-content-sha256", BODY_HASH}};
	static const SigV4Header      plain[] = {HOST, DATE, NO_BODY};
	static const SigV4Header      presigned[] = {HOST};
	static const struct
	{
		const char  *name;
		SigV4Request request;
		const char  *signature;
	} examples[] = {
		{"GetObject",
		 {.method = "GET", .path = "/test.txt", .headers = range, .nheaders = lengthof(range)},
		 "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		{"PutObject",
		 {.method = "PUT",
		  .path = "/test%24file.text",
		  .headers = put,
		  .nheaders = lengthof(put),
		  .payload_hash = BODY_HASH},
		 "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
		{"GetBucketLifecycle",
		 {.method = "GET",
		  .path = "/",
		  .query = "lifecycle",
		  .headers = plain,
		  .nheaders = lengthof(plain)},
		 "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
		{"ListObjects",
		 {.method = "GET",
		  .path = "/",
		  .query = "max-keys=2&prefix=J",
		  .headers = plain,
		  .nheaders = lengthof(plain)},
		 "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
		{"a presigned GetObject",
		 {.method = "GET",
		  .path = "/test.txt",
		  .query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F"
				   "20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&"
				   "X-Amz-Expires=86400&X-Amz-SignedHeaders=host",
		  .headers = presigned,
		  .nheaders = lengthof(presigned),
		  .payload_hash = SIGV4_UNSIGNED_PAYLOAD},
		 "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"},
	};
	char hex[SIGV4_SHA256_HEX_LEN + 1];

	ok(sigv4_sha256("Welcome to Amazon S3.", 21, hex), "the hash of the body of PutObject");
	is(hex, BODY_HASH, "is right");
	for (size_t i = 0; i < lengthof(examples); i++)
	{
		SigV4Request request = examples[i].request;
		char        *got;

		request.region = "us-east-1";
		request.service = "s3";
		if (request.payload_hash == NULL)
			request.payload_hash = EMPTY_HASH;
		got = authorization(&request, &credentials, "20130524T000000Z");
		is(field(got, "Signature="), examples[i].signature, "S3's example: %s", examples[i].name);
		is(field(got, "Credential="), "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request",
		   "and its scope");
	}
}

/* ------------------------------------------------------ the signing test suite */

typedef struct SuiteCase
{
	SigV4Credentials credentials;
	SigV4Request     request;
	SigV4Header      headers[MAX_HEADERS];
	char             payload_hash[SIGV4_SHA256_HEX_LEN + 1];
	char             date[SIGV4_DATE_LEN + 1];
	const char      *expires;
	bool             sign_body;
	bool             sign_token;
} SuiteCase;

/* NULL when there is no such file */
static char *
read_file(const char *directory, const char *name)
{
	FILE          *file = fopen(psprintf("%s/%s", directory, name), "r");
	StringInfoData buf;
	int            c;

	if (file == NULL)
		return NULL;
	initStringInfo(&buf);
	while ((c = getc(file)) != EOF)
		appendStringInfoChar(&buf, (char) c);
	fclose(file);
	return buf.data;
}

/*
 * The value of a key of context.json, wherever it is nested: there every key is
 * used once and no string has an escape.  NULL when there is none.
 */
static char *
context_value(const char *json, const char *key)
{
	const char *value = strstr(json, psprintf("\"%s\":", key));

	if (value == NULL)
		return NULL;
	value = strchr(value, ':') + 1;
	value += strspn(value, " \n");
	if (*value == '"')
		return pnstrdup(value + 1, strcspn(value + 1, "\""));
	return pnstrdup(value, strcspn(value, ",} \n"));
}

static bool
context_is_true(const char *json, const char *key)
{
	const char *value = context_value(json, key);

	return value && strcmp(value, "true") == 0;
}

static void
add_header(SuiteCase *test, const char *name, const char *value)
{
	if (test->request.nheaders == MAX_HEADERS)
	{
		fprintf(stderr, "too many headers\n");
		exit(1);
	}
	test->headers[test->request.nheaders].name = name;
	test->headers[test->request.nheaders++].value = value;
}

/* A query of the suite may hold what a client would have to encode to send it. */
static char *
wire_query(const char *raw)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (; *raw; raw++)
	{
		if (strchr(UNRESERVED "%&=", *raw))
			appendStringInfoChar(&buf, *raw);
		else
			appendStringInfo(&buf, "%%%02X", (unsigned char) *raw);
	}
	return buf.data;
}

/* The request line, which may have spaces in its path; returns what follows it. */
static char *
parse_request_line(SuiteCase *test, char *line)
{
	char *rest = strchr(line, '\n') + 1;
	char *path = strchr(line, ' ');
	char *version;
	char *query;

	*path++ = '\0';
	version = strstr(path, " HTTP/1.1");
	*version = '\0';
	query = strchr(path, '?');
	if (query)
		*query++ = '\0';
	test->request.method = line;
	test->request.path = path;
	test->request.query = query ? wire_query(query) : NULL;
	return rest;
}

/* Headers, one of which may go on in lines that begin with a space; returns the body. */
static char *
parse_headers(SuiteCase *test, char *line)
{
	while (*line && *line != '\n')
	{
		char *colon = strchr(line, ':');
		char *end = colon + strcspn(colon, "\n");

		while (end[0] == '\n' && end[1] == ' ')
			end += 1 + strcspn(end + 1, "\n");
		*colon = '\0';
		add_header(test, line, colon + 1);
		line = end;
		if (*end == '\n')
		{
			line++;
			*end = '\0';
		}
	}
	return *line == '\n' ? line + 1 : line;
}

/* "2015-08-30T12:36:00Z" as SigV4 writes it */
static void
set_date(SuiteCase *test, const char *timestamp)
{
	int len = 0;

	for (; *timestamp && len < SIGV4_DATE_LEN; timestamp++)
	{
		if (!strchr("-:", *timestamp))
			test->date[len++] = *timestamp;
	}
	test->date[len] = '\0';
}

static SuiteCase *
read_case(const char *directory)
{
	SuiteCase *test = palloc0(sizeof(SuiteCase));
	char      *json = read_file(directory, "context.json");
	char      *text = read_file(directory, "request.txt");
	char      *body;

	if (json == NULL || text == NULL)
		return NULL;
	test->credentials.access_key_id = context_value(json, "access_key_id");
	test->credentials.secret_access_key = context_value(json, "secret_access_key");
	test->credentials.session_token = context_value(json, "token");
	test->sign_token =
		test->credentials.session_token && !context_is_true(json, "omit_session_token");
	test->sign_body = context_is_true(json, "sign_body");
	test->expires = context_value(json, "expiration_in_seconds");
	set_date(test, context_value(json, "timestamp"));

	test->request.region = context_value(json, "region");
	test->request.service = context_value(json, "service");
	test->request.normalize_path = context_is_true(json, "normalize");
	test->request.encode_path = true;
	test->request.headers = test->headers;
	body = parse_headers(test, parse_request_line(test, text));
	sigv4_sha256(body, strlen(body), test->payload_hash);
	test->request.payload_hash = test->payload_hash;
	return test;
}

static void
check_case(SuiteCase *test, const char *directory, const char *variant, const char *name)
{
	char *canonical = read_file(directory, psprintf("%s-canonical-request.txt", variant));
	char *signature = read_file(directory, psprintf("%s-signature.txt", variant));
	char *got = authorization(&test->request, &test->credentials, test->date);

	is(canonical_request(&test->request), canonical, "%s, %s: canonical request", name, variant);
	is(field(got, "Signature="), signature, "%s, %s: signature", name, variant);
	if (strcmp(variant, "header") == 0)
	{
		char *request = read_file(directory, "header-signed-request.txt");

		ok(got && request && strstr(request, psprintf("\nAuthorization:%s\n", got)),
		   "%s, header: Authorization is %s", name, got);
	}
}

/* Signed in its headers */
static void
test_header_variant(const char *directory, const char *name)
{
	SuiteCase *test = read_case(directory);

	if (!ok(test != NULL, "%s can be read", name))
		return;
	add_header(test, "X-Amz-Date", test->date);
	if (test->sign_body)
		add_header(test, "x-amz-content-sha256", test->payload_hash);
	if (test->sign_token)
		add_header(test, "X-Amz-Security-Token", test->credentials.session_token);
	check_case(test, directory, "header", name);
}

/* Signed in its query: what is signed then is one more request, with a longer query. */
static void
test_query_variant(const char *directory, const char *name)
{
	SuiteCase     *test = read_case(directory);
	const char    *unsigned_query;
	char          *plain;
	StringInfoData query;

	if (!ok(test != NULL, "%s can be read", name))
		return;
	unsigned_query = test->request.query;
	plain = authorization(&test->request, &test->credentials, test->date);
	initStringInfo(&query);
	if (unsigned_query)
		appendStringInfo(&query, "%s&", unsigned_query);
	appendStringInfo(&query, "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=%s&X-Amz-Date=%s",
					 encode(field(plain, "Credential="), false), test->date);
	appendStringInfo(&query, "&X-Amz-SignedHeaders=%s&X-Amz-Expires=%s",
					 encode(field(plain, "SignedHeaders="), false), test->expires);
	if (test->sign_token)
		appendStringInfo(&query, "&X-Amz-Security-Token=%s",
						 encode(test->credentials.session_token, false));
	test->request.query = query.data;
	check_case(test, directory, "query", name);
}

static void
test_suite(void)
{
	const char    *directory = getenv("S3EXPORT_SIGV4_VECTORS");
	DIR           *dir = directory ? opendir(directory) : NULL;
	struct dirent *entry;
	int            cases = 0;

	if (dir == NULL)
	{
		skip("AWS's signing test suite", "S3EXPORT_SIGV4_VECTORS names no folder");
		return;
	}
	while ((entry = readdir(dir)) != NULL)
	{
		char *path = psprintf("%s/%s", directory, entry->d_name);

		if (entry->d_name[0] == '.' || read_file(path, "context.json") == NULL)
			continue;
		cases++;
		test_header_variant(path, entry->d_name);
		test_query_variant(path, entry->d_name);
	}
	closedir(dir);
	ok(cases == SUITE_CASES, "the suite has %d cases", cases);
}

int
main(void)
{
	test_encoding();
	test_hashes();
	test_dates();
	test_query();
	test_headers();
	test_paths();
	test_s3_examples();
	test_suite();
	return done_testing();
}
