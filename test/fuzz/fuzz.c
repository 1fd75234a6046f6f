/*-------------------------------------------------------------------------
 *
 * fuzz.c
 *	  What fuzz targets share: input, checks, and just enough of a backend.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include <sanitizer/asan_interface.h>
#include <time.h>

#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/memnodes.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

extern int LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

int fuzz_encoding;
int fuzz_repallocs;


/* ----------------------------------------------------------------
 * Input
 * ----------------------------------------------------------------
 */

uint8
fuzz_byte(FuzzInput *input)
{
	if (input->left == 0)
		return 0;
	input->left--;
	return *input->data++;
}

char *
fuzz_string(FuzzInput *input)
{
	const uint8 *end = memchr(input->data, '\0', input->left);
	size_t       len = end != NULL ? (size_t) (end - input->data) : input->left;
	char        *text = pnstrdup((const char *) input->data, len);

	len += end != NULL;
	input->data += len;
	input->left -= len;
	return text;
}

char *
fuzz_rest(FuzzInput *input, size_t *len)
{
	char *copy = palloc(input->left);

	memcpy(copy, input->data, input->left);
	*len = input->left;
	input->data += input->left;
	input->left = 0;
	return copy;
}


/* ----------------------------------------------------------------
 * Checks
 * ----------------------------------------------------------------
 */

void
fuzz_fail(const char *condition, const char *file, int line)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
	abort();
}

bool
fuzz_is_printable(const char *text)
{
	for (; *text != '\0'; text++)
		if (*text < ' ' || *text > '~')
			return false;
	return true;
}

bool
fuzz_is_clean(const char *text)
{
	const unsigned char *c = (const unsigned char *) text;
	size_t               left = strlen(text);

	while (left > 0)
	{
		size_t n = pg_utf_mblen(c);

		if (n > left || !pg_utf8_islegal(c, (int) n) || *c < ' ' || *c == 0x7F ||
			(*c == 0xC2 && c[1] < 0xA0))
			return false;
		c += n;
		left -= n;
	}
	return true;
}


/* ----------------------------------------------------------------
 * Memory: contexts are lists of what malloc gave
 * ----------------------------------------------------------------
 */

typedef struct Context
{
	MemoryContextData      header; /* first */
	dlist_head             chunks;
	dlist_head             children;
	dlist_node             node; /* in the parent's children */
	MemoryContextCallback *callbacks;
} Context;

/* Before each piece; what is next to it is out of bounds for everybody. */
#define GUARD 16

typedef struct Chunk
{
	dlist_node node;
	Context   *context;
	size_t     size;
	char       guard[GUARD];
} Chunk;

MemoryContext CurrentMemoryContext;
MemoryContext TopMemoryContext;

static void *
allocate(MemoryContext context, size_t size)
{
	Chunk *chunk = malloc(sizeof(Chunk) + size);

	FUZZ_CHECK(chunk != NULL);
	chunk->context = (Context *) context;
	chunk->size = size;
	dlist_push_tail(&chunk->context->chunks, &chunk->node);
	ASAN_POISON_MEMORY_REGION(chunk->guard, GUARD);
	return chunk + 1;
}

static Chunk *
chunk_of_pointer(void *pointer)
{
	return (Chunk *) pointer - 1;
}

void
pfree(void *pointer)
{
	Chunk *chunk = chunk_of_pointer(pointer);

	dlist_delete(&chunk->node);
	ASAN_UNPOISON_MEMORY_REGION(chunk->guard, GUARD);
	free(chunk);
}

void *
MemoryContextAlloc(MemoryContext context, Size size)
{
	FUZZ_CHECK(AllocSizeIsValid(size));
	return allocate(context, size);
}

void *
MemoryContextAllocHuge(MemoryContext context, Size size)
{
	return allocate(context, size);
}

void *
MemoryContextAllocZero(MemoryContext context, Size size)
{
	return memset(MemoryContextAlloc(context, size), 0, size);
}

char *
MemoryContextStrdup(MemoryContext context, const char *text)
{
	size_t size = strlen(text) + 1;

	return memcpy(MemoryContextAlloc(context, size), text, size);
}

void *
palloc(Size size)
{
	return MemoryContextAlloc(CurrentMemoryContext, size);
}

void *
palloc0(Size size)
{
	return MemoryContextAllocZero(CurrentMemoryContext, size);
}

