# The key file: who may have it, when it is made, and what a lost one says.
use strict;
use warnings;
use lib 'test/lib';
use Cwd qw(abs_path);
use Digest::SHA qw(sha256_hex);
use File::Basename qw(dirname);
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir();
my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my @place = (at_endpoint($s3), validate => \'false');
my $node;

PostgreSQL::Test::Utils::system_or_bail($ENV{CC} // 'cc', '-shared', '-fPIC', '-o', "$directory/owner.so", dirname(abs_path(__FILE__)) . '/../lib/owner.c', '-ldl');
{
	local $ENV{LD_PRELOAD} = "$directory/owner.so";
	$node = s3export_node('main', q(s3export.retry_timeout = '1s'));
}
my $key = $node->data_dir . '/s3export.key';

sub name_of_key
{
	return substr sha256_hex(slurp_file($_[0])), 0, 8;
}

# What the rows of secrets were sealed with.
sub names_in_rows
{
	return $node->safe_psql($_[0] // 'postgres', q(SELECT string_agg(DISTINCT encode(substring(sealed FROM 2 FOR 4), 'hex'), ' ') FROM s3export.secret));
}

sub copy_sql
{
	my ($connector, $path) = @_;

	return "SELECT rows FROM s3export.copy_to('$connector', 'SELECT 1', '$path')";
}

sub set_sql
{
	return "SELECT s3export.set_credentials('$_[0]', '$keys{access_key_id}', '$keys{secret_access_key}', validate => false)";
}

# ---- many sessions make the file at once
{
	my @sessions;

	foreach my $round (1 .. 5)
	{
		$node->safe_psql('postgres', 'SELECT s3export.drop_connector(name) FROM s3export.connectors');
		unlink $key;
		@sessions = map {
			my ($out, $err) = ('', '');
			my $sql = 'SELECT ' . connector_sql("c$_", @place, %keys, folder_path => "c$_");
			IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', $sql ], '>', \$out, '2>', \$err)
		} 1 .. 8;
		$_->finish foreach @sessions;
		is(scalar(grep { $_->result } @sessions), 0, "round $round: eight sessions store a secret");
		is(names_in_rows(), name_of_key($key), "round $round: all under the key of the file");
	}
	is(join(' ', glob "$key*"), $key, 'nothing else is left of it');
	is($node->safe_psql('postgres', copy_sql("c$_", 'x.csv')), 1, "the secret of c$_ opens") foreach 1 .. 8;
}

# ---- a file that is missing
my $lost = name_of_key($key);
my %missing = (
	sqlstate => '58P01',
	message => qr/^key file ".*s3export\.key" does not exist$/,
	detail => qr/"sha256sum" of the file begins with $lost\.$/,
	hint => qr/old data directory.*backup.*openssl rand/);

rename $key, "$directory/key";
error_like($node, copy_sql('c1', 'missing.csv'), \%missing, 'an export without the key file');
error_like($node, set_sql('c1'), \%missing, 'no new key is made while secrets need the old one');
error_like($node, 'SELECT ' . connector_sql('new', @place, %keys, folder_path => 'new'), \%missing, 'nor for a new connector');
error_like($node, "SELECT s3export.set_identity('$keys{access_key_id}', '$keys{secret_access_key}')", \%missing, 'nor for the base identity');
ok(!-e $key, 'the file is not there');
rename "$directory/key", $key;
is($node->safe_psql('postgres', copy_sql('c1', 'back.csv')), 1, 'put back, it serves again');
is((split ' ', `sha256sum '$key'`)[0] =~ /^$lost/, 1, 'sha256sum knows it');

# ---- one that is lost for good: made by hand, it takes new secrets
rename $key, "$directory/key";
PostgreSQL::Test::Utils::system_or_bail('sh', '-c', "umask 077 && openssl rand -out '$key' 32 2>/dev/null");
my %changed = (
	sqlstate => 'XX001',
	message => 'a row of table "connector" was not written by the functions of s3export',
	detail => qr/"sha256sum" of the right file begins with $lost\.$/,
	hint => qr/^Put the right file in place\.  If it is lost: A superuser .*s3export\.adopt\(\)\.$/);
error_like($node, copy_sql('c1', 'other.csv'), \%changed, 'an export of rows that have another key');
error_like($node, set_sql('c1'), \%changed, 'nor is a secret stored');
is($node->safe_psql('postgres', 'SELECT count(*) > 0 FROM s3export.adopt()'), 't', 'a superuser accepts what is there');
error_like($node, copy_sql('c1', 'other.csv'), { sqlstate => 'F0000', message => 'cannot decrypt a stored secret', detail => qr/"sha256sum" of the right file begins with $lost\.$/ },
	'an export with another key');
$node->safe_psql('postgres', set_sql('c1'));
is($node->safe_psql('postgres', copy_sql('c1', 'other.csv')), 1, 'a secret that is stored again');
rename "$directory/key", $key;
$node->safe_psql('postgres', 'SELECT s3export.adopt()');
$node->safe_psql('postgres', set_sql('c1'));

# ---- a database without secrets knows nothing of others: it makes one
$node->safe_psql('postgres', 'SELECT s3export.drop_connector(name) FROM s3export.connectors WHERE name <> $$c1$$ AND name <> $$c2$$');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION s3export');
$node->safe_psql('other', 'SELECT ' . connector_sql('far', @place, %keys, folder_path => 'far'));
is(names_in_rows('other'), $lost, 'databases share the file');

# ---- who may have it: as the key of the server's certificate
$node->append_conf('postgresql.conf', "s3export.key_file = '$directory/key.root'");
PostgreSQL::Test::Utils::system_or_bail('cp', $key, "$directory/key.root");
$node->reload;
foreach my $case ([ 0600, 1 ], [ 0400, 1 ], [ 0640, 1 ], [ 0440, 1 ], [ 0660, 0 ], [ 0650, 0 ], [ 0644, 0 ], [ 0604, 0 ])
{
	my ($mode, $taken) = @$case;
	my $what = sprintf "a key file of root's, mode %04o", $mode;

	chmod $mode, "$directory/key.root";
	if ($taken)
	{
		is($node->safe_psql('postgres', copy_sql('c1', sprintf '%04o.csv', $mode)), 1, $what);
		next;
	}
	error_like($node, copy_sql('c1', 'refused.csv'), { sqlstate => 'F0000', message => qr/^key file ".*" has group or world access$/, detail => qr/0600.*0640.*owned by root/ }, "$what is not used");
}
$node->append_conf('postgresql.conf', "s3export.key_file = '/proc/1/environ'");
$node->reload;
error_like($node, copy_sql('c1', 'refused.csv'), { message => qr/^could not open key file|must be owned|does not hold/ }, 'a file of somebody else');
$node->append_conf('postgresql.conf', "s3export.key_file = '$directory/nowhere'");
$node->reload;
error_like($node, copy_sql('c1', 'refused.csv'), { %missing, message => qr/nowhere" does not exist$/ }, 'a file that an administrator names is not made');
error_like($node, set_sql('c1'), { %missing, message => qr/nowhere" does not exist$/ }, 'not by a new secret either');
$node->append_conf('postgresql.conf', "s3export.key_file = ''");
$node->reload;

# ---- sealed rows in places that they were not made for
{
	my $requests = () = $s3->log;
	my %damaged = (sqlstate => 'XX001', message => 'cannot decrypt a stored secret', detail => 'It was changed, or it belongs to another credential.');
	my $id = "(SELECT credential_id FROM s3export.connector WHERE name = 'c2')";
	my $kept = $node->safe_psql('postgres', "SELECT encode(sealed, 'hex') FROM s3export.secret WHERE credential_id = $id");

	$node->safe_psql('postgres', 'ALTER TABLE s3export.secret DISABLE TRIGGER USER');
	$node->safe_psql('postgres', "UPDATE s3export.secret SET sealed = (SELECT s.sealed FROM s3export.secret s JOIN s3export.connector c USING (credential_id) WHERE c.name = 'c1') WHERE credential_id = $id");
	error_like($node, copy_sql('c2', 'replay.csv'), \%damaged, 'the secret of another connector does not open');
	# Version, key, nonce, ciphertext and tag: one bit of each.
	foreach my $byte (5, 16, 20, -1)
	{
		my $damaged = pack 'H*', $kept;

		vec($damaged, 8 * ($byte < 0 ? length($damaged) + $byte : $byte), 1) ^= 1;
		$node->safe_psql('postgres', "UPDATE s3export.secret SET sealed = decode('" . unpack('H*', $damaged) . "', 'hex') WHERE credential_id = $id");
		error_like($node, copy_sql('c2', 'damaged.csv'), \%damaged, "a secret of which byte $byte has changed does not open");
	}
	$node->safe_psql('postgres', "UPDATE s3export.secret SET sealed = decode('$kept', 'hex') WHERE credential_id = $id");
	is(scalar(() = $s3->log), $requests, 'and nothing was sent with it');
	is($node->safe_psql('postgres', copy_sql('c2', 'whole.csv')), 1, 'the right one does');
	$node->safe_psql('postgres', 'ALTER TABLE s3export.secret ENABLE TRIGGER USER');
}

unlike(slurp_file($node->logfile), qr/not closed at end-of-transaction/, 'no error leaves the file open');
keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
