/*-------------------------------------------------------------------------
 *
 * aws_names.c
 *	  Rules for what users name: buckets, folders, keys, endpoints, roles.
 *
 * What is accepted here goes into host names, URLs, headers and XML, so each
 * rule lists what is allowed.  Stores other than AWS follow AWS's rules for
 * buckets and keys; their access keys and accounts are freer, and the checks
 * of those are only as strict as a request needs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <arpa/inet.h>
#include <netinet/in.h>

#include "aws/aws_names.h"

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

#define MAX_LABEL 63 /* of a host name, RFC 1035 */
#define MAX_HOST 253
#define MAX_KEY 1024 /* bytes */
#define MAX_ROLE_ARN 2048
#define MAX_ROLE_NAME 64
#define MAX_TOKEN 16384 /* AWS sets no limit; headers have one */

static bool
consists_of(const char *value, size_t len, const char *allowed)
{
	return strspn(value, allowed) >= len;
}

/* ASCII without blanks and control characters */
static bool
is_printable(const char *value)
{
	for (; *value; value++)
	{
		if (*value <= ' ' || *value > '~')
			return false;
	}
	return true;
}

static bool
has_length(const char *value, size_t min, size_t max)
{
	size_t len = strlen(value);

	return len >= min && len <= max;
}

static bool
begins_with(const char *value, const char *prefix)
{
	return strncmp(value, prefix, strlen(prefix)) == 0;
}

static bool
ends_with(const char *value, const char *suffix)
{
	size_t len = strlen(value);
	size_t suffix_len = strlen(suffix);

	return len >= suffix_len && strcmp(value + len - suffix_len, suffix) == 0;
}

/* One part of a host name: no hyphen at either end. */
static bool
is_label(const char *value, size_t len, const char *allowed)
{
	return len >= 1 && len <= MAX_LABEL && consists_of(value, len, allowed) && value[0] != '-' &&
		   value[len - 1] != '-';
}

/* Four groups of digits, whatever their values. */
static bool
looks_like_ipv4(const char *value)
{
	int dots = 0;

	for (const char *p = value; *p; p++)
		dots += (*p == '.');
	return dots == 3 && consists_of(value, strlen(value), DIGITS ".");
}

const char *
aws_names_check_bucket(const char *value)
{
	static const char *const prefixes[] = {"xn--", "sthree-", "amzn-s3-demo-"};
	static const char *const suffixes[] = {"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"};
	size_t                   len = strlen(value);

	if (!has_length(value, 3, 63))
		return "A bucket name has 3 to 63 characters.";
	if (!consists_of(value, len, LOWER DIGITS ".-"))
		return "A bucket name consists of lower-case letters, digits, dots and hyphens.";
	if (strchr(".-", value[0]) || strchr(".-", value[len - 1]))
		return "A bucket name begins and ends with a lower-case letter or a digit.";
	if (strstr(value, ".."))
		return "A bucket name has no two dots in a row.";
	if (looks_like_ipv4(value))
		return "A bucket name does not have the form of an IP address.";
	for (size_t i = 0; i < lengthof(prefixes); i++)
	{
		if (begins_with(value, prefixes[i]))
			return psprintf("A bucket name does not begin with \"%s\", which S3 reserves.",
							prefixes[i]);
	}
	for (size_t i = 0; i < lengthof(suffixes); i++)
	{
		if (ends_with(value, suffixes[i]))
			return psprintf("The name of a general purpose bucket does not end with \"%s\", "
							"which S3 reserves for other kinds of buckets and for access points.",
							suffixes[i]);
	}
	return NULL;
}

const char *
aws_names_check_region(const char *value)
{
	if (is_label(value, strlen(value), LOWER DIGITS "-"))
		return NULL;
	return "A region has 1 to 63 lower-case letters, digits and hyphens, and begins and ends with a "
		   "letter or a digit, for example \"us-east-1\".";
}

/* Takes "prefix" and then characters of "allowed", at least "min", off *rest. */
static bool
take_characters(const char **rest, const char *prefix, const char *allowed, size_t min)
{
	size_t len;

	if (!begins_with(*rest, prefix))
		return false;
	*rest += strlen(prefix);
	len = strspn(*rest, allowed);
	*rest += len;
	return len >= min;
}

const char *
aws_names_check_role_arn(const char *value)
{
	static const char form[] =
		"A role ARN has the form \"arn:aws:iam::123456789012:role/name\": the partition, the "
		"account and the role's name, with its path if it has one.";
	const char *rest = value;
	const char *name;

	if (strlen(value) > MAX_ROLE_ARN)
		return "A role ARN has at most 2048 characters.";
	if (!take_characters(&rest, "arn:", LOWER DIGITS "-", 1) ||
		!take_characters(&rest, ":iam::", LOWER UPPER DIGITS "_-", 0) ||
		!begins_with(rest, ":role/") || !is_printable(rest))
		return form;
	name = strrchr(rest, '/') + 1;
	if (!has_length(name, 1, MAX_ROLE_NAME) ||
		!consists_of(name, strlen(name), LOWER UPPER DIGITS "_+=,.@-"))
		return "A role's name has 1 to 64 letters, digits and characters of \"_+=,.@-\".";
	return NULL;
}

