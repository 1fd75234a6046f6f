# The SQL of README and docs, run as it is written there.  Only what the reader puts in
# himself is put in: keys, the account's number, the path of a file.  What he does
# in the AWS console is done to the scripted server.
use strict;
use warnings;
use lib 'test/lib';
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $root = dirname(abs_path(__FILE__)) . '/../..';
my $readme = join "\n", map { slurp_file($_) } "$root/README.md", glob "$root/docs/*.md";
my $account = '111122223333';
my $s3 = scripted_s3();
# What the docs have for postgresql.conf, but for pg_cron, which is played here.
my ($conf) = $readme =~ /^ +# postgresql\.conf\n((?: +\w+ = .*\n){2,})/m or die 'the docs have no settings for currents';
my @settings = grep { !/shared_preload|output_plugin/ } map { s/^ +//r } split /\n/, $conf;
my $node = currents_node('main', aws_settings($s3), @settings);
my $secret_file = $node->basedir . '/identity.secret';
my %secrets = map { $_ => join '', map { ('a' .. 'z', 'A' .. 'Z', 0 .. 9)[rand 62] } 1 .. 40 } qw(user identity current);

s3_secret(values %secrets);
$s3->call('add_bucket', name => 'acme-exports');

# The fenced blocks of a section, without the indentation of a list.
sub blocks
{
	my ($heading, $language) = @_;
	my ($section) = $readme =~ /^#+ \Q$heading\E\n(.*?)(?=^#+ [^#]|\z)/ms or die "no page has a section \"$heading\"";
	my @found;

	while ($section =~ /^( *)(?:\d+\. )?```\Q$language\E\n(.*?)^ *```/msg)
	{
		push @found, $2 =~ s/^ +(?=\S)//rmg;
	}
	return @found;
}

# Runs a block with the reader's own values; returns what the last statement gave.
sub run
{
	my ($sql, $what, %keys) = @_;
	my ($status, $out, $err);

	$sql =~ s/'AKIA\.\.\.'/'$keys{id}'/g;
	$sql =~ s/'\.\.\.'/'$keys{secret}'/g;
	$sql =~ s/123456789012/$account/g;
	$sql =~ s{/etc/s3export/identity\.secret}{$secret_file}g;
	($status, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 1);
	is($status, 0, $what) or diag("$sql\n$err");
	return $out;
}

sub start_over
{
	$node->safe_psql('postgres', 'SELECT s3export.drop_connector(name) FROM s3export.connectors');
	return;
}

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE orders AS SELECT current_date - 1 AS day, n AS id, (ARRAY['DE', 'FR'])[1 + n % 2] AS country FROM generate_series(1, 100) n;
ALTER TABLE orders ADD PRIMARY KEY (id);
CREATE TABLE customers (id int PRIMARY KEY);
CREATE SCHEMA cron;
CREATE FUNCTION cron.schedule(job_name text, schedule text, command text) RETURNS bigint LANGUAGE plpgsql AS
	$$BEGIN EXECUTE command; RETURN 1; END$$;
SQL

# ---- Install
like((blocks('Install', 'sql'))[0], qr/^CREATE EXTENSION s3export;/, 'the extension is created as the README says');

# ---- the policy, and a connector with a key
my ($policy_sql) = blocks('1. The policy', 'sql');
my ($policy_json) = blocks('1. The policy', 'json');
my $policy = run($policy_sql, 'iam_policy');
is_deeply(decode_json($policy), decode_json($policy_json), 'the policy is the one that the README shows');
$s3->call('add_user', access_key_id => 'AKIAREADMEUSER000001', secret_access_key => $secrets{user}, name => 'user', policy => decode_json($policy));

my %user = (id => 'AKIAREADMEUSER000001', secret => $secrets{user});
run((blocks('2a. A connector with a secret key', 'sql'))[0], 'a connector with a secret key', %user);
is($node->safe_psql('postgres', 'SELECT region, auth_method FROM s3export.connectors'), 'us-east-1|secret_key', 'its region was found out');
is($node->safe_psql('postgres', q(SELECT bool_and(ok) FROM s3export.test_credentials('lake'))), 't', 'the policy allows all that is tested');

# ---- rotation
{
	my $out = run((blocks('3. Rotation', 'sql'))[0], 'rotation and shared credentials', %user);

	is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT access_key_id) FROM s3export.connectors'), '2|1', 'two connectors, one key');
}

# ---- a connector with a role
start_over();
{
	my ($identity, $trust, $connector) = blocks('2b. A connector with a role', 'sql');
	my ($assume) = blocks('2b. A connector with a role', 'json');
	my $document;

	$s3->call('add_user', access_key_id => 'AKIAREADMEIDENTITY01', secret_access_key => $secrets{identity}, name => 's3export',
		policy => decode_json($assume));
	open my $file, '>', $secret_file or die "could not write $secret_file: $!";
	print $file "$secrets{identity}\n";
	close $file;
	like(run($identity, 'the identity', id => 'AKIAREADMEIDENTITY01'),
		qr/$account\|arn:aws:iam::$account:user\/s3export\|s3export-[0-9a-f]{32}$/, 'is told, and the external ID');
	$document = run($trust, 'the trust policy');
	$s3->call('add_role', name => 's3export-acme', trust => decode_json($document), policy => decode_json($policy));
	run($connector, 'a connector with a role');
	is($node->safe_psql('postgres', q(SELECT bool_and(ok) FROM s3export.test_credentials('lake'))), 't',
		'the role is refused without the external ID, and allows all that is tested with it');
}

