/*-------------------------------------------------------------------------
 *
 * fuzz_csv_text.c
 *	  Bytes of CSV values (csv_text.c), compared with a loop over bytes.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "format/csv_text.h"
#ifdef FUZZ_WORDS
#undef CSV_TEXT_X86
#undef __SSE2__
#endif
#include "format/csv_text.c"

/* The length of the character at "src", as COPY steps. */
static size_t
char_len(const char *src, size_t left, const CsvMarks *marks)
{
	int n = 1;

	if (marks->mblen_encoding >= 0 && IS_HIGHBIT_SET(*src))
		n = pg_encoding_mblen(marks->mblen_encoding, src);
	return Min((size_t) n, left);
}

/* One character at a time, as COPY does it; returns whether quotes are due. */
static bool
write_slowly(StringInfo quoted, const char *src, size_t len, const CsvMarks *marks)
{
	bool   due = false;
	size_t n;

	appendStringInfoChar(quoted, marks->quote);
	for (size_t i = 0; i < len; i += n)
	{
		char c = src[i];

		n = char_len(src + i, len - i, marks);
		due |= c == marks->delimiter || c == marks->quote || c == '\n' || c == '\r';
		if (c == marks->quote || c == marks->escape)
			appendStringInfoChar(quoted, marks->escape);
		appendBinaryStringInfo(quoted, src + i, (int) n);
	}
	appendStringInfoChar(quoted, marks->quote);
	return due;
}

static bool
is_ascii(const char *src, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (IS_HIGHBIT_SET(src[i]))
			return false;
	return true;
}

/* With room for not a byte more than the header asks for. */
static void
check_value(const char *src, size_t len, const CsvMarks *marks)
{
	StringInfoData expected;
	char          *plain = palloc(len);
	bool           due;
	size_t         size = csv_quoted_size(src, len, marks);
	char          *quoted = palloc(size);

	initStringInfo(&expected);
	due = write_slowly(&expected, src, len, marks);
	FUZZ_CHECK(csv_needs_quotes(src, len, marks) == due);
	FUZZ_CHECK(size == (size_t) expected.len && size <= 2 * len + 2);
	FUZZ_CHECK(csv_copy_quoted(quoted, src, len, marks) == quoted + size);
	FUZZ_CHECK(memcmp(quoted, expected.data, size) == 0);

	if (marks->mblen_encoding >= 0)
		return;
	for (int ascii_only = 0; ascii_only < 2; ascii_only++)
	{
		bool stays = !due && (!ascii_only || is_ascii(src, len));

		FUZZ_CHECK(csv_copy_plain(plain, src, len, marks, ascii_only) == stays);
		FUZZ_CHECK(!stays || memcmp(plain, src, len) == 0);
	}
}

/* Validates, as all text in a server has been. */
static bool
is_valid(const char *src, size_t len, int encoding)
{
	return encoding < 0 || pg_encoding_verifymbstr(encoding, src, (int) len) == (int) len;
}

void
fuzz_one(FuzzInput *input)
{
	static const int encodings[] = {-1, -1, PG_SJIS, PG_GB18030};
	CsvMarks         marks = {.delimiter = (char) (fuzz_byte(input) & 0x7F),
							  .quote = (char) (fuzz_byte(input) & 0x7F),
							  .escape = (char) (fuzz_byte(input) & 0x7F)};
	size_t           len;
	char            *src;

	marks.mblen_encoding = encodings[fuzz_byte(input) % lengthof(encodings)];
	src = fuzz_rest(input, &len);
	if (is_valid(src, len, marks.mblen_encoding))
		check_value(src, len, &marks);
}
