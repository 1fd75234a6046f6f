/*-------------------------------------------------------------------------
 *
 * test_aws_names.c
 *	  Rules for what users name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "aws/aws_names.h"
#include "tap.h"

typedef const char *(*Check)(const char *value);

/* "count" times the character */
static char *
repeat(char c, int count)
{
	char *result = palloc(count + 1);

	memset(result, c, count);
	result[count] = '\0';
	return result;
}

/* A phrase has to be a sentence, and must not repeat what may be a secret. */
static void
refuses(Check check, const char *what, const char *value, const char *phrase)
{
	const char *got = check(value);

	ok(got != NULL && strstr(got, phrase) != NULL && got[strlen(got) - 1] == '.',
	   "%s \"%.40s\" is refused: %s", what, value, got ? got : "it was accepted");
}

static void
accepts(Check check, const char *what, const char *value)
{
	is(check(value), NULL, "%s \"%.70s\" is accepted", what, value);
}

static void
test_buckets(void)
{
	static const char *const good[] = {"abc",   "my-bucket", "my.bucket-1", "0a9",     "a--b",
									   "1.2.3", "1.2.3.4.5", "1.2.3.x",     "s3alias", "axn--b"};
	static const char *const characters[] = {"My-bucket",
											 "my_bucket",
											 "my bucket",
											 "b\xc3\xbc"
											 "cket",
											 "a/b",
											 "a%b",
											 "bucket\n"};
	static const char *const reserved[] = {
		"xn--abc",  "sthree-abc", "sthree-configurator", "amzn-s3-demo-bucket", "x-s3alias",
		"x--ol-s3", "x.mrap",     "x--usw2-az1--x-s3",   "x--table-s3"};

	for (size_t i = 0; i < lengthof(good); i++)
		accepts(aws_names_check_bucket, "bucket", good[i]);
	accepts(aws_names_check_bucket, "bucket", repeat('a', 63));
	refuses(aws_names_check_bucket, "bucket", repeat('a', 64), "3 to 63");
	refuses(aws_names_check_bucket, "bucket", "ab", "3 to 63");
	refuses(aws_names_check_bucket, "bucket", "", "3 to 63");
	for (size_t i = 0; i < lengthof(characters); i++)
		refuses(aws_names_check_bucket, "bucket", characters[i], "consists of");
	refuses(aws_names_check_bucket, "bucket", "-abc", "begins and ends");
	refuses(aws_names_check_bucket, "bucket", "abc-", "begins and ends");
	refuses(aws_names_check_bucket, "bucket", ".abc", "begins and ends");
	refuses(aws_names_check_bucket, "bucket", "abc.", "begins and ends");
	refuses(aws_names_check_bucket, "bucket", "a..b", "two dots");
	refuses(aws_names_check_bucket, "bucket", "192.168.5.4", "IP address");
	for (size_t i = 0; i < lengthof(reserved); i++)
		refuses(aws_names_check_bucket, "bucket", reserved[i], "reserves");

	ok(aws_names_bucket_is_dns_label("my-bucket"), "a bucket's name can be a label");
	ok(!aws_names_bucket_is_dns_label("my.bucket"), "but not when it has a dot");
	ok(!aws_names_bucket_is_dns_label("my_bucket"), "or an underscore");
	ok(!aws_names_bucket_is_dns_label("My-Bucket"), "or capitals");
	ok(!aws_names_bucket_is_dns_label(""), "or nothing");
}

static void
test_regions(void)
{
	static const char *const good[] = {"us-east-1", "default", "a", "1", "cn-north-1"};
	static const char *const bad[] = {"",          "US-EAST-1", "us_east_1", "-us", "us-",
									  "us.east.1", "evil.com/", "us east",   "a\nb"};
	static const char *const suffixes[][2] = {
		{"us-east-1", "amazonaws.com"},      {"us-gov-west-1", "amazonaws.com"},
		{"us-isolated-1", "amazonaws.com"},  {"cn-northwest-1", "amazonaws.com.cn"},
		{"eusc-de-east-1", "amazonaws.eu"},  {"us-iso-east-1", "c2s.ic.gov"},
		{"us-isob-east-1", "sc2s.sgov.gov"}, {"us-isof-south-1", "csp.hci.ic.gov"},
		{"eu-isoe-west-1", "cloud.adc-e.uk"}};

	for (size_t i = 0; i < lengthof(good); i++)
		accepts(aws_names_check_region, "region", good[i]);
	accepts(aws_names_check_region, "region", repeat('a', 63));
	refuses(aws_names_check_region, "region", repeat('a', 64), "1 to 63");
	for (size_t i = 0; i < lengthof(bad); i++)
		refuses(aws_names_check_region, "region", bad[i], "us-east-1");
	for (size_t i = 0; i < lengthof(suffixes); i++)
		is(aws_names_region_suffix(suffixes[i][0]), suffixes[i][1], "suffix of region %s",
		   suffixes[i][0]);
}

