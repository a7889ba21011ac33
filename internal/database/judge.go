package database

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/unstale/unstale/internal/change"
)

// judge says what is wrong with s, in the order in which it ought to be mended.
// synchronous_standby_names comes first, because every statement behind it
// would wait for a standby that is not there. The rest of the order keeps UPDATE
// and DELETE working after every statement: generated columns are published
// before a replica identity has them; replica identities come before a
// publication sends more operations or more tables, and so do row filters,
// which an UPDATE must find inside the replica identity.
func judge(s *server, needs Needs) []Problem {
	if s.Version < versionMin {
		return []Problem{{
			Severity: Wrong, Subject: "server",
			Text: fmt.Sprintf("it is PostgreSQL %d; Unstale needs %d or later", s.Version/10000, versionMin/10000),
			Then: "upgrade the server",
		}}
	}
	if s.Standby {
		return []Problem{{
			Severity: Wrong, Subject: "server",
			Text: "it is a standby: there transactions that still run look finished, so no change could wait until it is visible",
			Then: "give `database` the address of the primary",
		}}
	}
	j := &judgement{server: s, needs: needs}
	stream := func(looks ...func()) {
		for _, look := range looks {
			if !needs.Foreign || needs.Reader != "" {
				look()
			}
		}
	}
	stream(j.standbys, j.walLevel, j.capacity, j.roles)
	j.group()
	stream(j.publicationGenerated)
	for _, t := range j.tables {
		j.table(t)
	}
	stream(j.publicationParts, j.publicationOptions, j.publicationTables)
	stream(j.sessions)
	for _, t := range j.tables {
		for _, need := range t.fromLog {
			j.values(t, need)
		}
	}
	stream(j.slot, j.keepSize)
	return j.problems
}

// versionMin is server_version_num of the oldest PostgreSQL that is supported.
const versionMin = 140000

type judgement struct {
	*server
	needs    Needs
	problems []Problem
	tables   []*wanted
}

// wanted is one table and what all entries together want of it.
type wanted struct {
	inspected
	keys []string // key columns that exist
	// spelled are those of keys whose values a key has as they are.
	spelled []string
	needs   []TableNeed
	// fromLog are the entries whose values are written from the log, loaded
	// those whose values are read from the table, warmed those of which that is
	// done if a person asks for it.
	fromLog, loaded, warmed []TableNeed
}

func (t *wanted) hasStored() bool {
	return slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Generated == "s" })
}

// entriesBy names the entries whose keys depend on some of the columns.
func (t *wanted) entriesBy(columns []string) string {
	var names []string
	for _, need := range t.needs {
		if len(absent(columns, need.KeyColumns)) < len(columns) && !slices.Contains(names, need.Entry) {
			names = append(names, need.Entry)
		}
	}
	if len(names) == 1 {
		return "entry " + names[0]
	}
	return "entries " + list(names, "and")
}

// relations are the table and its partitions, as far as they have a replica
// identity that counts.
func (t *wanted) relations() []*Relation {
	relations := []*Relation{&t.Relation}
	for i := range t.Below {
		if t.Below[i].Kind != KindPartitioned {
			relations = append(relations, &t.Below[i])
		}
	}
	return relations
}

// reader is who reads the log.
func (j *judgement) reader() string {
	if j.needs.Reader != "" {
		return j.needs.Reader
	}
	return "Unstale"
}

func (j *judgement) add(p Problem) { j.problems = append(j.problems, p) }

func (j *judgement) standbys() {
	value := j.Settings["synchronous_standby_names"].Value
	configured := parseStandbys(value)
	if !configured.includes(j.needs.ApplicationName) {
		return
	}
	after := configured.without(j.needs.ApplicationName, j.Standbys).String()
	p := j.alter("synchronous_standby_names", after, "")
	p.Text = fmt.Sprintf("%s makes the stream of %s a synchronous standby: COMMIT would wait for it, and Unstale for the commit to become visible", literal(value), j.reader())
	if after == "" && slices.Contains(configured.names, "*") {
		p.Text += "; no other standby is connected that could be named instead"
	}
	if j.Unnamed > 0 {
		p.Text += fmt.Sprintf("; role %s cannot see the names of %d more WAL senders: name those that are standbys", j.Asking, j.Unnamed)
	}
	j.add(p)
}

func (j *judgement) walLevel() {
	level := j.Settings["wal_level"]
	if level.Value == "logical" {
		return
	}
	p := j.alter("wal_level", "logical", "restart")
	p.Text = fmt.Sprintf("it is %s: the log does not carry the changes of rows", level.Value)
	switch j.Managed {
	case "rds_superuser":
		p.Mend, p.Then = nil, "set rds.logical_replication = 1 in the parameter group of the instance, then reboot it"
	case "cloudsqlsuperuser":
		p.Mend, p.Then = nil, "set the flag cloudsql.logical_decoding = on, then restart the instance"
	}
	j.add(p)
}

