/*-------------------------------------------------------------------------
 *
 * tap.c
 *	  Unit tests that print TAP, for modules that need no server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "tap.h"

static int tests = 0;
static int failures = 0;

/* Control characters are printed in hex: a line break would end the TAP line. */
static void
print_escaped(const char *text)
{
	for (; *text; text++)
	{
		if ((unsigned char) *text < ' ' || *text == 0x7f)
			printf("\\x%02x", *text);
		else
			putchar(*text);
	}
}

static bool
result(bool passed, const char *format, va_list args)
{
	char name[1024];

	vsnprintf(name, sizeof(name), format, args);
	tests++;
	if (!passed)
		failures++;
	printf("%sok %d - ", passed ? "" : "not ", tests);
	print_escaped(name);
	printf("\n");
	return passed;
}

bool
ok(bool condition, const char *name, ...)
{
	va_list args;

	va_start(args, name);
	result(condition, name, args);
	va_end(args);
	return condition;
}

static void
print_value(const char *label, const char *value)
{
	printf("# %s: ", label);
	print_escaped(value ? value : "NULL");
	printf("\n");
}

bool
is(const char *got, const char *expected, const char *name, ...)
{
	bool    equal = (got && expected) ? strcmp(got, expected) == 0 : got == expected;
	va_list args;

	va_start(args, name);
	result(equal, name, args);
	va_end(args);
	if (!equal)
	{
		print_value("expected", expected);
		print_value("got", got);
	}
	return equal;
}

void
skip(const char *name, const char *reason)
{
	printf("ok %d - %s # SKIP %s\n", ++tests, name, reason);
}

int
done_testing(void)
{
	printf("1..%d\n", tests);
	return failures == 0 && tests > 0 ? 0 : 1;
}
