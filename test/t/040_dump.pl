# A dump takes connectors along and leaves their secrets behind; a restored
# connector says so, and works again with new credentials.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $secret = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY';
my $token = 'FwoGZXIvYXdzEXAMPLETOKEN';
my $role = 'arn:aws:iam::123456789012:role/export';

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;

$node->safe_psql(
	'postgres', qq{
	CREATE EXTENSION s3export;
	CREATE ROLE alice;
	CREATE ROLE bob;
	CREATE ROLE gone;
	GRANT EXECUTE ON FUNCTION s3export.create_connector TO alice;
	SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', '$secret');
	SET ROLE alice;
	SELECT s3export.create_connector('keys', 'bucket', access_key_id => 'ASIAIOSFODNN7EXAMPLE',
		secret_access_key => '$secret', session_token => '$token', validate => false);
	SELECT s3export.create_connector('role', 'bucket', folder_path => 'role', role_arn => '$role',
		payload_signing => 'unsigned', validate => false);
	SELECT s3export.grant_usage('keys', 'bob');
	SELECT s3export.grant_usage('keys', 'gone');
	RESET ROLE;
	DROP ROLE gone;
	CREATE DATABASE restored;
});

my $columns = 'connector_id, name, owner, kind, auth_method, access_key_id, role_arn, external_id, '
  . 'uri, addressing, payload_signing, created_at, validated_at';
my $list = "SELECT $columns FROM s3export.connectors ORDER BY name";
my $before = $node->safe_psql('postgres', $list);
my $sealed = $node->safe_psql('postgres', q{SELECT encode(sealed, 'hex') FROM s3export.secret});
is(scalar(split(/\n/, $sealed)), 2, 'two secrets are stored');

# Nothing of a secret, sealed or not.
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'pg_dump');
my $text = slurp_file($dump);
like($text, qr/^COPY s3export\.connector /m, 'the dump has connectors');
like($text, qr/ASIAIOSFODNN7EXAMPLE/, 'and access key IDs');
foreach my $bytes ($secret, $token, split(/\n/, $sealed))
{
	is(index($text, $bytes), -1, 'no secret in the dump');
}
unlike($text, qr/^COPY s3export\.secret /m, 'nor its table');
unlike($text, qr/^COPY s3export\.installation /m, 'nor what external IDs are made of');
my @grants = $text =~ /^\d+\t(?:bob|gone|\d+)$/mg;
is(scalar(@grants), 1, 'the grant to a dropped role is left out');

# Backups are often made by a role that is not a superuser.
$node->safe_psql('postgres', 'CREATE ROLE backup LOGIN IN ROLE pg_read_all_data');
$node->command_ok(
	[ 'pg_dump', '-U', 'backup', '-f', $node->basedir . '/backup.sql', 'postgres' ],
	'pg_dump by a member of pg_read_all_data');

$node->command_ok(
	[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ], 'restore');
is($node->safe_psql('restored', $list), $before, 'connectors are the same after a restore');
is( $node->safe_psql('restored', 'SELECT count(*) FROM s3export.secret'), '0',
	'and have no secrets');
is( $node->safe_psql(
		'restored', 'SELECT name FROM s3export.connectors WHERE NOT credentials_missing'),
	'', 'which the view says');

sub error_of
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('restored', $sql);

	isnt($rc, 0, "fails: $sql");
	return $err;
}

my $error = error_of(q{SET ROLE alice; SELECT * FROM s3export.test_credentials('keys')});
like($error, qr/ERROR:  credentials of connector "keys" are missing/, 'the use of keys fails');
like($error, qr/HINT:  Use s3export\.set_credentials\(\)/, 'with a hint');
$error = error_of(q{SET ROLE alice; SELECT * FROM s3export.test_credentials('role')});
like($error, qr/ERROR:  credentials of the base identity are missing/, 'the use of a role fails');
like($error, qr/HINT:  A superuser can set them again with s3export\.set_identity\(\)/,
	'with a hint');

# The grant holds.
is( $node->safe_psql('restored', 'SET ROLE bob; SELECT name FROM s3export.connectors'),
	'keys', 'grants are restored');

# The repair, by the owner and by the superuser.
$node->safe_psql(
	'restored', qq{
	SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', '$secret');
	SET ROLE alice;
	SELECT s3export.set_credentials('keys', 'AKIAI44QH8DHBEXAMPLE', '$secret', validate => false);
});
is( $node->safe_psql(
		'restored',
		'SELECT name, credentials_missing, access_key_id FROM s3export.connectors ORDER BY name'),
	"keys|f|AKIA...MPLE\nrole|f|", 'new credentials repair them');
is( $node->safe_psql(
		'restored',
		q{SELECT count(*) FROM s3export.base_identity b JOIN s3export.connector c USING (credential_id)}
	),
	'0',
	'the base identity has credentials of its own');

# Sequences went along: a new connector takes no number that is in use.
$node->safe_psql(
	'restored', qq{
	SET ROLE alice;
	SELECT s3export.create_connector('new', 'bucket', folder_path => 'new', role_arn => '$role', validate => false)});
is( $node->safe_psql(
		'restored',
		q{SELECT connector_id > (SELECT max(connector_id) FROM s3export.connector WHERE name <> 'new'),
			credential_id > (SELECT max(credential_id) FROM s3export.connector WHERE name <> 'new')
			FROM s3export.connector WHERE name = 'new'}),
	't|t',
	'sequences are restored');

# A role that had no external ID gets another one in the copy than at home.
my %external_id;
foreach my $database ('postgres', 'restored')
{
	$node->safe_psql(
		$database, qq{
		GRANT EXECUTE ON FUNCTION s3export.create_connector TO bob;
		SET ROLE bob;
		SELECT s3export.create_connector('bob', 'bucket', folder_path => 'bob', role_arn => '$role', validate => false)});
	$external_id{$database} = $node->safe_psql($database,
		q{SELECT external_id FROM s3export.connectors WHERE name = 'bob'});
	like($external_id{$database}, qr/^s3export-[0-9a-f]{32}$/, "an external ID in $database");
}
isnt($external_id{postgres}, $external_id{restored}, 'external IDs of a copy are its own');

# DROP EXTENSION leaves nothing behind.
$node->safe_psql('restored', 'DROP EXTENSION s3export');
is( $node->safe_psql(
		'restored', q{SELECT count(*) FROM pg_namespace WHERE nspname = 's3export'}),
	'0',
	'DROP EXTENSION drops the tables with the secrets');

$node->stop;

done_testing();