func (j *judgement) capacity() {
	if j.ourSlot() == nil {
		if most := j.number("max_replication_slots"); len(j.Slots) >= most {
			p := j.alter("max_replication_slots", strconv.Itoa(len(j.Slots)+5), "restart")
			p.Text = fmt.Sprintf("all %d replication slots are taken and %s needs one", most, j.reader())
			var idle []string
			for _, slot := range j.Slots {
				if !slot.Active {
					idle = append(idle, slot.Name)
				}
			}
			if len(idle) > 0 {
				p.Text += "; nobody reads " + list(idle, "and") + " now"
			}
			j.add(p)
		}
	}
	running := j.ourSlot() != nil && j.ourSlot().Active
	if most := j.number("max_wal_senders"); !running && j.Senders >= most {
		p := j.alter("max_wal_senders", strconv.Itoa(j.Senders+5), "restart")
		p.Text = fmt.Sprintf("all %d WAL senders are taken and %s needs one", most, j.reader())
		j.add(p)
	}
}

// sessionSettings change what Debezium sends, and no record shows it. Its driver
// sets what dates, times and the encoding depend on itself; the other styles of
// intervals it understands. All of that was seen with Debezium 3.6.
var sessionSettings = []struct {
	name, want string
	types      []string
	alters     func(value string) bool
	harm       string
}{
	{"bytea_output", "hex", []string{"bytea"}, func(value string) bool { return value != "hex" }, "other bytes than %s has"},
	{"extra_float_digits", "1", []string{"float4", "float8", "_float4", "_float8"}, func(value string) bool {
		n, err := strconv.Atoi(value)
		return err == nil && n < 1
	}, "rounded numbers in place of %s"},
	{"intervalstyle", "postgres", []string{"interval"}, func(value string) bool { return value == "sql_standard" }, "%s without years, months and days"},
}

