/*-------------------------------------------------------------------------
 *
 * test_s3_xml.c
 *	  Single values out of the XML that S3 and STS answer with.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "lib/stringinfo.h"
#include "base/s3_xml.h"
#include "tap.h"

#define COMPLETED "CompleteMultipartUploadResult"
#define ETAG_PATH COMPLETED "/ETag"

static char *
find(const char *xml, const char *path)
{
	return s3_xml_find(xml, strlen(xml), path);
}

/* The forms that servers of different makes and versions send. */
static void
test_etags(void)
{
	static const struct
	{
		const char *element;
		const char *expected;
		const char *who;
	} forms[] = {
		{"<ETag></ETag>", "", "empty (Ceph 16)"},
		{"<ETag/>", "", "an empty tag"},
		{"<ETag>abc-2</ETag>", "abc-2", "without quotes (Ceph 18)"},
		{"<ETag>&quot;abc-2&quot;</ETag>", "\"abc-2\"", "named references (Ceph 20)"},
		{"<ETag>&#34;abc-2&#34;</ETag>", "\"abc-2\"", "decimal references (moto 5.1)"},
		{"<ETag>&#x22;abc-2&#x22;</ETag>", "\"abc-2\"", "hexadecimal references"},
		{"<ETag>\"abc-2\"</ETag>", "\"abc-2\"", "plain quotes (AWS, Swift)"},
		{"<ETag><![CDATA[\"a&b\"]]></ETag>", "\"a&b\"", "a CDATA section"},
	};

	for (size_t i = 0; i < lengthof(forms); i++)
	{
		char *xml = psprintf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
							 "<" COMPLETED " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
							 "<Location>http://host/b/k</Location><Bucket>b</Bucket><Key>k</Key>"
							 "%s</" COMPLETED ">",
							 forms[i].element);

		is(find(xml, ETAG_PATH), forms[i].expected, "ETag: %s", forms[i].who);
	}
}

/* S3 begins with status 200 and may still say that it failed. */
static void
test_error_within_success(void)
{
	const char *xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n   \n  "
					  "<Error><Code>InternalError</Code><Message>We encountered an internal error."
					  "</Message><RequestId>656c76696e67</RequestId></Error>";

	ok(!s3_xml_root_is(xml, strlen(xml), COMPLETED), "an error is no success");
	ok(s3_xml_root_is(xml, strlen(xml), "Error"), "its root is Error");
	is(find(xml, ETAG_PATH), NULL, "it has no ETag");
	is(find(xml, "Error/Code"), "InternalError", "its code");
	is(find(xml, "Error/Message"), "We encountered an internal error.", "its message");
	is(find(xml, "Error/RequestId"), "656c76696e67", "its request id");
	is(find(xml, "Error/HostId"), NULL, "what it does not say");
	is(find("<Error><Code>X</Code><Message></Message></Error>", "Error/Message"), "",
	   "a message that is empty (Ceph)");
}

static void
test_white_space(void)
{
	const char *xml =
		" \r\n\t   \n<?xml version=\"1.0\"?>\n<" COMPLETED "><ETag>e</ETag></" COMPLETED ">\n \n";

	is(find(xml, ETAG_PATH), "e", "white space before and after the document");
	is(find("   \n ", ETAG_PATH), NULL, "nothing but white space");
	is(find("", ETAG_PATH), NULL, "an empty body");
	is(s3_xml_find(NULL, 0, ETAG_PATH), NULL, "no body");
}

/* No prefix of a document may be taken for the whole. */
static void
test_truncated(void)
{
	const char *xml = "<?xml version=\"1.0\"?><" COMPLETED "><ETag>e&amp;f</ETag></" COMPLETED ">";
	size_t      accepted = 0;

	for (size_t len = 0; len < strlen(xml); len++)
	{
		if (s3_xml_find(xml, len, ETAG_PATH) != NULL || s3_xml_root_is(xml, len, COMPLETED))
			accepted++;
	}
	ok(accepted == 0, "none of %zu truncated documents is accepted", strlen(xml));
	is(find(xml, ETAG_PATH), "e&f", "the whole one is");
}

