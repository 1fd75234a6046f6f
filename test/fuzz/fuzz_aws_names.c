/*-------------------------------------------------------------------------
 *
 * fuzz_aws_names.c
 *	  What users name (aws_names.c): nothing that is accepted can leave its place in
 *	  a host name, a URL, a header, or the bucket's folder.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>

#include "aws/aws_names.h"
#include "aws/sigv4.h"

#define MAX_PHRASE 256

/* Accepted, or refused with a sentence that does not repeat what was given. */
static bool
accepted(const char *wrong)
{
	if (wrong == NULL)
		return true;
	FUZZ_CHECK(fuzz_is_printable(wrong) && strlen(wrong) < MAX_PHRASE);
	FUZZ_CHECK(wrong[strlen(wrong) - 1] == '.');
	return false;
}

static bool
is_token(const char *value, size_t max)
{
	return fuzz_is_printable(value) && strchr(value, ' ') == NULL && value[0] != '\0' &&
		   strlen(value) <= max;
}

static void
check_header_values(const char *value)
{
	if (accepted(aws_names_check_access_key_id(value)))
		FUZZ_CHECK(is_token(value, 128) && strpbrk(value, "/,") == NULL);
	if (accepted(aws_names_check_secret(value)))
		FUZZ_CHECK(is_token(value, 256));
	if (accepted(aws_names_check_session_token(value)))
		FUZZ_CHECK(is_token(value, 16384));
	if (accepted(aws_names_check_external_id(value)))
		FUZZ_CHECK(is_token(value, 1224) && strpbrk(value, "\"'<>&\\%") == NULL);
	if (accepted(aws_names_check_kms_key_id(value)))
		FUZZ_CHECK(is_token(value, 2048) && strpbrk(value, "\"'<>&\\%") == NULL);
	if (accepted(aws_names_check_storage_class(value)))
		FUZZ_CHECK(is_token(value, 128));
	if (accepted(aws_names_check_acl(value)))
		FUZZ_CHECK(is_token(value, 32));
	if (accepted(aws_names_check_content_type(value)))
		FUZZ_CHECK(fuzz_is_printable(value) && strchr(value, '/') != NULL);
	if (accepted(aws_names_check_role_arn(value)))
		FUZZ_CHECK(is_token(value, 2048) && strncmp(value, "arn:", 4) == 0);
	if (accepted(aws_names_check_account(value)))
		FUZZ_CHECK(strlen(value) == 12 && strtoull(value, NULL, 10) <= UINT64CONST(999999999999));
}

/* They become labels of host names; a bucket's dots separate several. */
static void
check_host_parts(const char *value)
{
	bool is_bucket = accepted(aws_names_check_bucket(value));

	if (is_bucket || accepted(aws_names_check_region(value)))
	{
		FUZZ_CHECK(is_token(value, 63));
		for (const char *p = value; *p != '\0'; p++)
			FUZZ_CHECK(islower((unsigned char) *p) || isdigit((unsigned char) *p) || *p == '-' ||
					   (is_bucket && *p == '.'));
		FUZZ_CHECK(isalnum((unsigned char) value[0]) &&
				   isalnum((unsigned char) value[strlen(value) - 1]));
	}
	if (is_bucket && aws_names_bucket_is_dns_label(value))
		FUZZ_CHECK(strchr(value, '.') == NULL);
	(void) aws_names_region_suffix(value);
	(void) aws_names_region_partition(value);
}

/* Encoded it has no byte with a meaning but the slashes, and decoded it is the same. */
static void
check_encoding(const char *key, bool is_path)
{
	StringInfoData encoded;
	char          *decoded = palloc(strlen(key) + 1);
	size_t         len = 0;

	initStringInfo(&encoded);
	sigv4_uri_encode(&encoded, key, is_path);
	for (const char *p = encoded.data; *p != '\0'; p++)
	{
		char digits[3] = {0};

		FUZZ_CHECK(len < strlen(key));
		FUZZ_CHECK(isalnum((unsigned char) *p) || strchr("-_.~%", *p) != NULL ||
				   (is_path && *p == '/'));
		if (*p != '%')
		{
			decoded[len++] = *p;
			continue;
		}
		memcpy(digits, p + 1, 2);
		FUZZ_CHECK(isxdigit((unsigned char) digits[0]) && isxdigit((unsigned char) digits[1]) &&
				   !islower((unsigned char) digits[0]) && !islower((unsigned char) digits[1]));
		decoded[len++] = (char) strtol(digits, NULL, 16);
		p += 2;
	}
	FUZZ_CHECK(len == strlen(key) && memcmp(decoded, key, len) == 0);
}

/* Whatever is accepted stays below the folder that it is put into. */
static void
check_key(const char *key)
{
	char *framed = psprintf("/%s/", key);

	FUZZ_CHECK(key[0] != '\0' && strlen(key) <= 1024);
	FUZZ_CHECK(strstr(framed, "/../") == NULL && strstr(framed, "/./") == NULL &&
			   strstr(framed, "//") == NULL);
	for (const char *p = key; *p != '\0'; p++)
		FUZZ_CHECK((unsigned char) *p >= ' ' && *p != 0x7F);
}

static void
check_paths(const char *value)
{
	char *folder = NULL;
	char *again = NULL;

	if (accepted(aws_names_check_key(value)))
		check_key(value);
	if (accepted(aws_names_normalize_folder(value, &folder)))
	{
		FUZZ_CHECK(aws_names_normalize_folder(folder, &again) == NULL &&
				   strcmp(folder, again) == 0);
		if (folder[0] != '\0')
			check_key(folder);
	}
	check_encoding(value, true);
	check_encoding(value, false);
}

/* The URL is made of what was recognised, and is its own normal form. */
static void
check_endpoint(const char *value)
{
	NamesEndpoint   endpoint;
	NamesEndpoint   again;
	struct in6_addr address;

	if (!accepted(aws_names_parse_endpoint(value, &endpoint)))
		return;
	FUZZ_CHECK(is_token(endpoint.url, 300) && endpoint.port >= 0 && endpoint.port <= 65535);
	FUZZ_CHECK(strncmp(endpoint.url, endpoint.https ? "https://" : "http://",
					   endpoint.https ? 8 : 7) == 0);
	FUZZ_CHECK(strpbrk(strchr(endpoint.url, ':') + 3, "/?#@\\ %") == NULL);
	if (endpoint.host[0] == '[')
	{
		char *inside = pnstrdup(endpoint.host + 1, strlen(endpoint.host) - 2);

		FUZZ_CHECK(inet_pton(AF_INET6, inside, &address) == 1);
	}
	else
	{
		struct in_addr numeric;

		FUZZ_CHECK(strspn(endpoint.host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") ==
				   strlen(endpoint.host));
		/* what a resolver takes for an address is one in full */
		if (inet_aton(endpoint.host, &numeric))
			FUZZ_CHECK(inet_pton(AF_INET, endpoint.host, &address) == 1);
	}
	FUZZ_CHECK(aws_names_parse_endpoint(endpoint.url, &again) == NULL);
	FUZZ_CHECK(strcmp(again.url, endpoint.url) == 0 && strcmp(again.host, endpoint.host) == 0 &&
			   again.port == endpoint.port && again.https == endpoint.https);
}

void
fuzz_one(FuzzInput *input)
{
	char *value = fuzz_string(input);

	check_header_values(value);
	check_host_parts(value);
	check_paths(value);
	check_endpoint(value);
	check_endpoint(psprintf("http://%s", value));
}