// sessions looks at the settings of a reader that does not set them itself.
func (j *judgement) sessions() {
	if j.needs.Reader == "" {
		return
	}
	for _, s := range sessionSettings {
		value := j.Sessions[s.name]
		if value == "" || !s.alters(value) {
			continue
		}
		var columns []string
		for _, t := range j.tables {
			for i := range t.Columns {
				if c := &t.Columns[i]; c.Base.builtIn(s.types...) && t.reads(c.Name) {
					columns = append(columns, t.Name.String()+"."+c.Name)
				}
			}
		}
		if len(columns) == 0 {
			continue
		}
		j.add(Problem{
			Severity: Wrong, Subject: "role " + j.Role, Alters: true,
			Text: fmt.Sprintf("its sessions have %s = %s: %s sends "+s.harm, s.name, value, j.reader(), list(columns, "and")),
			Mend: []string{fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET %s = %s;", quote(j.Role), quote(j.Database), s.name, literal(s.want))},
			Then: "then unstale connector restart --all, and drop the keys of these tables: what was set before stays wrong until its row changes",
		})
	}
}

// reads reports whether a key or a value is made of what the log has of the column.
func (t *wanted) reads(column string) bool {
	return slices.Contains(t.keys, column) || slices.ContainsFunc(t.fromLog, func(n TableNeed) bool {
		return n.Columns == nil || slices.Contains(n.Columns, column)
	})
}

func (j *judgement) keepSize() {
	if j.Settings["max_slot_wal_keep_size"].Value != "-1" {
		return
	}
	p := j.alter("max_slot_wal_keep_size", "10GB", "")
	p.Severity = Advice
	p.Text = fmt.Sprintf("it is unlimited: as long as %s is away the server keeps its log, until the disk is full; set what the disk can spare, beyond which Unstale sweeps its keys instead", j.reader())
	j.add(p)
}

func (j *judgement) roles() {
	if !j.Replication {
		p := Problem{
			Severity: Wrong, Subject: "role " + j.Role,
			Text: "it may not stream changes: it lacks REPLICATION",
			Mend: []string{"ALTER ROLE " + quote(j.Role) + " REPLICATION;"},
		}
		if j.Managed == "rds_superuser" {
			p.Text = "it may not stream changes: it is no member of rds_replication"
			p.Mend = []string{"GRANT rds_replication TO " + quote(j.Role) + ";"}
		}
		j.add(p)
	}
	if !j.ControlSystem {
		j.add(Problem{
			Severity: Wrong, Subject: "role " + j.Asking,
			Text: "it may not read which server this is",
			Mend: []string{"GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO " + quote(j.Asking) + ";"},
		})
	}
	if !j.ReadAllStats {
		unnoticed := "a server that restarted by itself after a process crashed, and may have lost commits that readers have seen, would not be noticed"
		if j.Version >= 150000 {
			unnoticed = "whether the server restarted by itself after a process crashed is guessed from its statistics, so that resetting those costs a sweep"
		}
		j.add(Problem{
			Severity: Advice, Subject: "role " + j.Asking,
			Text: "it may not see when the server's processes started: " + unnoticed,
			Mend: []string{grantStats(quote(j.Asking))},
		})
	}
}

// group gathers what the entries want, table by table, and says what is wrong
// with the entries themselves.
func (j *judgement) group() {
	byOID := map[uint32]*wanted{}
	for _, need := range j.needs.Tables {
		found, ok := j.Tables[need.Name]
		if !ok {
			j.add(Problem{
				Severity: Wrong, Subject: "table " + need.Name.String(), Entry: need.Entry, Setting: "table",
				Text: "there is no such table" + inPath(need.Name),
				Then: j.suggestTable(need.Name),
			})
			continue
		}
		if need.Inherited {
			found.Below = slices.DeleteFunc(slices.Clone(found.Below), func(r Relation) bool { return !r.Partition })
		}
		if p, ok := unfit(&found); ok {
			p.Entry, p.Setting = need.Entry, "table"
			j.add(p)
			continue
		}
		t := byOID[found.OID]
		if t == nil {
			t = &wanted{inspected: found}
			byOID[found.OID] = t
			j.tables = append(j.tables, t)
		}
		t.needs = append(t.needs, need)
		sound := j.have(&found, need, "key", need.KeyColumns)
		if need.Written && sound {
			sound = j.identified(&found, need)
		}
		if sound = j.have(&found, need, "columns", need.Columns) && sound; sound && need.FromLog {
			t.fromLog = append(t.fromLog, need)
		}
		switch {
		case !sound:
		case need.Loaded:
			t.loaded = append(t.loaded, need)
		case need.Written:
			t.warmed = append(t.warmed, need)
		}
		for _, name := range need.KeyColumns {
			column := found.Column(name)
			if column == nil || !j.keyColumn(&found, need.Entry, column) {
				continue
			}
			if !slices.Contains(t.keys, name) {
				t.keys = append(t.keys, name)
			}
			if !slices.Contains(need.Passed, name) && !slices.Contains(t.spelled, name) {
				t.spelled = append(t.spelled, name)
			}
		}
	}
}

// have reports whether the table has all columns of a setting, and says which
// it has not.
func (j *judgement) have(t *inspected, need TableNeed, setting string, columns []string) bool {
	all := true
	for _, name := range columns {
		if t.Column(name) != nil {
			continue
		}
		all = false
		j.add(Problem{
			Severity: Wrong, Subject: subject(t), Entry: need.Entry, Setting: setting, Column: name,
			Text: fmt.Sprintf("it has no column %s", name),
			Then: suggestColumn(name, t.Columns),
		})
	}
	return all
}

// identified reports whether a key is that of one row, and says so if it is not:
// two rows with one key would write over each other, and the one that is deleted
// take the value of the other with it.
func (j *judgement) identified(t *inspected, need TableNeed) bool {
	var add []string
	for i, unique := range t.Unique {
		more := absent(unique, need.KeyColumns)
		if len(more) == 0 {
			return true
		}
		if i == 0 || len(more) < len(add) {
			add = more
		}
	}
	var ways []string
	if len(add) > 0 {
		ways = append(ways, fmt.Sprintf("add {%s} to the key", strings.Join(add, "}, {")))
	}
	if t.Kind != KindPartitioned { // there it would need the partition key
		var columns []string
		for _, name := range need.KeyColumns {
			columns = append(columns, quote(name))
		}
		ways = append(ways, fmt.Sprintf("if no two rows have the same %s, run CREATE UNIQUE INDEX CONCURRENTLY ON %s (%s)",
			list(need.KeyColumns, "and"), t.Name.SQL(), strings.Join(columns, ", ")))
	}
	j.add(Problem{
		Severity: Wrong, Subject: subject(t), Entry: need.Entry, Setting: "key",
		Text: "a value is one row, and several rows can have the same key: no unique index that is valid, not deferrable and without WHERE or expressions has only columns of the key",
		Then: strings.Join(append(ways, "write on_change: invalidate"), "; or "),
	})
	return false
}

func inPath(name Name) string {
	if name.Schema == "" {
		return " in the search_path"
	}
	return ""
}

// unfit says why a table cannot have entries at all.
func unfit(t *inspected) (Problem, bool) {
	p := Problem{Severity: Wrong, Subject: subject(t)}
	var inherit []string
	for _, below := range t.Below {
		switch {
		case below.Kind == KindForeign:
			p.Text = fmt.Sprintf("its partition %s is a foreign table: changes to it are not in this server's log", below.Name)
			p.Then = "leave the table out of the configuration"
			return p, true
		case !below.Partition:
			inherit = append(inherit, below.Name.String())
		}
	}
	switch {
	case t.OID < firstNormalOID:
		p.Text = "it is a system table: changes to it are never published"
		p.Then = "leave it out of the configuration"
	case t.Kind == KindView || t.Kind == KindMaterializedView:
		p.Text = "it is a view: nothing is logged under its name"
		p.Then = "name the table that holds the rows"
	case t.Kind == KindForeign:
		p.Text = "it is a foreign table: changes to it are not in this server's log"
		p.Then = "use the database that holds it"
	case t.Persistence == Temporary:
		p.Text = "it is a temporary table: changes to it are not logged"
		p.Then = "leave it out of the configuration"
	case t.Root != nil:
		p.Text = fmt.Sprintf("it is a partition of %s, under whose name its changes are published", *t.Root)
		p.Then = fmt.Sprintf("write table: %s", *t.Root)
	case len(inherit) > 0:
		p.Table = t.Relation.Name
		p.Text = fmt.Sprintf("it is inherited: the rows of %s are read through it, but published under another name", list(inherit, "and"))
		p.Then = "give each of these tables entries of its own, and read it by its own name with ONLY; or make it a partitioned table"
	default:
		return Problem{}, false
	}
	return p, true
}

// firstNormalOID is FirstNormalObjectId: what initdb makes is below it.
const firstNormalOID = 16384

// keyColumn judges a column as part of a key and reports whether it can be one.
func (j *judgement) keyColumn(t *inspected, entry string, c *Column) bool {
	p := Problem{Severity: Wrong, Subject: subject(t), Entry: entry, Setting: "key", Column: c.Name}
	switch {
	case c.Generated != "" && j.Version < 180000:
		p.Text = fmt.Sprintf("column %s is generated, and the log of PostgreSQL before 18 has no generated columns", c.Name)
		p.Then = "key the entry by the columns that it is generated from"
		j.add(p)
		return false
	case c.Generated == "v":
		p.Text = fmt.Sprintf("column %s is generated when it is read, so it is not in the log", c.Name)
		p.Then = "make it STORED, or key the entry by the columns that it is generated from"
		j.add(p)
		return false
	}
	return true
}

// spellings warns of key columns whose text the application may well write in
// another way than PostgreSQL does.
func (j *judgement) spellings(t *wanted) {
	for _, name := range t.spelled {
		c := t.Column(name)
		if spelling := spelling(c); spelling != "" {
			j.add(Problem{
				Severity: Advice, Subject: subject(&t.inspected),
				Text: fmt.Sprintf("column %s, which is in a key, is %s: the key has %s; an application that spells it in another way reads keys that nothing invalidates", c.Name, c.TypeName, spelling),
			})
		}
	}
}

// spelling says how PostgreSQL writes a value of the column, where an
// application might well write it otherwise.
func spelling(c *Column) string {
	switch {
	case c.Base.builtIn("bool"):
		return "t or f"
	case c.Base.builtIn("bpchar"):
		return "it padded with blanks to its length"
	case c.Base.builtIn("numeric") && c.TypeMod < 0:
		return "the digits that were stored, 1.50 and 1.5 being two keys of the same number"
	case c.Base.builtIn("float4", "float8"):
		return "its shortest digits, such as 0.1 or 1e+20"
	case c.Base.builtIn("timestamp"):
		return "it as 2024-02-29 12:00:00.5"
	case c.Base.builtIn("timestamptz"):
		return "it in UTC, as 2024-02-29 12:00:00.5+00"
	case c.Base.builtIn("time", "timetz", "interval", "bytea", "money", "json", "jsonb", "xml", "bit", "varbit", "point", "inet", "cidr", "macaddr"),
		c.Base.Type == "c", c.Base.Type == "r", c.Base.Type == "m", strings.HasPrefix(c.Base.Name, "_"):
		return "it as psql prints it"
	case c.Base.Name == "citext" || !c.Deterministic:
		return "the letters that were stored, though others count as equal"
	}
	return ""
}

func (j *judgement) table(t *wanted) {
	for _, r := range append([]Relation{t.Relation}, t.Below...) {
		if r.Persistence == Unlogged && r.Kind != KindPartitioned {
			j.add(Problem{
				Severity: Wrong, Subject: "table " + r.Name.String(),
				Text: "it is unlogged: changes to it are not in the log",
				Mend: []string{"ALTER TABLE " + r.Name.SQL() + " SET LOGGED;"},
			})
		}
	}
	j.readable(t)
	j.identity(t)
	j.spellings(t)
}

// readable judges whether the asking role may load what entries want it to.
func (j *judgement) readable(t *wanted) {
	mend := j.grants(t, t.loaded)
	var found []TableNeed
	var finders []string
	for _, need := range t.needs {
		if len(need.Found) > 0 {
			found = append(found, TableNeed{Columns: need.Found})
			if !slices.Contains(finders, need.Entry) {
				finders = append(finders, need.Entry)
			}
		}
	}
	if find := j.grants(t, found); len(find) > 0 && !slices.Equal(mend, find) {
		j.add(Problem{
			Severity: Wrong, Subject: "role " + j.Asking, Mend: find,
			Text: fmt.Sprintf("it may not read what the lookups of %s read of %s", list(finders, "and"), t.Name),
		})
	}
	if len(mend) > 0 {
		j.add(Problem{
			Severity: Wrong, Subject: "role " + j.Asking, Mend: mend,
			Text: fmt.Sprintf("it may not read what the service is to load of %s", t.Name),
		})
	}
	if more := j.grants(t, t.warmed); len(more) > 0 && !slices.Equal(mend, more) {
		var names []string
		for _, need := range t.warmed {
			names = append(names, need.Entry)
		}
		j.add(Problem{
			Severity: Advice, Subject: "role " + j.Asking, Mend: more,
			Text: fmt.Sprintf("it may not read %s: changes are written all the same, but what they cannot write is dropped and not loaded again, nor can unstale warm load %s", t.Name, list(names, "and")),
		})
	}
	if t.Hidden && len(t.loaded)+len(t.warmed) > 0 {
		j.add(Problem{
			Severity: Advice, Subject: "role " + j.Asking,
			Text: fmt.Sprintf("row security may hide rows of %s from it, and the service does not load what it does not see", t.Name),
			Mend: []string{"ALTER ROLE " + quote(j.Asking) + " BYPASSRLS;"},
		})
	}
}

// grants are what the asking role lacks to load what the needs want.
func (j *judgement) grants(t *wanted, needs []TableNeed) (mend []string) {
	if len(needs) == 0 {
		return nil
	}
	if !t.Usable {
		mend = append(mend, "GRANT USAGE ON SCHEMA "+quote(t.Name.Schema)+" TO "+quote(j.Asking)+";")
	}
	if slices.ContainsFunc(needs, func(need TableNeed) bool {
		return slices.ContainsFunc(t.Columns, func(c Column) bool {
			return !c.Readable && (need.Columns == nil || slices.Contains(need.Columns, c.Name) || slices.Contains(need.KeyColumns, c.Name))
		})
	}) {
		mend = append(mend, "GRANT SELECT ON "+t.Name.SQL()+" TO "+quote(j.Asking)+";")
	}
	return mend
}

// identity judges what the log carries of old rows.
//
// Of a partitioned table the log has what each partition's own setting says,
// while the stream describes the rows by the setting of the root: under a root
// with FULL, the old row of a partition with DEFAULT arrives as if it were
// whole, with NULL in every column but the key (seen on 15.18). Neither the
// setting nor a change to it is inherited.
func (j *judgement) identity(t *wanted) {
	var why string
	broken := func(r *Relation) string {
		it, its := "it", "its log"
		if r.Partition {
			it, its = "its partition "+r.Name.String(), "the log of its partition "+r.Name.String()
		}
		columns, whole := r.Replica.Columns()
		switch {
		case !whole && len(columns) == 0:
			return it + " has no replica identity: once published, every UPDATE and DELETE on it fails"
		case whole && j.fullFails(t):
			return it + " has REPLICA IDENTITY FULL and a virtual generated column: once published, every UPDATE and DELETE on it fails"
		case !r.Replica.Holds(t.keys):
			missing := absent(t.keys, columns)
			return fmt.Sprintf("%s does not have the old value of %s: the key of the old row would stay, of %s", its, list(missing, "and"), t.entriesBy(missing))
		}
		return ""
	}
	relations := t.relations()
	rootColumns, rootWhole := t.Replica.Columns()
	for _, r := range relations {
		if why = broken(r); why != "" {
			break
		}
		_, whole := r.Replica.Columns()
		if rootWhole && !whole || !r.Replica.Holds(rootColumns) {
			why = fmt.Sprintf("the log of its partition %s has less of an old row than the table's replica identity says: what is missing would be taken for NULL", r.Name)
			break
		}
	}
	if why == "" {
		return
	}

	p := Problem{Severity: Wrong, Subject: subject(&t.inspected), Text: why, Table: t.Relation.Name}
	target, setting := "DEFAULT", "d"
	if len(t.Replica.PrimaryKey) == 0 || len(absent(t.keys, t.Replica.PrimaryKey)) > 0 {
		target, setting = "FULL", "f"
	}
	if setting == "f" && j.fullFails(t) {
		p.Then = "PostgreSQL refuses REPLICA IDENTITY FULL because of the virtual generated column: make that column STORED, or make a unique index over NOT NULL columns that has " +
			list(t.keys, "and") + " and set REPLICA IDENTITY USING INDEX"
		j.add(p)
		return
	}
	for i, r := range relations {
		// A partition that logs more than is needed may do so for another reader.
		enough := setting == "d" && i > 0 && r.Replica.Holds(t.Replica.PrimaryKey) && broken(r) == ""
		if r.Replica.Setting != setting && !enough {
			p.Mend = append(p.Mend, "ALTER TABLE "+r.Name.SQL()+" REPLICA IDENTITY "+target+";")
		}
	}
	if len(relations) > 1 && setting == "f" {
		p.Then = "do the same with each partition that is made later: the setting is not inherited"
	}
	j.add(p)
}

// fullFails reports whether REPLICA IDENTITY FULL would make UPDATE and DELETE
// fail whatever the publication says.
func (j *judgement) fullFails(t *wanted) bool {
	return slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Generated == "v" })
}

