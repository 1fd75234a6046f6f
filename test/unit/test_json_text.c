/*-------------------------------------------------------------------------
 *
 * test_json_text.c
 *	  Strings out of JSON, and hostile JSON.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "base/json_text.h"
#include "tap.h"

static char *
find(const char *json, const char *name)
{
	return json_text_find(json, strlen(json), name);
}

static void
test_answers(void)
{
	static const char *const instance =
		"{\n  \"Code\" : \"Success\",\n  \"LastUpdated\" : \"2026-11-22T10:00:00Z\",\n"
		"  \"Type\" : \"AWS-HMAC\",\n  \"AccessKeyId\" : \"ASIAEXAMPLE\",\n"
		"  \"SecretAccessKey\" : \"abc/def+ghi=\",\n  \"Token\" : \"IQoJ\\/b3Jp\",\n"
		"  \"Expiration\" : \"2026-11-22T16:00:00Z\"\n}\n";

	is(find(instance, "Code"), "Success", "the code");
	is(find(instance, "AccessKeyId"), "ASIAEXAMPLE", "the access key");
	is(find(instance, "SecretAccessKey"), "abc/def+ghi=", "the secret key");
	is(find(instance, "Token"), "IQoJ/b3Jp", "a token with an escaped slash");
	is(find(instance, "Expiration"), "2026-11-22T16:00:00Z", "the end");
	is(find(instance, "RoleArn"), NULL, "what is not there");
	is(find(instance, "token"), NULL, "names have a case");
}

static void
test_values(void)
{
	is(find("{}", "a"), NULL, "an empty object");
	is(find(" \t\r\n{ \"a\" : \"b\" } ", "a"), "b", "white space");
	is(find("{\"a\":\"\"}", "a"), "", "an empty string");
	is(find("{\"a\":\"x\",\"a\":\"y\"}", "a"), "x", "the first of two");
	is(find("{\"a\":1,\"a\":\"y\"}", "a"), "y", "the first that is a string");
	is(find("{\"b\":{\"a\":\"inner\"},\"a\":\"outer\"}", "a"), "outer", "the top level only");
	is(find("{\"b\":[\"a\",{\"a\":\"inner\"}],\"c\":\"d\"}", "a"), NULL, "not what an array has");
	is(find("{\"b\":[],\"c\":{},\"d\":[{}],\"e\":{\"f\":[[]]},\"a\":\"z\"}", "a"), "z",
	   "empty containers");
	is(find("{\"b\":[1,-2.5e+10,0,0.1,1E5,true,false,null,\"s\"],\"a\":\"z\"}", "a"), "z",
	   "all kinds of values");
	is(find("{\"a\":null}", "a"), NULL, "null is no string");
	is(find("{\"\\u0061\":\"z\"}", "a"), "z", "a name with an escape");
	is(find("{\"a\":\"\\u00e9\\u20ac\\ud83d\\ude00\\n\\\"\\\\\\b\\f\\r\\t\"}", "a"),
	   "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\n\"\\\b\f\r\t", "escapes");
	is(find("{\"a\":\"\xC3\xA9\"}", "a"), "\xC3\xA9", "UTF-8 as it is");
}

static void
test_malformed(void)
{
	static const char *const texts[] = {
		"",
		" ",
		"{",
		"}",
		"null",
		"\"a\"",
		"[\"a\",\"b\"]",
		"{\"a\":\"b\"",
		"{\"a\":\"b\"}}",
		"{\"a\":\"b\"}{}",
		"{\"a\":\"b\"} x",
		"{\"a\":\"b\",}",
		"{,\"a\":\"b\"}",
		"{\"a\" \"b\"}",
		"{\"a\":}",
		"{\"a\":\"b\" \"c\":\"d\"}",
		"{a:\"b\"}",
		"{'a':'b'}",
		"{\"a\":\"b",
		"{\"a\":\"b\\",
		"{\"a\":\"b\\\"}",
		"{\"a\":\"\\x41\"}",
		"{\"a\":\"\\u12\"}",
		"{\"a\":\"\\u12g4\"}",
		"{\"a\":\"\\u0000\"}",
		"{\"a\":\"\\ud83d\"}",
		"{\"a\":\"\\ud83dx\"}",
		"{\"a\":\"\\ud83d\\u0041\"}",
		"{\"a\":\"\\ude00\"}",
		"{\"a\":\"line\nfeed\"}",
		"{\"a\":\"b\",\"c\":01}",
		"{\"a\":\"b\",\"c\":.5}",
		"{\"a\":\"b\",\"c\":5.}",
		"{\"a\":\"b\",\"c\":1e}",
		"{\"a\":\"b\",\"c\":-}",
		"{\"a\":\"b\",\"c\":+1}",
		"{\"a\":\"b\",\"c\":nul}",
		"{\"a\":\"b\",\"c\":True}",
		"{\"a\":\"b\",\"c\":[}",
		"{\"a\":\"b\",\"c\":[1}",
		"{\"a\":\"b\",\"c\":[1,]}",
		"{\"a\":\"b\",\"c\":[,1]}",
		"{\"a\":\"b\",\"c\":{\"d\"}}",
		"{\"a\":\"b\",\"c\":{\"d\":1]}",
		"{\"a\":\"b\",\"c\":{1:2}}",
		"{\"a\":\"b\",\"c\":]}",
		"\xEF\xBB\xBF{\"a\":\"b\"}",
		"<html>{\"a\":\"b\"}</html>",
	};

	for (size_t i = 0; i < lengthof(texts); i++)
		is(find(texts[i], "a"), NULL, "malformed: %s", texts[i]);
	is(json_text_find("{\"a\":\"b\0\"}", 10, "a"), NULL, "a null byte within a string");
	is(json_text_find("{\"a\":\"b\"}\0", 10, "a"), NULL, "a null byte after the end");
}

/* An object with an array of that depth in it. */
static char *
nest(int depth, bool closed)
{
	char *text = palloc(2 * depth + 32);
	char *p = text + sprintf(text, "{\"a\":\"b\",\"c\":");

	memset(p, '[', depth);
	p += depth;
	if (closed)
	{
		memset(p, ']', depth);
		p += depth;
	}
	strcpy(p, "}");
	return text;
}

