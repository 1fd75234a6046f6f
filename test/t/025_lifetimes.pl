# What callbacks of an abort use is still there, however much of the statement's memory is
# gone by then.  malloc of the server's fills what is given back: who uses it gets rubbish.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Currents qw(:scripted currents_node);
use S3Export;
use S3Faults;
use Test::More;

$ENV{MALLOC_PERTURB_} = 90;
my $s3 = scripted_s3();
my $node = currents_node('main', "s3export.retry_timeout = '1s'", 'autovacuum = off', 'restart_after_crash = on');
my %keys = scripted_user($s3);

share_scripted($node, $s3, %keys);
sql('CREATE TABLE items AS SELECT i AS id FROM generate_series(1, 10) i; ALTER TABLE items ADD PRIMARY KEY (id); CREATE TABLE others (id int PRIMARY KEY)');
flow($_, tables => '{items}') foreach qw(flow refused held);
create_connector($node, 'lake', at_endpoint($s3), %keys);
sql(q(SELECT s3export.launch(name) FROM s3export.connectors WHERE name IN ('refused', 'held')));

# An argument whose value takes so much to make that the memory of the call is a piece of
# malloc's of its own, which goes back to malloc before the callbacks run.
sub grown
{
	my ($value) = @_;

	return "left('$value' || repeat('x', g * 5000) || repeat('y', g * 7000), " . length($value) . ')';
}

my $one = 'FROM generate_series(1, 1) g';

# The statement fails, its worker ends, and the server has not crashed.
sub fails
{
	my ($what, $statement, $error) = @_;
	my $log = -s $node->logfile;
	my ($status, $out, $err) = $node->psql('postgres', $statement);

	like($err, $error, "$what fails");
	poll_until(sub { (try_query($node, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 's3export%')))[1] eq '0' },
		'the end of the workers');
	ok(slurp_file($node->logfile, $log) !~ /was terminated by signal/, "$what: the server goes on");
	return;
}

my $no = { do => 'error', code => 'AccessDenied', times => undef };
my $never = { do => 'stall', times => undef };

$s3->call('add_fault', %$no);
fails('a launch with a copy', 'SELECT s3export.launch(' . grown('flow') . ", copy_existing => true) $one", qr/ERROR:/);
sql('INSERT INTO items VALUES (11)');
fails('a delivery', "SELECT d.* $one, s3export.deliver(" . grown('refused') . ') d', qr/ERROR:/);
fails('a table that joins', 'SELECT s3export.add_table(' . grown('refused') . ", 'others', copy_existing => true) $one", qr/ERROR:/);
fails('an export', 'SELECT c.* FROM generate_series(1, 1) g, s3export.copy_to(' . grown('lake') . ", 'items', 'a.csv') c", qr/ERROR:/);
$s3->call('clear_faults');

$s3->call('add_fault', %$never);
my $soon = q(SET statement_timeout = '1s';);
fails('a launch that is cancelled', "$soon SELECT s3export.launch(" . grown('flow') . ", copy_existing => true) $one", qr/statement timeout/);
fails('a delivery that is cancelled', "$soon SELECT d.* $one, s3export.deliver(" . grown('held') . ') d', qr/statement timeout/);
fails('an export that is cancelled', "$soon SELECT c.* $one, s3export.copy_to(" . grown('lake') . ", 'items', 'b.csv') c", qr/statement timeout/);
$s3->call('clear_faults');

$node->stop;
$s3->stop;
done_testing();
