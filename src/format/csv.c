/*-------------------------------------------------------------------------
 *
 * csv.c
 *	  CSV, byte for byte what COPY writes, from an executor's rows to a sink.
 *
 * The rules are those of CopyAttributeOutCSV, which has been the same in all
 * servers that are supported.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/tupdesc.h"
#include "catalog/namespace.h"
#include "executor/tuptable.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/guc.h"
#include "format/csv.h"
#include "format/csv_array.h"
#include "format/csv_block.h"
#include "format/csv_digits.h"
#include "format/csv_jsonb.h"
#include "format/csv_layout.h"
#include "format/csv_numeric.h"
#include "format/csv_options.h"
#include "format/csv_partition.h"
#include "format/csv_scan.h"
#include "format/csv_text.h"
#include "format/csv_time.h"
#include "format/csv_toast.h"
#include "format/csv_types.h"

/* How the values of a column are written. */
typedef enum ColumnMethod
{
	BY_WRITER,
	AS_INT4, /* these are written in line where they are stored, else by their writers */
	AS_INT8,
	AS_NUMERIC,
	AS_DATE,
	BY_WRITER_IN_QUOTES,
	BY_OUTPUT_FUNCTION,
	AS_TEXT, /* the output function would return the stored bytes */
	AS_NAME,
	AS_HEX, /* bytea */
	AS_JSONB,
	AS_ARRAY
} ColumnMethod;

typedef struct Column
{
	int          att; /* of the row, from 0 */
	ColumnMethod method;
	bool         force_quote;
	bool         may_be_external;
	bool         short_text; /* AS_TEXT: nothing but the text itself can make it need quotes */
	CsvWrite     write;      /* NULL: there is no writer */
	size_t       width;      /* of what it writes */
	void        *state;      /* its own */
	CsvArray    *array;      /* of AS_ARRAY */
	FmgrInfo     output;
} Column;

typedef struct CsvReceiver
{
	DestReceiver      pub;
	MemoryContext     context;     /* all that lives as long as the query */
	MemoryContext     row_context; /* what an output function leaves behind */
	const CsvOptions *options;
	CsvSink           sink;
	size_t            block_size;
	CsvBlock          block;
	CsvToast         *toast;

	CsvMarks marks;
	size_t   null_len;   /* of options->null_print */
	char    *null_print; /* in the output's encoding */
	size_t   null_print_len;
	bool     convert;     /* to another encoding, or verify */
	bool     ascii_as_is; /* a conversion changes no ASCII */

	int        natts; /* that are written */
	Column    *columns;
	CsvLayout *layout; /* of a row that has the columns alone; NULL: not to be used */
	CsvScan   *scan;   /* NULL: rows come one by one */

	CsvPartitions *partitions; /* NULL: none */
	FmgrInfo       partition_output;
} CsvReceiver;

/*
 * No ASCII character is changed by a conversion that comes with the server.
 * One made by a user, or none at all, is left to do, or to say, what it likes.
 */
static bool
conversion_keeps_ascii(int encoding)
{
	Oid function;

	if (GetDatabaseEncoding() == PG_SQL_ASCII)
		return true; /* a check, no conversion */
	function = FindDefaultConversionProc(GetDatabaseEncoding(), encoding);
	return OidIsValid(function) && function < FirstNormalObjectId;
}

/* A value that has to be converted, or is known to need quotes. */
static pg_noinline char *
put_with_care(CsvReceiver *r, char *dst, const char *src, size_t len, bool quote)
{
	const CsvMarks *marks = &r->marks;

	if (r->convert)
	{
		/* a user's conversion may rely on the end mark */
		src = pg_server_to_any(pnstrdup(src, len), (int) len, r->options->encoding);
		len = strlen(src);
		dst = csv_block_room(&r->block, dst, len);
	}

	/* COPY's readers once took this, alone on a line, for the end of the data */
	if (r->natts == 1 && len == 2 && memcmp(src, "\\.", 2) == 0)
		quote = true;

	if (!quote && marks->mblen_encoding >= 0)
	{
		quote = csv_needs_quotes(src, len, marks);
		if (!quote)
			memcpy(dst, src, len);
	}
	else if (!quote)
		quote = !csv_copy_plain(dst, src, len, marks, false);
	if (!quote)
		return dst + len;

	/* Count only where the most that it can be is more than there is. */
	if ((ptrdiff_t) (2 * len + 2) > r->block.limit - dst)
		dst = csv_block_room(&r->block, dst, csv_quoted_size(src, len, marks));
	return csv_copy_quoted(dst, src, len, marks);
}

