# Exports at the limits of what a row can be: as large as memory can hold and larger,
# as wide as a table and a query can be, and with no column at all.
use strict;
use warnings;
use lib 'test/lib';

use Digest::MD5 qw(md5 md5_hex);
use IPC::Run qw(timeout);
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(sleep time);

my $s3 = scripted_s3();
my $folder = unique_folder();
my $node = s3export_node('main', 'max_connections = 20', 'autovacuum = off', 'max_parallel_workers = 8', 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0',
	'min_parallel_table_scan_size = 0', 'parallel_leader_participation = off');

create_connector($node, 'lake', at_endpoint($s3), scripted_user($s3), folder_path => $folder);

sub copy_to
{
	my ($source, $file, $more) = @_;

	return "SELECT rows FROM s3export.copy_to('lake', " . sql_literal($source) . ", '$file'" . ($more // '') . ')';
}

sub stored
{
	my ($file) = @_;

	return (grep { $_->{key} eq "$folder/$file" } @{ $s3->call('objects', bucket => 'exports')->{objects} })[0];
}

# The three cells of the table of faults, as wanted.
sub fault
{
	my ($fault, $error, $file, $object, @wanted) = @_;
	my @cells = (caller_cell($error), job_cell($node, $file), $object);

	is_deeply(\@cells, \@wanted, $fault) or diag(explain(\@cells, $error));
	fault_outcome($fault, @cells);
	return;
}

# ---- large rows

# Runs a statement, and looks meanwhile how much memory the two processes take; returns
# what psql has complained of.
my %peak;

sub watched
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	my $began = time;
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', $sql ], '<', \undef, '>', \$out, '2>', \$err, timeout(300));
	my %pid;

	%peak = ();
	while ($run->pumpable)
	{
		$run->pump_nb;
		%pid = reverse split /[|\n]/, $node->safe_psql('postgres', q(SELECT pid, backend_type FROM pg_stat_activity WHERE (backend_type = 'client backend' AND query ~ 'copy_to' AND pid <> pg_backend_pid())
			OR backend_type = 's3export uploader')) if keys %pid < 2;
		foreach my $who (keys %pid)
		{
			open my $status, '<', "/proc/$pid{$who}/status" or next;
			$peak{$who} = $1 if join('', <$status>) =~ /^VmHWM:\s+(\d+) kB/m;
		}
		sleep 0.1;
	}
	$run->finish;
	note(sprintf '%.1f s, %s', time - $began, join ', ', map { "$_ $peak{$_} kB at most" } sort keys %peak);
	return $err;
}

# 900 MB in parts: S3's ETag of such an object is made of the sums of its parts.
{
	my $length = 900_000_000;
	my $error = watched(copy_to("SELECT repeat('x', $length) AS filler", 'row.csv'));
	my $object = stored('row.csv');
	my $left = $length + length("filler\n\n");
	my $at = 0;
	my @sums;

	foreach my $size (@{ $object->{part_sizes} })
	{
		my $part = 'x' x $size;

		substr($part, 0, 7) = "filler\n" if $at == 0;
		$at += $size;
		substr($part, -1) = "\n" if $at == $left;
		push @sums, md5($part);
	}
	is($object->{size}, $left, 'a row of 900 MB: the object\'s size');
	my $whole = $object->{etag} =~ tr/"//dr eq md5_hex(@sums) . '-' . @sums;
	fault('a row of 900 MB', $error, 'row.csv', $whole ? 'the whole object' : 'another object', 'success', 'succeeded', 'the whole object');
	is($node->safe_psql('postgres', q(SELECT rows, bytes FROM s3export.jobs WHERE path = 'row.csv')), "1|$left", 'a row of 900 MB: the job\'s sums');

	# The value, the line it makes in a buffer that doubles, and at the other end the line again.
	cmp_ok($peak{'client backend'}, '<', 4 * $length / 1024, 'a row of 900 MB: memory of the session');
	cmp_ok($peak{'s3export uploader'}, '<', 2 * $length / 1024, 'a row of 900 MB: memory of the uploader');
	$s3->call('clear_log');
}

# COPY's errors beside ours.  It lets some bytes more through than the queue between
# session and uploader does: the first row is one of those, or 100 bytes longer.
my @large = (
	[ 'a row above 1 GB', q(SELECT repeat('x', 536870900) AS a, repeat('y', 536870913 + %d) AS b), 100, 0 ],
	[ 'a row above 1 GB by its quotes', q(SELECT repeat('"', 537000000) AS a) ]);

