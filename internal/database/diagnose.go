package database

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/value"
)

// Needs is what a configuration asks of a PostgreSQL.
type Needs struct {
	// Foreign: another program reads the log, with a slot and a publication of its
	// own. Neither they nor what streaming needs are looked at, unless it is known
	// as Reader: "connector shop".
	Foreign     bool
	Reader      string
	Slot        string
	Publication string
	// ApplicationName is the application_name of the stream's connection.
	ApplicationName string
	// Role streams. Empty: the role that asks.
	Role   string
	Tables []TableNeed
}

// TableNeed is what one entry asks of one table.
type TableNeed struct {
	Entry string
	Name  Name
	// KeyColumns are in the entry's key: the log must carry their old values.
	KeyColumns []string
	// Passed are those of KeyColumns that no key has: a lookup finds keys by them.
	Passed []string
	// Written: the entry's values are rows, so that a key must be that of one
	// row. They have these Columns; nil means all.
	Written bool
	Columns []string
	// FromLog: values are written from the rows of the log.
	FromLog bool
	// Loaded: values are read from the table.
	Loaded bool
	// Found are the columns that lookups of the entry read.
	Found []string
	// Inherited: other tables may inherit from it. Where those are read, too, they are
	// asked for like it.
	Inherited bool
}

// Severity of a problem.
type Severity string

const (
	// Wrong: the stream cannot start, or could miss a change, or would break
	// the application's own statements.
	Wrong Severity = "error"
	// Advice: it works, and there is something to know.
	Advice Severity = "advice"
)

// A Problem is one thing that is not as it should be, and what mends it.
type Problem struct {
	Severity Severity `json:"severity"`
	// Subject is what it is about: "table public.orders", "role app", "entry
	// order".
	Subject string `json:"subject"`
	// Text says what is wrong and what that would do.
	Text string `json:"text"`
	// Mend are statements to run as a superuser of the database, in order, each
	// by itself: some cannot run in a transaction.
	Mend []string `json:"mend,omitempty"`
	// Then is what no statement can do, after those of Mend.
	Then string `json:"then,omitempty"`
	// Entry, its Setting (table, key or columns), and Column if it is about one,
	// say where in the configuration the problem is. They are set only where the
	// configuration must change.
	Entry   string `json:"entry,omitempty"`
	Setting string `json:"setting,omitempty"`
	Column  string `json:"column,omitempty"`
	// Alters: what the reader makes of the log is not what the rows have.
	Alters bool `json:"-"`
	// Table is the entry's table whose old rows the log does not carry as it
	// should, or not under its name; the zero name where it is about something else.
	Table Name `json:"-"`
}

// String is the problem as `unstale check` prints it.
func (p Problem) String() string {
	text := fmt.Sprintf("%s: %s: %s", p.Severity, p.Subject, p.Text)
	for _, statement := range p.Mend {
		text += "\n    " + statement
	}
	if p.Then != "" {
		text += "\n  " + p.Then
	}
	return text
}

// server is what Diagnose reads, before it is judged.
type server struct {
	Version int    `json:"version"`
	Standby bool   `json:"standby"`
	Managed string `json:"managed"` // the administrators' role of a managed service

	Database string `json:"database"`
	Asking   string `json:"asking"` // the role of this connection

	ReadAllStats  bool `json:"read_all_stats"`
	ControlSystem bool `json:"control_system"`

	Role        string `json:"role"` // the role that streams
	Superuser   bool   `json:"superuser"`
	Replication bool   `json:"replication"`
	MayCreate   bool   `json:"may_create"` // in the database

	Settings map[string]setting `json:"settings"`
	// Sessions has, by their names in small letters, what settings that change a
	// text are in a session of Role that does not set them; absent if unknown.
	Sessions map[string]string `json:"sessions"`
	Senders  int               `json:"senders"`
	// Standbys are the names of the physical standbys that are connected, as
	// far as the role may see them; Unnamed counts the others.
	Standbys []string `json:"standbys"`
	Unnamed  int      `json:"unnamed"`

	Slots       []slot       `json:"slots"`
	Publication *publication `json:"publication"`

	Tables map[Name]inspected `json:"-"`
	// Names are the other tables of the database, read only when one is
	// missing.
	Names []Name `json:"-"`
}

type setting struct {
	Value   string `json:"value"`
	Source  string `json:"source"`
	Pending bool   `json:"pending"` // a restart would change it
}

