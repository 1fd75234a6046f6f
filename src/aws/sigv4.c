/*-------------------------------------------------------------------------
 *
 * sigv4.c
 *	  AWS Signature Version 4, a function of request, credentials and time.
 *
 * The signing key is derived anew for each signature: four HMACs of short
 * strings are nothing beside a request, and no key stays in memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <time.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "aws/sigv4.h"

#define ALGORITHM "AWS4-HMAC-SHA256"
#define SHA256_LEN 32
#define DAY_LEN 8 /* of x-amz-date: its first bytes, 20130524 */

/* one "key=value" of a query */
typedef struct QueryPair
{
	const char *key;
	const char *value;
} QueryPair;

struct SigV4Hash
{
	EVP_MD_CTX *context;
};

/*
 * OpenSSL's error queue belongs to the whole process: what is left in it would
 * be taken for the outcome of somebody else's next call.
 */
static bool
openssl_ok(bool ok)
{
	if (!ok)
		ERR_clear_error();
	return ok;
}

/* Fetched once: OpenSSL 3 otherwise looks for an implementation in each call. */
static const EVP_MD *
sha256_method(void)
{
	static EVP_MD *md = NULL;

	if (md == NULL)
		md = EVP_MD_fetch(NULL, "SHA2-256", NULL);
	return md;
}

static void
to_hex(const unsigned char *digest, char *hex)
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < SHA256_LEN; i++)
	{
		*hex++ = digits[digest[i] >> 4];
		*hex++ = digits[digest[i] & 0x0f];
	}
	*hex = '\0';
}

bool
sigv4_sha256(const void *data, size_t len, char *hex)
{
	unsigned char digest[SHA256_LEN];

	if (!openssl_ok(sha256_method() != NULL &&
					EVP_Digest(data, len, digest, NULL, sha256_method(), NULL) == 1))
		return false;
	to_hex(digest, hex);
	return true;
}

SigV4Hash *
sigv4_hash_create(void)
{
	SigV4Hash *hash = malloc(sizeof(SigV4Hash));

	if (hash == NULL)
		return NULL;
	hash->context = EVP_MD_CTX_new();
	if (!openssl_ok(hash->context != NULL))
	{
		free(hash);
		return NULL;
	}
	return hash;
}

bool
sigv4_hash_init(SigV4Hash *hash)
{
	return openssl_ok(sha256_method() != NULL &&
					  EVP_DigestInit_ex(hash->context, sha256_method(), NULL) == 1);
}

bool
sigv4_hash_update(SigV4Hash *hash, const void *data, size_t len)
{
	return openssl_ok(EVP_DigestUpdate(hash->context, data, len) == 1);
}

bool
sigv4_hash_final(SigV4Hash *hash, char *hex)
{
	unsigned char digest[SHA256_LEN];

	if (!openssl_ok(EVP_DigestFinal_ex(hash->context, digest, NULL) == 1))
		return false;
	to_hex(digest, hex);
	return true;
}

void
sigv4_hash_free(SigV4Hash *hash)
{
	if (hash == NULL)
		return;
	EVP_MD_CTX_free(hash->context);
	free(hash);
}

void
sigv4_date(char *buf, time_t now)
{
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(buf, SIGV4_DATE_LEN + 1, "%Y%m%dT%H%M%SZ", &tm);
}

void
sigv4_uri_encode(StringInfo buf, const char *value, bool is_path)
{
	for (const char *p = value; *p; p++)
	{
		char c = *p;

		/* not isalnum(), which would follow the locale */
		if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
			c == '-' || c == '_' || c == '.' || c == '~' || (is_path && c == '/'))
			appendStringInfoChar(buf, c);
		else
			appendStringInfo(buf, "%%%02X", (unsigned char) c);
	}
}

/*
 * Without empty and "." segments, and without ".." and what they refer to; a
 * slash at the end stays.  The result begins with a slash.
 */
static char *
normalize_path(const char *path)
{
	char       *result = palloc(strlen(path) + 2);
	char       *end = result;
	const char *segment = path;

	while (*segment)
	{
		size_t len = strcspn(segment, "/");

		if (len == 2 && memcmp(segment, "..", 2) == 0)
		{
			while (end > result && *--end != '/')
				;
		}
		else if (len > 0 && !(len == 1 && *segment == '.'))
		{
			*end++ = '/';
			memcpy(end, segment, len);
			end += len;
		}
		segment += len;
		segment += strspn(segment, "/");
	}
	if (end == result || segment[-1] == '/')
		*end++ = '/';
	*end = '\0';
	return result;
}