// sendsGenerated reports whether the publication must send stored generated
// columns of t: because a key has one, or because one is part of the replica
// identity, when an UPDATE would fail otherwise (PostgreSQL 18).
func (j *judgement) sendsGenerated(t *wanted) bool {
	if j.Version < 180000 {
		return false
	}
	full := len(t.Replica.PrimaryKey) == 0 || len(absent(t.keys, t.Replica.PrimaryKey)) > 0
	for _, r := range append([]Relation{t.Relation}, t.Below...) {
		_, whole := r.Replica.Columns()
		full = full || whole
	}
	for _, c := range t.Columns {
		if c.Generated == "s" && (full || slices.Contains(t.keys, c.Name) || slices.Contains(t.Replica.PrimaryKey, c.Name) || slices.Contains(t.Replica.Index, c.Name)) {
			return true
		}
	}
	return false
}

// publicationOption adds a problem with an option of the publication.
func (j *judgement) publicationOption(text, option string) {
	j.add(Problem{
		Severity: Wrong, Subject: "publication " + j.needs.Publication, Text: text,
		Mend: []string{"ALTER PUBLICATION " + quote(j.needs.Publication) + " SET (" + option + ");"},
	})
}

func (j *judgement) publicationGenerated() {
	if j.Publication == nil || j.Publication.GeneratedColumns == "s" {
		return
	}
	if t := j.firstWhere(j.sendsGenerated); t != nil {
		j.publicationOption(fmt.Sprintf("it does not publish the generated columns of %s, which are part of its replica identity or of a key: UPDATE and DELETE on it would fail", t.Name),
			"publish_generated_columns = stored")
	}
}