// slot has the columns of pg_replication_slots that matter.
type slot struct {
	Name      string `json:"slot_name"`
	Type      string `json:"slot_type"`
	Plugin    string `json:"plugin"`
	Database  string `json:"database"`
	Active    bool   `json:"active"`
	WALStatus string `json:"wal_status"`
}

// publication has the columns of pg_publication that matter; GeneratedColumns
// is absent before PostgreSQL 18.
type publication struct {
	Owned            bool   `json:"owned"`
	AllTables        bool   `json:"puballtables"`
	Insert           bool   `json:"pubinsert"`
	Update           bool   `json:"pubupdate"`
	Delete           bool   `json:"pubdelete"`
	Truncate         bool   `json:"pubtruncate"`
	ViaRoot          bool   `json:"pubviaroot"`
	GeneratedColumns string `json:"pubgencols"`
}

// inspected is a table as the catalog has it, and its place in the publication.
type inspected struct {
	Table
	Shape     value.Shape // only if values are written from the log
	Owned     bool
	Published bool
	Filtered  bool // it sends only some rows
	Listed    bool // it sends only some columns
	Usable    bool // the asking role may use its schema
	Hidden    bool // a policy may hide rows from that role
}

const serverStatement = `
SELECT json_build_object(
    'version', current_setting('server_version_num')::int,
    'standby', pg_is_in_recovery(),
    'managed', coalesce((SELECT min(rolname) FROM pg_roles WHERE rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin')), ''),
    'database', current_database(),
    'asking', current_user,
    'read_all_stats', pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
    'control_system', has_function_privilege(current_user, 'pg_control_system()', 'EXECUTE'),
    'role', r.rolname,
    'superuser', r.rolsuper,
    'replication', r.rolsuper OR r.rolreplication
        OR EXISTS (SELECT FROM pg_roles g WHERE g.rolname = 'rds_replication' AND pg_has_role(r.oid, g.oid, 'MEMBER')),
    'may_create', has_database_privilege(r.oid, current_database(), 'CREATE'),
    'settings', (SELECT json_object_agg(name, json_build_object('value', setting, 'source', source, 'pending', pending_restart))
        FROM pg_settings WHERE name IN ('wal_level', 'max_wal_senders', 'max_replication_slots', 'max_slot_wal_keep_size', 'synchronous_standby_names')),
    'sessions', (SELECT json_object_agg(name, value) FROM (
        SELECT DISTINCT ON (name) name, value
        FROM (SELECT lower(split_part(c, '=', 1)), substr(c, strpos(c, '=') + 1),
                     CASE WHEN s.setrole = 0 THEN 2 ELSE 0 END + CASE WHEN s.setdatabase = 0 THEN 1 ELSE 0 END
              FROM pg_db_role_setting s, unnest(s.setconfig) c
              WHERE s.setrole IN (0, r.oid) AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
              UNION ALL
              SELECT lower(name), setting, 4 FROM pg_settings
              WHERE source IN ('default', 'configuration file', 'command line', 'environment variable')) found (name, value, rank)
        WHERE name IN ('bytea_output', 'extra_float_digits', 'intervalstyle')
        ORDER BY name, rank) ranked),
    'senders', (SELECT count(*) FROM pg_stat_replication),
    'standbys', (SELECT json_agg(DISTINCT w.application_name) FROM pg_stat_replication w
        WHERE w.application_name <> '' AND w.state <> 'backup'
          AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = w.pid AND s.slot_type = 'logical')),
    'unnamed', (SELECT count(*) FROM pg_stat_replication w WHERE w.application_name IS NULL),
    'slots', (SELECT json_agg(to_jsonb(s) ORDER BY s.slot_name) FROM pg_replication_slots s),
    'publication', (SELECT to_jsonb(p) || jsonb_build_object('owned', pg_has_role(r.oid, p.pubowner, 'USAGE'))
        FROM pg_publication p WHERE p.pubname = $2)
)::text
FROM pg_roles r
WHERE r.rolname = coalesce(nullif($1, ''), current_user)`

