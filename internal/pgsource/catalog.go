package pgsource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
)

// catalog is an ordinary connection to the server, for what a replication
// connection cannot do.
type catalog struct {
	conn         *pgconn.PgConn
	version      int // server_version_num
	database     uint32
	databaseName string
	role         string
}

var catalogParams = map[string]string{
	"application_name": applicationName,
	"client_encoding":  "UTF8",
	"jit":              "off", // compiling takes longer than any of these statements
}

func (s *Source) connectCatalog(ctx context.Context) (*catalog, error) {
	conn, err := s.connect(ctx, catalogParams, func(conn net.Conn) net.Conn { return conn })
	if err != nil {
		return nil, fmt.Errorf("open the catalog connection: %w", err)
	}
	return &catalog{conn: conn}, nil
}

func (c *catalog) close() { closeNow(c.conn) }

// query asks what the server answers at once, and returns the rows as text.
func (c *catalog) query(ctx context.Context, sql string, args ...string) ([][][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	return c.run(ctx, sql, args...)
}

// run runs one statement, however long it takes.
func (c *catalog) run(ctx context.Context, sql string, args ...string) ([][][]byte, error) {
	params := make([][]byte, len(args))
	for i, arg := range args {
		params[i] = []byte(arg)
	}
	result := c.conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	return result.Rows, result.Err
}

// ready learns what the server is and refuses one that cannot be read.
func (c *catalog) ready(ctx context.Context) error {
	rows, err := c.query(ctx, `
		SELECT current_setting('server_version_num'), d.oid, d.datname, current_user,
		       pg_is_in_recovery(), current_setting('wal_level'), current_setting('synchronous_standby_names')
		FROM pg_catalog.pg_database d WHERE d.datname = current_database()`)
	if err != nil {
		return fmt.Errorf("look at the server: %w", err)
	}
	if len(rows) != 1 {
		return errors.New("look at the server: it does not know its own database")
	}
	row := rows[0]
	version, err := strconv.Atoi(string(row[0]))
	if err != nil {
		return fmt.Errorf("version of the server: %w", err)
	}
	oid, err := strconv.ParseUint(string(row[1]), 10, 32)
	if err != nil {
		return fmt.Errorf("oid of the database: %w", err)
	}
	c.version, c.database, c.databaseName, c.role = version, uint32(oid), string(row[2]), string(row[3])
	standbys := string(row[6])
	switch {
	case version < 140000:
		return &change.Refusal{
			Problem: fmt.Sprintf("the server is PostgreSQL %d", version/10000),
			Mend:    "PostgreSQL 14 or later",
		}
	case isTrue(row[4]):
		return errors.New("the server is a standby: changes must come from the primary")
	case string(row[5]) != "logical":
		return &change.Refusal{
			Problem: fmt.Sprintf("wal_level is %s: the log does not carry what changed", row[5]),
			Mend:    "ALTER SYSTEM SET wal_level = 'logical';  then restart PostgreSQL",
		}
	case namesStandby(standbys, applicationName):
		// COMMIT would wait for us to confirm it, and we confirm a change only once
		// its transaction is visible, which it is after COMMIT. Asking for the
		// walsender's sync_state would not do: it says async until the first update,
		// and hides from roles without pg_read_all_stats.
		return &change.Refusal{
			Problem: fmt.Sprintf("synchronous_standby_names = %s takes this stream for a synchronous standby: every COMMIT would wait for it forever",
				quoteText(standbys)),
			Mend: "ALTER SYSTEM SET synchronous_standby_names = '...';  with the names of the real standbys, no * and no " + applicationName +
				";  then SELECT pg_reload_conf();",
		}
	}
	return nil
}

var standbyName = regexp.MustCompile(`"(?:[^"]|"")*"|[^\s,()"]+`)

// namesStandby reports whether synchronous_standby_names, as it is set, takes
// in a standby of that name.
func namesStandby(setting, name string) bool {
	for _, word := range standbyName.FindAllString(setting, -1) {
		if unquoted, quoted := strings.CutPrefix(word, `"`); quoted {
			word = strings.ReplaceAll(strings.TrimSuffix(unquoted, `"`), `""`, `"`)
		}
		if word == "*" || strings.EqualFold(word, name) {
			return true
		}
	}
	return false
}

// refuseReplication says what a role needs to replicate.
func (c *catalog) refuseReplication(cause error) error {
	mend := fmt.Sprintf("ALTER ROLE %s REPLICATION;", quoteName(c.role))
	if rows, err := c.query(context.Background(), "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'rds_replication'"); err == nil && len(rows) > 0 {
		mend = fmt.Sprintf("GRANT rds_replication TO %s;", quoteName(c.role))
	}
	return &change.Refusal{
		Problem: fmt.Sprintf("role %s may not replicate: %s", c.role, message(cause)),
		Mend:    mend,
	}
}

// slot reads the slot, or returns nil if there is none. The row is read as
// JSON because its columns differ from version to version.
func (c *catalog) slot(ctx context.Context, name string) (*slot, error) {
	rows, err := c.query(ctx, `
		SELECT coalesce(plugin, ''), slot_type, coalesce(database, ''), coalesce(active_pid, 0),
		       CASE WHEN to_jsonb(s)->>'invalidation_reason' IS NOT NULL THEN to_jsonb(s)->>'invalidation_reason'
		            WHEN wal_status = 'lost' THEN 'wal_removed'
		            WHEN to_jsonb(s)->>'conflicting' = 'true' THEN 'conflict with recovery'
		            ELSE '' END,
		       coalesce((to_jsonb(s)->>'failover')::bool, false)
		FROM pg_catalog.pg_replication_slots s WHERE slot_name = $1`, name)
	if err != nil {
		return nil, fmt.Errorf("look at slot %s: %w", name, err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	row := rows[0]
	pid, err := strconv.ParseUint(string(row[3]), 10, 32)
	if err != nil {
		return nil, fmt.Errorf("look at slot %s: %w", name, err)
	}
	return &slot{
		plugin:    string(row[0]),
		kind:      string(row[1]),
		database:  string(row[2]),
		activePID: uint32(pid),
		lost:      string(row[4]),
		failover:  isTrue(row[5]),
	}, nil
}

// confirmedBy returns up to where the slot, held by the process pid, will
// never send again.
func (c *catalog) confirmedBy(ctx context.Context, name string, pid uint32) (uint64, error) {
	rows, err := c.query(ctx, `
		SELECT confirmed_flush_lsn FROM pg_catalog.pg_replication_slots
		WHERE slot_name = $1 AND active_pid = $2`, name, strconv.FormatUint(uint64(pid), 10))
	if err != nil {
		return 0, fmt.Errorf("read what slot %s has confirmed: %w", name, err)
	}
	if len(rows) != 1 {
		return 0, fmt.Errorf("slot %s is not held by our process %d", name, pid)
	}
	return parseLSN(string(rows[0][0]))
}

func parseLSN(text string) (uint64, error) {
	high, low, ok := strings.Cut(text, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is no LSN", text)
	}
	return h<<32 | l, nil
}

func isTrue(b []byte) bool { return string(b) == "t" }

// message is what the server said, without our words around it.
func message(err error) string {
	if postgres, ok := errors.AsType[*pgconn.PgError](err); ok {
		return postgres.Message
	}
	return err.Error()
}