/* A value's text, in the server's encoding.  "src" is not in the block. */
static pg_attribute_always_inline char *
put_text(CsvReceiver *r, char *dst, const char *src, size_t len, bool quote)
{
	bool plain;

	dst = csv_block_room(&r->block, dst, len);

	/* what reads like NULL but is not NULL is told apart by its quotes */
	if (len == r->null_len && memcmp(src, r->options->null_print, len) == 0)
		quote = true;

	plain = !quote && (!r->convert || r->ascii_as_is) && (r->natts > 1 || len != 2);
	if (plain && csv_copy_plain(dst, src, len, &r->marks, r->convert))
		return dst + len;
	return put_with_care(r, dst, src, len, quote || (plain && !r->convert));
}

static pg_noinline char *
put_by_output_function(CsvReceiver *r, char *dst, Column *column, Datum value)
{
	const char *text = OutputFunctionCall(&column->output, value);

	return put_text(r, dst, text, strlen(text), column->force_quote);
}

/* There is room for the widest value in the block's reserve. */
static pg_attribute_always_inline char *
put_by_writer(CsvReceiver *r, char *dst, Column *column, Datum value)
{
	char *end = column->write(dst, value, column->state);

	return likely(end != NULL) ? end : put_by_output_function(r, dst, column, value);
}

static pg_noinline char *
put_by_writer_in_quotes(CsvReceiver *r, char *dst, Column *column, Datum value)
{
	char *end = column->write(dst + 1, value, column->state);

	if (end == NULL)
		return put_by_output_function(r, dst, column, value);
	*dst = r->marks.quote;
	*end++ = r->marks.quote;
	return end;
}

static pg_noinline char *
put_bytea(CsvReceiver *r, char *dst, Column *column, Datum value)
{
	bytea *bytes;
	size_t len;

	if (bytea_output != BYTEA_OUTPUT_HEX)
		return put_by_output_function(r, dst, column, value);
	bytes = DatumGetByteaPP(value);
	len = VARSIZE_ANY_EXHDR(bytes);
	dst = csv_block_room(&r->block, dst, 2 * len + 4);
	if (column->force_quote)
		*dst++ = r->marks.quote;
	*dst++ = '\\';
	*dst++ = 'x';
	dst = csv_put_hex(dst, VARDATA_ANY(bytes), len);
	if (column->force_quote)
		*dst++ = r->marks.quote;
	return dst;
}

static pg_noinline char *
put_jsonb(CsvReceiver *r, char *dst, Column *column, Datum value)
{
	size_t start = dst - r->block.row;
	char  *end = csv_put_jsonb(&r->block, dst, value, &r->marks, column->force_quote);

	if (end != NULL)
		return end;
	return put_by_output_function(r, r->block.row + start, column, value);
}

static pg_noinline char *
put_array(CsvReceiver *r, char *dst, Column *column, Datum value)
{
	size_t start = dst - r->block.row;
	char  *end = csv_put_array(&r->block, dst, value, column->array, column->force_quote);

	if (end != NULL)
		return end;
	return put_by_output_function(r, r->block.row + start, column, value);
}

/* A value by its datum, in the way that was chosen for its column. */
static pg_attribute_always_inline char *
put_value(CsvReceiver *r, char *dst, Column *column, Datum value)
{
	struct varlena *text;

	/* leaves what is stored elsewhere to the output function */
	if (column->method <= AS_DATE)
		return put_by_writer(r, dst, column, value);

	if (column->may_be_external && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(value)))
		value =
			PointerGetDatum(csv_toast_fetch(r->toast, (struct varlena *) DatumGetPointer(value)));

	switch (column->method)
	{
		case BY_WRITER_IN_QUOTES:
			return put_by_writer_in_quotes(r, dst, column, value);
		case AS_TEXT:
			text = (struct varlena *) DatumGetPointer(value);
			if (VARATT_IS_COMPRESSED(text) || VARATT_IS_EXTERNAL(text))
				text = PG_DETOAST_DATUM_PACKED(value);
			return put_text(r, dst, VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text),
							column->force_quote);
		case AS_NAME:
			return put_text(r, dst, NameStr(*DatumGetName(value)),
							strnlen(NameStr(*DatumGetName(value)), NAMEDATALEN),
							column->force_quote);
		case AS_HEX:
			return put_bytea(r, dst, column, value);
		case AS_JSONB:
			return put_jsonb(r, dst, column, value);
		case AS_ARRAY:
			return put_array(r, dst, column, value);
		default:
			return put_by_output_function(r, dst, column, value);
	}
}