static void
test_limits(void)
{
	char *text;

	is(find(nest(JSON_TEXT_MAX_DEPTH, true), "a"), "b", "as deep as it may be");
	is(find(nest(JSON_TEXT_MAX_DEPTH + 1, true), "a"), NULL, "too deep");
	is(find(nest(20000, false), "a"), NULL, "much too deep, and never closed");

	text = palloc(JSON_TEXT_MAX_LEN + 2);
	memset(text, ' ', JSON_TEXT_MAX_LEN + 1);
	text[JSON_TEXT_MAX_LEN] = '\0';
	memcpy(text, "{\"a\":\"b\"}", 9);
	is(find(text, "a"), "b", "as long as it may be");
	text[JSON_TEXT_MAX_LEN] = ' ';
	is(json_text_find(text, JSON_TEXT_MAX_LEN + 1, "a"), NULL, "too long");
}

/* No answer that is cut somewhere, and none with one byte changed, is read beyond its end. */
static void
test_damage(void)
{
	static const char whole[] = "{\"x\":[1,{\"y\":\"\\ud83d\\ude00\"},-0.5e3,null],\"a\":\"b\\n\"}";
	bool              right = true;

	for (size_t len = 0; len < sizeof(whole) - 1; len++)
	{
		/* of its own size, so that tools see what is read beyond it */
		char *cut = palloc(len + 1);

		memcpy(cut, whole, len);
		right &= json_text_find(cut, len, "a") == NULL;
		pfree(cut);
	}
	ok(right, "an object that is cut anywhere is malformed");
	for (size_t i = 0; i < sizeof(whole) - 1; i++)
	{
		for (int c = 0; c < 256; c++)
		{
			char *changed = palloc(sizeof(whole) - 1);

			memcpy(changed, whole, sizeof(whole) - 1);
			changed[i] = (char) c;
			(void) json_text_find(changed, sizeof(whole) - 1, "a");
			pfree(changed);
		}
	}
	ok(true, "an object with any byte changed is survived");
}

int
main(void)
{
	test_answers();
	test_values();
	test_malformed();
	test_limits();
	test_damage();
	return done_testing();
}
