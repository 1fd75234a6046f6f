/*-------------------------------------------------------------------------
 *
 * json_text.c
 *	  Single strings out of the JSON that metadata services answer with.
 *
 * The server's own parser raises errors, for one when a text is nested too
 * deeply or has a character that the database's encoding has not.  Whoever
 * judges an answer here must not, since transfers are under way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "base/json_text.h"

typedef struct Scanner
{
	const char *p;
	const char *end;
} Scanner;

static int
peek_char(const Scanner *scanner)
{
	return scanner->p < scanner->end ? (unsigned char) *scanner->p : -1;
}

static bool
take_char(Scanner *scanner, char expected)
{
	if (peek_char(scanner) != expected)
		return false;
	scanner->p++;
	return true;
}

static void
skip_space(Scanner *scanner)
{
	int c;

	while ((c = peek_char(scanner)) == ' ' || c == '\t' || c == '\r' || c == '\n')
		scanner->p++;
}

/* A structural character and the white space around it. */
static bool
take_sign(Scanner *scanner, char expected)
{
	skip_space(scanner);
	if (!take_char(scanner, expected))
		return false;
	skip_space(scanner);
	return true;
}

/* ---- strings ---- */

/* The four digits after "\u". */
static bool
scan_hex(Scanner *scanner, pg_wchar *unit)
{
	*unit = 0;
	for (int i = 0; i < 4; i++)
	{
		int c = peek_char(scanner);

		if (c >= '0' && c <= '9')
			c -= '0';
		else if (c >= 'a' && c <= 'f')
			c -= 'a' - 10;
		else if (c >= 'A' && c <= 'F')
			c -= 'A' - 10;
		else
			return false;
		*unit = *unit << 4 | (pg_wchar) c;
		scanner->p++;
	}
	return true;
}

/* What comes after "\u"; characters beyond the first 64k are two such escapes. */
static bool
scan_unicode(Scanner *scanner, StringInfo text)
{
	pg_wchar      c;
	pg_wchar      second;
	unsigned char utf8[MAX_MULTIBYTE_CHAR_LEN + 1] = {0};

	if (!scan_hex(scanner, &c) || c == 0 || is_utf16_surrogate_second(c))
		return false;
	if (is_utf16_surrogate_first(c))
	{
		if (!take_char(scanner, '\\') || !take_char(scanner, 'u') || !scan_hex(scanner, &second) ||
			!is_utf16_surrogate_second(second))
			return false;
		c = surrogate_pair_to_codepoint(c, second);
	}
	appendStringInfoString(text, (char *) unicode_to_utf8(c, utf8));
	return true;
}

static bool
scan_escape(Scanner *scanner, StringInfo text)
{
	static const char letters[] = "\"\\/bfnrt";
	static const char meanings[] = "\"\\/\b\f\n\r\t";
	int               c = peek_char(scanner);
	const char       *letter = c > 0 ? strchr(letters, c) : NULL;

	scanner->p++;
	if (c == 'u')
		return scan_unicode(scanner, text);
	if (letter == NULL)
		return false;
	appendStringInfoChar(text, meanings[letter - letters]);
	return true;
}

/* The string without its quotes and escapes. */
static bool
scan_string(Scanner *scanner, StringInfo text)
{
	resetStringInfo(text);
	if (!take_char(scanner, '"'))
		return false;
	for (;;)
	{
		int c = peek_char(scanner);

		/* -1, the end, is among these. */
		if (c < ' ')
			return false;
		scanner->p++;
		if (c == '"')
			return true;
		if (c != '\\')
			appendStringInfoChar(text, (char) c);
		else if (!scan_escape(scanner, text))
			return false;
	}
}

/* ---- other values ---- */

static bool
skip_digits(Scanner *scanner)
{
	const char *start = scanner->p;

	while (peek_char(scanner) >= '0' && peek_char(scanner) <= '9')
		scanner->p++;
	return scanner->p > start;
}

static bool
skip_number(Scanner *scanner)
{
	(void) take_char(scanner, '-');
	if (!take_char(scanner, '0') && !skip_digits(scanner))
		return false;
	if (take_char(scanner, '.') && !skip_digits(scanner))
		return false;
	if (!take_char(scanner, 'e') && !take_char(scanner, 'E'))
		return true;
	if (!take_char(scanner, '-'))
		(void) take_char(scanner, '+');
	return skip_digits(scanner);
}

static bool
skip_word(Scanner *scanner, const char *word)
{
	while (*word != '\0')
		if (!take_char(scanner, *word++))
			return false;
	return true;
}

static bool
skip_scalar(Scanner *scanner, StringInfo scratch)
{
	switch (peek_char(scanner))
	{
		case '"':
			return scan_string(scanner, scratch);
		case 't':
			return skip_word(scanner, "true");
		case 'f':
			return skip_word(scanner, "false");
		case 'n':
			return skip_word(scanner, "null");
		default:
			return skip_number(scanner);
	}
}

static bool
scan_name(Scanner *scanner, StringInfo name)
{
	return scan_string(scanner, name) && take_sign(scanner, ':');
}

/* Not by recursion: how deep it goes is up to whoever sends it. */
static bool
skip_value(Scanner *scanner, StringInfo scratch)
{
	char closing[JSON_TEXT_MAX_DEPTH];
	int  depth = 0;

	for (;;)
	{
		bool object = peek_char(scanner) == '{';

		if (object || peek_char(scanner) == '[')
		{
			if (depth == JSON_TEXT_MAX_DEPTH)
				return false;
			scanner->p++;
			skip_space(scanner);
			closing[depth++] = object ? '}' : ']';
			if (peek_char(scanner) != closing[depth - 1])
			{
				if (object && !scan_name(scanner, scratch))
					return false;
				continue;
			}
		}
		else if (!skip_scalar(scanner, scratch))
			return false;

		/* After a value, or an opening bracket that is closed at once. */
		while (depth > 0 && !take_sign(scanner, ','))
			if (!take_char(scanner, closing[--depth]))
				return false;
		if (depth == 0)
			return true;
		if (closing[depth - 1] == '}' && !scan_name(scanner, scratch))
			return false;
	}
}

/* The members after '{'; what is found is put into "found". */
static bool
scan_members(Scanner *scanner, const char *name, StringInfo scratch, char **found)
{
	if (take_char(scanner, '}'))
		return true;
	for (;;)
	{
		bool wanted;

		if (!scan_name(scanner, scratch))
			return false;
		wanted = *found == NULL && strcmp(scratch->data, name) == 0 && peek_char(scanner) == '"';
		if (!skip_value(scanner, scratch))
			return false;
		if (wanted)
			*found = pstrdup(scratch->data);
		if (take_sign(scanner, ','))
			continue;
		return take_char(scanner, '}');
	}
}

char *
json_text_find(const char *json, size_t len, const char *name)
{
	Scanner        scanner = {json, json + len};
	StringInfoData scratch;
	char          *found = NULL;
	bool           whole;

	if (len > JSON_TEXT_MAX_LEN)
		return NULL;
	initStringInfo(&scratch);
	enlargeStringInfo(&scratch, (int) len);
	whole = take_sign(&scanner, '{') && scan_members(&scanner, name, &scratch, &found);
	skip_space(&scanner);

	/* It has held every string of the text, secrets among them. */
	explicit_bzero(scratch.data, scratch.maxlen);
	pfree(scratch.data);
	if (whole && scanner.p == scanner.end)
		return found;
	if (found != NULL)
		explicit_bzero(found, strlen(found));
	return NULL;
}