foreach (@large)
{
	my ($fault, $query, @more) = @$_;
	my $file = $fault =~ tr/ /_/r . '.csv';
	my $copy = sql_error($node, sprintf "COPY ($query) TO '/dev/null' (FORMAT csv)", $more[0] // ());
	my $error = sql_error($node, copy_to(sprintf($query, $more[1] // ()), $file));

	is($error->{sqlstate}, $copy->{sqlstate}, "$fault: SQLSTATE is that of COPY");
	like($error->{detail}, qr/^A row can have at most 10737\d{5} bytes\.$/, "$fault: the detail");
	fault($fault, $error, $file, scripted_cell($s3, "$folder/$file"), '`54000` a row is too large for CSV', 'failed `54000`', 'no object');
}

# ---- many columns, and none

# Exports what is as COPY writes it: alone with a header and without, in parallel, compressed.
sub same_as_copy
{
	my ($fault, $query) = @_;
	my %wanted = map { $_ => copy_oracle($node, $query, $_ ? 'HEADER' : '') } 0, 1;
	my $number = 0;

	foreach my $arguments (', parallel => 0', ', parallel => 0, header => false', ', parallel => 2', q(, compression => 'gzip'))
	{
		my $file = ($fault =~ s/\W+/_/gr) . $number++ . '.csv';
		my ($error, $object);

		if ($arguments =~ /gzip/)
		{
			$file .= '.gz';
			$error = sql_error($node, copy_to($query, $file, $arguments));
			my $compressed = $s3->object('exports', "$folder/$file") // '';
			IPC::Run::run([ 'gzip', '-dc' ], '<', \$compressed, '>', \$object);
		}
		else
		{
			$error = sql_error($node, copy_to($query, $file, $arguments));
			$object = $s3->object('exports', "$folder/$file");
		}
		my $whole = $wanted{ $arguments =~ /header => false/ ? 0 : 1 };
		# Workers keep the header first, and no other order.
		my @lines = map { [ split /(?<=\n)/, $_ // '' ] } $object, $whole;
		my $same = $arguments !~ /parallel => 0/ ? ($lines[0][0] // '') eq ($lines[1][0] // '') && join('', sort @{ $lines[0] }) eq join('', sort @{ $lines[1] })
			: ($object // '') eq $whole;
		my $cell = bucket_cell($same ? $whole : $object, $whole, scalar $s3->uploads('exports'));

		is_deeply([ caller_cell($error), job_cell($node, $file), $cell ], [ 'success', 'succeeded', 'the whole object' ], "$fault$arguments: as COPY writes it");
		fault_outcome($fault, 'success', 'succeeded', 'the whole object, as COPY writes it') if $number == 1;
	}
	return;
}

# Names of up to 63 bytes, which need quotes in SQL and in CSV.
my $columns = join ', ', map { sprintf '"%s" smallint', sprintf('c%04d "",;| ', $_) . ("\xc3\xa4" x 26) } 1 .. 1600;
$node->safe_psql('postgres', "CREATE TABLE wide ($columns)");
$node->safe_psql('postgres', 'INSERT INTO wide SELECT ' . join(', ', map { $_ % 7 == 0 ? 'NULL' : "(i * $_) % 32000" } 1 .. 1600) . ' FROM generate_series(1, 500) i; ANALYZE wide');
same_as_copy('1,600 columns', 'SELECT * FROM wide');
same_as_copy('1,664 columns of a query', 'SELECT ' . join(', ', map { "i + $_" } 1 .. 1664) . ' FROM generate_series(1, 200) i');
same_as_copy('no column', 'SELECT FROM generate_series(1, 5)');
same_as_copy('no column and no row', 'SELECT WHERE false');

{
	my $query = 'SELECT ' . join(', ', 1 .. 1665);
	my $copy = sql_error($node, "COPY ($query) TO '/dev/null' (FORMAT csv)");
	my $error = sql_error($node, copy_to($query, 'too_wide.csv'));

	is("$error->{sqlstate} $error->{message}", "$copy->{sqlstate} $copy->{message}", '1,665 columns: COPY\'s error');
	fault('1,665 columns of a query', $error, 'too_wide.csv', scripted_cell($s3, "$folder/too_wide.csv"), '`54011` target lists can have at most 1664 entries', 'none', 'no object');
}
is(scalar($s3->uploads('exports')), 0, 'no upload stays open');

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