static void
append_canonical_path(StringInfo buf, const SigV4Request *request)
{
	char       *normalized = request->normalize_path ? normalize_path(request->path) : NULL;
	const char *path = normalized ? normalized : request->path;

	if (request->encode_path)
		sigv4_uri_encode(buf, path, true);
	else
		appendStringInfoString(buf, path);
	if (normalized)
		pfree(normalized);
}

/*
 * Keys first: sorted as whole strings, "a=1" would come after "a-b=1", since
 * '=' is greater than '-'.
 */
static int
compare_pairs(const void *a, const void *b)
{
	const QueryPair *left = a;
	const QueryPair *right = b;
	int              result = strcmp(left->key, right->key);

	return result ? result : strcmp(left->value, right->value);
}

/* The pairs are sorted by name, then by value.  The query is encoded already. */
static void
append_canonical_query(StringInfo buf, const char *query)
{
	char      *copy;
	char      *next;
	QueryPair *pairs;
	int        npairs = 0;

	if (query == NULL || *query == '\0')
		return;

	copy = pstrdup(query);
	pairs = palloc((strlen(query) + 1) * sizeof(QueryPair));
	for (char *pair = copy; pair; pair = next)
	{
		char *equals;

		if ((next = strchr(pair, '&')) != NULL)
			*next++ = '\0';
		if ((equals = strchr(pair, '=')) != NULL)
			*equals++ = '\0';
		pairs[npairs].key = pair;
		pairs[npairs++].value = equals ? equals : "";
	}
	qsort(pairs, npairs, sizeof(QueryPair), compare_pairs);
	for (int i = 0; i < npairs; i++)
		appendStringInfo(buf, "%s%s=%s", i > 0 ? "&" : "", pairs[i].key, pairs[i].value);
	pfree(pairs);
	pfree(copy);
}

/* By name; headers of one name stay in the order given, for all are in one array. */
static int
compare_headers(const void *a, const void *b)
{
	const SigV4Header *left = *(const SigV4Header *const *) a;
	const SigV4Header *right = *(const SigV4Header *const *) b;
	int                result = pg_strcasecmp(left->name, right->name);

	return result ? result : (left > right) - (left < right);
}

static const SigV4Header **
sort_headers(const SigV4Request *request)
{
	const SigV4Header **sorted = palloc((request->nheaders + 1) * sizeof(SigV4Header *));

	for (int i = 0; i < request->nheaders; i++)
		sorted[i] = &request->headers[i];
	qsort(sorted, request->nheaders, sizeof(SigV4Header *), compare_headers);
	return sorted;
}

static bool
same_as_before(const SigV4Header **sorted, int i)
{
	return i > 0 && pg_strcasecmp(sorted[i - 1]->name, sorted[i]->name) == 0;
}

static void
append_lower(StringInfo buf, const char *name)
{
	for (; *name; name++)
		appendStringInfoChar(buf, pg_ascii_tolower((unsigned char) *name));
}

/* Without blanks at either end, and with one space for those within. */
static void
append_trimmed(StringInfo buf, const char *value)
{
	static const char blanks[] = " \t\r\n";

	value += strspn(value, blanks);
	while (*value)
	{
		size_t len = strcspn(value, blanks);

		appendBinaryStringInfo(buf, value, len);
		value += len;
		value += strspn(value, blanks);
		if (*value)
			appendStringInfoChar(buf, ' ');
	}
}

static void
append_canonical_headers(StringInfo buf, const SigV4Header **sorted, int nheaders)
{
	for (int i = 0; i < nheaders; i++)
	{
		if (same_as_before(sorted, i))
			appendStringInfoChar(buf, ',');
		else
		{
			if (i > 0)
				appendStringInfoChar(buf, '\n');
			append_lower(buf, sorted[i]->name);
			appendStringInfoChar(buf, ':');
		}
		append_trimmed(buf, sorted[i]->value);
	}
	appendStringInfoChar(buf, '\n');
}

static void
append_signed_headers(StringInfo buf, const SigV4Header **sorted, int nheaders)
{
	for (int i = 0; i < nheaders; i++)
	{
		if (same_as_before(sorted, i))
			continue;
		if (i > 0)
			appendStringInfoChar(buf, ';');
		append_lower(buf, sorted[i]->name);
	}
}

