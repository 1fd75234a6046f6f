/*-------------------------------------------------------------------------
 *
 * csv_toast.c
 *	  Values stored out of line, read in the order in which they lie.
 *
 * The server finds each value by its TOAST table's index, which is most of
 * what it costs to read one of a few kilobytes.  But values that were stored
 * one after the other lie one after the other.  So the next chunk is looked
 * for where the last one ended, and the index is asked only if it is not
 * there.  Values in many pieces, and whatever else is not as expected, are
 * left to the server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/toast_internals.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "format/csv_scan.h"
#include "format/csv_text.h"
#include "format/csv_toast.h"

/* TOAST tables that values may come from by turns; partitions, or a join's tables */
#define TABLES 8

/* After many values that had to be left to the server, it is tried but now and then. */
#define MAX_SKIP 64

/* Up to this size values share a buffer, which is kept. */
#define KEPT_SIZE (1024 * 1024)

/* Columns of TOAST tables; see create_toast_table in catalog/toasting.c. */
#define CHUNK_ID 1
#define CHUNK_SEQ 2
#define CHUNK_DATA 3

/* A place in a TOAST table. */
typedef struct Spot
{
	BlockNumber  block; /* InvalidBlockNumber: none */
	OffsetNumber offset;
	Buffer       buffer; /* that should have the block; not pinned */
	bool         looked; /* for the block after it, */
	Buffer       next;   /* which should be in this one; InvalidBuffer: not known */
} Spot;

/*
 * What is known of a TOAST table.  The last chunk of a value may have gone to
 * a page before, where there was room for it, so two places are remembered.
 */
typedef struct Table
{
	Oid         relid;
	BlockNumber blocks; /* that it has at least: nothing is cut off while we hold a lock */
	Spot        next;   /* after the chunk that was read last */
	Spot        other;  /* after one that was read before */
	int         stride; /* from one page's buffer to the next one's; 0: not known */
	int         skip;   /* values to leave to the server */
	int         failed; /* values in a row that were */
} Table;

struct CsvToast
{
	MemoryContext context;
	Table         tables[TABLES];
	int           newest;
	char         *buffer;
	size_t        size;
};

/* What is left to read of a value. */
typedef struct Chunks
{
	Oid   value;
	int32 size;
	int32 seq; /* of the next chunk */
	int32 count;
	char *dst;
} Chunks;

CsvToast *
csv_toast_create(void)
{
	CsvToast *toast = palloc0(sizeof(CsvToast));

	toast->context = CurrentMemoryContext;
	return toast;
}

static Table *
find_table(CsvToast *toast, Oid relid)
{
	Table *table = &toast->tables[toast->newest];

	if (table->relid == relid)
		return table;
	for (int i = 0; i < TABLES; i++)
	{
		if (toast->tables[i].relid == relid)
			return &toast->tables[i];
	}
	toast->newest = (toast->newest + 1) % TABLES;
	table = &toast->tables[toast->newest];
	*table = (Table){.relid = relid,
					 .next = {.block = InvalidBlockNumber},
					 .other = {.block = InvalidBlockNumber}};
	return table;
}

/* A TOAST table as heap and toast_save_datum have made them since 8.0. */
static bool
has_known_form(Relation rel)
{
	TupleDesc desc = RelationGetDescr(rel);

	return rel->rd_tableam == GetHeapamTableAmRoutine() && desc->natts == CHUNK_DATA &&
		   TupleDescAttr(desc, 0)->atttypid == OIDOID &&
		   TupleDescAttr(desc, 1)->atttypid == INT4OID &&
		   TupleDescAttr(desc, 2)->atttypid == BYTEAOID;
}

/*
 * Whether a tuple was inserted by a transaction that committed, or by ours,
 * and not deleted by anyone.  SnapshotToast, which trusts the index, asks for
 * less: this is what makes sure that the tuple is what the index would lead
 * to.  Such a tuple has its entry there, and a value's OID is not given to
 * another as long as there is one.
 */
static bool
is_live(HeapTupleHeader tuple)
{
	TransactionId xmin;

	if ((tuple->t_infomask & HEAP_XMAX_INVALID) == 0 || (tuple->t_infomask & HEAP_MOVED) != 0)
		return false;
	if (HeapTupleHeaderXminCommitted(tuple))
		return true;
	if (HeapTupleHeaderXminInvalid(tuple))
		return false;
	xmin = HeapTupleHeaderGetRawXmin(tuple);
	return TransactionIdIsCurrentTransactionId(xmin) || TransactionIdDidCommit(xmin);
}

/* A chunk's tuple; the data has a short length word if it is short. */
typedef struct StoredChunk
{
	Oid   value;
	int32 seq;
	char  data[FLEXIBLE_ARRAY_MEMBER];
} StoredChunk;

