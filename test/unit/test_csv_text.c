/*-------------------------------------------------------------------------
 *
 * test_csv_text.c
 *	  Values copied, checked and quoted, against the same done byte by byte.
 *
 * Source and target each end, or begin, where memory ends: a byte read or
 * written too many is a crash.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <sys/mman.h>
#include <unistd.h>

#include "mb/pg_wchar.h"

#include "format/csv_text.h"
#include "tap.h"

#define MAX_LEN 260

typedef struct Fence
{
	char  *start;
	size_t size;
} Fence;

static const CsvMarks sets[] = {
	{',', '"', '"', -1},
	{'|', '\'', '\\', -1},
	{'\t', '"', ',', -1},
	{'\xE4', '\xFF', '\x80', -1},
};

static Fence
make_fence(void)
{
	size_t page = (size_t) sysconf(_SC_PAGESIZE);
	char  *memory = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED || mprotect(memory + page, page, PROT_READ | PROT_WRITE) != 0)
	{
		perror("mmap");
		exit(1);
	}
	return (Fence){memory + page, page};
}

/* Where "len" bytes touch one end of the memory. */
static char *
at_end(const Fence *fence, size_t len, bool end)
{
	return end ? fence->start + fence->size - len : fence->start;
}

static bool
expect_plain(const char *src, size_t len, const CsvMarks *m, bool ascii_only)
{
	for (size_t i = 0; i < len; i++)
	{
		if (src[i] == m->delimiter || src[i] == m->quote || src[i] == '\n' || src[i] == '\r' ||
			(ascii_only && (src[i] & 0x80) != 0))
			return false;
	}
	return true;
}

#ifdef CSV_TEXT_X86

/* csv_copy_plain leaves shorter values to the narrower chunks. */
static bool
avx2_agrees(char *dst, const char *src, size_t len, const CsvMarks *m, bool ascii_only, bool plain)
{
	if (len < 32 || !csv_has_avx2())
		return true;
	memset(dst, '#', len);
	return csv_copy_plain_avx2(dst, src, len, m, ascii_only) == plain &&
		   (!plain || memcmp(dst, src, len) == 0);
}

#else
#define avx2_agrees(dst, src, len, m, ascii_only, plain) true
#endif

static size_t
expect_quoted(char *dst, const char *src, size_t len, const CsvMarks *m)
{
	char *p = dst;

	*p++ = m->quote;
	for (size_t i = 0; i < len; i++)
	{
		if (src[i] == m->quote || src[i] == m->escape)
			*p++ = m->escape;
		*p++ = src[i];
	}
	*p++ = m->quote;
	return p - dst;
}

/* One value, at one end of the memories. */
static bool
agrees(const Fence *from, const Fence *to, const char *value, size_t len, const CsvMarks *m,
	   bool end)
{
	char   expected[2 * MAX_LEN + 2];
	size_t size = expect_quoted(expected, value, len, m);
	char  *src = at_end(from, len, end);
	char  *dst;

	memcpy(src, value, len);
	for (int ascii_only = 0; ascii_only < 2; ascii_only++)
	{
		bool plain = expect_plain(value, len, m, ascii_only);

		dst = at_end(to, len, end);
		memset(dst, '#', len);
		if (csv_copy_plain(dst, src, len, m, ascii_only) != plain)
			return false;
		if (plain && memcmp(dst, value, len) != 0)
			return false;
		if (!avx2_agrees(dst, src, len, m, ascii_only, plain))
			return false;
	}
	if (csv_needs_quotes(src, len, m) == expect_plain(value, len, m, false) ||
		csv_quoted_size(src, len, m) != size)
		return false;
	dst = at_end(to, len, end);
	memset(dst, '#', len);
	csv_copy_page(dst, src, len, BLCKSZ);
	if (memcmp(dst, value, len) != 0)
		return false;
	dst = at_end(to, size, end);
	memset(dst, '#', size);
	return csv_copy_quoted(dst, src, len, m) == dst + size && memcmp(dst, expected, size) == 0;
}

static bool
agrees_everywhere(const char *value, size_t len)
{
	static Fence from;
	static Fence to;

	if (from.start == NULL)
	{
		from = make_fence();
		to = make_fence();
	}
	for (size_t set = 0; set < lengthof(sets); set++)
	{
		if (!agrees(&from, &to, value, len, &sets[set], true) ||
			!agrees(&from, &to, value, len, &sets[set], false))
			return false;
	}
	return true;
}

/* A byte of interest at each place of a value of each length. */
static void
test_one_byte(char byte, const char *name)
{
	char value[MAX_LEN];
	bool good = true;

	for (size_t len = 1; len <= MAX_LEN; len++)
	{
		for (size_t place = 0; place < len; place++)
		{
			memset(value, 'x', len);
			value[place] = byte;
			good = good && agrees_everywhere(value, len);
		}
	}
	ok(good, "%s at every place of 1 to %d bytes", name, MAX_LEN);
}

static void
test_random(void)
{
	static const char bytes[] = ",\"\n\r\\|'\t\xE4\xFF\x80\x01\x0B\x0C -.#!+*&$%/0abcxyz";
	char              value[MAX_LEN];
	uint32            seed = 1;
	bool              good = true;

	for (int round = 0; round < 20000; round++)
	{
		size_t len = round % (MAX_LEN + 1);

		for (size_t i = 0; i < len; i++)
		{
			seed = seed * 1664525 + 1013904223;
			value[i] = bytes[(seed >> 16) % (sizeof(bytes) - 1)];
		}
		good = good && agrees_everywhere(value, len);
	}
	ok(good, "values full of such bytes and of neighbours of them");
}

/* A trailing byte that is a quote's or a delimiter's is not one. */
static void
test_trailing_bytes(void)
{
	const CsvMarks sjis = {'|', '\\', '\\', PG_SJIS};
	const char     value[] = "\x83\x5C\x83\x7C";
	char           dst[20];
	char          *end;

	ok(!csv_needs_quotes(value, 4, &sjis), "no trailing byte asks for quotes");
	ok(csv_needs_quotes("\x83\x5C|", 3, &sjis), "a delimiter after a character does");
	ok(csv_quoted_size(value, 4, &sjis) == 6, "no trailing byte takes an escape");
	end = csv_copy_quoted(dst, "\x83\x5C\\", 3, &sjis);
	ok(end - dst == 6 && memcmp(dst, "\\\x83\x5C\\\\\\", 6) == 0, "only a character is escaped");
}

int
main(void)
{
	ok(agrees_everywhere("", 0), "an empty value");
	test_one_byte('x', "nothing");
	test_one_byte(',', "comma");
	test_one_byte('"', "quote");
	test_one_byte('\n', "newline");
	test_one_byte('\r', "carriage return");
	test_one_byte('\\', "backslash");
	test_one_byte('\x1F', "control character");
	test_one_byte(' ', "blank");
	test_one_byte('\xE4', "byte beyond ASCII");
	test_random();
	test_trailing_bytes();
	return done_testing();
}