void
sigv4_canonical_request(StringInfo buf, const SigV4Request *request)
{
	const SigV4Header **sorted = sort_headers(request);

	appendStringInfo(buf, "%s\n", request->method);
	append_canonical_path(buf, request);
	appendStringInfoChar(buf, '\n');
	append_canonical_query(buf, request->query);
	appendStringInfoChar(buf, '\n');
	append_canonical_headers(buf, sorted, request->nheaders);
	appendStringInfoChar(buf, '\n');
	append_signed_headers(buf, sorted, request->nheaders);
	appendStringInfo(buf, "\n%s", request->payload_hash);
	pfree(sorted);
}

/*
 * The hash of the canonical request.  The buffer is as large as it can get
 * from the start: growing would leave copies of the session token behind.
 */
static bool
hash_canonical_request(const SigV4Request *request, char *hex)
{
	StringInfoData canonical;
	size_t         size =
		strlen(request->method) + 3 * strlen(request->path) + strlen(request->payload_hash) + 16;
	bool ok;

	if (request->query)
		size += 2 * strlen(request->query) + 1;
	for (int i = 0; i < request->nheaders; i++)
		size += 2 * strlen(request->headers[i].name) + strlen(request->headers[i].value) + 3;

	initStringInfo(&canonical);
	enlargeStringInfo(&canonical, (int) size);
	sigv4_canonical_request(&canonical, request);
	ok = sigv4_sha256(canonical.data, canonical.len, hex);
	explicit_bzero(canonical.data, canonical.len);
	pfree(canonical.data);
	return ok;
}

static bool
hmac_sha256(const void *key, size_t key_len, const char *data, size_t len, unsigned char *digest)
{
	return openssl_ok(sha256_method() != NULL &&
					  HMAC(sha256_method(), key, (int) key_len, (const unsigned char *) data, len,
						   digest, NULL) != NULL);
}

/* Signs "string" with the key derived from the secret for one day and service. */
static bool
sign_string(const SigV4Request *request, const char *secret, const char *date, const char *string,
			char *hex)
{
	static const char prefix[] = "AWS4";
	size_t            prefix_len = strlen(prefix);
	size_t            secret_len = strlen(secret);
	char             *start = palloc(prefix_len + secret_len);
	unsigned char     key[SHA256_LEN];
	unsigned char     next[SHA256_LEN];
	bool              ok;

	memcpy(start, prefix, prefix_len);
	memcpy(start + prefix_len, secret, secret_len);
	ok = hmac_sha256(start, prefix_len + secret_len, date, DAY_LEN, key) &&
		 hmac_sha256(key, SHA256_LEN, request->region, strlen(request->region), next) &&
		 hmac_sha256(next, SHA256_LEN, request->service, strlen(request->service), key) &&
		 hmac_sha256(key, SHA256_LEN, "aws4_request", strlen("aws4_request"), next) &&
		 hmac_sha256(next, SHA256_LEN, string, strlen(string), key);
	if (ok)
		to_hex(key, hex);

	explicit_bzero(start, prefix_len + secret_len);
	explicit_bzero(key, SHA256_LEN);
	explicit_bzero(next, SHA256_LEN);
	pfree(start);
	return ok;
}

bool
sigv4_authorization(StringInfo buf, const SigV4Request *request,
					const SigV4Credentials *credentials, const char *date)
{
	char                hex[SIGV4_SHA256_HEX_LEN + 1];
	char               *scope;
	char               *string_to_sign;
	const SigV4Header **sorted;
	bool                ok;

	if (!hash_canonical_request(request, hex))
		return false;

	scope = psprintf("%.*s/%s/%s/aws4_request", DAY_LEN, date, request->region, request->service);
	string_to_sign = psprintf("%s\n%s\n%s\n%s", ALGORITHM, date, scope, hex);
	ok = sign_string(request, credentials->secret_access_key, date, string_to_sign, hex);
	if (ok)
	{
		appendStringInfo(buf, "%s Credential=%s/%s, SignedHeaders=", ALGORITHM,
						 credentials->access_key_id, scope);
		sorted = sort_headers(request);
		append_signed_headers(buf, sorted, request->nheaders);
		pfree(sorted);
		appendStringInfo(buf, ", Signature=%s", hex);
	}
	pfree(string_to_sign);
	pfree(scope);
	return ok;
}
