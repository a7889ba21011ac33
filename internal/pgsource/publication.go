package pgsource

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/unstale/unstale/internal/change"
)

// publish makes sure that the publication publishes every change of every
// table, and refuses what would keep a change from us.
func (s *Source) publish(ctx context.Context, c *catalog) error {
	name := s.options.Publication
	p, err := c.publication(ctx, name)
	if err != nil {
		return err
	}
	if p == nil {
		// Noted before it is made: whether a statement was done is not known if its
		// answer does not come.
		s.untold.unpublished = true
		if p, err = s.createPublication(ctx, c); err != nil {
			return err
		}
	}
	if err := p.complete(); err != nil {
		return err
	}
	tables, err := c.tables(ctx, p, s.options.Tables)
	if err != nil {
		return err
	}
	var missing []Table
	for _, t := range tables {
		if err := t.publishable(); err != nil {
			return err
		}
		if !t.published(p) {
			missing = append(missing, t.Table)
		}
	}
	if len(missing) > 0 {
		s.untold.add(missing)
		if err := c.mend(ctx, fmt.Sprintf("add tables to publication %s", name), addTables(name, missing)); err != nil {
			return err
		}
		if tables, err = c.tables(ctx, p, s.options.Tables); err != nil {
			return err
		}
	}
	for _, t := range tables {
		if err := t.seenWhole(p); err != nil {
			return err
		}
	}
	if len(s.untold.tables) == 0 || s.untold.settled {
		return nil
	}
	// Transactions that were running wrote rows that the publication never
	// publishes. What they wrote must be visible before the entries are swept.
	if err := s.awaitRunning(ctx, c); err != nil {
		return err
	}
	s.untold.settled = true
	return nil
}

func (s *Source) createPublication(ctx context.Context, c *catalog) (*publication, error) {
	name := s.options.Publication
	tables, err := c.tables(ctx, &publication{}, s.options.Tables)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		if err := t.publishable(); err != nil {
			return nil, err
		}
	}
	if err := c.mend(ctx, fmt.Sprintf("create publication %s", name), createPublication(name, c.version, s.options.Tables)); err != nil {
		return nil, err
	}
	p, err := c.publication(ctx, name)
	if err == nil && p == nil {
		err = fmt.Errorf("publication %s went as soon as it was made", name)
	}
	return p, err
}

// awaitRunning waits until every transaction has ended that is running now.
func (s *Source) awaitRunning(ctx context.Context, c *catalog) error {
	const poll = 50 * time.Millisecond
	rows, err := c.query(ctx, "SELECT pg_snapshot_xmax(pg_current_snapshot())")
	if err != nil {
		return fmt.Errorf("look at the running transactions: %w", err)
	}
	horizon := string(rows[0][0])
	begin, said := time.Now(), false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		rows, err := c.query(ctx, "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::xid8", horizon)
		if err != nil {
			return fmt.Errorf("look at the running transactions: %w", err)
		}
		if isTrue(rows[0][0]) {
			return nil
		}
		if !said && time.Since(begin) > patience {
			said = true
			s.options.Logger.Warn("tables were added to the publication: waiting for the transactions that were running to end",
				"publication", s.options.Publication)
		}
		timer.Reset(poll)
	}
}

// mend runs a statement that our role may not be allowed to run.
func (c *catalog) mend(ctx context.Context, what, sql string) error {
	_, err := c.run(ctx, sql) // it waits for the locks of others
	if isCode(err, codeInsufficientPrivilege) {
		return &change.Refusal{
			Problem: fmt.Sprintf("role %s may not %s: %s", c.role, what, message(err)),
			Mend:    sql,
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// createPublication is a statement for a server of that version. Stored
// generated columns are published as soon as they can be: PostgreSQL 18 fails
// every UPDATE and DELETE on a table whose replica identity has one that is not.
func createPublication(name string, version int, tables []Table) string {
	sql := "CREATE PUBLICATION " + quoteName(name)
	if len(tables) > 0 {
		sql += " FOR TABLE " + onlyTables(tables)
	}
	options := "publish_via_partition_root = true"
	if version >= 180000 {
		options += ", publish_generated_columns = stored"
	}
	return sql + " WITH (" + options + ");"
}

func addTables(name string, tables []Table) string {
	return "ALTER PUBLICATION " + quoteName(name) + " ADD TABLE " + onlyTables(tables) + ";"
}

// onlyTables lists tables for a publication. Without ONLY the children by
// inheritance would be published too; the partitions of a table always are.
func onlyTables(tables []Table) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = "ONLY " + t.quoted()
	}
	return strings.Join(names, ", ")
}

func listTables(tables []Table) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.String()
	}
	return strings.Join(names, ", ")
}

func (t Table) String() string { return t.Schema + "." + t.Name }

func (t Table) quoted() string { return quoteName(t.Schema) + "." + quoteName(t.Name) }

// publication is what matters of a row of pg_publication.
type publication struct {
	oid       string
	name      string
	allTables bool
	everyKind bool // insert, update, delete and truncate
	viaRoot   bool
}

