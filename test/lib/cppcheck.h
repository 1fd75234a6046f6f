/* What cppcheck, which does not see the server's headers, has to know of them. */
#define ERROR 21
#define FATAL 22
#define PANIC 23

#define foreach(cell, list) \
	for ((cell) = cppcheck_first(list); (cell) != NULL; (cell) = cppcheck_next(cell))
#define PG_TRY()
#define PG_CATCH() if (cppcheck_caught())
#define PG_FINALLY()
#define PG_END_TRY()
#define SQL_FUNCTION(name)
#define PG_FUNCTION_INFO_V1(name)
#define PG_MODULE_MAGIC
#define UINT64_FORMAT "%lu"
#define INT64_FORMAT "%ld"

/* An error does not come back. */
#define ereport(level, ...)          \
	do                               \
	{                                \
		(void) (__VA_ARGS__);        \
		if ((level) >= ERROR)        \
			__builtin_unreachable(); \
	} while (0)
#define elog(level, ...)             \
	do                               \
	{                                \
		cppcheck_use(__VA_ARGS__);   \
		if ((level) >= ERROR)        \
			__builtin_unreachable(); \
	} while (0)
