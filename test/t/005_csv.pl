# CSV equals COPY's, byte for byte: every type, option, setting and encoding.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $test = abs_path(dirname(__FILE__) . '/..');
my $module = "$test/csv_probe/csv_probe";

plan skip_all => 'test/csv_probe is not built (make -C test/csv_probe)' unless -e "$module.so";
$ENV{PGCLIENTENCODING} = 'UTF8';

my $node = PostgreSQL::Test::Cluster->new('csv');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off\njit = off\n");
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir;
chmod 0777, $dir;

# A database of an encoding, with the functions and the corpus.
sub database
{
	my ($name, $encoding, $rows) = @_;
	my $superuser = $node->safe_psql('postgres', 'SELECT current_user');

	$node->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'");
	$node->safe_psql('postgres', "ALTER DATABASE $name SET probe.dir = '$dir'");
	$node->safe_psql('postgres', 'DO $$BEGIN CREATE ROLE postgres SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END$$');
	$node->safe_psql($name, qq{
		CREATE FUNCTION csv_probe(query text, path text, header bool, delimiter text, quote text, escape text,
			nul text, force_quote text[], encoding text, block_size int) RETURNS bigint LANGUAGE c AS '$module';
		CREATE FUNCTION float8_of_bits(bigint) RETURNS float8 LANGUAGE c IMMUTABLE STRICT AS '$module';
		CREATE FUNCTION float4_of_bits(bigint) RETURNS float4 LANGUAGE c IMMUTABLE STRICT AS '$module';
	});
	foreach my $file (qw(compare corpus random), $encoding eq 'UTF8' ? 'encodings' : ())
	{
		system_or_bail('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', "rows=$rows", '-o', '/dev/null',
			'-d', $node->connstr($name), '-f', "$test/lib/csv_$file.sql");
	}
	return;
}

# Compares queries of some sets under options, with settings, once with the
# fast paths and once without.
sub compare
{
	my ($database, $sets, $options, %settings) = @_;
	my $title = "$database: $sets, options like '$options'"
	  . join('', map { ", $_ = '$settings{$_}'" } sort keys %settings);

	foreach my $fast (qw(on off))
	{
		my $result = $node->safe_psql($database,
			"LOAD '$module'; SET s3export.fast_output = $fast; "
			  . join('', map { "DO \$\$BEGIN PERFORM set_config('$_', '$settings{$_}', false); END\$\$; " } sort keys %settings)
			  . "SELECT compare('{$sets}', '$options')");

		like($result, qr/^[1-9]\d* compared, \d+ failed alike, 0 differ$/, "$title, fast $fast") or diag($result);
	}
	return;
}

database('utf8', 'UTF8', 3000);
is($node->safe_psql('utf8', 'SELECT * FROM types_without_values'), '', 'every type has values');

# The comparison itself must be able to fail.
is( $node->safe_psql('utf8',
		q{SELECT first_difference('abcd', 'abXd') || E'\n' || first_difference('ab', 'abc')}),
	"at byte 2 of 4 (COPY) and 4\n  COPY: abcd\n  ours: abXd\nat byte 2 of 2 (COPY) and 3\n  COPY: ab\n  ours: abc",
	'differences are found');
like($node->safe_psql('utf8', q{SELECT (difference(
		'SELECT txid_current_if_assigned(), clock_timestamp()', o)).what FROM options o WHERE name = 'plain'}),
	qr/^query: .*\noptions: .*\nat byte \d+/, 'differences are shown');

# What has no reason to fail does not.
like($node->safe_psql('utf8', "LOAD '$module'; SELECT compare('{text,types,composites,catalogs,random,zones,large}', 'plain')"),
	qr/^[1-9]\d* compared, 0 failed alike, 0 differ$/, 'queries do not fail');

compare('utf8', 'text,shapes', 'plain');
compare('utf8', 'text,shapes,types', 'o %');
compare('utf8', 'types,composites,catalogs,random,zones,large', 'plain');
compare('utf8', 'composites,random,zones', 'o %all%');
compare('utf8', 'random', 'o null%');
compare('utf8', 'text,shapes,types', 'e %');
compare('utf8', 'multibyte', 'm %');
compare('utf8', 'types,text,random', 't %');

compare('utf8', 'types,random,zones', 'o some', DateStyle => $_)
  foreach ('SQL, DMY', 'SQL, MDY', 'Postgres, DMY', 'Postgres, MDY', 'German', 'ISO, YMD');
compare('utf8', 'types,zones', 'plain', TimeZone => $_)
  foreach ('America/New_York', 'Asia/Kolkata', 'Europe/Amsterdam', 'Africa/Monrovia', 'Australia/Lord_Howe',
	'Pacific/Apia', '<+03:30>-3:30', 'FOO+12:34BAR', '-14');
compare('utf8', 'types,random', 'plain', IntervalStyle => $_)
  foreach qw(postgres postgres_verbose sql_standard iso_8601);
compare('utf8', 'types,random', 'plain', extra_float_digits => $_) foreach (-15, -3, 0, 2, 3);
compare('utf8', 'types', 'plain', bytea_output => $_) foreach qw(escape hex);
compare('utf8', 'types', 'plain', lc_monetary => 'C.UTF-8');
compare('utf8', 'types', 'plain', quote_all_identifiers => 'on', search_path => 'public, "Odd schema"');
compare('utf8', 'types,composites', 't %', client_encoding => $_) foreach qw(SJIS LATIN1);

# A conversion made by a user is called for every value, as COPY does.
$node->safe_psql('utf8', qq{
	CREATE FUNCTION to_upper(int, int, cstring, internal, int, bool) RETURNS int LANGUAGE c STRICT AS '$module';
	CREATE SCHEMA mine;
	CREATE DEFAULT CONVERSION mine.upper FOR 'UTF8' TO 'LATIN2' FROM to_upper;
	INSERT INTO options (name, header, nul, encoding) VALUES ('c', true, 'null', 'LATIN2')});
compare('utf8', 'types,text,multibyte,random', 'c', search_path => 'mine, public, pg_catalog');
like($node->safe_psql('utf8', "SET search_path = mine, public, pg_catalog;
	SELECT csv_probe('SELECT ''abc''', '$dir/upper.csv', false, NULL, NULL, NULL, NULL, NULL, 'LATIN2', 64);
	SELECT pg_read_file('$dir/upper.csv')"), qr/ABC/, 'the conversion was called');

foreach my $encoding (qw(LATIN1 SQL_ASCII))
{
	my $name = lc $encoding;

	database($name, $encoding, 300);
	$node->safe_psql($name, q{
		INSERT INTO queries VALUES ('bytes', $$SELECT chr(c) AS v, 'x' || chr(c) || 'y', repeat(chr(c), 30) FROM generate_series(128, 255) c$$);
		INSERT INTO options (name, encoding) SELECT 'x ' || e, e
			FROM unnest('{UTF8,LATIN1,LATIN2,SJIS,GB18030,EUC_JP,SQL_ASCII}'::text[]) e});
	compare($name, 'types,text,shapes,random,bytes', 'x %');
	compare($name, 'types,text', 'o %');
}
$node->safe_psql('latin1', q{INSERT INTO options (name, delimiter, quote, escape, nul, force_quote, encoding) VALUES
	('h 1', chr(228), chr(195), chr(233), chr(246), NULL, 'UTF8'), ('h 2', chr(228), chr(195), chr(233), chr(246), NULL, 'LATIN1'),
	('h 3', chr(169), chr(195), chr(182), 'x', '{*}', 'UTF8')});
compare('latin1', 'bytes,text', 'h %');

$node->stop;
done_testing();