// publicationParts looks for tables of which only some rows or columns are sent.
func (j *judgement) publicationParts() {
	for _, t := range j.tables {
		var text string
		switch {
		case t.Listed:
			text = fmt.Sprintf("it sends only some columns of %s: what a key needs can be missing, and an UPDATE fails where its replica identity is", t.Name)
		case t.Filtered:
			text = fmt.Sprintf("it sends only the rows of %s that pass its WHERE: changes to others are missed", t.Name)
		default:
			continue
		}
		// In one transaction, so that nothing is missed in between.
		quoted := quote(j.needs.Publication)
		j.add(Problem{
			Severity: Wrong, Subject: "publication " + j.needs.Publication, Text: text,
			Mend: []string{fmt.Sprintf("BEGIN; ALTER PUBLICATION %s DROP TABLE %s; ALTER PUBLICATION %s ADD TABLE %s; COMMIT;",
				quoted, t.Name.SQL(), quoted, t.Name.SQL())},
		})
	}
}

func (j *judgement) publicationOptions() {
	p := j.Publication
	if p == nil || len(j.tables) == 0 {
		return
	}
	var silent []string
	for _, op := range []struct {
		name string
		sent bool
	}{{"insert", p.Insert}, {"update", p.Update}, {"delete", p.Delete}, {"truncate", p.Truncate}} {
		if !op.sent {
			silent = append(silent, op.name)
		}
	}
	if len(silent) > 0 {
		j.publicationOption("it does not publish "+list(silent, "and"), "publish = 'insert, update, delete, truncate'")
	}
	if t := j.firstWhere(func(t *wanted) bool { return t.Kind == KindPartitioned }); t != nil && !p.ViaRoot {
		j.publicationOption(fmt.Sprintf("it publishes the changes of %s under the names of its partitions", t.Name), "publish_via_partition_root = true")
	}
}

