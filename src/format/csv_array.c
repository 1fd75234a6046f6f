/*-------------------------------------------------------------------------
 *
 * csv_array.c
 *	  Arrays of numbers and the like as CSV values.
 *
 * Elements that array_out would put into quotes, more than one dimension, and
 * bounds that it would write are left to it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupmacs.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "format/csv_array.h"
#include "format/csv_types.h"

/* what array_out writes around and between elements */
#define STRUCTURE "{}NUL"

struct CsvArray
{
	Oid            element;
	int16          len;
	bool           by_value;
	char           align;
	char           quote;
	bool           separator_needs_quotes;
	const CsvType *type;
	void          *state; /* its own */
};

/* Whether none of these characters means anything to CSV, or within quotes. */
static bool
mean_nothing(const char *characters, const CsvMarks *marks)
{
	for (const char *c = characters; *c != '\0'; c++)
	{
		if (*c == marks->delimiter || *c == marks->quote || *c == marks->escape)
			return false;
	}
	return true;
}

CsvArray *
csv_array_create(Oid type, const CsvMarks *marks, const char *null_print)
{
	CsvArray array = {.element = get_base_element_type(type), .quote = marks->quote};
	Oid      parameter;
	Oid      output;
	char     separator;
	FmgrInfo function;

	if (!OidIsValid(array.element) || null_print[0] == '{')
		return NULL;
	get_type_io_data(array.element, IOFunc_output, &array.len, &array.by_value, &array.align,
					 &separator, &parameter, &output);
	fmgr_info(output, &function);
	array.type = csv_type_find(function.fn_addr);
	if (array.type == NULL || separator != ',' ||
		strpbrk(array.type->alphabet, " ,{}\"\\") != NULL ||
		!mean_nothing(array.type->alphabet, marks) || !mean_nothing(STRUCTURE, marks) ||
		marks->quote == ',' || marks->escape == ',')
		return NULL;
	array.separator_needs_quotes = marks->delimiter == ',';
	array.state = palloc0(array.type->state_size);
	return memcpy(palloc(sizeof(array)), &array, sizeof(array));
}

/* The elements, with what is between them; NULL if one is left to the server. */
static char *
put_elements(CsvBlock *block, char *dst, const CsvArray *array, ArrayType *value)
{
	const char  *element = ARR_DATA_PTR(value);
	const bits8 *not_null = ARR_NULLBITMAP(value);
	int          count = ARR_DIMS(value)[0];

	for (int i = 0; i < count; i++)
	{
		dst = csv_block_room(block, dst, array->type->width + 4);
		if (i > 0)
			*dst++ = ',';
		if (not_null && (not_null[i / BITS_PER_BYTE] & (1 << (i % BITS_PER_BYTE))) == 0)
		{
			memcpy(dst, "NULL", 4);
			dst += 4;
			continue;
		}
		dst =
			array->type->write(dst, fetch_att(element, array->by_value, array->len), array->state);
		if (dst == NULL)
			return NULL;
		element = att_addlength_pointer(element, array->len, element);
		element = (const char *) att_align_nominal(element, array->align);
	}
	return dst;
}

char *
csv_put_array(CsvBlock *block, char *dst, Datum datum, CsvArray *array, bool force_quote)
{
	ArrayType *value = DatumGetArrayTypeP(datum);
	bool       quote = force_quote;

	if (ARR_NDIM(value) > 1 || ARR_ELEMTYPE(value) != array->element ||
		(ARR_NDIM(value) == 1 && ARR_LBOUND(value)[0] != 1))
		return NULL;
	if (ARR_NDIM(value) == 1 && ARR_DIMS(value)[0] > 1)
		quote |= array->separator_needs_quotes;

	dst = csv_block_room(block, dst, 2);
	if (quote)
		*dst++ = array->quote;
	*dst++ = '{';
	if (ARR_NDIM(value) == 1)
	{
		dst = put_elements(block, dst, array, value);
		if (dst == NULL)
			return NULL;
	}
	dst = csv_block_room(block, dst, 2);
	*dst++ = '}';
	if (quote)
		*dst++ = array->quote;
	return dst;
}