static inline char *
put_null(CsvReceiver *r, char *dst)
{
	memcpy(dst, r->null_print, r->null_print_len);
	return dst + r->null_print_len;
}

static pg_noinline char *
put_slot(CsvReceiver *r, char *dst, TupleTableSlot *slot)
{
	for (int i = 0; i < r->natts; i++)
	{
		Column *column = &r->columns[i];

		if (i > 0)
			*dst++ = r->marks.delimiter;
		if (slot->tts_isnull[column->att])
			dst = put_null(r, dst);
		else
			dst = put_value(r, dst, column, slot->tts_values[column->att]);
	}
	return dst;
}

/*
 * A stored value, and "data" past it.  What is not as it nearly always is goes
 * the long way.
 */
static pg_attribute_always_inline char *
put_stored_slowly(CsvReceiver *r, char *dst, Column *column, const CsvAttribute *attribute,
				  const char **data)
{
	const char *value = csv_attribute_align(attribute, *data);

	dst = put_value(r, dst, column, fetch_att(value, attribute->byval, attribute->len));
	*data = att_addlength_pointer(value, attribute->len, value);
	return dst;
}

static pg_noinline char *
put_stored_otherwise(CsvReceiver *r, char *dst, Column *column, const CsvAttribute *attribute,
					 const char *data)
{
	return put_stored_slowly(r, dst, column, attribute, &data);
}

/* Is it short, whole, and not compressed? */
static inline bool
is_short(const char *data)
{
	return VARATT_IS_1B(data) && !VARATT_IS_1B_E(data);
}

/*
 * A value as it lies in the tuple: fixed types and short varlenas are written from there, and
 * all else takes the slow way.  It is inlined into the loop over columns, and decides how fast a
 * row is.
 */
static pg_attribute_always_inline char *
put_stored_column(CsvReceiver *r, char *dst, Column *column, const CsvAttribute *attribute,
				  const char **data)
{
	const char *value;
	char       *end;
	size_t      len;

	switch (column->method)
	{
		case AS_INT4:
			value = (const char *) INTALIGN(*data);
			*data = value + sizeof(int32);
			return csv_put_int32(dst, *(const int32 *) value);
		case AS_INT8:
			value = (const char *) DOUBLEALIGN(*data);
			*data = value + sizeof(int64);
			return csv_put_int64(dst, *(const int64 *) value);
		case AS_DATE:
			value = (const char *) INTALIGN(*data);
			*data = value + sizeof(DateADT);
			end = csv_put_date(dst, *(const DateADT *) value);
			if (likely(end != NULL))
				return end;
			return put_stored_otherwise(r, dst, column, attribute, value);
		case AS_NUMERIC:
			value = *data;
			if (!is_short(value))
				break;
			*data = value + VARSIZE_1B(value);
			end =
				csv_put_numeric_within(dst, VARDATA_1B(value), VARSIZE_1B(value) - VARHDRSZ_SHORT);
			if (likely(end != NULL))
				return end;
			return put_stored_otherwise(r, dst, column, attribute, value);
		case AS_TEXT:
			value = *data;
			if (!is_short(value) || !column->short_text)
				break;
			*data = value + VARSIZE_1B(value);
			len = VARSIZE_1B(value) - VARHDRSZ_SHORT;
			dst = csv_block_room(&r->block, dst, len);
			if (likely(len != r->null_len &&
					   csv_copy_plain(dst, VARDATA_1B(value), len, &r->marks, r->convert)))
				return dst + len;
			return put_stored_otherwise(r, dst, column, attribute, value);
		default:
			break;
	}
	return put_stored_slowly(r, dst, column, attribute, data);
}

/* Apart from put_tuple, so that tuples without nulls do not ask for each column. */
static pg_noinline char *
put_tuple_with_nulls(CsvReceiver *r, char *dst, const CsvLayout *layout, HeapTupleHeader tuple)
{
	const char *data = (const char *) tuple + tuple->t_hoff;

	for (int i = 0; i < layout->natts; i++)
	{
		const CsvAttribute *attribute = &layout->attributes[i];
		bool                null = att_isnull(i, tuple->t_bits);

		if (attribute->column < 0)
		{
			if (!null)
				data = csv_attribute_skip(attribute, data);
			continue;
		}
		if (null)
			dst = put_null(r, dst);
		else
			dst = put_stored_column(r, dst, &r->columns[attribute->column], attribute, &data);
		*dst++ = r->marks.delimiter;
	}
	return dst - 1;
}

