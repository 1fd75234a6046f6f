/*-------------------------------------------------------------------------
 *
 * fuzz_xml.c
 *	  Values out of XML (s3_xml.c): nothing from what is not a whole document.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include "mb/pg_wchar.h"

#include "base/s3_xml.h"

static bool
contains(const char *xml, size_t len, const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i + n <= len; i++)
		if (memcmp(xml + i, word, n) == 0)
			return true;
	return false;
}

/* Where a byte is a character, and markup is markup. */
static bool
is_plain(const char *xml, size_t len)
{
	return memchr(xml, '\0', len) == NULL && !contains(xml, len, "<!--") &&
		   !contains(xml, len, "<![") && !contains(xml, len, "<?");
}

static char *
find_copy(const char *xml, size_t len, const char *path)
{
	char *copy = palloc(len);

	memcpy(copy, xml, len);
	return s3_xml_find(copy, len, path);
}

static void
check_found(const char *xml, size_t len, const char *path, const char *found)
{
	char *padded = palloc(len + 3);
	char *again;

	FUZZ_CHECK(strlen(found) <= 2 * len);
	FUZZ_CHECK(pg_encoding_verifymbstr(PG_UTF8, found, (int) strlen(found)) == (int) strlen(found));

	/* what keeps a connection alive does not change the answer */
	memcpy(padded, " \r\n", 3);
	memcpy(padded + 3, xml, len);
	again = s3_xml_find(padded, len + 3, path);
	FUZZ_CHECK(again != NULL && strcmp(again, found) == 0);

	if (!is_plain(xml, len))
		return;
	FUZZ_CHECK(!contains(xml, len, "<!DOCTYPE"));
	while (len > 0 && strchr(" \t\r\n", xml[len - 1]) != NULL)
		len--;
	FUZZ_CHECK(find_copy(xml, len - 1, path) == NULL);
}

void
fuzz_one(FuzzInput *input)
{
	static const char *const paths[] = {
		"Error/Code", "LocationConstraint", "InitiateMultipartUploadResult/UploadId",
		"ErrorResponse/Error/Message",
		"AssumeRoleResponse/AssumeRoleResult/Credentials/SecretAccessKey"};
	const char *path = paths[fuzz_byte(input) % lengthof(paths)];
	char       *root = pnstrdup(path, strcspn(path, "/"));
	size_t      len;
	char       *xml = fuzz_rest(input, &len);
	char       *found = s3_xml_find(xml, len, path);

	if (found != NULL)
	{
		FUZZ_CHECK(s3_xml_root_is(xml, len, root));
		check_found(xml, len, path, found);
	}
}