// membershipStatement gives, for a role, a publication and oids of tables, who
// owns the table, how it is published, and what stands between the asking role
// and its rows. %s is the test of whether its schema
// is published, which exists from PostgreSQL 15 on, as do row filters and
// column lists.
const membershipStatement = `
SELECT c.oid::bigint,
       pg_has_role($1::name, c.relowner, 'USAGE'),
       p.oid IS NOT NULL AND (p.puballtables OR m.oid IS NOT NULL OR s.published),
       NOT s.published AND to_jsonb(m) ->> 'prqual' IS NOT NULL,
       NOT s.published AND to_jsonb(m) ->> 'prattrs' IS NOT NULL,
       has_schema_privilege(c.relnamespace, 'USAGE'),
       row_security_active(c.oid)
FROM pg_class c
LEFT JOIN pg_publication p ON p.pubname = $2
LEFT JOIN pg_publication_rel m ON m.prpubid = p.oid AND m.prrelid = c.oid
CROSS JOIN LATERAL (SELECT %s AS published) s
WHERE c.oid = ANY ($3::oid[])`

const publishedSchema = `EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid AND n.pnnspid = c.relnamespace)`

// namesMax bounds what is read to find a name near to one that is missing.
const namesMax = 10_000

const namesStatement = `
SELECT s.nspname, c.relname
FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND s.nspname NOT IN ('pg_catalog', 'information_schema') AND s.nspname NOT LIKE 'pg\_%'
ORDER BY 1, 2
LIMIT $1`

// Diagnose returns everything that stands between a PostgreSQL and what needs
// asks of it, in the order in which it ought to be mended. It looks at
// PostgreSQL 14 to 18, as any role, and changes nothing.
//
// What `run` does by itself is not a problem: where the role may, it creates
// the publication and adds tables to it. A role that may stream may also create
// a slot, make it a failover slot and replace one that was lost.
func Diagnose(ctx context.Context, conn *pgx.Conn, needs Needs) ([]Problem, error) {
	s, err := inspect(ctx, conn, needs)
	if err != nil {
		return nil, err
	}
	return judge(s, needs), nil
}

func inspect(ctx context.Context, conn *pgx.Conn, needs Needs) (*server, error) {
	var text string
	err := conn.QueryRow(ctx, serverStatement, needs.Role, needs.Publication).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("look at the server: there is no role %q", needs.Role)
	}
	if err != nil {
		return nil, fmt.Errorf("look at the server: %w", err)
	}
	s := &server{Tables: map[Name]inspected{}}
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return nil, fmt.Errorf("look at the server: %w", err)
	}
	if s.Standby || s.Version < versionMin {
		return s, nil
	}

	names := make([]Name, len(needs.Tables))
	for i, need := range needs.Tables {
		names[i] = need.Name
	}
	tables, err := Tables(ctx, conn, names)
	if err != nil {
		return nil, err
	}
	byOID := map[uint32]*inspected{}
	var oids []uint32
	missing := false
	shapes := make([]value.Shape, len(names))
	if slices.ContainsFunc(needs.Tables, func(n TableNeed) bool { return n.FromLog }) {
		if shapes, err = Shapes(ctx, conn, names); err != nil {
			return nil, err
		}
	}
	for i, t := range tables {
		byOID[t.OID] = &inspected{Table: t, Shape: shapes[i]}
		oids = append(oids, t.OID)
		missing = missing || t.OID == 0
	}
	inSchema := "false"
	if s.Version >= 150000 {
		inSchema = publishedSchema
	}
	rows, err := conn.Query(ctx, fmt.Sprintf(membershipStatement, inSchema), s.Role, needs.Publication, oids)
	if err != nil {
		return nil, fmt.Errorf("look at the publication: %w", err)
	}
	var oid int64
	var row inspected
	_, err = pgx.ForEachRow(rows, []any{&oid, &row.Owned, &row.Published, &row.Filtered, &row.Listed, &row.Usable, &row.Hidden}, func() error {
		t := byOID[uint32(oid)]
		t.Owned, t.Published, t.Filtered, t.Listed = row.Owned, row.Published, row.Filtered, row.Listed
		t.Usable, t.Hidden = row.Usable, row.Hidden
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the publication: %w", err)
	}
	for _, t := range tables {
		if t.OID != 0 {
			s.Tables[t.Asked] = *byOID[t.OID]
		}
	}

	if missing {
		rows, err := conn.Query(ctx, namesStatement, namesMax)
		if err != nil {
			return nil, fmt.Errorf("look for similar names: %w", err)
		}
		if s.Names, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Name]); err != nil {
			return nil, fmt.Errorf("look for similar names: %w", err)
		}
	}
	return s, nil
}
