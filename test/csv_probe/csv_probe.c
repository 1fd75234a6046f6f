/*-------------------------------------------------------------------------
 *
 * csv_probe.c
 *	  The CSV receiver as an SQL function, for tests and measurements.
 *
 * csv_probe(query, path, header, delimiter, quote, escape, null, force_quote,
 * encoding, block_size) writes to a file of the server, or nowhere if "path"
 * is NULL, and returns the number of rows.  It fails if the receiver breaks
 * its promises to a sink.  csv_probe_slots() is the number of rows of the last
 * run that the executor has handed over itself.  float8_of_bits and
 * float4_of_bits make floats that no literal would think of; to_upper is an
 * encoding conversion that changes ASCII; other_heap is a table access method
 * that is not heap, though it does the same.  take_segments(left) takes all
 * segments of dynamic shared memory that the server can have, but "left", for
 * as long as the session lasts, and returns how many it took.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "storage/dsm.h"
#include "storage/fd.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "format/csv.h"
#include "base/guc.h"

PG_MODULE_MAGIC;

bool guc_fast_output;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	DefineCustomBoolVariable("s3export.fast_output", "Writes common types by code of our own.",
							 NULL, &guc_fast_output, true, PGC_USERSET, GUC_NOT_IN_SAMPLE, NULL,
							 NULL, NULL);
}

SQL_FUNCTION(csv_probe);
SQL_FUNCTION(csv_probe_slots);
SQL_FUNCTION(other_heap);
SQL_FUNCTION(float8_of_bits);
SQL_FUNCTION(float4_of_bits);
SQL_FUNCTION(to_upper);
SQL_FUNCTION(take_segments);

typedef struct Probe
{
	FILE  *file; /* NULL: discard */
	size_t block_size;
	bool   header;
	uint64 blocks;
	uint64 rows;
} Probe;

static int64 slots;
static bool (*receive_slot)(TupleTableSlot *slot, DestReceiver *self);

static bool
count_slot(TupleTableSlot *slot, DestReceiver *self)
{
	slots++;
	return receive_slot(slot, self);
}

static void
write_bytes(Probe *probe, const char *data, size_t len)
{
	if (len == 0 || data[len - 1] != '\n')
		elog(ERROR, "bytes do not end with a line");
	if (probe->file && fwrite(data, 1, len, probe->file) != len)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not write: %m")));
}

static void
probe_header(void *arg, const char *data, size_t len)
{
	Probe *probe = arg;

	if (probe->header || probe->blocks > 0)
		elog(ERROR, "header line is not the first and only one");
	probe->header = true;
	write_bytes(probe, data, len);
}

static void
probe_block(void *arg, const char *partition pg_attribute_unused(), const char *data, size_t len,
			uint64 rows)
{
	Probe *probe = arg;

	if (rows == 0 || (rows > 1 && len > probe->block_size))
		elog(ERROR, "block of %zu bytes with " UINT64_FORMAT " rows", len, rows);
	probe->blocks++;
	probe->rows += rows;
	write_bytes(probe, data, len);
}

static const char *
text_arg(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
}

static List *
text_list_arg(FunctionCallInfo fcinfo, int i)
{
	List  *list = NIL;
	Datum *elements;
	int    count;

	if (PG_ARGISNULL(i))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(i), TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL,
					  &count);
	for (int n = 0; n < count; n++)
		list = lappend(list, TextDatumGetCString(elements[n]));
	return list;
}

static void
execute(SPIPlanPtr plan, DestReceiver *receiver, const Probe *probe)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	PlannedStmt      *planned = pg_plan_query(copyObject(linitial_node(Query, source->query_list)),
											  source->query_string, CURSOR_OPT_PARALLEL_OK, NULL);
	QueryDesc        *query = CreateQueryDesc(planned, source->query_string, GetActiveSnapshot(),
											  InvalidSnapshot, receiver, NULL, NULL, 0);

	slots = 0;
	receive_slot = receiver->receiveSlot;
	receiver->receiveSlot = count_slot;
	ExecutorStart(query, 0);
	csv_receiver_watch(receiver, query->planstate);
	compat_executor_run(query);
	if (query->estate->es_processed != probe->rows)
		elog(ERROR, "rows of the executor and of the sink differ");
	receiver->rDestroy(receiver);
	ExecutorFinish(query);
	ExecutorEnd(query);
	FreeQueryDesc(query);
}

Datum
csv_probe(PG_FUNCTION_ARGS)
{
	const char *query = text_arg(fcinfo, 0);
	const char *path = text_arg(fcinfo, 1);
	Probe       probe = {.block_size = PG_GETARG_INT32(9)};
	CsvSink     sink = {.header = probe_header, .block = probe_block, .arg = &probe};
	CsvOptions *options;
	SPIPlanPtr  plan;

	options = csv_options(!PG_ARGISNULL(2) && PG_GETARG_BOOL(2), text_arg(fcinfo, 3),
						  text_arg(fcinfo, 4), text_arg(fcinfo, 5), text_arg(fcinfo, 6),
						  text_list_arg(fcinfo, 7), text_arg(fcinfo, 8));
	if (path && (probe.file = AllocateFile(path, PG_BINARY_W)) == NULL)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not open \"%s\": %m", path)));

	SPI_connect();
	plan = SPI_prepare_cursor(query, 0, NULL, CURSOR_OPT_PARALLEL_OK);
	if (plan == NULL)
		elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
	execute(plan, csv_receiver_create(options, &sink, probe.block_size), &probe);
	SPI_finish();

	if (probe.file && FreeFile(probe.file) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not close \"%s\": %m", path)));
	PG_RETURN_INT64(probe.rows);
}

Datum
csv_probe_slots(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(slots);
}

Datum
other_heap(PG_FUNCTION_ARGS)
{
	static TableAmRoutine routine;

	routine = *GetHeapamTableAmRoutine();
	PG_RETURN_POINTER(&routine);
}

Datum
float8_of_bits(PG_FUNCTION_ARGS)
{
	int64  bits = PG_GETARG_INT64(0);
	float8 value;

	memcpy(&value, &bits, sizeof(value));
	PG_RETURN_FLOAT8(value);
}

Datum
float4_of_bits(PG_FUNCTION_ARGS)
{
	uint32 bits = (uint32) PG_GETARG_INT64(0);
	float4 value;

	memcpy(&value, &bits, sizeof(value));
	PG_RETURN_FLOAT4(value);
}

Datum
to_upper(PG_FUNCTION_ARGS)
{
	const char *src = PG_GETARG_CSTRING(2);
	char       *dst = PG_GETARG_CSTRING(3);
	int         len = PG_GETARG_INT32(4);

	for (int i = 0; i < len; i++)
		dst[i] = pg_ascii_toupper((unsigned char) src[i]);
	dst[len] = '\0';
	PG_RETURN_INT32(len);
}

Datum
take_segments(PG_FUNCTION_ARGS)
{
	int          left = PG_GETARG_INT32(0);
	int          taken = 0;
	List        *segments = NIL;
	dsm_segment *segment;

	while ((segment = dsm_create(1024, DSM_CREATE_NULL_IF_MAXSEGMENTS)) != NULL)
	{
		dsm_pin_mapping(segment);
		segments = lappend(segments, segment);
		taken++;
	}
	while (left-- > 0 && segments != NIL)
	{
		dsm_detach(llast(segments));
		segments = list_delete_last(segments);
		taken--;
	}
	PG_RETURN_INT32(taken);
}