const char *
aws_names_check_external_id(const char *value)
{
	if (has_length(value, 2, 1224) &&
		consists_of(value, strlen(value), LOWER UPPER DIGITS "_+=,.@:/-"))
		return NULL;
	return "An external ID has 2 to 1224 letters, digits and characters of \"_+=,.@:/-\".";
}

/* The characters left out separate the parts of an Authorization header. */
const char *
aws_names_check_access_key_id(const char *value)
{
	if (has_length(value, 1, 128) && is_printable(value) && strpbrk(value, ",/") == NULL)
		return NULL;
	return "An access key ID has 1 to 128 printable ASCII characters, without spaces, commas and "
		   "slashes.";
}

const char *
aws_names_check_secret(const char *value)
{
	if (has_length(value, 1, 256) && is_printable(value))
		return NULL;
	return "A secret access key has 1 to 256 printable ASCII characters, without spaces.";
}

const char *
aws_names_check_session_token(const char *value)
{
	if (has_length(value, 1, MAX_TOKEN) && is_printable(value))
		return NULL;
	return "A session token has 1 to 16384 printable ASCII characters, without spaces.";
}

const char *
aws_names_check_kms_key_id(const char *value)
{
	if (has_length(value, 1, 2048) &&
		consists_of(value, strlen(value), LOWER UPPER DIGITS "_+=,.@:/-"))
		return NULL;
	return "A KMS key is named by its ID, its ARN, or an alias such as \"alias/exports\".";
}

const char *
aws_names_check_storage_class(const char *value)
{
	if (has_length(value, 1, 128) && consists_of(value, strlen(value), LOWER UPPER DIGITS "_-"))
		return NULL;
	return "A storage class has 1 to 128 letters, digits, underscores and hyphens, for example "
		   "\"STANDARD_IA\".";
}

const char *
aws_names_check_acl(const char *value)
{
	static const char *const acls[] = {"private",
									   "public-read",
									   "public-read-write",
									   "aws-exec-read",
									   "authenticated-read",
									   "bucket-owner-read",
									   "bucket-owner-full-control"};

	for (size_t i = 0; i < lengthof(acls); i++)
	{
		if (strcmp(value, acls[i]) == 0)
			return NULL;
	}
	return "It is a canned ACL: \"private\", \"public-read\", \"public-read-write\", "
		   "\"aws-exec-read\", \"authenticated-read\", \"bucket-owner-read\" or "
		   "\"bucket-owner-full-control\".";
}

/* Blanks stand before parameters ("text/csv; charset=utf-8"), not at an end. */
const char *
aws_names_check_content_type(const char *value)
{
	size_t len = strlen(value);
	size_t type = strcspn(value, "/");
	bool   printable = has_length(value, 3, 255) && value[len - 1] != ' ';

	for (const char *c = value; *c; c++)
	{
		if (*c < ' ' || *c > '~')
			printable = false;
	}
	if (printable && type > 0 && consists_of(value, type, LOWER UPPER DIGITS "!#$&^_.+-") &&
		type + 1 < len && strchr(" /;", value[type + 1]) == NULL)
		return NULL;
	return "A content type has 3 to 255 printable ASCII characters, for example \"text/csv; "
		   "charset=utf-8\".";
}

const char *
aws_names_check_account(const char *value)
{
	if (strlen(value) == 12 && consists_of(value, 12, DIGITS))
		return NULL;
	return "An AWS account has 12 digits.";
}

/* The rules that folders and keys share; an empty path has an empty segment. */
static const char *
check_path(const char *path)
{
	const char *segment = path;

	if (strlen(path) > MAX_KEY)
		return "A path in a bucket has at most 1024 bytes.";
	for (const char *p = path; *p; p++)
	{
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			return "A path in a bucket has no control characters.";
	}
	for (;;)
	{
		size_t len = strcspn(segment, "/");

		if (len == 0)
			return "A path in a bucket has no empty segments: no slash at its beginning or end, "
				   "and no two in a row.";
		if (len <= 2 && memcmp(segment, "..", len) == 0)
			return "A path in a bucket has no segments \".\" and \"..\".";
		if (segment[len] == '\0')
			return NULL;
		segment += len + 1;
	}
}

const char *
aws_names_normalize_folder(const char *value, char **normalized)
{
	const char *start = value + strspn(value, "/");
	size_t      len = strlen(start);

	while (len > 0 && start[len - 1] == '/')
		len--;
	*normalized = pnstrdup(start, len);
	return len == 0 ? NULL : check_path(*normalized);
}