static void
test_paths(void)
{
	const char *xml =
		"<a:R xmlns:a=\"x\" id=\"1\"><a:B x=\"2\"><C>one<D>child</D>, two</C></a:B>"
		"<B><C>second</C><E>third</E></B><C>shallow</C><F><B><E>deep</E></B></F></a:R>";

	is(find(xml, "R/B/C"), "one, two", "the first of two, without its child's text");
	is(find(xml, "R/B/C/D"), "child", "the child");
	is(find(xml, "R/C"), "shallow", "one of the same name higher up");
	is(find(xml, "R/B/E"), "third", "in the second of two parents");
	is(find(xml, "R/F/B/E"), "deep", "one of the same name further down");
	is(find(xml, "B/C"), NULL, "a path begins at the root");
	is(find(xml, "R/X"), NULL, "a missing leaf");
	is(find(xml, "R/B/C/D/X"), NULL, "a missing leaf below a leaf");
	is(find(xml, "R/"), NULL, "an empty name");
	is(find(xml, "RR/B/C"), NULL, "another root that begins alike");
	is(find("<RootElement><B>x</B></RootElement>", "Root/B"), NULL, "a root that begins alike");
	ok(!s3_xml_root_is("<html><body/></html>", 20, COMPLETED), "a root of something else");
	ok(!s3_xml_root_is("<x><" COMPLETED "/></x>", 38, COMPLETED), "the name below the root");
}

static void
test_text(void)
{
	is(find("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a>\xe4\xf6\xfc\xe4\xf6\xfc</a>", "a"),
	   "\xc3\xa4\xc3\xb6\xc3\xbc\xc3\xa4\xc3\xb6\xc3\xbc", "text of another encoding grows");
	is(find("<a>&#x1F600;&lt;&gt;&amp;</a>", "a"), "\xf0\x9f\x98\x80<>&", "references");
	is(find("<a>\xff\xfe</a>", "a"), NULL, "bytes that are not UTF-8");
	is(find("<a>&undefined;</a>", "a"), NULL, "an entity that nobody defined");
	is(find("<a>&#0;</a>", "a"), NULL, "a NUL");
	is(find("<a>x</a><a>y</a>", "a"), NULL, "two roots");
	is(find("<a>x</b>", "a"), NULL, "tags that do not match");
	is(find("no xml at all", "a"), NULL, "plain text");
}

static void
test_hostile(void)
{
	StringInfoData buf;

	is(find("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>", "a"), NULL, "an entity of its own");
	is(find("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a>b</a>", "a"), NULL,
	   "an external document type");
	is(find("<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>", "a"), NULL,
	   "an external entity");

	initStringInfo(&buf);
	appendStringInfoString(&buf, "<?xml version=\"1.0\"?><!DOCTYPE lolz [<!ENTITY l0 \"lol\">");
	for (int i = 1; i < 10; i++)
	{
		appendStringInfo(&buf, "<!ENTITY l%d \"", i);
		for (int j = 0; j < 10; j++)
			appendStringInfo(&buf, "&l%d;", i - 1);
		appendStringInfoString(&buf, "\">");
	}
	appendStringInfoString(&buf, "]><a>&l9;</a>");
	is(find(buf.data, "a"), NULL, "a billion laughs");
}

static char *
nested(int depth)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < depth; i++)
		appendStringInfoString(&buf, "<a>");
	for (int i = 0; i < depth; i++)
		appendStringInfoString(&buf, "</a>");
	return buf.data;
}

/* An element that makes the document "len" bytes long. */
static char *
sized(size_t len)
{
	char *xml = palloc(len + 1);

	memset(xml, 'x', len);
	memcpy(xml, "<a>", 3);
	memcpy(xml + len - 4, "</a>", 4);
	xml[len] = '\0';
	return xml;
}

static void
test_bounds(void)
{
	char *junk = palloc(S3_XML_MAX_LEN + 1);
	char *text;

	is(find(nested(S3_XML_MAX_DEPTH), "a"), "", "as deep as is allowed");
	is(find(nested(S3_XML_MAX_DEPTH + 1), "a"), NULL, "one deeper");
	is(find(nested(100000), "a"), NULL, "much deeper");

	text = find(sized(S3_XML_MAX_LEN), "a");
	ok(text != NULL && strlen(text) == S3_XML_MAX_LEN - 7, "as long as is allowed");
	is(find(sized(S3_XML_MAX_LEN + 1), "a"), NULL, "one byte longer");

	memset(junk, '\0', S3_XML_MAX_LEN);
	is(s3_xml_find(junk, S3_XML_MAX_LEN, "a"), NULL, "1 MiB of zeros");
	memset(junk, '<', S3_XML_MAX_LEN);
	is(s3_xml_find(junk, S3_XML_MAX_LEN, "a"), NULL, "1 MiB of '<'");
	for (size_t i = 0; i < S3_XML_MAX_LEN; i++)
		junk[i] = (char) ((i * 2654435761U) >> 13);
	is(s3_xml_find(junk, S3_XML_MAX_LEN, "a"), NULL, "1 MiB of noise");
	memcpy(junk, "<a>", 3);
	is(s3_xml_find(junk, S3_XML_MAX_LEN, "a"), NULL, "1 MiB of noise in an element");
}

int
main(void)
{
	test_etags();
	test_error_within_success();
	test_white_space();
	test_truncated();
	test_paths();
	test_text();
	test_hostile();
	test_bounds();
	return done_testing();
}
