# A little of all that the extension does, under Valgrind: check.sh runs the
# server in it, and looks at what it says of the module afterwards.
use strict;
use warnings;
use lib 'test/lib';
use IO::Uncompress::Gunzip ();
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $role = scripted_role($s3, 'exporter');
my $node = with_clock(sub {
	s3export_node('main', 'log_min_messages = debug1', 'autovacuum = off', 'jit = off', 'shared_buffers = 16MB',
		q(s3export.part_size = '5MB'), q(s3export.retry_timeout = '1s'), 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0',
		'min_parallel_table_scan_size = 0', currents_settings());
});
my $folder = unique_folder();
my %where = (at_endpoint($s3), folder_path => $folder);
my $copied = $node->basedir . '/copied.csv';

# What the formatter has code of its own for, and values that need quotes.
my $values = q(SELECT i, i::bigint << 40 AS big, i::smallint AS small, i % 2 = 0 AS yes, i / 7.0 AS ratio, sqrt(i) AS root,
	sqrt(i)::real AS short, timestamptz '2026-11-22 12:34:56.789+00' + i * interval '37 hours' AS at, date '2026-11-22' + i AS day,
	time '12:34' + i * interval '1 s' AS clock, md5(i::text)::uuid AS id, decode(md5(i::text), 'hex') AS bytes,
	CASE WHEN i % 5 <> 0 THEN repeat(E'a "b", \303\244\n', i % 40) END AS words, 'plain' || i AS plain, ARRAY[i, NULL] AS list,
	jsonb_build_object('a', i, 'b', ARRAY['x"y', NULL], 'c', jsonb_build_object('d', i / 3.0, 'e', true)) AS document,
	i * interval '1 hour' AS span FROM generate_series(1, 400) i);

