# Stores and names that are out of the ordinary, and how much memory an export
# takes when the store takes nothing.
use strict;
use warnings;
use lib 'test/lib';
use utf8;
use Encode qw(encode_utf8);
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(sleep);

my $s3 = scripted_s3();
my $node = s3export_node('main', q(s3export.part_size = '5MB'), q(s3export.upload_memory = '32MB'), q(s3export.retry_timeout = '20s'), q(s3export.stall_timeout = '60s'));
my %keys = scripted_user($s3);
my $wide = 'SELECT i, repeat(md5(i::text), 32) AS filler FROM generate_series(1, %d) i';
my $rows = 11000;
my $whole = copy_oracle($node, sprintf($wide, $rows), 'HEADER');

sub rows_to
{
	my ($connector, $file, $count, %options) = @_;

	return ($options{set} // '') . "SELECT rows FROM s3export.copy_to('$connector', " . sql_literal(sprintf $wide, $count) . ', ' . sql_literal($file) . ')';
}

# ---- a store that takes no part: memory stays within s3export.upload_memory
{
	my %place = at_endpoint($s3);
	my $fault = 'S3 takes no data for a while, of an export larger than memory';
	my ($out, $error) = ('', '');
	my $count = 150_000;
	my ($pid, $before, $in_flight, $handle);

	create_connector($node, 'stuck', %place, %keys);
	$s3->call('add_fault', do => 'stall', match => { operation => 'UploadPart' }, times => undef);
	$handle = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', rows_to('stuck', 'stuck.csv', $count) ], '>', \$out, '2>', \$error);
	# No buffer is free when the rows do not go on.
	poll_until(sub {
			my $now = $node->safe_psql('postgres', q(SELECT rows FROM s3export.progress));
			my $stands = $now ne '' && $now > 0 && $now eq ($before // '');

			$before = $now;
			sleep 0.5;
			return $stands;
		}, 'the rows to stand still');
	cmp_ok($before, '<', $count, "$fault: the query waits");
	$pid = $node->safe_psql('postgres', q(SELECT uploader_pid FROM s3export.jobs ORDER BY job_id DESC LIMIT 1));
	my ($uploader) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
	$pid = $node->safe_psql('postgres', q(SELECT leader_pid FROM s3export.jobs ORDER BY job_id DESC LIMIT 1));
	my ($leader) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
	# What is not buffers (code's data, caches, libcurl, TLS) is some MB.
	cmp_ok($uploader, '<', (32 + 16) * 1024, "$fault: memory of the uploader") and note("uploader $uploader kB, leader $leader kB");
	cmp_ok($uploader, '>', 8 * 1024, "$fault: it did hold parts");
	cmp_ok($leader, '<', 16 * 1024, "$fault: memory of the caller's backend");
	$s3->call('clear_faults');
	$s3->call('release');
	$handle->finish;
	is($out, "$count\n", "$fault: the rows are counted");
	my $stuck = copy_oracle($node, sprintf($wide, $count), 'HEADER');
	my @seen = (caller_cell($error), job_cell($node, 'stuck.csv'), scripted_cell($s3, "$place{folder_path}/stuck.csv", $stuck));
	is_deeply(\@seen, [ 'success', 'succeeded', 'the whole object' ], "$fault: the caller, the job's row, the bucket") or diag($error);
	fault_outcome($fault, @seen);
}

# ---- stores
# Cloudflare's R2 wants parts of one size, but for the last.
{
	my %place = at_endpoint($s3);

	$s3->call('add_bucket', name => 'equal', equal_parts => ScriptedS3::true);
	create_connector($node, 'equal', %place, %keys, bucket => 'equal');
	is($node->safe_psql('postgres', rows_to('equal', 'equal.csv', $rows)), $rows, 'a store that wants parts of one size');
	ok($s3->object('equal', "$place{folder_path}/equal.csv") eq $whole, 'a store that wants parts of one size: the object');
	my ($object) = @{ $s3->call('objects', bucket => 'equal')->{objects} };
	is(scalar(@{ $object->{part_sizes} }), 3, 'a store that wants parts of one size: it had several');
}
{
	my %place = at_endpoint($s3);
	my $fault = 'Complete refuses the parts';
	my $error;

	create_connector($node, 'refused', %place, %keys);
	$s3->call('add_fault', do => 'error', code => 'InvalidPart', match => { operation => 'CompleteMultipartUpload' }, times => undef);
	$error = sql_error($node, rows_to('refused', 'refused.csv', $rows));
	$s3->call('clear_faults');
	like($error->{detail}, qr/^S3 answered InvalidPart \(HTTP status 400\) to s3:PutObject: /, "$fault: the detail");
	my @seen = (caller_cell($error), job_cell($node, 'refused.csv'), scripted_cell($s3, "$place{folder_path}/refused.csv", $whole));
	is_deeply(\@seen, [ '`38000` could not complete upload of object', 'failed `38000`', 'no object' ], "$fault: the caller, the job's row, the bucket");
	fault_outcome($fault, @seen);
}

# ---- names
# What stands between two slashes, or in a query string, or in XML means nothing in a key.
{
	my %place = at_endpoint($s3);
	my $printable = join '', grep { !/[\/{}]/ } map { chr } 0x21 .. 0x7e;
	my $since = $s3->log;

	create_connector($node, 'names', %place, %keys);
	foreach my $path ("a b/$printable", "ünï/\x{20ac}\x{1F600}.csv", 'a+b%20c&d=e?f#g;h', '%2e%2e%2f', 'a/.../b')
	{
		foreach my $size ($rows, 1)
		{
			my $what = $size == 1 ? 'one request' : 'parts';
			my $key = "$path $size";

			is($node->safe_psql('postgres', "SET client_encoding = 'UTF8'; " . encode_utf8(rows_to('names', $key, $size))), $size, encode_utf8("key \"$path\", $what"));
			ok(defined $s3->object('exports', "$place{folder_path}/$key"), 'is there under that name');
		}
	}
	my @log = $s3->log(since => $since, service => 's3');
	is(scalar(grep { $_->{signature} ne 'valid' } @log), 0, 'each request is signed right');
	is(scalar(grep { !$_->{canonical_path} } @log), 0, 'and its path is sent as it is signed');
}

# A name with dots is no host that AWS's certificates are for.
{
	my $aws = s3export_node('aws', aws_settings($s3));
	my %place = at_aws();
	my $since = $s3->log;

	$s3->call('add_bucket', name => 'my.dotted.bucket');
	create_connector($aws, 'dots', %place, %keys, bucket => 'my.dotted.bucket', region => 'us-east-1');
	is($aws->safe_psql('postgres', rows_to('dots', 'dots.csv', 1)), 1, 'a bucket with dots in its name, at AWS');
	ok(defined $s3->object('my.dotted.bucket', "$place{folder_path}/dots.csv"), 'a bucket with dots in its name: the object');
	is_deeply([ grep { $_->{addressing} ne 'path' || !$_->{tls} } $s3->log(since => $since, service => 's3') ], [], 'a bucket with dots in its name: it is in the path');
	$aws->stop;
}

# ---- an endpoint that is an IPv6 address with a port
SKIP:
{
	my $here = eval { slurp_file('/proc/net/if_inet6') } // '';

	skip 'this system has no IPv6', 2 unless $here =~ /^0{31}1 /m;

	my $six = ScriptedS3->start(host => '::1');
	my %place = at_endpoint($six);

	$six->call('add_bucket', name => 'exports');
	$six->call('add_user', %keys);
	like($six->url, qr/^http:\/\/\[::1\]:\d+$/, 'an endpoint with an IPv6 address');
	create_connector($node, 'six', %place, %keys);
	$node->safe_psql('postgres', rows_to('six', 'six.csv', $rows));
	ok(($six->object('exports', "$place{folder_path}/six.csv") // '') eq $whole, 'an endpoint with an IPv6 address: the object');
	keep_secrets($six);
	$six->stop;
}

is(scalar($s3->uploads('exports')), 0, 'no upload stays open');

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
