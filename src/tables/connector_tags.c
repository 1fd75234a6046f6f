/*-------------------------------------------------------------------------
 *
 * connector_tags.c
 *	  The tags that objects are created with: JSON in SQL, a query string in S3.
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "tables/connector.h"

#define MAX_TAGS 10
#define MAX_TAG_NAME 128 /* characters, as the next */
#define MAX_TAG_VALUE 256

/* NULL when it is too short or too long, else as S3 wants it. */
static char *
encode_tag(const JsonbValue *value, int min, int max)
{
	const char    *text = value->val.string.val;
	int            len = value->val.string.len;
	StringInfoData buf;
	int            characters = pg_mbstrlen_with_len(text, len);

	if (characters < min || characters > max)
		return NULL;
	text = pnstrdup(text, len);
	initStringInfo(&buf);
	sigv4_uri_encode(&buf, pg_server_to_any(text, len, PG_UTF8), false);
	return buf.data;
}

/* One member; returns NULL or what is right. */
static const char *
append_tag(StringInfo buf, const JsonbValue *name, const JsonbValue *value)
{
	char *encoded = encode_tag(name, 1, MAX_TAG_NAME);

	if (encoded == NULL)
		return "The name of a tag has 1 to 128 characters.";
	appendStringInfo(buf, "%s%s=", buf->len > 0 ? "&" : "", encoded);
	if (value->type != jbvString)
		return "The value of a tag is a string.";
	encoded = encode_tag(value, 0, MAX_TAG_VALUE);
	if (encoded == NULL)
		return "The value of a tag has at most 256 characters.";
	appendStringInfoString(buf, encoded);
	return NULL;
}

const char *
connector_set_tags(Connector *connector, const char *json)
{
	Jsonb             *jsonb;
	JsonbIterator     *iterator;
	JsonbIteratorToken token;
	JsonbValue         name;
	JsonbValue         value;
	StringInfoData     buf;

	connector->tags = NULL;
	connector->s3.tags = NULL;
	if (json == NULL)
		return NULL;
	jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
	if (!JB_ROOT_IS_OBJECT(jsonb))
		return "Tags are a JSON object, for example '{\"team\": \"finance\"}'.";
	if (JB_ROOT_COUNT(jsonb) > MAX_TAGS)
		return "An object has at most 10 tags.";
	if (JB_ROOT_COUNT(jsonb) == 0)
		return NULL;

	initStringInfo(&buf);
	iterator = JsonbIteratorInit(&jsonb->root);
	while ((token = JsonbIteratorNext(&iterator, &name, true)) != WJB_DONE)
	{
		const char *wrong;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&iterator, &value, true);
		wrong = append_tag(&buf, &name, &value);
		if (wrong != NULL)
			return wrong;
	}
	connector->tags = pstrdup(json);
	connector->s3.tags = buf.data;
	return NULL;
}