// publication reads the publication, or returns nil if there is none.
func (c *catalog) publication(ctx context.Context, name string) (*publication, error) {
	rows, err := c.query(ctx, `
		SELECT oid, puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot
		FROM pg_catalog.pg_publication WHERE pubname = $1`, name)
	if err != nil {
		return nil, fmt.Errorf("look at publication %s: %w", name, err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	row := rows[0]
	return &publication{
		oid:       string(row[0]),
		name:      name,
		allTables: isTrue(row[1]),
		everyKind: isTrue(row[2]),
		viaRoot:   isTrue(row[3]),
	}, nil
}

func (p *publication) complete() error {
	if p.everyKind {
		return nil
	}
	return &change.Refusal{
		Problem: fmt.Sprintf("publication %s does not publish every kind of change", p.name),
		Mend:    fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate');", quoteName(p.name)),
	}
}

// table is one of ours as the catalog has it, and the partitioned tables that
// it is part of.
type table struct {
	Table
	exists      bool
	kind        string // pg_class.relkind
	persistence string // pg_class.relpersistence
	inherited   bool   // other tables do inherit from it, which are no partitions
	self        listing
	ancestors   []listing
}

// listing is how a publication names a table.
type listing struct {
	Table
	inPublication bool // by name
	inSchema      bool // by its schema
	rowFilter     bool
	columnList    bool
}

func (l listing) published() bool { return l.inPublication || l.inSchema }

// tables looks the tables up.
func (c *catalog) tables(ctx context.Context, p *publication, tables []Table) ([]table, error) {
	oid := p.oid
	if oid == "" {
		oid = "0"
	}
	schemas := "false"
	if c.version >= 150000 {
		schemas = `EXISTS (SELECT FROM pg_catalog.pg_publication_namespace pn
		                   WHERE pn.pnpubid = $3::oid AND pn.pnnspid = a.relnamespace)`
	}
	found := make([]table, 0, len(tables))
	for _, wanted := range tables {
		rows, err := c.query(ctx, `
			SELECT c.relkind, c.relpersistence,
			       c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = c.oid),
			       a.oid = c.oid, n.nspname, a.relname, pr.oid IS NOT NULL, `+schemas+`,
			       to_jsonb(pr)->>'prqual' IS NOT NULL, to_jsonb(pr)->>'prattrs' IS NOT NULL
			FROM pg_catalog.pg_class c
			JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
			JOIN pg_catalog.pg_class a ON a.oid = c.oid OR a.oid IN (SELECT relid FROM pg_catalog.pg_partition_ancestors(c.oid))
			JOIN pg_catalog.pg_namespace n ON n.oid = a.relnamespace
			LEFT JOIN pg_catalog.pg_publication_rel pr ON pr.prrelid = a.oid AND pr.prpubid = $3::oid
			WHERE cn.nspname = $1 AND c.relname = $2`, wanted.Schema, wanted.Name, oid)
		if err != nil {
			return nil, fmt.Errorf("look at table %s: %w", wanted, err)
		}
		t := table{Table: wanted}
		for _, row := range rows {
			t.exists = true
			t.kind, t.persistence, t.inherited = string(row[0]), string(row[1]), isTrue(row[2])
			l := listing{
				Table:         Table{Schema: string(row[4]), Name: string(row[5])},
				inPublication: isTrue(row[6]),
				inSchema:      isTrue(row[7]),
				rowFilter:     isTrue(row[8]),
				columnList:    isTrue(row[9]),
			}
			if isTrue(row[3]) {
				t.self = l
			} else {
				t.ancestors = append(t.ancestors, l)
			}
		}
		found = append(found, t)
	}
	return found, nil
}

// publishable refuses tables whose changes no publication has, or not all.
func (t *table) publishable() error {
	problem, mend := "", ""
	switch {
	case !t.exists:
		problem, mend = "does not exist", "create it, or correct the name"
	case t.kind != "r" && t.kind != "p":
		problem, mend = "is not a table: the log has no changes of it", "name the tables that it is made of"
	case t.persistence != "p":
		problem, mend = "is unlogged or temporary: the log has no changes of it", fmt.Sprintf("ALTER TABLE %s SET LOGGED;", t.quoted())
	case t.inherited && !t.Inherited:
		problem, mend = "has tables that inherit from it: reading it reads them too, and their changes would come under their own names",
			"name a table without children, or make it a partitioned table"
	default:
		return nil
	}
	return &change.Refusal{Problem: fmt.Sprintf("table %s %s", t.Table, problem), Mend: mend}
}

// published reports whether changes of the table are published, under any name.
func (t *table) published(p *publication) bool {
	if p.allTables || t.self.published() {
		return true
	}
	for _, ancestor := range t.ancestors {
		if ancestor.published() {
			return true
		}
	}
	return false
}

// seenWhole refuses a published table of which we would not see every change,
// under its own name, with every column.
func (t *table) seenWhole(p *publication) error {
	if t.kind == "p" && !p.viaRoot {
		return &change.Refusal{
			Problem: fmt.Sprintf("table %s is partitioned, and publication %s publishes changes under the names of the partitions", t.Table, p.name),
			Mend:    fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true);", quoteName(p.name)),
		}
	}
	for _, ancestor := range t.ancestors {
		if p.viaRoot && (p.allTables || ancestor.published()) {
			return &change.Refusal{
				Problem: fmt.Sprintf("table %s is a partition of %s, and publication %s publishes its changes under that name", t.Table, ancestor.Table, p.name),
				Mend:    fmt.Sprintf("name %s instead of %s", ancestor.Table, t.Table),
			}
		}
	}
	for _, l := range append([]listing{t.self}, t.ancestors...) {
		if p.allTables || l.inSchema || !l.rowFilter && !l.columnList {
			continue
		}
		what := "a row filter"
		if !l.rowFilter {
			what = "a column list"
		}
		one := []Table{l.Table}
		return &change.Refusal{
			Problem: fmt.Sprintf("publication %s has %s on table %s: changes of %s would be missing", p.name, what, l.Table, t.Table),
			Mend: fmt.Sprintf("BEGIN; ALTER PUBLICATION %s DROP TABLE %s; %s COMMIT;",
				quoteName(p.name), onlyTables(one), addTables(p.name, one)),
		}
	}
	return nil
}
