# Compressed exports: what the tools of each method make of an object is what
# COPY writes, at every size and at both ends of the levels, and what the plainest
# calls of common libraries make of it is no less.
use strict;
use warnings;
use lib 'test/lib';
use File::Temp;
use IO::Uncompress::Gunzip;
use IPC::Run;
use S3Export;
use Test::More;

s3_or_skip();
my $node = s3export_node('main');
my $folder = unique_folder();
my $version = $node->safe_psql('postgres', 'SELECT s3export.version()');
my %methods = (
	gzip => { suffix => '.gz', type => 'application/gzip', tool => [qw(gzip -dc)], levels => [ 0 .. 3 ] },
	zstd => { suffix => '.zst', type => 'application/zstd', tool => [qw(zstd -dcq)], levels => [ -7, 0, 22 ] },
	lz4 => { suffix => '.lz4', type => 'application/x-lz4', tool => [qw(lz4 -dcq)], levels => [ 0, 3, 12 ] },
);

create_connector($node, 'lake', folder_path => $folder);

# The result row of a copy_to, by column.
sub copy_to
{
	my ($arguments, $before) = @_;
	my @columns = qw(job_id uri rows files bytes);
	my $out = $node->safe_psql('postgres', ($before // '') . ";\nSELECT * FROM s3export.copy_to($arguments)");
	my %row;

	@row{@columns} = split /\|/, (split /\n/, $out)[-1], -1;
	return \%row;
}

# The plainest calls, which stop at the end of the first member or frame: $b is the object.
my $zstd = 'import zstandard; d = zstandard.ZstdDecompressor()';
my %readers = (
	gzip => [
		[ 'gzip.decompress', python('import gzip', 'gzip.decompress(b)') ],
		[ 'zlib.decompress', python('import zlib', 'zlib.decompress(b, wbits=31)') ],
		[ 'zlib.decompressobj', python('import zlib', 'zlib.decompressobj(31).decompress(b)') ],
		[ 'gunzip of Perl', [ 'perl', '-MIO::Uncompress::Gunzip=gunzip', '-e', 'gunzip(\*STDIN => \*STDOUT) or die' ] ],
		[ 'gunzipSync of Node', [ 'node', '-e', 'process.stdout.write(require("zlib").gunzipSync(require("fs").readFileSync(0)))' ] ],
	],
	zstd => [
		[ 'decompressobj', python($zstd, 'd.decompressobj().decompress(b)') ],
		[ 'stream_reader', python($zstd, 'd.stream_reader(b).read()') ],
	],
	lz4 => [
		[ 'lz4.frame.decompress', python('import lz4.frame', 'lz4.frame.decompress(b)') ],
		[ 'LZ4FrameDecompressor', python('import lz4.frame', 'lz4.frame.LZ4FrameDecompressor().decompress(b)') ],
	]);
my $one_shot = [ 'ZstdDecompressor.decompress', python($zstd, 'd.decompress(b)') ];

sub python
{
	my ($import, $call) = @_;

	return [ '/usr/bin/python3', '-c', "import sys\n$import\nb = sys.stdin.buffer.read()\nsys.stdout.buffer.write($call)" ];
}

sub run_reader
{
	my ($reader, $bytes) = @_;
	my ($out, $err) = ('', '');
	my $file = File::Temp->new;

	print $file $bytes;
	close $file;
	IPC::Run::run($reader->[1], '<', $file->filename, '>', \$out, '2>', \$err);
	return ($out, $err);
}

# That each reads all of it.
sub read_whole
{
	my ($what, $method, $bytes, $expected, @more) = @_;

	foreach my $reader (@{ $readers{$method} }, @more)
	{
		next if $reader->[1][0] eq 'node' && !IPC::Run::run([qw(which node)], '>', \my $path);
		my ($out, $err) = run_reader($reader, $bytes);

		ok($out eq $expected, "$what: $reader->[0]") or diag(length($out) . ' bytes of ' . length($expected) . "; $err");
	}
	return;
}

# What an object holds, by the tool that everybody has; it must have no complaint.
sub decompressed
{
	my ($method, $bytes) = @_;
	my ($out, $err) = ('', '');
	my $file = File::Temp->new;

	print $file $bytes;
	close $file;
	IPC::Run::run($methods{$method}{tool}, '<', $file->filename, '>', \$out, '2>', \$err);
	return $? == 0 && $err eq '' ? $out : "the tool of $method failed: $err";
}

# Of several blocks; and of several parts, compressed too.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE orders AS SELECT i AS id, 'customer ' || i % 1000 AS customer, i * 1.25 AS amount,
	'2026-01-01Z'::timestamptz + i * interval '1 minute' AS at, repeat('filler ', 10) AS note
	FROM generate_series(1, 25000) i;
CREATE TABLE wide AS SELECT i, (SELECT string_agg(md5(i || '/' || j), '') FROM generate_series(1, 30) j) AS noise
	FROM generate_series(1, 25000) i;
SQL
my $orders = 'SELECT * FROM orders ORDER BY id';
my $wide = 'SELECT * FROM wide ORDER BY i';
my $header = "id,customer,amount,at,note\n";
my $orders_csv = copy_oracle($node, $orders, 'HEADER');
my $wide_csv = copy_oracle($node, $wide, 'HEADER');

foreach my $method (sort keys %methods)
{
	my $suffix = $methods{$method}{suffix};
	my ($row, $bytes);

	if ($version !~ /\b\Q$method\E \(/)
	{
		error_like($node, "SELECT s3export.copy_to('lake', 'VALUES (1)', compression => '$method')",
			{ sqlstate => '0A000', message => "compression method \"$method\" is not supported by this build of s3export",
				detail => qr/^It was built without the library \S+\.$/ },
			"$method is not there");
		error_like($node, "SELECT s3export.copy_to('lake', 'VALUES (1)', 'a$suffix')", { sqlstate => '0A000' },
			"nor for a path that asks for it");
		next;
	}

	# ---- what arrives, and what is said about it
	$row = copy_to("'lake', '$orders', 'orders.csv$suffix'");
	$bytes = s3_get("$folder/orders.csv$suffix");
	ok(decompressed($method, $bytes) eq $orders_csv, "$method: the extension of a path is enough");
	cmp_ok(length $bytes, '<', length($orders_csv) / 3, "$method: it has become smaller");
	read_whole("$method of several blocks", $method, $bytes, $orders_csv, $method eq 'zstd' ? $one_shot : ());
	is("$row->{rows}|$row->{bytes}", '25000|' . length $bytes, "$method: rows, and bytes as they are in the store");
	my $head = s3_head("$folder/orders.csv$suffix");
	is($head->{'content-type'}, $methods{$method}{type}, "$method: the content's type");
	is($head->{'content-encoding'}, undef, "$method: no content encoding");

	$row = copy_to("'lake', 'orders', compression => '$method'");
	like($row->{uri}, qr{/orders-\w+-\d+\.csv\Q$suffix\E$}, "$method: the extension of a made name");
	copy_to("'lake', '$orders', 'explicit.$method.csv', compression => '$method', header => false");
	ok(decompressed($method, s3_get("$folder/explicit.$method.csv")) eq substr($orders_csv, length $header),
		"$method: a path stays what it is, and there need be no header");

	# ---- levels
	foreach my $level (@{ $methods{$method}{levels} })
	{
		my $key = "level$level.csv$suffix";

		copy_to("'lake', '$orders', '$key', compression_level => $level");
		ok(decompressed($method, s3_get("$folder/$key")) eq $orders_csv, "$method: level $level");
	}

	# ---- sizes
	copy_to("'lake', 'SELECT 1 AS a', 'small.csv$suffix'");
	is(decompressed($method, s3_get("$folder/small.csv$suffix")), "a\n1\n", "$method: one row");
	copy_to("'lake', 'SELECT 1 AS a WHERE false', 'header.csv$suffix'");
	is(decompressed($method, s3_get("$folder/header.csv$suffix")), "a\n", "$method: the header alone");
	copy_to("'lake', 'SELECT 1 AS a WHERE false', 'empty.csv$suffix', header => false");
	is(decompressed($method, s3_get("$folder/empty.csv$suffix")), '', "$method: nothing at all");
	read_whole("$method of a row", $method, s3_get("$folder/small.csv$suffix"), "a\n1\n", $method eq 'zstd' ? $one_shot : ());
	read_whole("$method of a header", $method, s3_get("$folder/header.csv$suffix"), "a\n", $method eq 'zstd' ? $one_shot : ());
	read_whole("$method of nothing", $method, s3_get("$folder/empty.csv$suffix"), '');
	$row = copy_to("'lake', 'SELECT 1 AS a WHERE false', 'skipped.csv$suffix', header => false, on_empty => 'skip'");
	is("$row->{files}|$row->{bytes}", '0|0', "$method: no object for nothing");

	foreach my $size (1024 * 1024, 5 * 1024 * 1024 + 1)
	{
		my $length = $size - 1;

		copy_to("'lake', 'SELECT repeat(''x'', $length)', 'row.csv$suffix', header => false, if_exists => 'overwrite'");
		ok(decompressed($method, s3_get("$folder/row.csv$suffix")) eq 'x' x $length . "\n", "$method: a row of $size bytes");
	}

	$row = copy_to("'lake', '$wide', 'wide.csv$suffix'", q(SET s3export.part_size = '5MB'));
	ok(decompressed($method, s3_get("$folder/wide.csv$suffix")) eq $wide_csv, "$method: several parts");
	read_whole("$method of several parts", $method, s3_get("$folder/wide.csv$suffix"), $wide_csv);

	# Of files that are split, and of partitions.
	copy_to("'lake', '$orders', 'split/o.csv$suffix', max_rows_per_file => 10000");
	read_whole("$method of file $_", $method, s3_get("$folder/split/o" . ($_ == 1 ? '' : "_part$_") . ".csv$suffix"),
		copy_oracle($node, "SELECT * FROM orders WHERE (id - 1) / 10000 = $_ - 1 ORDER BY id", 'HEADER'),
		$method eq 'zstd' ? $one_shot : ()) foreach 1 .. 3;
	copy_to("'lake', 'SELECT id / 10000 AS v, * FROM orders ORDER BY id', 'parts/o.csv$suffix', partition_by => 'v', parallel => 0");
	read_whole("$method of partition $_", $method, s3_get("$folder/parts/v=$_/o.csv$suffix"),
		copy_oracle($node, "SELECT * FROM orders WHERE id / 10000 = $_ ORDER BY id", 'HEADER'),
		$method eq 'zstd' ? $one_shot : ()) foreach 0 .. 2;
	cmp_ok($node->safe_psql('postgres', "SELECT parts FROM s3export.job_files WHERE job_id = $row->{job_id}"),
		'>', 2, "$method: there were several");

	# ---- a query that fails when blocks have been sent
	error_like($node, "SELECT s3export.copy_to('lake', 'SELECT *, 1 / (24000 - i) FROM wide', 'failed.csv$suffix')",
		{ sqlstate => '22012', message => 'division by zero' }, "$method: an error of the query");
	is_deeply([ s3_list("$folder/failed") ], [], "$method: leaves no object");
}

# ---- a path says nothing against the argument
copy_to(q('lake', 'SELECT 1 AS a', 'plain.csv.gz', compression => 'none'));
is(s3_get("$folder/plain.csv.gz"), "a\n1\n", 'no compression, though the path asks for it');
is(s3_head("$folder/plain.csv.gz")->{'content-type'}, 'text/csv', 'and no type of one');

# ---- several processes compress one file
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE large AS SELECT i AS id, repeat(md5(i::text), 8) AS filler FROM generate_series(1, 700000) i;
ALTER TABLE large SET (parallel_workers = 2);
ANALYZE large;
SQL

# How much of the content each frame has, by its reader's own account.
sub frames
{
	my ($bytes) = @_;
	my $walk = "import sys, zstandard\nb = sys.stdin.buffer.read()\n"
	  . "while b:\n d = zstandard.ZstdDecompressor().decompressobj()\n print(len(d.decompress(b)))\n b = d.unused_data";
	my ($out) = run_reader([ '', [ '/usr/bin/python3', '-c', $walk ] ], $bytes);

	return split /\n/, $out;
}

my $large_csv = copy_oracle($node, 'SELECT * FROM large', 'HEADER');
foreach my $method (grep { $version =~ /\b\Q$_\E \(/ } sort keys %methods)
{
	my $key = "large.csv$methods{$method}{suffix}";
	my $sorted = sub { join "\n", sort split /\n/, $_[0] };

	copy_to("'lake', 'large', '$key', parallel => 2");
	my $bytes = s3_get("$folder/$key");
	my $plain = decompressed($method, $bytes);

	is(substr($plain, 0, 10), "id,filler\n", "$method by several: the header comes first");
	ok($sorted->($plain) eq $sorted->($large_csv), "$method by several: all rows, and the header");
	read_whole("$method by several", $method, $bytes, $plain) if $method ne 'zstd';
	next if $method ne 'zstd';

	my @sizes = frames($bytes);
	my @small = grep { $_ < 64 * 1024 * 1024 } @sizes;
	cmp_ok(scalar @small, '<=', 3, 'zstd by several: each process has one smaller frame at most') or diag("@sizes");
	cmp_ok(scalar @sizes, '<', 1 + length($large_csv) / (64 * 1024 * 1024) + 3, 'zstd by several: frames are large') or diag("@sizes");

	my ($out, $err) = run_reader($one_shot, $bytes);
	is($out, '', 'zstd by several: a call that reads one frame');
	like($err, qr/could not determine content size/, 'fails, and does not read a part in silence');

	copy_to("'lake', 'large', 'alone.csv.zst', parallel => 0");
	is_deeply([ frames(s3_get("$folder/alone.csv.zst")) ], [ length $large_csv ], 'zstd by one: one frame');
}

$node->stop;
s3_clear($folder);
done_testing();