func (j *judgement) publicationTables() {
	if len(j.tables) == 0 {
		return
	}
	quoted := quote(j.needs.Publication)
	if j.Publication == nil {
		var foreign, names []string
		for _, t := range j.tables {
			names = append(names, t.Name.SQL())
			if !t.Owned {
				foreign = append(foreign, t.Name.String())
			}
		}
		var lacks []string
		if !j.MayCreate {
			lacks = append(lacks, "may not create in database "+j.Database)
		}
		if len(foreign) > 0 {
			lacks = append(lacks, "does not own "+list(foreign, "and"))
		}
		if j.Superuser || len(lacks) == 0 {
			return
		}
		options := "publish_via_partition_root = true"
		if j.firstWhere(j.sendsGenerated) != nil {
			options += ", publish_generated_columns = stored"
		}
		j.add(Problem{
			Severity: Wrong, Subject: "publication " + j.needs.Publication,
			Text: fmt.Sprintf("it does not exist, and role %s cannot create it: it %s", j.Role, list(lacks, "and")),
			Mend: []string{"CREATE PUBLICATION " + quoted + " FOR TABLE " + strings.Join(names, ", ") + " WITH (" + options + ");"},
		})
		return
	}

	var missing, sql []string
	owned := true
	for _, t := range j.tables {
		if !t.Published {
			missing, sql = append(missing, t.Name.String()), append(sql, t.Name.SQL())
			owned = owned && t.Owned
		}
	}
	if len(missing) > 0 && !(j.Superuser || j.Publication.Owned && owned) {
		j.add(Problem{
			Severity: Wrong, Subject: "publication " + j.needs.Publication,
			Text: fmt.Sprintf("it lacks %s, and role %s may not add to it", list(missing, "and"), j.Role),
			Mend: []string{"ALTER PUBLICATION " + quoted + " ADD TABLE " + strings.Join(sql, ", ") + ";"},
		})
	}
}