# ---- a first export, and pg_cron
start_over();
run((blocks('A first export', 'sql'))[0], 'a first export', %user);
is(scalar(() = $s3->object('acme-exports', 'orders/yesterday.csv') =~ /\n/g), 101, 'arrives');
run((blocks('Watching an export', 'sql'))[0], 'the progress of exports');
run((blocks('Several files', 'sql'))[0], 'several files');
{
	my ($shown) = blocks('The manifest', 'json');
	my $made = $s3->object('acme-exports', 'orders/by-country/_orders.manifest.json');

	note($made);
	s/("(?:job_id|started_at|finished_at|etag|crc32c|database|snapshot|lsn|TimeZone|sha256)": )("(?:\\.|[^"\\])*"|\d+)/$1/g foreach $shown, $made;
	is($shown, $made =~ s/^ +//rmg, 'the manifest is the one that the README shows');
	is(join(' ', grep { /by-/ } $s3->keys_of('acme-exports')) =~ s/\d{4}\/\d\d\/\d\d/DATE/r,
		'orders/by-country/_orders.manifest.json orders/by-country/country=DE/orders.csv orders/by-country/country=FR/orders.csv orders/by-date/DATE/orders.csv.gz orders/by-number/orders-1.csv',
		'with its files');
}
run((blocks('Scheduling with pg_cron', 'sql'))[0], 'the schedule\'s command');
like((join ' ', $s3->keys_of('acme-exports')), qr{orders/orders/\d{4}-\d\d-\d\d\.csv\.gz}, 'writes its file');
run((blocks('Scheduling with pg_cron', 'sql'))[1], 'the schedule\'s command in the background');
poll_until(sub { (join ' ', $s3->keys_of('acme-exports')) =~ qr{orders/background/\d{4}-\d\d-\d\d\.csv\.gz} }, 'the file of the background');

# ---- in the background
{
	my ($queue, $others) = (blocks('In the background', 'sql'))[0] =~ /^(.*?;.*?\n)(.*)$/s;
	my $job = run($queue, 'an export in the background');

	like($job, qr/^\d+$/, 'returns its job');
	is(run($others =~ s/\(9/($job/gr, 'wait and cancel'), join("\n", ("$job|succeeded|s3://acme-exports/orders/orders.csv.gz|100|1|"
			. $node->safe_psql('postgres', "SELECT bytes FROM s3export.jobs WHERE job_id = $job")) x 2, 'f'), 'as the README says');
}

# ---- currents
{
	my ($policy, $create, $launch, $schedule) = blocks('Setting up a current', 'sql');
	my %current = (id => 'AKIAREADMECURRENT001', secret => $secrets{current});
	my $insert = 'INSERT INTO customers SELECT max(id) + 1 FROM (SELECT id FROM customers UNION ALL SELECT 0) c';

	$s3->call('add_bucket', name => 'acme-events');
	$s3->call('add_user', access_key_id => $current{id}, secret_access_key => $current{secret}, name => 'current', policy => decode_json(run($policy, 'the policy of a current')));
	run($create, 'a current', %current);
	like(run($launch, 'its launch'), qr{^[0-9A-F]+/[0-9A-F]+$}, 'tells the position');
	$node->safe_psql('postgres', $insert);
	run($schedule, 'its schedule');
	is(join(' ', map { $_->{op} } grep { $_->{type} eq 'public.customers' || $_->{values}{id} == 100 } events(files_in_scripted($s3, 'shop', 'acme-events'))), 'insert copy', 'its files');
	my ($looks, $alert) = blocks('Watching currents', 'sql');
	like(run($_, 'a look at it'), qr/shop/) foreach grep { !/failures > 0/ } split /\n\n/, $looks;
	run($looks, 'all looks at it');
	unlike(run($alert, 'the alert'), qr/shop/, 'says nothing while all is well');
	my ($publication, $join) = blocks('What is sent', 'sql');
	run($publication, 'a publication that is there');
	like($node->safe_psql('postgres', q(SELECT tables FROM s3export.currents WHERE name = 'shop_eu')), qr/customers,public.orders/, 'has its tables');
	$node->safe_psql('postgres', q(SELECT s3export.drop_connector('shop_eu')));
	like(run($join, 'a table that joins'), qr/^\d+$/, 'tells how many rows it had');

	$s3->call('remove_user', access_key_id => $current{id});
	$node->safe_psql('postgres', $insert);
	isnt(($node->psql('postgres', q(SELECT s3export.deliver('shop'))))[0], 0, 'then its key is gone');
	is($node->safe_psql('postgres', 'SELECT state FROM s3export.currents'), 'suspended', 'it is suspended');
	like(run($alert, 'the alert then'), qr/^shop\|suspended/m, 'has it');
	$current{id} = 'AKIAREADMECURRENT002';
	$s3->call('add_user', access_key_id => $current{id}, secret_access_key => $current{secret}, name => 'another');
	run((blocks('When credentials fail', 'sql'))[0], 'another key', %current);
	is($node->safe_psql('postgres', 'SELECT state FROM s3export.currents'), 'running', 'sets it going again');
	is(deliver($node, 'shop')->{events}, 1, 'nothing is missing');
	run((blocks('Pause, resume, stop, drop', 'sql'))[0], 'pause, resume, stop and drop');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), 0, 'its slot is gone');
}

$node->stop;
$s3->stop;
done_testing();