const char *
aws_names_check_key(const char *value)
{
	return check_path(value);
}

/* A bracketed IPv6 address, rewritten in its one canonical form. */
static bool
normalize_ipv6(char **host)
{
	struct in6_addr address;
	char            text[INET6_ADDRSTRLEN];
	size_t          len = strlen(*host);

	if (len < 2 || (*host)[len - 1] != ']')
		return false;
	(*host)[len - 1] = '\0';
	if (inet_pton(AF_INET6, *host + 1, &address) != 1)
		return false;
	*host = psprintf("[%s]", inet_ntop(AF_INET6, &address, text, sizeof(text)));
	return true;
}

/*
 * Labels separated by dots.  A host whose last label is a number is an IPv4
 * address, and has to be one in full: resolvers also take "127.1" and "0x7f.1"
 * for addresses.  '_' is allowed because container networks have such names.
 */
static bool
is_host_name(const char *host)
{
	const char    *label = host;
	struct in_addr address;

	if (strlen(host) > MAX_HOST)
		return false;
	for (;;)
	{
		size_t len = strcspn(label, ".");

		if (!is_label(label, len, LOWER DIGITS "-_"))
			return false;
		if (label[len] == '\0')
			break;
		label += len + 1;
	}
	if (consists_of(label, strlen(label), DIGITS) || begins_with(label, "0x"))
		return inet_pton(AF_INET, host, &address) == 1;
	return true;
}

/* 1 to 65535 in decimal, else 0 */
static int
parse_port(const char *value)
{
	int port;

	if (!has_length(value, 1, 5) || !consists_of(value, strlen(value), DIGITS))
		return 0;
	port = atoi(value);
	return port <= 65535 ? port : 0;
}

const char *
aws_names_parse_endpoint(const char *value, NamesEndpoint *endpoint)
{
	char  *text = pstrdup(value);
	size_t len = strlen(text);
	char  *port;

	for (char *p = text; *p; p++)
		*p = pg_ascii_tolower((unsigned char) *p);

	endpoint->https = begins_with(text, "https://");
	if (!endpoint->https && !begins_with(text, "http://"))
		return "An endpoint begins with \"https://\" or \"http://\".";
	endpoint->host = strstr(text, "://") + 3;
	if (endpoint->host[0] != '\0' && text[len - 1] == '/')
		text[len - 1] = '\0';
	if (strpbrk(endpoint->host, "/?#@\\"))
		return "An endpoint is a scheme, a host and a port, without user, path, query and fragment.";

	endpoint->port = 0;
	port = endpoint->host[0] == '[' ? strstr(endpoint->host, "]:") : strchr(endpoint->host, ':');
	if (port != NULL)
	{
		port += (*port == ']');
		*port++ = '\0';
		endpoint->port = parse_port(port);
		if (endpoint->port == 0)
			return "A port is a number from 1 to 65535.";
		if (endpoint->port == (endpoint->https ? 443 : 80))
			endpoint->port = 0;
	}

	if (endpoint->host[0] == '[' ? !normalize_ipv6(&endpoint->host) : !is_host_name(endpoint->host))
		return "An endpoint's host is a host name, an IPv4 address, or an IPv6 address in brackets.";

	endpoint->url = psprintf("%s://%s", endpoint->https ? "https" : "http", endpoint->host);
	if (endpoint->port != 0)
		endpoint->url = psprintf("%s:%d", endpoint->url, endpoint->port);
	return NULL;
}

/* https://docs.aws.amazon.com/general/latest/gr/rande.html */
typedef struct AwsPartition
{
	const char *prefix; /* of its regions */
	const char *name;
	const char *suffix;
} AwsPartition;

static const AwsPartition *
partition_of(const char *region)
{
	static const AwsPartition partitions[] = {
		{"cn-", "aws-cn", "amazonaws.com.cn"},       {"us-gov-", "aws-us-gov", "amazonaws.com"},
		{"eusc-", "aws-eusc", "amazonaws.eu"},       {"us-iso-", "aws-iso", "c2s.ic.gov"},
		{"us-isob-", "aws-iso-b", "sc2s.sgov.gov"},  {"us-isof-", "aws-iso-f", "csp.hci.ic.gov"},
		{"eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"},
	};
	static const AwsPartition aws = {"", "aws", "amazonaws.com"};

	for (size_t i = 0; region != NULL && i < lengthof(partitions); i++)
	{
		if (begins_with(region, partitions[i].prefix))
			return &partitions[i];
	}
	return &aws;
}

const char *
aws_names_region_suffix(const char *region)
{
	return partition_of(region)->suffix;
}

const char *
aws_names_region_partition(const char *region)
{
	return partition_of(region)->name;
}

bool
aws_names_bucket_is_dns_label(const char *bucket)
{
	return is_label(bucket, strlen(bucket), LOWER DIGITS "-");
}