static void
test_roles(void)
{
	static const char *const good[] = {"arn:aws:iam::123456789012:role/name",
									   "arn:aws-cn:iam::123456789012:role/name",
									   "arn:aws-us-gov:iam::123456789012:role/a/b/S3Access",
									   "arn:aws:iam:::role/ceph",
									   "arn:aws:iam::RGW11111111111111111:role/name",
									   "arn:aws:iam::my_tenant:role/path/n_+=,.@-"};
	static const char *const form[] = {"",
									   "name",
									   "arn:aws:iam::123456789012:user/name",
									   "arn:aws:sts::123456789012:assumed-role/name/session",
									   "arn:aws:iam:us-east-1:123456789012:role/name",
									   "arn::iam::123456789012:role/name",
									   "ARN:aws:iam::123456789012:role/name",
									   "arn:aws:iam::1234/56789012:role/name",
									   "arn:aws:iam::123456789012:role",
									   "arn:aws:iam::123456789012:role/a b/name",
									   " arn:aws:iam::123456789012:role/name",
									   "arn:aws:iam::123456789012:role/name\n"};

	for (size_t i = 0; i < lengthof(good); i++)
		accepts(aws_names_check_role_arn, "role", good[i]);
	for (size_t i = 0; i < lengthof(form); i++)
		refuses(aws_names_check_role_arn, "role", form[i], "form");
	refuses(aws_names_check_role_arn, "role", "arn:aws:iam::123456789012:role/", "1 to 64");
	refuses(aws_names_check_role_arn, "role", "arn:aws:iam::123456789012:role/path/", "1 to 64");
	refuses(aws_names_check_role_arn, "role", "arn:aws:iam::123456789012:role/a$b", "1 to 64");
	accepts(aws_names_check_role_arn, "role", psprintf("arn:aws:iam::1:role/%s", repeat('a', 64)));
	refuses(aws_names_check_role_arn, "role", psprintf("arn:aws:iam::1:role/%s", repeat('a', 65)),
			"1 to 64");
	refuses(aws_names_check_role_arn, "role",
			psprintf("arn:aws:iam::1:role/%s/a", repeat('a', 2048)), "2048");

	accepts(aws_names_check_external_id, "external ID", "ab");
	accepts(aws_names_check_external_id, "external ID", "aZ09_+=,.@:/-");
	accepts(aws_names_check_external_id, "external ID", repeat('a', 1224));
	refuses(aws_names_check_external_id, "external ID", repeat('a', 1225), "2 to 1224");
	refuses(aws_names_check_external_id, "external ID", "a", "2 to 1224");
	refuses(aws_names_check_external_id, "external ID", "a b", "2 to 1224");
	refuses(aws_names_check_external_id, "external ID", "a&b", "2 to 1224");
}

