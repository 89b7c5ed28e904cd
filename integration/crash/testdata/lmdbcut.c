/*
 * Commits numbers to an LMDB environment, one in each transaction, and prints each when
 * its commit has returned; or prints the highest number that is there.
 *
 * usage: lmdbcut FILE sync|writemap|nometasync|nosync|mapasync COUNT
 */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(int rc, const char *what)
{
	if (rc) {
		fprintf(stderr, "%s: %s\n", what, mdb_strerror(rc));
		exit(1);
	}
}

/* highest returns the last key, 0 if there is none, and checks that none is missing. */
static unsigned highest(MDB_env *env)
{
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_cursor *cursor;
	MDB_val key, value;
	unsigned n = 0;

	must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "begin");
	must(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi), "open");
	must(mdb_cursor_open(txn, dbi, &cursor), "cursor");
	while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
		n++;
		if (key.mv_size != sizeof n || memcmp(key.mv_data, &n, sizeof n) || value.mv_size != 100) {
			fprintf(stderr, "key %u is missing or damaged\n", n);
			exit(1);
		}
	}
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return n;
}

int main(int argc, char **argv)
{
	MDB_env *env;
	unsigned flags = MDB_NOSUBDIR, n, end;
	char data[100];

	if (argc != 4)
		return 2;
	if (!strcmp(argv[2], "writemap"))
		flags |= MDB_WRITEMAP;
	if (!strcmp(argv[2], "nometasync"))
		flags |= MDB_NOMETASYNC;
	if (!strcmp(argv[2], "nosync"))
		flags |= MDB_NOSYNC;
	if (!strcmp(argv[2], "mapasync"))
		flags |= MDB_WRITEMAP | MDB_MAPASYNC;
	must(mdb_env_create(&env), "create");
	must(mdb_env_set_mapsize(env, 4 << 20), "mapsize");
	must(mdb_env_open(env, argv[1], flags, 0644), "open");
	n = highest(env);
	if (atoi(argv[3]) == 0) {
		printf("%u\n", n);
		return 0;
	}
	memset(data, 'x', sizeof data);
	for (end = n + atoi(argv[3]); n < end;) {
		MDB_txn *txn;
		MDB_dbi dbi;
		MDB_val key, value = {sizeof data, data};

		n++;
		key.mv_size = sizeof n;
		key.mv_data = &n;
		must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
		must(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi), "open");
		must(mdb_put(txn, dbi, &key, &value, 0), "put");
		must(mdb_txn_commit(txn), "commit");
		printf("%u\n", n);
		fflush(stdout);
	}
	/* A close is no part of the promise. */
	_exit(0);
}