/* Copies a chunk, if it is the one that comes next. */
static bool
read_chunk(Page page, ItemId item, Chunks *chunks, ptrdiff_t ahead)
{
	int32              start = chunks->seq * TOAST_MAX_CHUNK_SIZE;
	int32              len = Min(chunks->size - start, TOAST_MAX_CHUNK_SIZE);
	HeapTupleHeader    tuple;
	const StoredChunk *chunk;

	tuple = (HeapTupleHeader) PageGetItem(page, item);
	chunk = (const StoredChunk *) ((const char *) tuple + tuple->t_hoff);
	if ((tuple->t_infomask & HEAP_HASNULL) != 0 || HeapTupleHeaderGetNatts(tuple) != CHUNK_DATA ||
		chunk->value != chunks->value || chunk->seq != chunks->seq)
		return false;
	if ((VARATT_IS_EXTENDED(chunk->data) && !VARATT_IS_SHORT(chunk->data)) ||
		VARSIZE_ANY_EXHDR(chunk->data) != (Size) len || !is_live(tuple))
		return false;

	csv_copy_page(chunks->dst + start, VARDATA_ANY(chunk->data), len, ahead);
	chunks->seq++;
	return true;
}

static bool
has_block(Relation rel, Table *table, BlockNumber block)
{
	if (block >= table->blocks)
		table->blocks = RelationGetNumberOfBlocks(rel);
	return block < table->blocks;
}

/* Pins a block, which may lie beyond the end. */
static Buffer
pin_block(Relation rel, Table *table, BlockNumber block, Buffer guess)
{
	/* local buffers have the same tags */
	if (!RelationUsesLocalBuffers(rel) && guess > 0 && guess <= NBuffers &&
		ReadRecentBuffer(compat_rel_locator(rel), MAIN_FORKNUM, block, guess))
		return guess;
	table->stride = 0;
	return has_block(rel, table, block) ? ReadBuffer(rel, block) : InvalidBuffer;
}

/* The buffer that should have the next page: in a table that was read in order, the one beside. */
static Buffer
find_next(Relation rel, Table *table, const Spot *spot)
{
	Buffer after = spot->buffer + table->stride;
	Buffer next;

	if (table->stride != 0 && after > 0 && after <= NBuffers)
		return after;
	if (RelationUsesLocalBuffers(rel) || !has_block(rel, table, spot->block + 1))
		return InvalidBuffer;
	next = PrefetchBuffer(rel, MAIN_FORKNUM, spot->block + 1).recent_buffer;
	table->stride = BufferIsValid(next) ? csv_stride(spot->buffer, next) : 0;
	return next;
}

/* Finds that out once a page.  Returns how far away it is in memory. */
static ptrdiff_t
look_ahead(Relation rel, Table *table, Spot *spot)
{
	if (!spot->looked)
		spot->next = find_next(rel, table, spot);
	spot->looked = true;
	if (!BufferIsValid(spot->next))
		return 0;
	return (char *) BufferGetBlock(spot->next) - (char *) BufferGetBlock(spot->buffer);
}

/*
 * Reads chunks from one page, until there are no more, or it is another that
 * comes next.  False if the first one is another.
 */
