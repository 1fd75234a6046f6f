# Compressed exports: what the tools of each method make of an object is what
# COPY writes, at every size and at both ends of the levels.
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
	my @columns = qw(job_id uri rows_uploaded files_uploaded bytes_uploaded);
	my $out = $node->safe_psql('postgres', ($before // '') . ";\nSELECT * FROM s3export.copy_to($arguments)");
	my %row;

	@row{@columns} = split /\|/, (split /\n/, $out)[-1], -1;
	return \%row;
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
	is("$row->{rows_uploaded}|$row->{bytes_uploaded}", '25000|' . length $bytes, "$method: rows, and bytes as they are in the store");
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
	$row = copy_to("'lake', 'SELECT 1 AS a WHERE false', 'skipped.csv$suffix', header => false, on_empty => 'skip'");
	is("$row->{files_uploaded}|$row->{bytes_uploaded}", '0|0', "$method: no object for nothing");

	foreach my $size (1024 * 1024, 5 * 1024 * 1024 + 1)
	{
		my $length = $size - 1;

		copy_to("'lake', 'SELECT repeat(''x'', $length)', 'row.csv$suffix', header => false, if_exists => 'overwrite'");
		ok(decompressed($method, s3_get("$folder/row.csv$suffix")) eq 'x' x $length . "\n", "$method: a row of $size bytes");
	}

	$row = copy_to("'lake', '$wide', 'wide.csv$suffix'", q(SET s3export.part_size = '5MB'));
	ok(decompressed($method, s3_get("$folder/wide.csv$suffix")) eq $wide_csv, "$method: several parts");
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

# ---- blocks do not depend on each other, so that many processes can make them
SKIP:
{
	skip 'this build has no gzip', 3 if $version !~ /\bgzip \(/;
	my $bytes = s3_get("$folder/orders.csv.gz");
	my @members;

	while (length $bytes)
	{
		my $gunzip = IO::Uncompress::Gunzip->new(\$bytes, MultiStream => 0, Transparent => 0);
		my $member = '';

		while ($gunzip->read(my $some, 1024 * 1024) > 0)
		{
			$member .= $some;
		}
		push @members, $member;
		$bytes = $gunzip->trailingData;
	}
	is($members[0], $header, 'the header is a member of its own');
	is_deeply([ map { substr($_, -1) eq "\n" && length($_) <= 1024 * 1024 } @members[ 1 .. $#members ] ],
		[ (1) x (@members - 1) ], 'each other member consists of whole rows, of at most 1 MiB');
	is(scalar @members, 1 + int((length($orders_csv) + 1024 * 1024 - 1) / (1024 * 1024)), 'and there is no more of them than that takes');
}

$node->stop;
s3_clear($folder);
done_testing();