/*
 * Writes a row from where it is stored, so that it need not be taken apart
 * first.  There is at least one column to write, and none is missing.
 */
static inline char *
put_tuple(CsvReceiver *r, char *dst, const CsvLayout *layout, HeapTupleHeader tuple)
{
	const CsvAttribute *end = layout->attributes + layout->natts;
	const char         *data = (const char *) tuple + tuple->t_hoff;

	if (tuple->t_infomask & HEAP_HASNULL)
		return put_tuple_with_nulls(r, dst, layout, tuple);
	for (const CsvAttribute *attribute = layout->attributes; attribute < end; attribute++)
	{
		if (attribute->column < 0)
		{
			data = csv_attribute_skip(attribute, data);
			continue;
		}
		dst = put_stored_column(r, dst, &r->columns[attribute->column], attribute, &data);
		*dst++ = r->marks.delimiter;
	}
	return dst - 1; /* there is no delimiter after the last */
}

static inline MemoryContext
begin_row(CsvReceiver *r, char **dst)
{
	/* most rows leave nothing behind */
	if (!r->row_context->isReset || r->row_context->firstchild != NULL)
		MemoryContextReset(r->row_context);
	*dst = csv_block_room(&r->block, r->block.row, 0);
	return MemoryContextSwitchTo(r->row_context);
}

static inline void
end_row(CsvReceiver *r, char *dst, MemoryContext caller)
{
	*dst++ = '\n';
	csv_block_end_row(&r->block, dst);
	MemoryContextSwitchTo(caller);
}

void
csv_receive_tuple(DestReceiver *self, const CsvLayout *layout, HeapTupleHeader tuple)
{
	CsvReceiver  *r = (CsvReceiver *) self;
	char         *dst;
	MemoryContext caller = begin_row(r, &dst);

	dst = put_tuple(r, dst, layout, tuple);
	end_row(r, dst, caller);
}

/*
 * The row as it is stored, if the slot has it and it has all columns.  A slot
 * for stored rows may have values instead.
 */
static HeapTupleHeader
stored_row(const CsvReceiver *r, TupleTableSlot *slot)
{
	HeapTuple tuple = NULL;

	if (r->layout == NULL)
		return NULL;
	if (TTS_IS_BUFFERTUPLE(slot) || TTS_IS_HEAPTUPLE(slot))
		tuple = ((HeapTupleTableSlot *) slot)->tuple;
	else if (TTS_IS_MINIMALTUPLE(slot) && ((MinimalTupleTableSlot *) slot)->mintuple != NULL)
		tuple = ((MinimalTupleTableSlot *) slot)->tuple;
	return tuple != NULL && csv_layout_fits(r->layout, tuple->t_data) ? tuple->t_data : NULL;
}

void
csv_receive_slot(DestReceiver *self, TupleTableSlot *slot)
{
	CsvReceiver    *r = (CsvReceiver *) self;
	HeapTupleHeader stored = stored_row(r, slot);
	char           *dst;
	MemoryContext   caller;

	if (stored == NULL)
		slot_getallattrs(slot);
	caller = begin_row(r, &dst);
	if (stored != NULL)
		dst = put_tuple(r, dst, r->layout, stored);
	else
		dst = put_slot(r, dst, slot);
	end_row(r, dst, caller);
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	CsvReceiver *r = (CsvReceiver *) self;

	if (r->scan != NULL)
		csv_scan_page(r->scan, slot);
	else
		csv_receive_slot(self, slot);
	return true;
}

static void
select_partition(CsvReceiver *r, TupleTableSlot *slot)
{
	int   att = r->options->partition_column - 1;
	char *value = NULL;

	if (!slot->tts_isnull[att])
		value = OutputFunctionCall(&r->partition_output, slot->tts_values[att]);
	csv_partitions_select(r->partitions, value);
}

static bool
receive_row_of_partition(TupleTableSlot *slot, DestReceiver *self)
{
	CsvReceiver  *r = (CsvReceiver *) self;
	MemoryContext caller;
	char         *dst;

	slot_getallattrs(slot);
	MemoryContextReset(r->row_context);
	caller = MemoryContextSwitchTo(r->row_context);
	select_partition(r, slot);
	dst = csv_block_room(&r->block, r->block.row, 0);
	end_row(r, put_slot(r, dst, slot), caller);
	return true;
}

