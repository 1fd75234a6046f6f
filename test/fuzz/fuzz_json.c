/*-------------------------------------------------------------------------
 *
 * fuzz_json.c
 *	  Strings out of JSON (json_text.c), compared with PostgreSQL's parser.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include "common/jsonapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "base/json_text.h"

/* PostgreSQL's parser calls itself for each level. */
#define MAX_LEN 4096

static bool
is_json(char *json, size_t len)
{
	JsonLexContext *lex;

#if PG_VERSION_NUM >= 170000
	lex = makeJsonLexContextCstringLen(NULL, json, len, PG_UTF8, true);
#else
	lex = makeJsonLexContextCstringLen(json, (int) len, PG_UTF8, true);
#endif
	return pg_parse_json(lex, &nullSemAction) == JSON_SUCCESS;
}

static bool
is_object(const char *json, size_t len)
{
	size_t i = 0;

	while (i < len && strchr(" \t\r\n", json[i]) != NULL && json[i] != '\0')
		i++;
	return i < len && json[i] == '{';
}

/* More than it is nested by, strings included. */
static int
most_depth(const char *json, size_t len)
{
	int depth = 0;

	for (size_t i = 0; i < len; i++)
		depth += json[i] == '{' || json[i] == '[';
	return depth;
}

static void
append_string(StringInfo json, const char *text)
{
	appendStringInfoChar(json, '"');
	for (; *text != '\0'; text++)
	{
		if ((unsigned char) *text < ' ')
			appendStringInfo(json, "\\u%04x", *text);
		else
		{
			if (*text == '"' || *text == '\\')
				appendStringInfoChar(json, '\\');
			appendStringInfoChar(json, *text);
		}
	}
	appendStringInfoChar(json, '"');
}

/* What was written is what is read, whatever stands before it. */
static void
check_round_trip(const char *name, const char *value, char *other)
{
	StringInfoData json;
	char          *found;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"before %zu\": ", strlen(name));
	append_string(&json, other);
	appendStringInfoString(&json, ", ");
	append_string(&json, name);
	appendStringInfoString(&json, ":");
	append_string(&json, value);
	appendStringInfoString(&json, "}");
	if (json.len > JSON_TEXT_MAX_LEN || strncmp(name, "before ", 7) == 0)
		return;
	found = json_text_find(json.data, json.len, name);
	FUZZ_CHECK(found != NULL && strcmp(found, value) == 0);
}

void
fuzz_one(FuzzInput *input)
{
	static const char *const names[] = {"Code", "SecretAccessKey", "Token", ""};
	const char              *name = names[fuzz_byte(input) % lengthof(names)];
	size_t                   len;
	char                    *json = fuzz_rest(input, &len);
	FuzzInput                strings = {(uint8 *) json, len};
	char                    *found;

	if (len > MAX_LEN)
		return;
	found = json_text_find(json, len, name);
	if (found != NULL)
	{
		FUZZ_CHECK(strlen(found) <= len);
		FUZZ_CHECK(is_object(json, len));
		FUZZ_CHECK(is_json(json, len));
	}

	/* A name is found in any object that is put into one as its value. */
	if (len > 0 && most_depth(json, len) < JSON_TEXT_MAX_DEPTH)
	{
		StringInfoData outer;

		initStringInfo(&outer);
		appendStringInfoString(&outer, "{\"a\": ");
		appendBinaryStringInfo(&outer, json, (int) len);
		appendStringInfoString(&outer, ", \"Expiration\": \"soon\"}");
		if (is_json(json, len))
		{
			found = json_text_find(outer.data, outer.len, "Expiration");
			FUZZ_CHECK(found != NULL && strcmp(found, "soon") == 0);
		}
	}
	name = fuzz_string(&strings);
	found = fuzz_string(&strings);
	check_round_trip(name, found, fuzz_string(&strings));
}