sub copy_sql
{
	my ($connector, $path, $source, $arguments) = @_;

	return "SELECT '$path', rows FROM s3export.copy_to('$connector', " . sql_literal($source) . ", '$path'" . ($arguments // '') . ')';
}

# Runs statements, some of which fail, in one session: each takes seconds to begin.
sub run
{
	my (@statements) = @_;
	my ($out, $err) = ('', '');

	$node->psql('postgres', join("\n", map { "$_;" } @statements), stdout => \$out, stderr => \$err, on_error_stop => 0, timeout => 300);
	note($out, "\n", $err);
	return ($out, $err);
}

my ($out, $err) = run(
	'SELECT s3export.set_identity(' . join(', ', map { sql_literal($_) } @keys{qw(access_key_id secret_access_key)}) . ')',
	'SELECT ' . connector_sql('lake', %where, %keys),
	'SELECT ' . connector_sql('role', at_endpoint($s3), role_arn => $role, sts_endpoint_url => $s3->url),
	'SELECT ' . connector_sql('bad', at_endpoint($s3), access_key_id => 'AKIANOBODY', secret_access_key => 'nobody' x 6, validate => \'false'),
	"CREATE TABLE rows AS $values",
	"COPY ($values) TO '$copied' (FORMAT csv, HEADER)",
	q(SELECT 'check ' || "check", ok FROM s3export.test_credentials('lake')),
	copy_sql('lake', 'plain.csv', $values),
	(map { copy_sql('lake', "packed.csv.$_", $values) } qw(gz zst lz4)),
	copy_sql('lake', 'table.csv', 'rows', q(, parallel => 2, force_quote => '{words}')),
	copy_sql('lake', 'latin.csv', 'SELECT words FROM rows', q(, encoding => 'LATIN1', delimiter => ';', "null" => 'none')),
	copy_sql('lake', 'parts.csv', q(SELECT i, repeat('0123456789abcde,', 64) FROM generate_series(1, 11000) i)),
	copy_sql('role', 'role.csv', 'VALUES (1)'));

is(scalar(() = $out =~ /^check .*\|t$/gm), 6, 'the connector is tested');
foreach my $path (qw(plain.csv packed.csv.gz packed.csv.zst packed.csv.lz4 table.csv latin.csv))
{
	like($out, qr/^\Q$path\E\|400$/m, "$path has its rows");
}
like($out, qr/^parts\.csv\|11000$/m, 'an export of several parts');
like($out, qr/^role\.csv\|1$/m, 'an export with keys of a role');
unlike($err, qr/ERROR:/, 'nothing fails');
my $packed = $s3->object('exports', "$folder/packed.csv.gz");
my $unpacked;
ok($s3->object('exports', "$folder/plain.csv") eq slurp_file($copied), 'the bytes are those of COPY');
ok(IO::Uncompress::Gunzip::gunzip(\$packed => \$unpacked, MultiStream => 1) && $unpacked eq slurp_file($copied), 'compressed, too');

$s3->call('add_fault', do => 'reset', match => { operation => 'UploadPart' });
($out, $err) = run(
	copy_sql('lake', 'resent.csv', q(SELECT i, repeat('0123456789abcde,', 64) FROM generate_series(1, 11000) i)),
	copy_sql('lake', 'division.csv', 'SELECT 1 / (400 - i) FROM rows'),
	copy_sql('lake', 'plain.csv', $values),
	q(SET statement_timeout = '2s'),
	copy_sql('lake', 'late.csv', 'SELECT pg_sleep(0.01) FROM generate_series(1, 100000)'),
	'RESET statement_timeout',
	q(SELECT "check", ok, code FROM s3export.test_credentials('bad')),
	copy_sql('bad', 'bad.csv', 'VALUES (1)'));

like($out, qr/^resent\.csv\|11000$/m, 'a part that is sent twice');
like($err, qr/division by zero/, 'a query that fails at its last row');
like($err, qr/already exists/, 'an object that exists');
like($err, qr/statement timeout/, 'an export that is cancelled');
like($err, qr/InvalidAccessKeyId/, 'a key that S3 does not know');
is(scalar(() = $err =~ /ERROR:/g), 4, 'nothing else fails');
is(scalar($s3->uploads('exports')), 0, 'no upload is left open');

# The changes of tables: all operations, values of all kinds, files that end, a
# delivery that fails and one that makes up for it.
my %flow = (kind => 'currents', tables => '{rows,whole,split}', operations => '{insert,update,delete,truncate}', max_events_per_file => \'300',
	'"null"' => 'N', heartbeat => '1 day');
($out, $err) = run(
	'DELETE FROM rows WHERE i > 200',
	'ALTER TABLE rows ADD PRIMARY KEY (i)',
	'CREATE TABLE whole (a int, b text, c text)',
	'ALTER TABLE whole ALTER b SET STORAGE EXTERNAL',
	'ALTER TABLE whole REPLICA IDENTITY FULL',
	'CREATE TABLE split (a int PRIMARY KEY, b text) PARTITION BY RANGE (a)',
	'CREATE TABLE low PARTITION OF split FOR VALUES FROM (0) TO (10)',
	'CREATE TABLE high (b text, a int NOT NULL)',
	'ALTER TABLE split ATTACH PARTITION high FOR VALUES FROM (10) TO (20)',
	'SELECT ' . connector_sql('flow', at_endpoint($s3), folder_path => "$folder-flow", compression => 'gzip', %flow, %keys),
	q(SELECT 'launched', s3export.launch('flow', copy_existing => true) IS NOT NULL),
	"INSERT INTO rows SELECT * FROM ($values) v WHERE i > 200",
	q(UPDATE rows SET plain = 'changed' WHERE i % 3 = 0),
	'UPDATE rows SET i = -i WHERE i < 5',
	'DELETE FROM rows WHERE i > 390',
	q(INSERT INTO whole SELECT i, repeat('0123456789', 1000), 'c' FROM generate_series(1, 20) i),
	q(UPDATE whole SET c = 'd'),
	'ALTER TABLE whole ADD d timestamptz DEFAULT clock_timestamp()',
	'ALTER TABLE split ALTER b SET STORAGE EXTERNAL',
	'ALTER TABLE low ALTER b SET STORAGE EXTERNAL',
	q(INSERT INTO split VALUES (1, repeat('0123456789', 1000)), (11, 'b')),
	'UPDATE split SET a = 2 WHERE a = 1',
	'ALTER TABLE split ADD COLUMN "c d" numeric',
	'UPDATE split SET "c d" = 1.50',
	'TRUNCATE split',
	q(SELECT 'delivered', state, events FROM s3export.deliver('flow')),
	'SELECT ' . connector_sql('off', at_endpoint($s3), access_key_id => 'AKIANOBODY', secret_access_key => 'nobody' x 6, validate => \'false',
		folder_path => "$folder-off", kind => 'currents', tables => '{rows}'),
	q(SELECT 'launched', s3export.launch('off') IS NOT NULL),
	q(INSERT INTO rows (i) VALUES (1000)),
	q(SELECT 'refused', state, error IS NOT NULL FROM s3export.deliver("raise" => false) WHERE connector = 'off'));

# What a worker's error ends, and what its session ends while it is at it.
$s3->call('add_fault', do => 'error', code => 'InvalidRequest', status => 400, match => { key => "$folder-flow" }, times => undef);
my (undef, $failed) = run(
	'SELECT ' . connector_sql('no', at_endpoint($s3), access_key_id => 'AKIANOBODY', secret_access_key => 'nobody' x 6, validate => \'false',
		folder_path => "$folder-no", kind => 'currents', tables => '{rows}'),
	q(SELECT s3export.launch('no', copy_existing => true)),
	q(UPDATE whole SET c = 'e'),
	q(SELECT * FROM s3export.deliver('flow')));
$s3->call('clear_faults');
$s3->call('add_fault', do => 'stall', match => { key => "$folder-flow" }, times => undef);
my (undef, $cancelled) = run(q(SET statement_timeout = '20s'), q(SELECT * FROM s3export.deliver('flow')));
$s3->call('clear_faults');
my ($made_up) = run(q(SELECT 'delivered', state, events FROM s3export.deliver('flow')));
like($failed, qr/ERROR: .*-no.*ERROR: .*-flow/s, 'a launch and a delivery that fail');
is(scalar(() = $failed =~ /ERROR:/g), 2, 'and nothing else');
like($cancelled, qr/ERROR: .*statement timeout/, 'a delivery that is cancelled');
like($made_up, qr/^delivered\|running\|40$/m, 'what was not delivered is, later');

$s3->call('configure', max_skew => 1e9);
set_clock_forward(3 * 24 * 3600);
my ($later_out, $later_err) = run(
	q(SELECT 'later', connector, state, events_dropped, batch IS NOT NULL FROM s3export.deliver("raise" => false)),
	q(SELECT s3export.pause('off')),
	q(SELECT s3export.drop_connector('flow')));

is(scalar(() = $out =~ /^launched\|t$/gm), 2, 'currents are launched');
like($out, qr/^delivered\|running\|\d{3}$/m, 'changes are delivered');
like($out, qr/^refused\|suspended\|t$/m, 'a current without working keys is suspended');
like($later_out, qr/^later\|off\|suspended\|1\|f$/m, 'and gives up what is too old');
like($later_out, qr/^later\|flow\|running\|0\|t$/m, 'one with nothing to say says that after a while');
my %told = map { $_->{op} => 1 } all_events(files_in_scripted($s3, "$folder-flow"));
is(join(' ', sort keys %told), 'alter copy delete insert snapshot truncate update', 'events of all kinds');
ok((grep { ($_->{values}{_meta} // '') =~ /old_key/ } all_events(files_in_scripted($s3, "$folder-flow"))), 'a key that has changed');
unlike("$err$later_err", qr/ERROR:/, 'nothing fails, here');

$node->stop;
$s3->stop;
done_testing();