void
csv_receiver_watch(DestReceiver *self, PlanState *plan)
{
	CsvReceiver *r = (CsvReceiver *) self;

	if (guc_fast_output && r->options->partition_column == 0)
		r->scan = csv_scan_create(self, plan, r->context);
}

static void
mark_force_quote(CsvReceiver *r, TupleDesc desc)
{
	List *quoted = csv_forced_columns(r->options, desc);

	for (int i = 0; i < r->natts; i++)
		r->columns[i].force_quote =
			r->options->force_quote_all || list_member_int(quoted, r->columns[i].att + 1);
}

static void
prepare_encoding(CsvReceiver *r)
{
	const CsvOptions *options = r->options;
	int               encoding = options->encoding;

	r->convert = encoding != GetDatabaseEncoding() && encoding != PG_SQL_ASCII;
	r->ascii_as_is = !r->convert || conversion_keeps_ascii(encoding);
	r->marks = (CsvMarks){.delimiter = options->delimiter,
						  .quote = options->quote,
						  .escape = options->escape,
						  .mblen_encoding = PG_ENCODING_IS_CLIENT_ONLY(encoding) ? encoding : -1};
	r->null_len = strlen(options->null_print);
	r->null_print = options->null_print;
	if (r->convert)
		r->null_print = pg_server_to_any(r->null_print, (int) r->null_len, encoding);
	r->null_print_len = strlen(r->null_print);
}

/*
 * Whether no text of these characters would need quotes, or an escape within
 * quotes, or look like NULL.
 */
static bool
method_suits(const CsvReceiver *r, const char *alphabet, bool force_quote)
{
	const char *null_print = r->options->null_print;

	if (!r->ascii_as_is)
		return false;
	for (const char *c = alphabet; *c != '\0'; c++)
	{
		if (*c == r->marks.delimiter || *c == r->marks.quote ||
			(force_quote && *c == r->marks.escape))
			return false;
	}
	return null_print[0] == '\0' || null_print[strspn(null_print, alphabet)] != '\0';
}

/* How a value without quotes is written that has a writer: in line, if it is stored as it should be. */
static ColumnMethod
writer_method(PGFunction output, Form_pg_attribute attribute)
{
	if (attribute->attalign == TYPALIGN_INT && attribute->attlen == sizeof(int32))
	{
		if (output == int4out)
			return AS_INT4;
		if (output == date_out)
			return AS_DATE;
	}
	if (output == int8out && attribute->attalign == TYPALIGN_DOUBLE &&
		attribute->attlen == sizeof(int64))
		return AS_INT8;
	if (output == numeric_out && attribute->attlen == -1)
		return AS_NUMERIC;
	return BY_WRITER;
}

/*
 * A method of ours is taken only where it writes what the type's output function and COPY's
 * quoting would write.  Delimiter, quote and null string may rule it out.
 */
static void
choose_method(const CsvReceiver *r, Column *column, Form_pg_attribute attribute)
{
	PGFunction     output = column->output.fn_addr;
	const CsvType *type = csv_type_find(output);

	column->method = BY_OUTPUT_FUNCTION;
	if (!guc_fast_output)
		return;
	if (output == array_out && r->ascii_as_is)
		column->array = csv_array_create(attribute->atttypid, &r->marks, r->options->null_print);
	if (output == textout || output == varcharout || output == bpcharout)
	{
		column->method = AS_TEXT;
		column->short_text = attribute->attlen == -1 && !column->force_quote && r->ascii_as_is &&
							 r->natts > 1 && r->marks.mblen_encoding < 0;
	}
	else if (output == nameout)
		column->method = AS_NAME;
	else if (output == byteaout && method_suits(r, "\\x0123456789abcdef", column->force_quote))
		column->method = AS_HEX;
	else if (output == jsonb_out && !r->convert &&
			 csv_jsonb_suits(&r->marks, r->options->null_print))
		column->method = AS_JSONB;
	else if (column->array != NULL)
		column->method = AS_ARRAY;
	else if (type != NULL && method_suits(r, type->alphabet, column->force_quote))
	{
		column->method =
			column->force_quote ? BY_WRITER_IN_QUOTES : writer_method(output, attribute);
		column->write = type->write;
		column->width = type->width;
		column->state = palloc0(type->state_size);
	}
}