char *
pstrdup(const char *text)
{
	return MemoryContextStrdup(CurrentMemoryContext, text);
}

char *
pnstrdup(const char *text, Size len)
{
	char *copy;

	len = strnlen(text, len);
	copy = palloc(len + 1);
	memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

/* It always moves, so that nobody can do without the new address. */
void *
repalloc_huge(void *pointer, Size size)
{
	Chunk *chunk = chunk_of_pointer(pointer);
	void  *moved = allocate(&chunk->context->header, size);

	fuzz_repallocs++;
	memcpy(moved, pointer, Min(size, chunk->size));
	pfree(pointer);
	return moved;
}

void *
repalloc(void *pointer, Size size)
{
	FUZZ_CHECK(AllocSizeIsValid(size));
	return repalloc_huge(pointer, size);
}

MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name pg_attribute_unused(),
							  Size min pg_attribute_unused(), Size initial pg_attribute_unused(),
							  Size max pg_attribute_unused())
{
	Context *context = calloc(1, sizeof(Context));

	FUZZ_CHECK(context != NULL);
	dlist_init(&context->chunks);
	dlist_init(&context->children);
	if (parent != NULL)
		dlist_push_tail(&((Context *) parent)->children, &context->node);
	context->header.parent = parent;
	return &context->header;
}

void
MemoryContextRegisterResetCallback(MemoryContext context, MemoryContextCallback *callback)
{
	callback->next = ((Context *) context)->callbacks;
	((Context *) context)->callbacks = callback;
}

void
MemoryContextReset(MemoryContext memory_context)
{
	Context *context = (Context *) memory_context;

	while (!dlist_is_empty(&context->children))
		MemoryContextDelete(&dlist_container(Context, node, context->children.head.next)->header);
	while (context->callbacks != NULL)
	{
		MemoryContextCallback *callback = context->callbacks;

		context->callbacks = callback->next;
		callback->func(callback->arg);
	}
	while (!dlist_is_empty(&context->chunks))
		pfree(dlist_container(Chunk, node, context->chunks.head.next) + 1);
}

void
MemoryContextDelete(MemoryContext context)
{
	MemoryContextReset(context);
	if (context->parent != NULL)
		dlist_delete(&((Context *) context)->node);
	free(context);
}


/* ----------------------------------------------------------------
 * The rest of a backend
 * ----------------------------------------------------------------
 */

volatile sig_atomic_t InterruptPending = false;

void
ProcessInterrupts(void)
{
}

int
GetDatabaseEncoding(void)
{
	return fuzz_encoding;
}

bool
errstart(int elevel, const char *domain pg_attribute_unused())
{
	FUZZ_CHECK(elevel < ERROR);
	return false;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

/* The day's number, as of the Julian calendar's day 0. */
int
date2j(int year, int month, int day)
{
	struct tm tm = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day};

	return (int) (timegm(&tm) / SECS_PER_DAY) + UNIX_EPOCH_JDATE;
}

/* errstart says that nothing is to be reported, so nobody comes here. */
#define UNREACHED(result, name, ...) \
	result name(__VA_ARGS__)         \
	{                                \
		abort();                     \
	}

UNREACHED(int, errcode, int code pg_attribute_unused())
UNREACHED(int, errmsg, const char *format pg_attribute_unused(), ...)
UNREACHED(int, errmsg_internal, const char *format pg_attribute_unused(), ...)
UNREACHED(int, errdetail, const char *format pg_attribute_unused(), ...)
UNREACHED(int, errdetail_internal, const char *format pg_attribute_unused(), ...)
UNREACHED(int, errhint, const char *format pg_attribute_unused(), ...)
UNREACHED(int, errcode_for_file_access, void)
UNREACHED(void, errfinish, const char *file pg_attribute_unused(), int line pg_attribute_unused(),
		  const char *function pg_attribute_unused())


/* ----------------------------------------------------------------
 * A run
 * ----------------------------------------------------------------
 */

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	FuzzInput input = {.data = data, .left = size};

	if (TopMemoryContext == NULL)
		TopMemoryContext = AllocSetContextCreate(NULL, "fuzz", ALLOCSET_DEFAULT_SIZES);
	CurrentMemoryContext = TopMemoryContext;
	fuzz_encoding = PG_UTF8;
	fuzz_repallocs = 0;
	fuzz_one(&input);
	MemoryContextReset(TopMemoryContext);
	return 0;
}
