# The files of an export: templates, splitting, header lines, partitions and the
# manifest, alone and together.  All files appear, or none does.  The server has
# preloaded the library, which it need not.
use strict;
use warnings;
use lib 'test/lib';
use Digest::SHA qw(sha256_hex);
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);
use IPC::Run;
use JSON::PP qw(decode_json);
use List::Util qw(max sum0);
use PostgreSQL::Test::Utils;
use S3Export;
use Test::More;

s3_or_skip();
my $node = s3export_node('main', 'max_parallel_workers = 4', "shared_preload_libraries = 's3export'");
my $top = unique_folder();
my $exports = 0;

create_connector($node, 'lake', folder_path => $top);
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE t AS SELECT i AS id, 'row ' || i AS label, repeat(md5(i::text), 8) AS filler FROM generate_series(1, 10000) i;
ANALYZE t;
SQL
my $all = 'SELECT * FROM t ORDER BY id';
my $header = "id,label,filler\n";
my $oracle = copy_oracle($node, $all);

is($node->safe_psql('postgres', 'SHOW s3export.part_size'), '8MB', 'a session that has called nothing has the library');

# ---- helpers

sub call
{
	my ($query, $path, $arguments) = @_;

	return "s3export.copy_to('lake', " . sql_literal($query) . ', ' . sql_literal($path) . ($arguments ? ", $arguments" : '') . ')';
}