/* Returns whether values of the column may be stored elsewhere. */
static bool
find_output(TupleDesc desc, int att, FmgrInfo *output)
{
	Oid  function;
	bool is_varlena;

	getTypeOutputInfo(TupleDescAttr(desc, att)->atttypid, &function, &is_varlena);
	fmgr_info(function, output);
	return is_varlena;
}

/* The column that partitions the rows is not written. */
static void
prepare_columns(CsvReceiver *r, TupleDesc desc)
{
	int left_out = r->options->partition_column - 1;

	r->natts = 0;
	r->toast = csv_toast_create();
	r->columns = palloc0(sizeof(Column) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		if (i == left_out)
			(void) find_output(desc, i, &r->partition_output);
		else
			r->columns[r->natts++].att = i;
	}
	mark_force_quote(r, desc);
	for (int i = 0; i < r->natts; i++)
	{
		Column *column = &r->columns[i];

		column->may_be_external =
			find_output(desc, column->att, &column->output) && guc_fast_output;
		choose_method(r, column, TupleDescAttr(desc, column->att));
	}
}

/*
 * What a row takes for its delimiters, NULLs, line end and the values of known
 * width.  All others ask the block for room.
 */
static size_t
fixed_size(const CsvReceiver *r)
{
	size_t size = 1;

	for (int i = 0; i < r->natts; i++)
	{
		size_t width = r->null_print_len;

		if (r->columns[i].write != NULL)
			width = Max(width, r->columns[i].width + 2);
		size += width + 1;
	}
	return size;
}

static void
send_header(CsvReceiver *r, TupleDesc desc)
{
	char *dst = csv_block_room(&r->block, r->block.row, 0);

	for (int i = 0; i < r->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(desc, r->columns[i].att)->attname);

		if (i > 0)
			*dst++ = r->marks.delimiter;
		dst = put_text(r, dst, name, strlen(name), false);
	}
	*dst++ = '\n';
	csv_block_end_header(&r->block, dst);
}

/*
 * Rows that go to partitions are not written from where they are stored: which block they go to
 * has to be known first.
 */
static void
receiver_startup(DestReceiver *self, int operation pg_attribute_unused(), TupleDesc desc)
{
	CsvReceiver  *r = (CsvReceiver *) self;
	uint64        max_rows_per_file = r->options->max_rows_per_file;
	MemoryContext caller = MemoryContextSwitchTo(r->context);

	prepare_encoding(r);
	prepare_columns(r, desc);
	csv_block_init(&r->block, &r->sink, r->block_size,
				   max_rows_per_file > 0 ? max_rows_per_file : PG_UINT64_MAX, fixed_size(r),
				   r->context);
	if (r->options->partition_column > 0)
		r->partitions = csv_partitions_create(&r->block);
	else if (guc_fast_output && r->natts > 0)
		r->layout = csv_layout_of_desc(desc, r->context);

	MemoryContextSwitchTo(r->row_context);
	if (r->options->header)
		send_header(r, desc);
	MemoryContextSwitchTo(caller);
}

static void
receiver_shutdown(DestReceiver *self)
{
	CsvReceiver  *r = (CsvReceiver *) self;
	MemoryContext caller = MemoryContextSwitchTo(r->row_context);

	if (r->partitions != NULL)
		csv_partitions_finish(r->partitions);
	else
		csv_block_finish(&r->block);
	MemoryContextSwitchTo(caller);
}

void
csv_receiver_flush(DestReceiver *self)
{
	csv_block_start_over(&((CsvReceiver *) self)->block, NULL);
}

static void
receiver_destroy(DestReceiver *self)
{
	MemoryContextDelete(((CsvReceiver *) self)->context);
}

DestReceiver *
csv_receiver_create(const CsvOptions *options, const CsvSink *sink, size_t block_size)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export CSV", ALLOCSET_DEFAULT_SIZES);
	CsvReceiver *r = MemoryContextAllocZero(context, sizeof(CsvReceiver));

	r->pub.receiveSlot = options->partition_column > 0 ? receive_row_of_partition : receive_row;
	r->pub.rStartup = receiver_startup;
	r->pub.rShutdown = receiver_shutdown;
	r->pub.rDestroy = receiver_destroy;
	r->pub.mydest = DestNone;
	r->context = context;
	r->row_context = AllocSetContextCreate(context, "s3export CSV row", ALLOCSET_DEFAULT_SIZES);
	r->options = options;
	r->sink = *sink;
	r->block_size = block_size;
	return &r->pub;
}
