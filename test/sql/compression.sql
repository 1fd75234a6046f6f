-- Arguments about compression, and the version.  Nothing here needs S3, nor
-- one of the libraries that a build may lack.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS s3export;
RESET client_min_messages;

-- methods
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv', compression => 'brotli');
\echo :LAST_ERROR_SQLSTATE
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv', compression => 'GZIP');
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv', compression => '');

-- levels
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv', compression => 'gzip', compression_level => 4);
\echo :LAST_ERROR_SQLSTATE
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv', compression => 'gzip', compression_level => -1);
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv', compression => 'zstd', compression_level => 23);
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv', compression => 'zstd', compression_level => -8);
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv', compression => 'lz4', compression_level => 13);
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv', compression => 'lz4', compression_level => -1);

-- the method of a path's extension has levels as well
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv.gz', compression_level => 9);
SELECT s3export.copy_to('none', 'SELECT 1', 'A.CSV.ZST', compression_level => 99);
SELECT s3export.copy_to('none', 'SELECT 1', 'a.lz4', compression_level => 99);

-- a level of nothing
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv', compression_level => 1);
\echo :LAST_ERROR_SQLSTATE
SELECT s3export.copy_to('none', 'SELECT 1', compression_level => 1);
SELECT s3export.copy_to('none', 'SELECT 1', 'a.gz', compression => 'none', compression_level => 1);

-- no compression, whatever the path: the connector is looked for
SELECT s3export.copy_to('none', 'SELECT 1', 'a.csv.gz', compression => 'none');
SELECT s3export.copy_to('none', 'SELECT 1', 'gz/a.gz.csv');

SELECT s3export.version() ~ '^s3export \d+\.\d+\.\d+, PostgreSQL \S+, libcurl \d\S* \(\S+\)(, gzip \(isa-l \d\S*\))?(, zstd \(libzstd \d\S*\))?(, lz4 \(liblz4 \d\S*\))?$' AS ok;