# Exports into a folder of its own; returns what copy_to did, and the files there
# as pairs of name and bytes in the order of their numbers.
sub files_of
{
	my ($query, $name, $arguments, %more) = @_;
	my $folder = 'e' . ++$exports;
	my ($row, %number, @files);

	my ($job, $uri, $rows, $files, $bytes) = split /\|/, (split /\n/,
		$node->safe_psql('postgres', ($more{set} // '') . '; SELECT * FROM ' . call($query, "$folder/$name", $arguments)))[-1], -1;
	$row = { job => $job, uri => $uri, rows => $rows, files => $files, bytes => $bytes, folder => "$top/$folder" };
	%number = map { reverse split /\|/ } split /\n/,
	  $node->safe_psql('postgres', "SELECT file_no, uri FROM s3export.job_files WHERE job_id = $job");
	@files = sort { $number{ $a->[2] } <=> $number{ $b->[2] } }
	  map { [ $_->[0] =~ s{^\Q$top/$folder/\E}{}r, $_->[1], "s3://$S3{BUCKET}/$_->[0]" ] } s3_get_all("$top/$folder/");
	is(scalar keys %number, scalar @files, "$name: a row for each file");
	return ($row, @files);
}

sub names
{
	return [ map { $_->[0] } @_ ];
}

sub lines
{
	my ($bytes) = @_;

	return $bytes =~ tr/\n//;
}

# What all files together hold, without these bytes at the beginning of each.
sub joined
{
	my ($without, @files) = @_;

	return join '', map { substr($_->[1], 0, length $without) eq $without ? substr($_->[1], length $without) : "no header in $_->[0]" } @files;
}

sub sorted
{
	return join '', sort map { "$_\n" } split /\n/, $_[0];
}

sub refused
{
	my ($what, $arguments, $expected, %more) = @_;

	error_like($node, 'SELECT ' . call($more{query} // $all, $more{path} // 'refused.csv', $arguments), $expected, $what);
	return;
}

# ---- header
foreach my $case ([ 'header => true', $header ], [ q(header => 'all'), $header ], [ q(header => 'first'), $header ],
	[ 'header => false', '' ], [ q(header => 'none'), '' ], [ 'true', $header ], [ 'false', '' ], [ q('none'), '' ])
{
	my ($row, @files) = files_of($all, 'a.csv', $case->[0]);

	ok($files[0][1] eq $case->[1] . $oracle, "$case->[0]: one file");
	is($row->{uri}, "s3://$S3{BUCKET}/$row->{folder}/a.csv", "$case->[0]: its URI");
}
refused('header must be known', q(header => NULL), { sqlstate => '22004', message => 'argument "header" must not be null' });
refused('and be one of three', q(header => 'last'), { sqlstate => '22P02' });
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
	WHERE extname = 's3export' AND deptype = 'e' AND (classid, objid) IN (SELECT 'pg_cast'::regclass, oid FROM pg_cast WHERE casttarget = 's3export.header_mode'::regtype
	UNION SELECT 'pg_type'::regclass, 's3export.header_mode'::regtype))), 2, 'its type and cast are of the extension');

# ---- templates
{
	my ($row, @files) = files_of($all, '{yyyy}/{mm}-{dd}/{connector}_{job}_{{x}}_{part}.csv');

	like($files[0][0], qr{^\d{4}/\d\d-\d\d/lake_$row->{job}_\{x\}_1\.csv$}, 'placeholders');
	is($files[0][0] =~ m{^(\d{4})/(\d\d)-(\d\d)/} ? "$1-$2-$3" : '',
		$node->safe_psql('postgres', "SELECT (started_at AT TIME ZONE 'UTC')::date FROM s3export.jobs WHERE job_id = $row->{job}"), 'of the time when it began');
	($row, @files) = files_of($all, 'at{hh}{mi}{ss}.csv', 'max_rows_per_file => 4000');
	like(join(' ', @{ names(@files) }), qr/^at(\d{6})\.csv at\1_part2\.csv at\1_part3\.csv$/, 'the same time for all files');
}
foreach my $case ([ '{year}.csv', 'It has a placeholder that is not known.' ], [ 'a{.csv', 'It has a brace without its counterpart.' ])
{
	refused("path $case->[0]", '', { sqlstate => '22023', message => qq(invalid value for argument "path": "$case->[0]"),
			detail => $case->[1], hint => qr/^Placeholders are \{yyyy\}, .*\{connector\}; a brace that is one is written twice\.$/ },
		path => $case->[0]);
}
refused('a path whose key would be too long', '', { sqlstate => '22023', detail => 'A path in a bucket has at most 1024 bytes.' },
	path => ('x' x 1010) . '{yyyy}{connector}.csv');

# ---- so many rows a file
foreach my $n (1, 1000, 3333, 9999, 10000, 10001)
{
	my $rows = $n == 1 ? 20 : 10000;
	my $query = "SELECT * FROM t WHERE id <= $rows ORDER BY id";
	my ($row, @files) = files_of($query, 'n.csv', "max_rows_per_file => $n");
	my $count = int(($rows + $n - 1) / $n);

	is_deeply(names(@files), [ 'n.csv', map { "n_part$_.csv" } 2 .. $count ], "$n rows a file: names");
	is_deeply([ map { lines($_->[1]) - 1 } @files ], [ ($n) x ($count - 1), $rows - $n * ($count - 1) ], "$n rows a file: exactly");
	ok(joined($header, @files) eq copy_oracle($node, $query), "$n rows a file: the bytes");
	is("$row->{rows}|$row->{files}|$row->{bytes}", "$rows|$count|" . sum0(map { length $_->[1] } @files), "$n rows a file: counted");
	is($row->{uri}, "s3://$S3{BUCKET}/$row->{folder}/" . ($count == 1 ? 'n.csv' : ''), "$n rows a file: the URI of the file, or of their folder");
	is($node->safe_psql('postgres', "SELECT uri, rows, files, bytes, open_uploads FROM s3export.jobs WHERE job_id = $row->{job}"),
		"$row->{uri}|$rows|$count|$row->{bytes}|0", "$n rows a file: the job's row");
	is($node->safe_psql('postgres', "SELECT string_agg(rows || ' ' || bytes || ' ' || state || ' ' || (crc32c IS NOT NULL), ',' ORDER BY file_no) FROM s3export.job_files WHERE job_id = $row->{job}"),
		join(',', map { (lines($_->[1]) - 1) . ' ' . length($_->[1]) . ' done true' } @files), "$n rows a file: the files' rows");
}
foreach my $case ([ 'first', $header, '' ], [ 'none', '', '' ])
{
	my ($mode, $first, $others) = @$case;
	my ($row, @files) = files_of($all, 'h.csv', "header => '$mode', max_rows_per_file => 2500");

	ok(join('', map { $_->[1] } @files) eq $first . $oracle && @files == 4, "header '$mode' of several files");
}
{
	my ($row, @files) = files_of($all, 'p{part}/x.csv', 'max_rows_per_file => 5000');

	is_deeply(names(@files), [ 'p1/x.csv', 'p2/x.csv' ], 'a part for a folder');
	is($row->{uri}, "s3://$S3{BUCKET}/$row->{folder}/", 'and the folder that has all');
}
refused('no rows a file', 'max_rows_per_file => 0', { sqlstate => '22023', message => 'invalid value for argument "max_rows_per_file": 0', detail => 'It is at least 1.' });

# ---- so many bytes a file
my $mb = 1024 * 1024;
foreach my $size (1, 2)
{
	my ($row, @files) = files_of($all, 's.csv', "max_file_size => '$size MB', header => 'all'");

	ok(joined($header, @files) eq $oracle, "$size MB a file: the bytes");
	is(scalar(grep { length($_->[1]) > $size * $mb } @files), 0, "$size MB a file: none is larger");
	is(scalar(grep { length($_->[1]) < 0.7 * $size * $mb } @files[ 0 .. $#files - 1 ]), 0, "$size MB a file: none but the last is much smaller");
	is(scalar(grep { substr($_->[1], -1) ne "\n" } @files), 0, "$size MB a file: whole rows");
	cmp_ok(scalar @files, '>', 1, "$size MB a file: several");
}
{
	my $query = "SELECT * FROM (SELECT id, label FROM t UNION ALL SELECT 5000, repeat('x', 3000000)) u ORDER BY 1, length(label)";
	my ($row, @files) = files_of($query, 'big.csv', q(max_file_size => '1 MB', header => false));
	my @large = grep { length($_->[1]) > $mb } @files;

	ok(joined('', @files) eq copy_oracle($node, $query), 'a row larger than a file: the bytes');
	is(scalar @large, 1, 'it has a file');
	is(lines($large[0][1]), 1, 'of its own');

	($row, @files) = files_of($query, 'small.csv', q(max_file_size => '10 MB', max_rows_per_file => 4000));
	is_deeply([ map { lines($_->[1]) - 1 } @files ], [ 4000, 4000, 2001 ], 'both limits: the one that is reached first');
	($row, @files) = files_of($all, 'both.csv', q(max_file_size => '1 MB', max_rows_per_file => 9000));
	ok(joined($header, @files) eq $oracle && !grep({ length($_->[1]) > $mb } @files), 'both limits: the other one');
}
refused('files too small', q(max_file_size => '1023 kB'), { sqlstate => '22023', message => 'invalid value for argument "max_file_size": "1023 kB"', detail => 'It is at least 1 MB.' });
refused('a size that is none', q(max_file_size => 'large'), { sqlstate => '22023', message => 'invalid size: "large"' });

# ---- with compression, and workers
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE noise AS SELECT i AS id, i % 7 AS d, (SELECT string_agg(md5(i || '/' || j), '') FROM generate_series(1, 20) j) AS noise FROM generate_series(1, 20000) i;
ALTER TABLE noise SET (parallel_workers = 2);
ANALYZE noise;
SQL
my $noise = copy_oracle($node, 'SELECT * FROM noise');
my $noise_header = "id,d,noise\n";
foreach my $gzip ('', '.gz')
{
	foreach my $parallel (0, 2)
	{
		my $what = "workers: $parallel$gzip";
		my ($row, @files) = files_of('noise', "w.csv$gzip", "max_file_size => '1 MB', max_rows_per_file => 3000, parallel => $parallel");
		my @large = grep { length($_->[1]) > $mb } @files;

		foreach my $file ($gzip ? @files : ())
		{
			my $plain;
			gunzip(\$file->[1] => \$plain, MultiStream => 1) or die "gunzip: $GunzipError";
			$file->[1] = $plain;
		}
		is(scalar @large, 0, "$what: no file is larger than it may be");
		is(scalar(grep { lines($_->[1]) > 3001 } @files), 0, "$what: nor has more rows");
		ok(sorted(joined($noise_header, @files)) eq sorted($noise), "$what: all rows");
		cmp_ok(scalar @files, '>=', 7, "$what: files");
	}
}
{
	my ($row, @files) = files_of('noise', 'wf.csv', q(max_rows_per_file => 3000, parallel => 2, header => 'first'));

	ok(sorted(join '', map { $_->[1] } @files) eq sorted($noise_header . $noise), 'workers: the header is in one file');
	is(substr($files[0][1], 0, length $noise_header), $noise_header, 'the first');
}

# ---- nothing
foreach my $limit ('max_rows_per_file => 10', q(max_file_size => '1 MB'))
{
	my $none = 'SELECT * FROM t WHERE false';
	my ($row, @files) = files_of($none, 'none.csv', $limit);

	is_deeply([ map { $_->[1] } @files ], [$header], "$limit, no rows: a header");
	($row, @files) = files_of($none, 'none.csv', "$limit, header => 'none'");
	is_deeply([ map { $_->[1] } @files ], [''], "$limit, no rows: an empty file");
	($row, @files) = files_of($none, 'none.csv', "$limit, on_empty => 'skip'");
	is("$row->{files}|" . @files, '0|0', "$limit, no rows: no file");
	refused("$limit, no rows: an error", "$limit, on_empty => 'error'", { sqlstate => 'P0002', message => 'the query returned no rows' }, query => $none);
}

# ---- manifest
{
	my ($row, @files) = files_of('SELECT id, label::varchar(20), 1.5::numeric(10,2) AS "a ""b""" FROM t ORDER BY id', 'm.csv.gz',
		q(max_rows_per_file => 4000, manifest => true, delimiter => E'\t', "null" => '\N', header => 'first'));
	my $manifest = decode_json((shift @files)->[1]);

	is_deeply(names(@files), [qw(m.csv.gz m_part2.csv.gz m_part3.csv.gz)], 'manifest: the files');
	is_deeply($manifest->{columns}, [ map { { %$_, nullable => undef } } { name => 'id', type => 'integer' }, { name => 'label', type => 'character varying(20)' }, { name => 'a "b"', type => 'numeric(10,2)' } ],
		'manifest: columns');
	is("$manifest->{source}{database}|$manifest->{source}{query}", 'postgres|SELECT id, label::varchar(20), 1.5::numeric(10,2) AS "a ""b""" FROM t ORDER BY id', 'manifest: the query');
	like("$manifest->{source}{snapshot} $manifest->{source}{lsn}", qr{^\d+:\d+:[\d,]* [0-9A-F]+/[0-9A-F]+$}, 'manifest: its snapshot, and its place in the WAL');
	is($manifest->{primary_key}, undef, 'manifest: a query has no key');
	is_deeply([ map { $_->{sha256} } @{ $manifest->{files} } ], [ map { sha256_hex($_->[1]) } @files ], 'manifest: what sha256sum says of each file');
	is(sum0(map { $_->{csv_bytes} } @{ $manifest->{files} }), length(copy_oracle($node, 'SELECT id, label, 1.5::numeric(10,2) AS "a ""b""" FROM t ORDER BY id', q(HEADER, DELIMITER E'\t'))), 'manifest: bytes of CSV');
	is_deeply($manifest->{format}, { delimiter => "\t", quote => '"', escape => '"', null => '\N', encoding => 'UTF8', header => 'first', compression => 'gzip', partition_by => undef },
		'manifest: format');
	is_deeply([ map { [ @$_{qw(uri rows bytes)} ] } @{ $manifest->{files} } ], [ map { [ $files[$_][2], $_ == 2 ? 2000 : 4000, length $files[$_][1] ] } 0 .. 2 ], 'manifest: files');
	is(join('|', map { ($_->{etag} // '-') . " $_->{crc32c}" } @{ $manifest->{files} }),
		join('|', split /\n/, $node->safe_psql('postgres', "SELECT coalesce(etag, '-') || ' ' || crc32c FROM s3export.job_files WHERE job_id = $row->{job} AND file_no > 0 ORDER BY file_no")), 'manifest: ETags and CRCs');
	is(scalar(grep { ($_->{etag} // '') =~ /^"?[0-9a-f]{32}(-1)?"?$/ } @{ $manifest->{files} }), 3, 'manifest: each file has its ETag');
	is_deeply($manifest->{totals}, { files => 3, rows => 10000, bytes => 0 + $row->{bytes} }, 'manifest: totals');
	is("$manifest->{version}|$manifest->{job_id}|$manifest->{connector}", "1|$row->{job}|lake", 'manifest: what it is of');
	like("$manifest->{started_at} $manifest->{finished_at}", qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/, 'manifest: when');
	is("$row->{files}|" . sum0(map { length $_->[1] } @files), "3|$row->{bytes}", 'manifest: it is not counted');
	is(s3_head("$row->{folder}/_m.manifest.json")->{'content-type'}, 'application/json', 'manifest: its type');
	is($node->safe_psql('postgres', "SELECT state, uri, rows, bytes > 0 FROM s3export.job_files WHERE job_id = $row->{job} AND file_no = 0"),
		"done|s3://$S3{BUCKET}/$row->{folder}/_m.manifest.json|0|t", 'manifest: it has a row');

	($row, @files) = files_of($all, 'one.csv', 'manifest => true');
	is_deeply(names(@files), [qw(_one.manifest.json one.csv)], 'manifest of one file');
	is($row->{uri}, "s3://$S3{BUCKET}/$row->{folder}/one.csv", 'whose URI is returned');
	is($node->safe_psql('postgres', "SELECT manifest_uri FROM " . call('SELECT 1 AS a', 'told/a.csv', 'manifest => true')), "s3://$S3{BUCKET}/$top/told/_a.manifest.json", 'whose manifest is told');
	is($node->safe_psql('postgres', "SELECT manifest_uri IS NULL FROM " . call('SELECT 1 AS a', 'told/b.csv')), 't', 'where there is one');

	# Of a table, with settings of the session; of several parts, and of one in parallel.
	$node->safe_psql('postgres', 'CREATE TABLE keyed(b int NOT NULL, "a b" text, c date, PRIMARY KEY (b)); INSERT INTO keyed VALUES (1, NULL, $$2026-02-03$$)');
	($row, @files) = files_of('keyed', 'k.csv', 'manifest => true', set => q(SET datestyle = 'SQL, DMY'; SET timezone = 'Europe/Rome'));
	$manifest = decode_json((shift @files)->[1]);
	is_deeply($manifest->{columns}, [ { name => 'b', type => 'integer', nullable => JSON::PP::false }, { name => 'a b', type => 'text', nullable => JSON::PP::true }, { name => 'c', type => 'date', nullable => JSON::PP::true } ],
		'manifest: columns of a table');
	is_deeply($manifest->{primary_key}, ['b'], 'manifest: its key');
	is($manifest->{source}{table}, 'public.keyed', 'manifest: its name');
	is_deeply($manifest->{settings}, { DateStyle => 'SQL, DMY', TimeZone => 'Europe/Rome', IntervalStyle => 'postgres', bytea_output => 'hex', extra_float_digits => 1 }, 'manifest: settings of the session');
	($row, @files) = files_of('SELECT t.*, repeat(filler, 10) AS more FROM t', 'parts.csv', 'manifest => true', set => q(SET s3export.part_size = '5MB'));
	is(decode_json((shift @files)->[1])->{files}[0]{sha256}, sha256_hex($files[0][1]), 'manifest: the checksum of several parts');
	is(length($files[0][1]) > 20 * 1024 * 1024, 1, 'which they are');

	($row, @files) = files_of('SELECT 1 WHERE false', 'skipped.csv', q(manifest => true, on_empty => 'skip'));
	is(scalar @files, 0, 'no manifest of what is skipped');

	s3_put("$top/mm/_x.manifest.json", 'other');
	refused('a manifest in the way', 'manifest => true', { sqlstate => '42710', message => "object \"s3://$S3{BUCKET}/$top/mm/_x.manifest.json\" already exists" }, path => 'mm/x.csv');
	is_deeply([ s3_list("$top/mm/") ], ["$top/mm/_x.manifest.json"], 'is found before the query runs');
	$node->safe_psql('postgres', 'SELECT ' . call('SELECT 1', 'mm/x.csv', q(manifest => true, if_exists => 'overwrite')));
	is(decode_json(s3_get("$top/mm/_x.manifest.json"))->{totals}{rows}, 1, 'or overwritten');
}

# ---- what exists already
s3_put("$top/old/a.csv", 'old');
refused('the first file is in the way', 'max_rows_per_file => 4000', { sqlstate => '42710', message => "object \"s3://$S3{BUCKET}/$top/old/a.csv\" already exists" }, path => 'old/a.csv');
$node->safe_psql('postgres', 'SELECT ' . call($all, 'old/a.csv', q(max_rows_per_file => 4000, if_exists => 'overwrite')));
is_deeply([ map { length s3_get("$top/old/$_") > 3 } qw(a.csv a_part2.csv a_part3.csv) ], [ 1, 1, 1 ], 'overwritten');

# ---- an export replaces what an earlier one of its path has left
sub export
{
	my ($query, $path, $arguments, %more) = @_;

	return $node->safe_psql('postgres', ($more{set} // '') . '; SELECT job_id FROM ' . call($query, $path, "if_exists => 'overwrite'" . ($arguments ? ", $arguments" : '')) =~ s/'lake'/$more{connector} ? "'$more{connector}'" : "'lake'"/er);
}

sub left
{
	my ($folder) = @_;

	return join ' ', map { s{^\Q$top/$folder/\E}{}r } s3_list("$top/$folder/");
}
my $ten = 'SELECT * FROM generate_series(1, 10) i';
my $four = 'SELECT * FROM generate_series(1, 4) i';
my $days = 'SELECT i, i % 3 AS day FROM generate_series(1, 9) i';
my $first_job = export($ten, 'shrink/o.csv', 'max_rows_per_file => 2, manifest => true');
s3_put("$top/shrink/o_part9.csv", 'not ours');
s3_put("$top/shrink/o_part4.csv", 'replaced by others');
export($four, 'shrink/o.csv', 'max_rows_per_file => 2');
is(left('shrink'), 'o.csv o_part2.csv o_part4.csv o_part9.csv', 'what is not written again is gone, the manifest too; what others have put there is not');
is($node->safe_psql('postgres', "SELECT string_agg(state || ' ' || regexp_replace(uri, '.*/', ''), ', ' ORDER BY file_no) FROM s3export.job_files WHERE job_id = $first_job"),
	'removed _o.manifest.json, done o.csv, done o_part2.csv, removed o_part3.csv, done o_part4.csv, removed o_part5.csv', 'and the rows say so');

export($days, 'days/x.csv', q(partition_by => 'day'));
export('SELECT i, i % 2 AS day FROM generate_series(1, 9) i', 'days/x.csv', q(partition_by => 'day'));
is(left('days'), 'day=0/x.csv day=1/x.csv', 'a value that has vanished');
export($four, 'days/x.csv');
is(left('days'), 'x.csv', 'partitions');
export('SELECT i, i % 2 AS week FROM generate_series(1, 9) i', 'days/x.csv', q(partition_by => 'week'));
is(left('days'), 'week=0/x.csv week=1/x.csv', 'another column');
error_like($node, 'SELECT ' . call('SELECT 1 / (i - 9), i AS week FROM generate_series(1, 9) i', 'days/x.csv', q(partition_by => 'week', if_exists => 'overwrite')), { sqlstate => '22012' }, 'an export that fails');
is(left('days'), 'week=0/x.csv week=1/x.csv', 'removes nothing');
$node->safe_psql('postgres', 'SELECT ' . call($four, 'days/y.csv'));
is(left('days'), 'week=0/x.csv week=1/x.csv y.csv', 'nor does one of another path');
export('SELECT 1 WHERE false', 'days/x.csv', q(on_empty => 'skip'));
is(left('days'), 'week=0/x.csv week=1/x.csv y.csv', 'nor one that writes nothing');

# Paths of another day, connector or store are others.
export($ten, 'by{ss}-{job}/t.csv');
export($four, 'by{ss}-{job}/t.csv');
is(scalar(my @stamped = grep { m{/by\d\d-\d+/t\.csv$} } s3_list("$top/by")), 2, 'placeholders make paths that differ');
create_connector($node, 'lake two', folder_path => "$top/two");
export($ten, 'z.csv', 'max_rows_per_file => 5', connector => 'lake two');
export($four, 'two/z.csv', 'max_rows_per_file => 5');
is(left('two'), 'z.csv z_part2.csv', 'of another connector nothing is removed');
export($ten, 'mine.csv', 'max_rows_per_file => 5', connector => 'lake two');
export($ten, 'two/mine.csv', 'max_rows_per_file => 5');
export($four, 'mine.csv', 'max_rows_per_file => 5', connector => 'lake two');
is(left('two'), 'mine.csv mine_part2.csv z.csv z_part2.csv', 'nor what another has written since');

# Where the store does not let us, it is said, and the export has succeeded.
{
	my ($id, $secret) = s3_user('frozen', qw(s3:ListBucket s3:GetBucketLocation s3:PutObject s3:GetObject s3:AbortMultipartUpload));
	my $warning = qr/^WARNING:  3 files of earlier exports to this path could not be removed$/m;

	create_connector($node, 'frozen', folder_path => "$top/frozen", validate => \'false', access_key_id => $id, secret_access_key => $secret);
	export($ten, 'f.csv', 'max_rows_per_file => 2', connector => 'frozen');
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SELECT rows FROM s3export.copy_to('frozen', '$four', 'f.csv', max_rows_per_file => 2, if_exists => 'overwrite')" ], '<', \undef, '>', \$out, '2>', \$err);
	is($out, "4\n", 'the files cannot be removed, and the export succeeds');
	like($err, $warning, 'with a warning');
	like($err, qr{^DETAIL:  .*s3:DeleteObject.*It is "s3://$S3{BUCKET}/$top/frozen/f_part3\.csv", "}m, 'that names them');
	is(left('frozen'), 'f.csv f_part2.csv f_part3.csv f_part4.csv f_part5.csv', 'they are there');
	is($node->safe_psql('postgres', q(SELECT state FROM s3export.jobs WHERE path = 'f.csv' ORDER BY job_id DESC LIMIT 1)), 'succeeded', 'and the job has succeeded');
}

# ---- partitions
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE p AS SELECT i AS id, (ARRAY['plain', 'a/b', 'x=y', '50%', '"quoted"', 'ünïcödé', NULL, '', 'two words', '..', '{brace}', '*'])[1 + i % 12] AS v, 'row ' || i AS label
	FROM generate_series(1, 1200) i;
SQL
my %folder = ('plain' => 'plain', 'a/b' => 'a%2Fb', 'x=y' => 'x%3Dy', '50%' => '50%25', '"quoted"' => '%22quoted%22', "\xc3\xbcn\xc3\xafc\xc3\xb6d\xc3\xa9" => "\xc3\xbcn\xc3\xafc\xc3\xb6d\xc3\xa9",
	'two words' => 'two words', '..' => '..', '{brace}' => '%7Bbrace%7D', '*' => '%2A');
foreach my $order ('', ' ORDER BY v, id')
{
	my ($row, @files) = files_of("SELECT id, v, label FROM p$order", 'f.csv', q(partition_by => 'v'));
	my %bytes = map { @$_[ 0, 1 ] } @files;
	my @null = map { delete $bytes{"v=__HIVE_DEFAULT_PARTITION__/$_"} } 'f.csv', 'f_part2.csv';

	is_deeply([ sort keys %bytes ], [ sort map { "v=$_/f.csv" } values %folder ], "partitions$order: folders");
	foreach my $value (sort keys %folder)
	{
		is(sorted($bytes{"v=$folder{$value}/f.csv"}), sorted(copy_oracle($node, 'SELECT id, label FROM p WHERE v = ' . sql_literal($value), 'HEADER')),
			"partitions$order: rows of $folder{$value}");
	}
	is(join('', sort map { sorted($_) } @null), join('', sort map { sorted(copy_oracle($node, "SELECT id, label FROM p WHERE $_", 'HEADER')) } q(v IS NULL), q(v = '')),
		"partitions$order: NULL and '' have a folder, and a file each");
	is("$row->{uri}|$row->{rows}|$row->{files}", "s3://$S3{BUCKET}/$row->{folder}/|1200|12", "partitions$order: counted");
}
{
	my ($row, @files) = files_of('SELECT v AS "a=b", id FROM p WHERE id % 12 IN (0, 1)', 'q{part}.csv.gz', q(partition_by => 'a=b', manifest => true, max_rows_per_file => 60, force_quote => '{*}'));
	my $manifest = decode_json((shift @files)->[1]);

	is_deeply([ sort @{ names(@files) } ], [ map { ("a%3Db=$_/q1.csv.gz", "a%3Db=$_/q2.csv.gz") } 'a%2Fb', 'plain' ], 'partitions: numbers within a value');
	is_deeply($manifest->{format}{partition_by}, { name => 'a=b', type => 'text' }, 'partitions: the manifest names the column');
	is_deeply([ sort map { "$_->{partition}{'a=b'} $_->{rows}" } @{ $manifest->{files} } ], [ 'a/b 40', 'a/b 60', 'plain 40', 'plain 60' ], 'and the values');
	is_deeply($manifest->{columns}, [ { name => 'id', type => 'integer', nullable => undef } ], 'and the columns of the files');
	is(s3_head("$row->{folder}/_q1.manifest.json")->{'content-type'}, 'application/json', 'partitions: where the manifest is');

	# The text that stands for NULL is none, and neither is ''.
	($row, @files) = files_of(q(VALUES (1, NULL), (2, '__HIVE_DEFAULT_PARTITION__'), (3, '')), 'n.csv', q(partition_by => 'column2', manifest => true, header => 'none'));
	$manifest = decode_json((grep { $_->[0] =~ /json$/ } @files)[0][1]);
	is_deeply({ map { $_->[0] => $_->[1] } grep { $_->[0] !~ /json$/ } @files },
		{ 'column2=__HIVE_DEFAULT_PARTITION__/n.csv' => "1\n", 'column2=%5F_HIVE_DEFAULT_PARTITION__/n.csv' => "2\n", 'column2=__HIVE_DEFAULT_PARTITION__/n_part2.csv' => "3\n" },
		"NULL, its name as text, and ''");
	is_deeply([ map { $_->{partition} } @{ $manifest->{files} } ], [ { column2 => undef }, { column2 => '__HIVE_DEFAULT_PARTITION__' }, { column2 => '' } ], 'which the manifest tells apart');

	# What COPY would quote in a file of one column is quoted.
	($row, @files) = files_of(q(SELECT 1 AS d, '\.' AS a), 'dot.csv', q(partition_by => 'd'));
	is($files[0][1], copy_oracle($node, q(SELECT '\.' AS a), 'HEADER'), 'partitions: the column is left out');
	is($row->{uri}, "s3://$S3{BUCKET}/$row->{folder}/d=1/dot.csv", 'partitions: one file');

	($row, @files) = files_of('noise', 'wp.csv.gz', q(partition_by => 'd', parallel => 2));
	is(scalar @files, 7, 'partitions and workers: a file a value');
	my @rows = map {
		my ($file, $plain) = $_;
		gunzip(\$file->[1] => \$plain, MultiStream => 1) or die "gunzip: $GunzipError";
		my ($d) = $file->[0] =~ /^d=(\d)/;
		map { s/,/,$d,/r . "\n" } grep { $_ ne 'id,noise' } split /\n/, $plain
	} @files;
	ok(join('', sort @rows) eq sorted($noise), 'partitions and workers: all rows');
	($row, @files) = files_of('noise', 'wps.csv', q(partition_by => 'd', parallel => 2, max_file_size => '1 MB', header => 'none'));
	is(scalar(grep { length($_->[1]) > $mb } @files), 0, 'partitions and sizes: none is larger');
	ok(sorted(joined('', @files)) eq sorted(copy_oracle($node, 'SELECT id, noise FROM noise')), 'partitions and sizes: all rows');

	($row, @files) = files_of('SELECT id, v FROM p WHERE false', 'none.csv', q(partition_by => 'v', manifest => true));
	is_deeply(names(@files), ['_none.manifest.json'], 'partitions of nothing: a manifest alone');
	is("$row->{files}|" . $row->{uri}, '0|', 'and no file');
}
refused('a column that is not there', q(partition_by => 'nope'), { sqlstate => '42703', message => 'cannot partition by column "nope"', detail => 'The query has no column of that name.' });
refused('a column that is there twice', q(partition_by => 'id'), { sqlstate => '42702', message => 'cannot partition by column "id"' }, query => 'SELECT id, id FROM t');
refused('the only column', q(partition_by => 'id'), { sqlstate => '22023', message => 'cannot partition by column "id"', detail => 'The column is left out of the files, and it is the only one.' }, query => 'SELECT id FROM t');
refused('a value too long for a key', q(partition_by => 'v'), { sqlstate => '22023', message => qr/^cannot name a file of the export "/, detail => 'A path in a bucket has at most 1024 bytes.' },
	query => q(SELECT 1 AS id, repeat('x', 1100) AS v));

# ---- many partitions: memory is bounded, and so are the files that are open

# Runs an export while looking at its uploader; returns its result and the most memory that it had, MB.
sub watched
{
	my ($sql) = @_;
	my ($out, $err, $peak) = ('', '', 0);
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $sql ], '<', \undef, '>', \$out, '2>', \$err);
	my $pid = 0;

	while ($run->pumpable)
	{
		$run->pump_nb;
		$pid ||= $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 's3export uploader')) || 0;
		if ($pid && open(my $status, '<', "/proc/$pid/status"))
		{
			# Not the pages that it shares with others: buffers, rings, libraries.
			/^RssAnon:\s+(\d+)/ and $peak = max($peak, $1 / 1024) foreach <$status>;
		}
		select undef, undef, undef, 0.02;
	}
	$run->finish;
	is($err, '', "no error in $sql");
	return ($out, $peak);
}
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE many AS SELECT i AS id, i % 1000 AS v, repeat(md5(i::text), 10) AS filler FROM generate_series(1, 100000) i;
ALTER ROLE CURRENT_USER SET s3export.upload_memory = '20MB';
SQL
{
	my ($out, $peak) = watched('SELECT rows, files FROM ' . call('SELECT * FROM many ORDER BY v', 'many/m.csv', q(partition_by => 'v')));
	my @keys = s3_list("$top/many/");

	is($out, "100000|1000\n", '1,000 values in order: a file each');
	is(scalar @keys, 1000, 'and no more');
	is(sorted(s3_get("$top/many/v=77/m.csv")), sorted(copy_oracle($node, 'SELECT id, filler FROM many WHERE v = 77', 'HEADER')), 'of its rows');
	cmp_ok($peak, '<', 20 + 32, 'the memory of the uploader') or diag("$peak MB");
	cmp_ok($peak, '>', 0, 'was measured');
	note("1,000 values: $peak MB");
	s3_clear("$top/many/");

	($out, $peak) = watched('SELECT rows, files > 60 FROM ' . call('SELECT id, v % 60 AS v, filler FROM many', 'mixed/m.csv', q(partition_by => 'v', header => 'none')));
	is($out, "100000|t\n", '60 values in no order: several files each');
	cmp_ok($peak, '<', 20 + 32, 'the memory of the uploader');
	note("60 values: $peak MB");
	my $rows = join '', map { $_->[1] } s3_get_all("$top/mixed/");
	ok(sorted($rows) eq sorted(copy_oracle($node, 'SELECT id, filler FROM many')), 'all rows');
	s3_clear("$top/mixed/");

	# As many rows as make each value's block several of the process that scans.
	($out, $peak) = watched('SELECT rows, files FROM ' . call('SELECT i % 40 AS v, i, repeat(md5(i::text), 30) FROM generate_series(1, 40000) i ORDER BY 1', 'sorted/m.csv', q(partition_by => 'v')));
	is($out, "40000|40\n", 'large values in order: a file each');
	cmp_ok($peak, '<', 20 + 32, 'the memory of the uploader');
	note("40 large values: $peak MB");
	s3_clear("$top/sorted/");

	foreach my $gzip ('', '.gz')
	{
		my $few = 'SELECT i, (i * 7919) % 1000 AS v FROM generate_series(1, 5000) i';

		($out, $peak) = watched('SELECT rows, files FROM ' . call($few, "few$gzip/m.csv$gzip", q(partition_by => 'v', manifest => true)));
		is($out, "5000|1000\n", "1,000 values of five rows in no order: a file each$gzip");
		my $parts = $node->safe_psql('postgres', "SELECT max(parts), count(*) FROM s3export.job_files JOIN s3export.jobs USING (job_id) WHERE path = 'few$gzip/m.csv$gzip' AND file_no > 0");
		is($parts, '0|1000', 'sent by one request each');
		is(scalar(my @all = s3_list("$top/few$gzip/v=")), 1000, 'all are there');
		s3_clear("$top/few$gzip/");
	}
}
error_like($node, 'SELECT ' . call('SELECT i AS id, i AS v FROM generate_series(1, 10001) i', 'toomany/m.csv', q(partition_by => 'v')), { sqlstate => '54000', message => 'the export would have more than 10000 files',
		hint => qr/^Sort the query by the column of "partition_by"/ }, '10,001 values');
is_deeply([ s3_list("$top/toomany/"), s3_uploads("$top/toomany/") ], [], 'leaves nothing');

# ---- an export that fails leaves nothing
sub leaves_nothing
{
	my ($what, $folder, $state) = @_;

	is_deeply([ s3_list("$top/$folder/") ], [], "$what: no object");
	ok(poll_until(sub { !s3_uploads("$top/$folder/") }), "$what: no upload is open");
	is($node->safe_psql('postgres', "SELECT state, files, open_uploads FROM s3export.jobs WHERE path LIKE '$folder/%' ORDER BY job_id DESC LIMIT 1"), "$state|0|0", "$what: the job's row");
	is($node->safe_psql('postgres', "SELECT DISTINCT f.state FROM s3export.job_files f JOIN s3export.jobs USING (job_id) WHERE path LIKE '$folder/%'"), 'aborted', "$what: the files' rows");
	return;
}
my $fails = 'SELECT id % 5 AS v, filler, CASE WHEN g = 2 THEN 1 / (100000 - id) END FROM (SELECT * FROM many, generate_series(1, 2) g ORDER BY g, id OFFSET 0) s';
error_like($node, 'SELECT ' . call($fails, 'last/f.csv', q(partition_by => 'v')), { sqlstate => '22012' }, 'the last row fails');
leaves_nothing('the last row fails', 'last', 'failed');
error_like($node, 'SELECT ' . call($fails, 'last2/f.csv', q(max_file_size => '5 MB', manifest => true)), { sqlstate => '22012' }, 'the last row of the last file fails');
leaves_nothing('the last row of the last file fails', 'last2', 'failed');
{
	my ($out, $err) = ('', '');
	my $sql = 'SELECT ' . call('SELECT id % 5 AS v, filler, CASE WHEN id = 99999 THEN pg_sleep(180)::text END FROM many ORDER BY id', 'cancel/f.csv', q(partition_by => 'v', max_rows_per_file => 4000));
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', $sql ], '<', \undef, '>', \$out, '2>', \$err);

	ok(poll_until(sub { $node->safe_psql('postgres', q(SELECT count(*) > 5 FROM s3export.job_files JOIN s3export.jobs USING (job_id) WHERE path LIKE 'cancel/%')) eq 't' }),
		'files have begun');
	is_deeply([ s3_list("$top/cancel/") ], [], 'none of them is there while the query runs');
	$node->safe_psql('postgres', q(SELECT pg_cancel_backend(leader_pid) FROM s3export.jobs WHERE path LIKE 'cancel/%'));
	$run->finish;
	like($err, qr/ERROR:  57014:/, 'cancelled');
	ok(poll_until(sub { $node->safe_psql('postgres', q(SELECT count(*) FROM s3export.jobs WHERE path LIKE 'cancel/%' AND state = 'cancelled')) eq '1' }), 'the job is over');
	leaves_nothing('cancelled', 'cancel', 'cancelled');
}

$node->safe_psql('postgres', 'ALTER ROLE CURRENT_USER RESET s3export.upload_memory');

# ---- the session of a role may do no more than the files need
s3_secret($S3{STS_SECRET_ACCESS_KEY});
$node->safe_psql('postgres', "SELECT s3export.set_identity('$S3{STS_ACCESS_KEY_ID}', '$S3{STS_SECRET_ACCESS_KEY}')");
create_connector($node, 'role', folder_path => "$top/role", role_arn => $S3{ROLE_ARN});
is($node->safe_psql('postgres', q(SELECT files FROM s3export.copy_to('role', 'p', 'a-{part}.csv.gz', partition_by => 'v', manifest => true))), 12, 'partitions by a role');
is($node->safe_psql('postgres', q(SELECT files FROM s3export.copy_to('role', 't', 'b.csv', max_rows_per_file => 3000, manifest => true))), 4, 'files by a role');

is_deeply([ s3_uploads("$top/") ], [], 'no upload is left open by any of these');
$node->stop;
s3_clear($top);
done_testing();
