/*-------------------------------------------------------------------------
 *
 * csv_toast.h
 *	  Values stored out of line, read in the order in which they lie.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_TOAST_H
#define CSV_TOAST_H

#include "fmgr.h"

/* Where the last values were found; in the context that it was made in. */
typedef struct CsvToast CsvToast;

extern CsvToast *csv_toast_create(void);

/*
 * The value that detoast_attr (access/detoast.h) would return for one that is
 * VARATT_IS_EXTERNAL_ONDISK, and its errors.  Valid until the next call or the
 * reset of the current context.  The lock on the TOAST table is kept until the
 * transaction ends, as that on its table is; no relation and no pin.
 */
extern struct varlena *csv_toast_fetch(CsvToast *toast, struct varlena *value);

#endif /* CSV_TOAST_H */
