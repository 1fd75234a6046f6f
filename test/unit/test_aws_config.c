/*-------------------------------------------------------------------------
 *
 * test_aws_config.c
 *	  Profiles in AWS's shared config and credentials files.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "aws/aws_config.h"
#include "tap.h"

static const char config[] = "# a comment\n"
							 "[default]\n"
							 "region = eu-west-1\n"
							 "output=json\n"
							 "\n"
							 "[profile role]\n"
							 "role_arn = arn:aws:iam::111122223333:role/export\n"
							 "source_profile = base\n"
							 "external_id = x 1 # of the other side\n"
							 "role_session_name=dba\n"
							 "duration_seconds = 1800\r\n"
							 "s3 =\n"
							 "  region = not-this-one\n"
							 "  max_concurrent_requests = 20\n"
							 "region = us-east-2\n"
							 "[ profile \"two words\" ]\n"
							 "  region=quoted\n"
							 "  output=text\n"
							 "    region=deeper\n"
							 "[base]\n"
							 "region = not a profile of the config file\n"
							 "[profile in-config]\n"
							 "aws_access_key_id = AKIACONFIG\n"
							 "aws_secret_access_key = secret;config#1=\n"
							 "[profile mixed]\n"
							 "aws_access_key_id = AKIACONFIG\n"
							 "aws_secret_access_key = secret-config\n"
							 "aws_session_token = token-config\n"
							 "[profile self]\n"
							 "role_arn = arn:aws:iam::111122223333:role/self\n"
							 "source_profile = self\n"
							 "[profile self-without]\n"
							 "role_arn = arn:aws:iam::111122223333:role/self\n"
							 "source_profile = self-without\n"
							 "[profile a]\n"
							 "role_arn = arn:aws:iam::111122223333:role/a\n"
							 "source_profile = b\n"
							 "[profile b]\n"
							 "role_arn = arn:aws:iam::111122223333:role/b\n"
							 "source_profile = a\n"
							 "[profile chain]\n"
							 "role_arn = arn:aws:iam::111122223333:role/chain\n"
							 "source_profile = role\n"
							 "[profile lost]\n"
							 "role_arn = arn:aws:iam::111122223333:role/lost\n"
							 "source_profile = nowhere\n"
							 "[profile process]\n"
							 "credential_process = /bin/keys --secret\n"
							 "[profile sso]\n"
							 "sso_session = corp\n"
							 "[profile web]\n"
							 "role_arn = arn:aws:iam::111122223333:role/web\n"
							 "web_identity_token_file = /run/token\n"
							 "[profile instance]\n"
							 "role_arn = arn:aws:iam::111122223333:role/x\n"
							 "credential_source = Ec2InstanceMetadata\n";

static const char credentials[] = "\xEF\xBB\xBF[default]\r\n"
								  "aws_access_key_id = AKIADEFAULT\r\n"
								  "aws_secret_access_key = secret-default ; and so on\r\n"
								  "[base]\n"
								  "aws_access_key_id=AKIABASE\n"
								  "aws_secret_access_key=secret-base\n"
								  "aws_session_token=token=with=signs==\n"
								  "[base]\n"
								  "aws_access_key_id=AKIALATER\n"
								  "[mixed]\n"
								  "aws_access_key_id = AKIACREDENTIALS\n"
								  "aws_secret_access_key = secret-credentials\n"
								  "[profile odd]\n"
								  "aws_access_key_id = AKIAODD\n"
								  "[self]\n"
								  "aws_access_key_id = AKIASELF\n"
								  "aws_secret_access_key = secret-self\n"
								  "[half]\n"
								  "aws_access_key_id = AKIAHALF\n"
								  "aws_secret_access_key =\n"
								  "[unclosed\n"
								  "aws_access_key_id = AKIAUNCLOSED";

static AwsProfile
read_profile(const char *name)
{
	AwsProfile profile;

	aws_config_read(config, credentials, name, &profile);
	return profile;
}

static void
test_profiles(void)
{
	AwsProfile p = read_profile("default");

	is(p.access_key_id, "AKIADEFAULT", "the default profile's key");
	is(p.secret_access_key, "secret-default", "its secret, without the comment and the CR");
	is(p.session_token, NULL, "it has no token");
	is(p.region, "eu-west-1", "its region, from the other file");

	p = read_profile("role");
	is(p.role_arn, "arn:aws:iam::111122223333:role/export", "a role");
	is(p.source_profile, "base", "its source");
	is(p.external_id, "x 1", "a value with a space, without the comment");
	is(p.role_session_name, "dba", "no white space around the sign");
	is(p.duration_seconds, "1800", "a line that ends in CR LF");
	is(p.region, "us-east-2", "nested settings are not the profile's");

	p = read_profile("two words");
	is(p.region, "quoted", "a quoted name, indented settings");

	p = read_profile("base");
	is(p.access_key_id, "AKIALATER", "a section that is continued");
	is(p.secret_access_key, "secret-base", "the rest of it stays");
	is(p.session_token, "token=with=signs==", "equals signs in a value");
	is(p.region, NULL, "the config file has no profiles without the word");

	p = read_profile("in-config");
	is(p.secret_access_key, "secret;config#1=", "no comment without white space before it");
	p = read_profile("mixed");
	is(p.access_key_id, "AKIACREDENTIALS", "the credentials file goes first");
	is(p.session_token, NULL, "and its key gets no token of the other file");
	p = read_profile("half");
	ok(p.exists && p.access_key_id != NULL && p.secret_access_key == NULL,
	   "an empty value is none");

	ok(!read_profile("nowhere").exists, "a profile that does not exist");
	ok(!read_profile("odd").exists, "the credentials file has bare names");
	is(read_profile("profile odd").access_key_id, "AKIAODD", "whatever they are");
	ok(!read_profile("unclosed").exists, "a header that is not closed");
	is(read_profile("process").unsupported, "credential_process", "a process is noticed");
	is(read_profile("sso").unsupported, "sso_session", "so is SSO");
	is(read_profile("role").unsupported, NULL, "others need nothing of the kind");
	is(read_profile("web").web_identity_token_file, "/run/token", "a token file");
	is(read_profile("instance").credential_source, "Ec2InstanceMetadata", "a source by name");
}

static void
test_files(void)
{
	AwsProfile p;

	aws_config_read(NULL, NULL, "default", &p);
	ok(!p.exists, "no file, no profile");
	aws_config_read("", "", "default", &p);
	ok(!p.exists, "nor in empty ones");
	aws_config_read(config, NULL, "base", &p);
	ok(!p.exists, "the config file alone");
	aws_config_read(NULL, credentials, "base", &p);
	ok(p.exists, "the credentials file alone");
	aws_config_read("[default]\n=\nregion\n = x\n[]\n[\n]\nregion=y", NULL, "default", &p);
	is(p.region, NULL, "lines that are nothing");
	aws_config_read("[default]", NULL, "default", &p);
	ok(p.exists, "a header without an end of line");
}

static const char *
source_of(const char *name, AwsProfile *source)
{
	AwsProfile profile = read_profile(name);

	return aws_config_source(config, credentials, name, &profile, source);
}

static void
test_sources(void)
{
	AwsProfile source;

	is(source_of("role", &source), NULL, "a source with keys");
	is(source.access_key_id, "AKIALATER", "its key");
	is(source_of("self", &source), NULL, "a profile that is its own source");
	is(source.access_key_id, "AKIASELF", "its key");
	is(source.role_arn, NULL, "as a source it has no role");
	is(source_of("self-without", &source),
	   "Profile \"self-without\" is its own source_profile and has no keys.",
	   "its own source without keys");
	is(source_of("a", &source), "Profiles \"a\" and \"b\" have each other as source_profile.",
	   "a cycle");
	is(source_of("chain", &source),
	   "Profile \"role\", the source_profile of profile \"chain\", has a role_arn itself; one role "
	   "after another is not supported.",
	   "a chain");
	is(source_of("lost", &source),
	   "Profile \"nowhere\", the source_profile of profile \"lost\", does not exist.",
	   "a source that does not exist");
}

int
main(void)
{
	test_profiles();
	test_files();
	test_sources();
	return done_testing();
}