static bool
read_page(Relation rel, Table *table, Spot *spot, Chunks *chunks)
{
	int32        first = chunks->seq;
	OffsetNumber offset = spot->offset;
	OffsetNumber last;
	Page         page;
	ptrdiff_t    ahead;

	if (!BlockNumberIsValid(spot->block))
		return false;
	spot->buffer = pin_block(rel, table, spot->block, spot->buffer);
	if (!BufferIsValid(spot->buffer))
		return false;
	ahead = look_ahead(rel, table, spot);
	LockBuffer(spot->buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(spot->buffer);
	csv_prefetch_at((char *) page + ahead);
	last = PageGetMaxOffsetNumber(page);
	for (; offset <= last && chunks->seq < chunks->count; offset++)
	{
		ItemId item = PageGetItemId(page, offset);

		/* what VACUUM took away leaves a gap */
		if (ItemIdIsNormal(item) && !read_chunk(page, item, chunks, ahead))
			break;
	}
	UnlockReleaseBuffer(spot->buffer);

	spot->offset = offset;
	if (offset > last)
		*spot = (Spot){.block = spot->block + 1, .offset = FirstOffsetNumber, .buffer = spot->next};
	return chunks->seq > first;
}

/* Asks the index where the next chunk is. */
static bool
look_up(Relation rel, Spot *spot, const Chunks *chunks)
{
	/* all that a TOAST snapshot is, where snapshots do not become too old */
	SnapshotData snapshot = {.snapshot_type = SNAPSHOT_TOAST};
	Relation    *indexes;
	int          count;
	int          valid = toast_open_indexes(rel, AccessShareLock, &indexes, &count);
	ScanKeyData  keys[2];
	SysScanDesc  scan;
	HeapTuple    tuple;

	ScanKeyInit(&keys[0], CHUNK_ID, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(chunks->value));
	ScanKeyInit(&keys[1], CHUNK_SEQ, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(chunks->seq));
	scan = systable_beginscan_ordered(rel, indexes[valid], &snapshot, lengthof(keys), keys);
	tuple = systable_getnext_ordered(scan, ForwardScanDirection);
	if (tuple != NULL)
		*spot = (Spot){.block = ItemPointerGetBlockNumber(&tuple->t_self),
					   .offset = ItemPointerGetOffsetNumber(&tuple->t_self)};
	systable_endscan_ordered(scan);
	toast_close_indexes(indexes, count, AccessShareLock);
	return tuple != NULL;
}

/*
 * Finds the next chunk: after the last one, at the end of that page, at the
 * other place, or where the index says.
 */
static bool
read_next(Relation rel, Table *table, Chunks *chunks, int *questions)
{
	BlockNumber block = table->next.block;
	Spot        other;

	if (read_page(rel, table, &table->next, chunks))
		return true;
	/* nothing was left on that page */
	if (table->next.block != block && read_page(rel, table, &table->next, chunks))
		return true;

	other = table->other;
	table->other = table->next;
	table->next = other;
	if (read_page(rel, table, &table->next, chunks))
		return true;
	return (*questions)-- > 0 && look_up(rel, &table->next, chunks) &&
		   read_page(rel, table, &table->next, chunks);
}

/*
 * Reads a value's bytes as they are stored.  Sessions that fill a table at the
 * same time take pages by turns, so that the index may have to be asked within
 * a value, too; where that happens too often, the server does better.
 */
static bool
read_value(Table *table, const struct varatt_external *pointer, char *dst)
{
	int32    size = VARATT_EXTERNAL_GET_EXTSIZE(*pointer);
	Chunks   chunks = {.value = pointer->va_valueid,
					   .size = size,
					   .count = (size - 1) / TOAST_MAX_CHUNK_SIZE + 1,
					   .dst = dst};
	int      questions = 2 + chunks.count / 8;
	Relation rel = table_open(pointer->va_toastrelid, AccessShareLock);
	bool     found = has_known_form(rel);

	while (found && chunks.seq < chunks.count)
	{
		CHECK_FOR_INTERRUPTS();
		found = read_next(rel, table, &chunks, &questions);
	}
	/* The lock saves us from asking for the table's size with each page. */
	table_close(rel, NoLock);
	return found;
}

/* Room for a value, with its length word. */
static char *
make_room(CsvToast *toast, size_t size)
{
	if (size <= toast->size)
		return toast->buffer;
	if (size > KEPT_SIZE)
		return palloc(size);
	if (toast->buffer)
		pfree(toast->buffer);
	toast->size = 0;
	toast->size = pg_nextpower2_64(size);
	toast->buffer = MemoryContextAlloc(toast->context, toast->size);
	return toast->buffer;
}

/* NULL if it is left to the server. */
static struct varlena *
fetch_value(CsvToast *toast, const struct varatt_external *pointer)
{
	size_t          size = VARATT_EXTERNAL_GET_EXTSIZE(*pointer) + VARHDRSZ;
	Table          *table = find_table(toast, pointer->va_toastrelid);
	struct varlena *result;

	if (table->skip > 0)
	{
		table->skip--;
		return NULL;
	}
	result = (struct varlena *) make_room(toast, size);
	if (VARATT_EXTERNAL_IS_COMPRESSED(*pointer))
		SET_VARSIZE_COMPRESSED(result, size);
	else
		SET_VARSIZE(result, size);
	if (!read_value(table, pointer, VARDATA(result)))
	{
		table->skip = Min(1 << table->failed, MAX_SKIP);
		table->failed = Min(table->failed + 1, 16);
		return NULL;
	}
	table->failed = 0;
	return result;
}

struct varlena *
csv_toast_fetch(CsvToast *toast, struct varlena *value)
{
	struct varatt_external pointer;
	struct varlena        *result;

	VARATT_EXTERNAL_GET_POINTER(pointer, value);
	if (compat_snapshots_become_too_old || VARATT_EXTERNAL_GET_EXTSIZE(pointer) == 0)
		return detoast_attr(value);
	result = fetch_value(toast, &pointer);
	if (result == NULL)
		return detoast_attr(value);
	return VARATT_IS_COMPRESSED(result) ? detoast_attr(result) : result;
}