// values tells of columns that the log does not have, or does not always: then a
// change drops the key instead of writing it.
func (j *judgement) values(t *wanted, need TableNeed) {
	relation := &change.Relation{}
	for _, c := range t.Shape.Columns {
		relation.Columns = append(relation.Columns, change.Column{Name: c.Name, TypeOID: c.TypeOID, TypeMod: c.TypeMod})
	}
	identity, whole := t.Replica.Columns()
	for _, r := range t.relations() {
		_, full := r.Replica.Columns()
		whole = whole && full
	}
	var all, stored, virtual, unknown, reasons, long []string
	for _, c := range t.Columns {
		if need.Columns != nil && !slices.Contains(need.Columns, c.Name) {
			continue
		}
		all = append(all, c.Name)
		_, reason := t.Shape.Compile(relation, []string{c.Name})
		switch {
		case c.Generated == "s" && !j.hasGenerated():
			stored = append(stored, c.Name)
		case c.Generated == "v":
			virtual = append(virtual, c.Name)
		case reason != "":
			unknown, reasons = append(unknown, c.Name), append(reasons, reason)
		case c.Long && !whole && !slices.Contains(identity, c.Name):
			long = append(long, c.Name)
		}
	}
	never := slices.Concat(stored, virtual, unknown)
	tell := func(columns []string, text string, mend ...string) {
		if len(columns) == 0 {
			return
		}
		then := "leave " + list(columns, "and") + " out of `columns`, or write on_change: refresh"
		if rest := absent(all, slices.Concat(columns, never)); 0 < len(rest) && len(rest) <= listMax {
			then = "write columns: [" + strings.Join(rest, ", ") + "], or on_change: refresh"
		}
		if len(mend) > 0 {
			then = "or " + then
		}
		j.add(Problem{Severity: Advice, Subject: "entry " + need.Entry, Text: text, Mend: mend, Then: then})
	}
	const always = ": every change drops the key instead of writing it"
	if j.Version < 180000 {
		tell(stored, "the log of PostgreSQL before 18 has no generated columns, and the values have "+list(stored, "and")+always)
	} else {
		tell(stored, fmt.Sprintf("publication %s does not publish generated columns, and the values have %s", j.needs.Publication, list(stored, "and"))+always, j.publishGenerated())
	}
	tell(virtual, "what is generated when it is read is not in the log, and the values have "+list(virtual, "and")+always)
	tell(unknown, "the values cannot be made from the log: "+list(reasons, "and")+always)
	var mend []string
	if !j.fullFails(t) {
		if t.hasStored() && j.Version >= 180000 && !j.hasGenerated() {
			mend = append(mend, j.publishGenerated()) // first, or UPDATE fails
		}
		for _, r := range t.relations() {
			if r.Replica.Setting != "f" {
				mend = append(mend, "ALTER TABLE "+r.Name.SQL()+" REPLICA IDENTITY FULL;")
			}
		}
	}
	tell(long, fmt.Sprintf("an UPDATE that does not change %s leaves it out of the log where it is stored out of line, as in rows of more than 2 kB: it drops the key instead of writing it", list(long, "or")), mend...)
}

// hasGenerated reports whether the log has stored generated columns. Where the
// publication is still to be made, it will.
func (j *judgement) hasGenerated() bool {
	return j.Version >= 180000 && (j.Publication == nil || j.Publication.GeneratedColumns == "s")
}

func (j *judgement) publishGenerated() string {
	return "ALTER PUBLICATION " + quote(j.needs.Publication) + " SET (publish_generated_columns = stored);"
}

func (j *judgement) ourSlot() *slot {
	for i := range j.Slots {
		if j.Slots[i].Name == j.needs.Slot {
			return &j.Slots[i]
		}
	}
	return nil
}