static void
test_secrets(void)
{
	static const struct
	{
		Check       check;
		const char *what;
		int         max;
	} kinds[] = {{aws_names_check_access_key_id, "access key", 128},
				 {aws_names_check_secret, "secret", 256},
				 {aws_names_check_session_token, "token", 16384}};

	for (size_t i = 0; i < lengthof(kinds); i++)
	{
		accepts(kinds[i].check, kinds[i].what, "AKIAIOSFODNN7EXAMPLE");
		accepts(kinds[i].check, kinds[i].what, "!~");
		accepts(kinds[i].check, kinds[i].what, repeat('a', kinds[i].max));
		refuses(kinds[i].check, kinds[i].what, repeat('a', kinds[i].max + 1), "printable");
		refuses(kinds[i].check, kinds[i].what, "", "printable");
		refuses(kinds[i].check, kinds[i].what, "ab ", "without spaces");
		refuses(kinds[i].check, kinds[i].what, "a\r\nHost:b", "printable");
		refuses(kinds[i].check, kinds[i].what, "a\x7f", "printable");
		refuses(kinds[i].check, kinds[i].what, "b\xc3\xbc", "printable");
	}
	refuses(aws_names_check_access_key_id, "access key", "a/b", "slashes");
	refuses(aws_names_check_access_key_id, "access key", "a,b", "commas");
	accepts(aws_names_check_secret, "secret", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
	is(aws_names_check_secret("hush hush"), aws_names_check_secret("tell no one"),
	   "what is said about a secret does not depend on it");
}

static void
test_paths(void)
{
	static const char *const good[] = {"a",   "a/b.csv",         "...",  "a/...",    ".a/b.",
									   "a b", "\xe1\x88\xb4/+~", "a..b", "a\\b\"'<>"};
	static const char *const empty[] = {"/a", "a/", "a//b", ""};
	static const char *const dots[] = {".", "..", "a/..", "../a", "a/../b", "a/./b", "./a"};
	static const char *const controls[] = {"a\nb", "\x01", "a/\x7f", "a\tb"};
	static const char *const folders[][2] = {{"", ""},      {"/", ""},    {"///", ""},
											 {"a", "a"},    {"/a/", "a"}, {"//a/b//", "a/b"},
											 {" a ", " a "}};
	char                    *folder;

	for (size_t i = 0; i < lengthof(good); i++)
		accepts(aws_names_check_key, "key", good[i]);
	accepts(aws_names_check_key, "key", repeat('a', 1024));
	refuses(aws_names_check_key, "key", repeat('a', 1025), "1024 bytes");
	for (size_t i = 0; i < lengthof(empty); i++)
		refuses(aws_names_check_key, "key", empty[i], "empty segments");
	for (size_t i = 0; i < lengthof(dots); i++)
		refuses(aws_names_check_key, "key", dots[i], "\"..\"");
	for (size_t i = 0; i < lengthof(controls); i++)
		refuses(aws_names_check_key, "key", controls[i], "control");

	for (size_t i = 0; i < lengthof(folders); i++)
	{
		is(aws_names_normalize_folder(folders[i][0], &folder), NULL, "folder \"%s\" is accepted",
		   folders[i][0]);
		is(folder, folders[i][1], "and normalised");
	}
	ok(aws_names_normalize_folder("a//b", &folder) != NULL, "folder \"a//b\" is refused");
	ok(aws_names_normalize_folder("/../", &folder) != NULL, "folder \"/../\" is refused");
	ok(aws_names_normalize_folder("a\nb", &folder) != NULL, "control characters are refused");
	ok(aws_names_normalize_folder(repeat('a', 1025), &folder) != NULL, "1025 bytes are refused");
	is(aws_names_normalize_folder(psprintf("/%s/", repeat('a', 1024)), &folder), NULL,
	   "slashes that are removed are not counted");
}

static const char *
check_endpoint(const char *value)
{
	NamesEndpoint endpoint;

	return aws_names_parse_endpoint(value, &endpoint);
}

static void
test_endpoints(void)
{
	static const struct
	{
		const char *value;
		bool        https;
		const char *host;
		int         port;
		const char *url;
	} good[] = {{"https://s3.example.com", true, "s3.example.com", 0, "https://s3.example.com"},
				{"HTTPS://S3.Example.COM/", true, "s3.example.com", 0, "https://s3.example.com"},
				{"https://a:443", true, "a", 0, "https://a"},
				{"http://a:80/", false, "a", 0, "http://a"},
				{"https://a:80", true, "a", 80, "https://a:80"},
				{"http://a:00443", false, "a", 443, "http://a:443"},
				{"http://127.0.0.1:65535", false, "127.0.0.1", 65535, "http://127.0.0.1:65535"},
				{"http://[::1]", false, "[::1]", 0, "http://[::1]"},
				{"http://[0:0:0:0:0:0:0:1]:7480", false, "[::1]", 7480, "http://[::1]:7480"},
				{"https://[FE80::A]:443", true, "[fe80::a]", 0, "https://[fe80::a]"},
				{"http://minio_1:9000", false, "minio_1", 9000, "http://minio_1:9000"},
				{"http://1.example", false, "1.example", 0, "http://1.example"}};
	static const char *const schemes[] = {
		"", "s3.example.com", "ftp://a", "s3://a", "https:/a", " https://a", "file:///etc/passwd"};
	static const char *const extras[] = {"https://u@a", "https://u:p@a", "https://a/b",
										 "https://a//", "https://a?b",   "https://a#b",
										 "https://a/?", "https://a\\b"};
	static const char *const ports[] = {"https://a:",       "https://a:0",    "https://a:65536",
										"https://a:-1",     "https://a:8x",   "https://a: 8",
										"https://a:000080", "https://[::1]:", "https://a:1:2"};
	static const char *const hosts[] = {
		"https://",          "https:///",         "https://a b",       "https://a..b",
		"https://.a",        "https://a.",        "https://-a",        "https://a-.b",
		"https://a%2eb",     "https://b\xc3\xbc", "https://[::1",      "https://[]",
		"https://[1.2.3.4]", "https://[::1%lo]",  "https://[::1]a",    "https://127.1",
		"https://1",         "https://0x7f.0x1",  "https://1.2.3.256", "https://1.2.3.04",
		"https://a\nb.com",  "https://[[::1]]",   "https://a]"};
	NamesEndpoint endpoint;

	for (size_t i = 0; i < lengthof(good); i++)
	{
		if (!is(aws_names_parse_endpoint(good[i].value, &endpoint), NULL,
				"endpoint \"%s\" is accepted", good[i].value))
			continue;
		is(endpoint.url, good[i].url, "its URL");
		is(endpoint.host, good[i].host, "its host");
		ok(endpoint.https == good[i].https && endpoint.port == good[i].port,
		   "its scheme and port, %d", endpoint.port);
	}
	for (size_t i = 0; i < lengthof(schemes); i++)
		refuses(check_endpoint, "endpoint", schemes[i], "begins with");
	for (size_t i = 0; i < lengthof(extras); i++)
		refuses(check_endpoint, "endpoint", extras[i], "without user");
	for (size_t i = 0; i < lengthof(ports); i++)
		refuses(check_endpoint, "endpoint", ports[i], "65535");
	for (size_t i = 0; i < lengthof(hosts); i++)
		refuses(check_endpoint, "endpoint", hosts[i], "host name");
	refuses(check_endpoint, "endpoint", psprintf("https://%s", repeat('a', 64)), "host name");
	accepts(check_endpoint, "endpoint", psprintf("https://%s", repeat('a', 63)));
}

static void
test_objects(void)
{
	accepts(aws_names_check_kms_key_id, "KMS key", "1234abcd-12ab-34cd-56ef-1234567890ab");
	accepts(aws_names_check_kms_key_id, "KMS key", "alias/exports");
	accepts(aws_names_check_kms_key_id, "KMS key",
			"arn:aws:kms:eu-west-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab");
	refuses(aws_names_check_kms_key_id, "KMS key", "", "alias");
	refuses(aws_names_check_kms_key_id, "KMS key", "a b", "alias");
	refuses(aws_names_check_kms_key_id, "KMS key", "a\"b", "alias");
	refuses(aws_names_check_kms_key_id, "KMS key", "key/*", "alias");

	accepts(aws_names_check_storage_class, "storage class", "STANDARD_IA");
	accepts(aws_names_check_storage_class, "storage class", "cold-hdd");
	refuses(aws_names_check_storage_class, "storage class", "", "letters");
	refuses(aws_names_check_storage_class, "storage class", "A\nb", "letters");
	refuses(aws_names_check_storage_class, "storage class", repeat('A', 129), "128");

	accepts(aws_names_check_acl, "ACL", "bucket-owner-full-control");
	refuses(aws_names_check_acl, "ACL", "", "canned");
	refuses(aws_names_check_acl, "ACL", "Private", "canned");
	refuses(aws_names_check_acl, "ACL", "log-delivery-write", "canned");

	accepts(aws_names_check_content_type, "content type", "text/csv");
	accepts(aws_names_check_content_type, "content type", "text/csv; charset=utf-8");
	accepts(aws_names_check_content_type, "content type",
			"application/vnd.acme+csv; header=\"present\"");
	refuses(aws_names_check_content_type, "content type", "", "text/csv");
	refuses(aws_names_check_content_type, "content type", "csv", "text/csv");
	refuses(aws_names_check_content_type, "content type", "/csv", "text/csv");
	refuses(aws_names_check_content_type, "content type", "text/", "text/csv");
	refuses(aws_names_check_content_type, "content type", "text/ csv", "text/csv");
	refuses(aws_names_check_content_type, "content type", "text/csv ", "text/csv");
	refuses(aws_names_check_content_type, "content type", "text/csv\r\nx: y", "text/csv");
	refuses(aws_names_check_content_type, "content type", "t\xc3\xa4xt/csv", "text/csv");

	accepts(aws_names_check_account, "account", "123456789012");
	refuses(aws_names_check_account, "account", "12345678901", "12 digits");
	refuses(aws_names_check_account, "account", "1234-5678-9012", "12 digits");
	refuses(aws_names_check_account, "account", "12345678901x", "12 digits");
}

static void
test_partitions(void)
{
	is(aws_names_region_partition(NULL), "aws", "the partition without a region");
	is(aws_names_region_partition("eu-west-1"), "aws", "the partition of eu-west-1");
	is(aws_names_region_partition("cn-north-1"), "aws-cn", "the partition of cn-north-1");
	is(aws_names_region_partition("us-gov-east-1"), "aws-us-gov", "the partition of us-gov-east-1");
	is(aws_names_region_suffix("us-gov-east-1"), "amazonaws.com", "its suffix");
	is(aws_names_region_partition("us-isob-east-1"), "aws-iso-b",
	   "the partition of us-isob-east-1");
}

int
main(void)
{
	test_buckets();
	test_regions();
	test_roles();
	test_secrets();
	test_paths();
	test_endpoints();
	test_objects();
	test_partitions();
	return done_testing();
}