func (j *judgement) slot() {
	slot := j.ourSlot()
	if slot == nil {
		return
	}
	p := Problem{Severity: Wrong, Subject: "slot " + slot.Name}
	setting := "source.postgres.slot"
	if j.needs.Reader != "" {
		setting = "source.kafka.connect.slot"
	}
	switch {
	case slot.Type != "logical":
		p.Text = "it is a " + slot.Type + " slot, of somebody else"
		p.Then = "choose another name for " + setting
	case slot.Plugin != "pgoutput":
		p.Text = "its plugin is " + slot.Plugin + ", not pgoutput: it is somebody else's"
		p.Then = "choose another name for " + setting
	case slot.Database != j.Database:
		p.Text = fmt.Sprintf("it belongs to database %s, not to %s", slot.Database, j.Database)
		p.Then = "choose another name for " + setting
	case slot.WALStatus == "lost" && j.needs.Reader != "":
		// Debezium would try for half an hour to read it, and then give up.
		p.Text = fmt.Sprintf("the server has thrown away log that %s has not read, and it waits for that", j.needs.Reader)
		p.Mend = []string{"SELECT pg_drop_replication_slot(" + literal(slot.Name) + ");"}
		p.Then = "it then makes the slot anew; with snapshot.mode=when_needed it copies the rows, which sweeps the entries"
	case slot.WALStatus == "lost":
		p.Severity = Advice
		p.Text = "the server has thrown away log that Unstale has not read; when Unstale starts it replaces the slot and sweeps its keys"
		p.Then = "start Unstale"
	case slot.WALStatus == "unreserved":
		p.Severity = Advice
		p.Text = fmt.Sprintf("it is behind by more than max_slot_wal_keep_size: at its next checkpoint the server throws away what %s has not read, which costs a sweep", j.reader())
		p.Then = fmt.Sprintf("let %s catch up", j.reader())
	default:
		return
	}
	j.add(p)
}

// alter is a problem with a setting that ought to have another value. restart
// is empty where a reload is enough.
func (j *judgement) alter(name, value, restart string) Problem {
	now := j.Settings[name]
	p := Problem{Severity: Wrong, Subject: "setting " + name}
	then := ""
	if restart != "" {
		then = "then restart PostgreSQL"
	}
	switch {
	case now.Source == "command line":
		p.Then = fmt.Sprintf("it is set on the server's command line: there set %s = %s, then restart PostgreSQL", name, literal(value))
	case j.Managed != "":
		p.Then = fmt.Sprintf("in the settings of the managed service set %s = %s", name, literal(value))
		if restart != "" {
			p.Then += ", then restart the instance"
		}
	case now.Pending:
		p.Then = "it was changed already: restart PostgreSQL"
	default:
		p.Mend = []string{"ALTER SYSTEM SET " + name + " = " + literal(value) + ";"}
		if restart == "" {
			p.Mend = append(p.Mend, "SELECT pg_reload_conf();")
		}
		p.Then = then
	}
	return p
}

func (j *judgement) number(setting string) int {
	n, err := strconv.Atoi(j.Settings[setting].Value)
	if err != nil {
		panic(fmt.Sprintf("setting %s is %q, not a number", setting, j.Settings[setting].Value))
	}
	return n
}

func (j *judgement) firstWhere(holds func(*wanted) bool) *wanted {
	if i := slices.IndexFunc(j.tables, holds); i >= 0 {
		return j.tables[i]
	}
	return nil
}

func (j *judgement) suggestTable(name Name) string {
	var elsewhere, candidates []string
	for _, n := range j.Names {
		if n.Table == name.Table {
			elsewhere = append(elsewhere, n.String())
		}
		if name.Schema == "" || n.Schema == name.Schema {
			candidates = append(candidates, n.Table)
		}
	}
	if len(elsewhere) > 0 {
		return "write table: " + list(elsewhere, "or")
	}
	near := nearest(name.Table, candidates)
	var full []string
	for _, n := range j.Names {
		if slices.Contains(near, n.Table) && (name.Schema == "" || n.Schema == name.Schema) {
			full = append(full, n.String())
		}
	}
	if len(full) == 0 {
		return "name a table that exists"
	}
	return "did you mean " + list(full, "or") + "?"
}

func suggestColumn(name string, columns []Column) string {
	var names []string
	for _, c := range columns {
		names = append(names, c.Name)
	}
	if near := nearest(name, names); len(near) > 0 {
		return "did you mean " + list(near, "or") + "?"
	}
	return "it has " + list(names, "and")
}

func subject(t *inspected) string { return "table " + t.Name.String() }

// absent returns those of wanted that are not in have.
func absent(wanted, have []string) []string {
	var missing []string
	for _, w := range wanted {
		if !slices.Contains(have, w) {
			missing = append(missing, w)
		}
	}
	return missing
}

// listMax bounds how many names one sentence lists.
const listMax = 12

// list joins names as a sentence does: a, b and c.
func list(names []string, conjunction string) string {
	switch {
	case len(names) == 0:
		return "nothing"
	case len(names) == 1:
		return names[0]
	case len(names) > listMax:
		return fmt.Sprintf("%s %s %d others", strings.Join(names[:listMax-1], ", "), conjunction, len(names)-listMax+1)
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " " + conjunction + " " + names[last]
}

func literal(text string) string {
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}
