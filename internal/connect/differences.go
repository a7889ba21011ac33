package connect

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// A Difference is one key of a connector that is not as the configuration needs
// it.
type Difference struct {
	Key  string `json:"key"`
	Have string `json:"have,omitempty"` // empty: absent, which means Default
	// Default is what Debezium takes where the key is absent, if it is known.
	Default string `json:"default,omitempty"`
	Want    string `json:"want,omitempty"` // empty: absent, or see Then
	// Wrong: changes are lost, altered or not understood. Else there is something
	// to know.
	Wrong bool   `json:"wrong"`
	Why   string `json:"why"`
	// Moves: with the wanted value it is another connector, which begins anew.
	Moves bool `json:"moves,omitempty"`
	// Kept: it is a login that serves, and nobody has said that ours is to be there.
	Kept bool `json:"kept,omitempty"`
	// Sent: whoever else reads the topics gets other records with the wanted value.
	Sent bool `json:"sent,omitempty"`
	// Then is what a person has to do: no value mends it.
	Then string `json:"then,omitempty"`

	value string // what Want stands for
}

// String says it in one line: key, value, and what that does.
func (d Difference) String() string {
	is := "is absent"
	switch {
	case d.Have != "":
		is = "is " + d.Have
	case d.Default != "":
		is = "is absent, which means " + d.Default
	}
	return fmt.Sprintf("%s %s: %s", d.Key, is, d.Why)
}

// Differences compares a connector that exists with what is needed. Keys that
// Debezium does not need for our sake are nobody's business, unless they change
// what is sent.
func (n *Need) Differences(have map[string]string) []Difference {
	var found []Difference
	for i := range rules {
		r := &rules[i]
		ours, value := r.value(n), have[r.key]
		if ours == "" || r.good(n, value) || !n.judges(r, have) {
			continue
		}
		found = append(found, Difference{
			Key: r.key, Have: value, Default: r.initial, Want: ours,
			Wrong: r.isWrong(value), Why: r.differsAs(value), Moves: r.moves, Kept: r.login && n.Database.Assumed, Sent: r.sent, value: ours,
		})
	}
	found = append(found, n.autocreation(have)...)
	found = append(found, n.converters(have)...)
	if d, differs := n.tables(have); differs {
		found = append(found, d)
	}
	found = append(found, n.partitions(have)...)
	found = append(found, n.foreign(have)...)
	for i := range found {
		d := &found[i]
		secret := secretKey.MatchString(d.Key)
		d.Have, d.Want, d.Why = shown(d.Have, secret), shown(d.Want, secret), withoutLogins(d.Why)
	}
	return found
}

// judges reports whether the rule is about the converter that the connector has.
func (n *Need) judges(r *rule, have map[string]string) bool {
	side, _, about := strings.Cut(r.key, ".converter.")
	if !about {
		return true
	}
	class := have[side+".converter"]
	return class == "" || class == n.converterClass()
}

func (n *Need) converterClass() string {
	if n.Registry == nil {
		return JSON
	}
	return n.Registry.Converter
}

// converters judges what keys and values are written as.
func (n *Need) converters(have map[string]string) []Difference {
	var found []Difference
	for _, key := range []string{"key.converter", "value.converter"} {
		class, ours := have[key], n.converterClass()
		d := Difference{Key: key, Have: class, Want: ours, Sent: true, value: ours}
		switch {
		case class == "":
			d.Why = "whatever the workers take by default is used"
		case class == ConfluentAvro || class == ApicurioAvro:
			if n.Registry != nil {
				continue
			}
			d.Wrong, d.Want, d.value = true, "", ""
			d.Why, d.Then = "records are Avro, and nothing says where their schemas are", "write source.kafka.schema_registry: http://host:port"
		case class == JSON:
			if n.Registry == nil {
				continue
			}
			d.Why = "records are JSON, larger and slower to read, and source.kafka.schema_registry is of no use"
		default:
			d.Wrong = true
			d.Why = "neither Avro nor JSON: no record can be read"
		}
		found = append(found, d)
	}
	return found
}

// tables judges whether every table of the entries is captured.
func (n *Need) tables(have map[string]string) (Difference, bool) {
	const include = "table.include.list"
	var missing, patterns []string
	for _, t := range n.Tables {
		if !captures(have, t) {
			missing = append(missing, t.Schema+"."+t.Name)
			patterns = append(patterns, t.pattern())
		}
	}
	if missing == nil {
		return Difference{}, false
	}
	d := Difference{Key: include, Have: have[include], Wrong: true, Why: "changes of " + strings.Join(missing, ", ") + " are not sent"}
	if have["schema.include.list"] != "" || have["schema.exclude.list"] != "" || have["table.exclude.list"] != "" {
		// Those who left the table out had a reason, and a list may hold both.
		d.Then = "take it out of the connector's schema.include.list, schema.exclude.list or table.exclude.list by hand"
		return d, true
	}
	d.value = strings.Join(append([]string{have[include]}, patterns...), ",")
	d.Want = d.value
	return d, true
}

// captures reports whether the lists of a connector let the changes of a table
// through.
func captures(have map[string]string, t Table) bool {
	name := t.Schema + "." + t.Name
	return matches(have["schema.include.list"], t.Schema, true) && !matches(have["schema.exclude.list"], t.Schema, false) &&
		matches(have["table.include.list"], name, true) && !matches(have["table.exclude.list"], name, false)
}

const autocreateMode = "publication.autocreate.mode"

// autocreate is how a connector that does not exist ought to treat the publication.
// Debezium's filtered mode sets the tables of one that is there: it fails where that
// is FOR ALL TABLES, and takes out what others have put in.
func (n *Need) autocreate() string {
	if p := n.Published; p != nil && (p.AllTables || len(n.others(nil)) > 0) {
		return "disabled"
	}
	return "filtered"
}

// others are the tables of the publication that neither the entries need nor the
// connector, if there is one, captures.
func (n *Need) others(have map[string]string) (names []string) {
	if n.Published == nil {
		return nil
	}
	for _, t := range n.Published.Tables {
		ours := slices.Contains(n.Tables, t) || have != nil && captures(have, t)
		for _, partitions := range n.Partitions {
			ours = ours || slices.Contains(partitions, t)
		}
		if !ours {
			names = append(names, t.Schema+"."+t.Name)
		}
	}
	return names
}

// unpublished are the tables of the entries that a publication which is there lacks,
// as SQL has them. Of a partitioned one it may have the partitions.
func (n *Need) unpublished(p *Publication) (names []string) {
	if p == nil || p.AllTables {
		return nil
	}
	for _, t := range n.Tables {
		has := slices.Contains(p.Tables, t) || slices.ContainsFunc(n.Partitions[t], func(partition Table) bool { return slices.Contains(p.Tables, partition) })
		if !has {
			names = append(names, quoted(t.Schema)+"."+quoted(t.Name))
		}
	}
	return names
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// autocreation judges what a connector does with its publication when it starts.
func (n *Need) autocreation(have map[string]string) []Difference {
	mode := Value(have, autocreateMode)
	d := Difference{Key: autocreateMode, Have: have[autocreateMode], Default: "all_tables"}
	p := n.Published
	if p != nil && Value(have, "publication.name") != n.Publication {
		p = nil // it is that of another name, which is said
	}
	others, lacks := n.others(have), n.unpublished(p)
	add := fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s;", quoted(n.Publication), strings.Join(lacks, ", "))
	switch {
	case mode == "filtered" && p != nil && p.AllTables:
		d.Wrong, d.value = true, "disabled"
		d.Why = fmt.Sprintf("publication %s is FOR ALL TABLES, which cannot be altered: the task fails when it starts", n.Publication)
	case mode == "filtered" && p != nil && len(others) > 0:
		if d.value = "disabled"; len(lacks) > 0 {
			d.value, d.Then = "", add+" and write disabled"
		}
		d.Why = fmt.Sprintf("when it starts it takes %s out of publication %s, and who else reads that misses the changes", strings.Join(others, ", "), n.Publication)
	case mode == "disabled" && p != nil && !p.Exists:
		d.Wrong, d.value = true, "filtered"
		d.Why = fmt.Sprintf("there is no publication %s, and the connector does not make it: the task fails when it starts, and its stream with the next change", n.Publication)
	case mode != "filtered" && p != nil && p.Exists && len(lacks) > 0:
		d.Wrong, d.Then = true, add
		d.Why = fmt.Sprintf("publication %s lacks %s, and the connector does not add to it: their changes are not sent", n.Publication, strings.Join(lacks, ", "))
	case mode != "filtered" && mode != "disabled" && mode != "all_tables":
		d.value, d.Why = n.autocreate(), "the tables must be put into the publication by hand"
	default:
		return nil
	}
	d.Want = d.value
	return []Difference{d}
}

// partitions judges under which name the rows of partitions come. The publication
// decides it; the connector's setting only holds for one that it makes (seen in
// Debezium 3.6.3: it alters the tables of one that is there, and not this).
func (n *Need) partitions(have map[string]string) (found []Difference) {
	const key = "publish.via.partition.root"
	set := strings.EqualFold(Value(have, key), "true")
	under := !set
	exists := n.Published != nil && n.Published.Exists
	if exists {
		under = !n.Published.ViaRoot
	}
	var tables, lost []string
	for _, t := range n.Tables {
		partitions, is := n.Partitions[t]
		if !is {
			continue
		}
		tables = append(tables, t.Schema+"."+t.Name)
		for _, p := range partitions {
			if !captures(have, p) {
				lost = append(lost, p.Schema+"."+p.Name)
			}
		}
	}
	if tables == nil || set && !under {
		return nil
	}
	names := "the changes of " + strings.Join(tables, ", ") + " come under the names of their partitions"
	harm := ": they drop keys, and set nothing"
	wrong := len(lost) > 0 || n.TopicPrefix == ""
	switch {
	case len(lost) > 0:
		harm = fmt.Sprintf(", and the connector's lists leave out %s: they are not sent", strings.Join(lost, ", "))
	case wrong:
		harm = ": they are lost, but for those whose topics are among the ones that are read"
	}
	if !set {
		d := Difference{Key: key, Have: have[key], Default: "false", Want: "true", value: "true", Wrong: wrong && under, Why: names + harm}
		if !under {
			d.Why = "a publication that the connector makes anew would not send the changes of " + strings.Join(tables, ", ") + " as theirs, which the one that is there does"
		}
		found = append(found, d)
	}
	if exists && under {
		found = append(found, Difference{
			Key: "publication.name", Have: Value(have, "publication.name"), Wrong: wrong,
			Why:  names + harm + "; it is there already, and " + key + " holds for one that the connector makes",
			Then: `ALTER PUBLICATION ` + quoted(n.Publication) + ` SET (publish_via_partition_root = true);`,
		})
	}
	return found
}

var listComma = regexp.MustCompile(`(?:[^,\\]|\\.)+`)

// matches reports whether a list of Debezium's regular expressions has the name;
// absent is the answer without a list. An expression that only Java knows has
// everything: a mistake would be a false alarm.
func matches(list, name string, absent bool) bool {
	if list == "" {
		return absent
	}
	for _, pattern := range listComma.FindAllString(list, -1) {
		compiled, err := regexp.Compile(`(?i)^(?:` + strings.TrimSpace(pattern) + `)$`)
		if err != nil {
			return absent
		}
		if compiled.MatchString(name) {
			return true
		}
	}
	return false
}

// A foreignRule is about keys that we do not set and that change what is sent.
type foreignRule struct {
	key     *regexp.Regexp
	harm    func(n *Need, value string) string // empty: none
	wrong   bool
	instead string
}

func always(harm string) func(*Need, string) string {
	return func(*Need, string) string { return harm }
}

var foreignRules = []foreignRule{
	{
		key: regexp.MustCompile(`^column\.(mask|truncate)\.`), wrong: true,
		harm:    always("values are altered on their way: what is set is not what the database has"),
		instead: ownConnector,
	},
	{
		key:     regexp.MustCompile(`^column\.(include|exclude)\.list$`),
		harm:    always("rows come without some of their columns: what needs one of those is dropped, never set, and a key that needs one is not known at all"),
		instead: "look whether it leaves a column out that an entry has",
	},
	{
		key: regexp.MustCompile(`^message\.key\.columns$`), harm: rekeys.harm, instead: rekeys.instead,
	},
	{
		key: regexp.MustCompile(`^topic\.(naming\.strategy|delimiter)$`), wrong: true,
		harm: func(n *Need, value string) string {
			if n.TopicPrefix == "" || value == schemaNaming || value == "." {
				return ""
			}
			return "its topics are named otherwise than source.kafka.topic_prefix says: none of its changes is read"
		},
		instead: nameTopics,
	},
	{
		key: regexp.MustCompile(`^(flush\.lsn\.source|lsn\.flush\.mode)$`),
		harm: func(_ *Need, value string) string {
			if value != "false" && value != "manual" {
				return ""
			}
			return "nobody tells the server how far the connector has read: it keeps its log until the disk is full"
		},
		instead: "take it out",
	},
	{
		key:     regexp.MustCompile(`^converters$`),
		harm:    always("values come in forms of somebody's own: what they hold is not what the database has"),
		instead: "look whether they touch a table of the entries",
	},
}

const (
	ownConnector = "take it out, or give Unstale a connector of its own"
	schemaNaming = "io.debezium.schema.SchemaTopicNamingStrategy" // PREFIX.SCHEMA.TABLE
	nameTopics   = "name them in source.kafka.topics or topics_pattern"
)

var (
	harmless = foreignRule{}
	renames  = foreignRule{wrong: true, harm: routed, instead: nameTopics}
	filters  = foreignRule{wrong: true, harm: always("changes are left out"), instead: ownConnector}
	unwraps  = foreignRule{wrong: true, instead: "unwrap where it is needed, in the sink, or give Unstale a connector of its own",
		harm: always("records are unwrapped: they say neither what has happened nor what the row was before, so none can be read")}
	rekeys = foreignRule{instead: "take it out where values are to be set",
		harm: always("records are keyed by other columns than the primary key, so the changes of one row may come out of order: entries over those tables only drop, where their keys lack one of those columns")}
	scatters = foreignRule{wrong: true, instead: ownConnector,
		harm: always("the changes of one row go to several partitions and come out of order")}
	unknown = foreignRule{instead: "look what it does, or give Unstale a connector of its own",
		harm: always("what it does to the records is not known here: what is set may not be what the database has")}
)

// transforms that something can be said about, by their class without $Key and
// $Value.
var transforms = map[string]foreignRule{
	"io.debezium.transforms.ExtractNewRecordState":        unwraps,
	"io.debezium.transforms.outbox.EventRouter":           unwraps,
	"io.debezium.transforms.ByLogicalTableRouter":         renames,
	"io.debezium.transforms.ContentBasedRouter":           renames,
	"io.debezium.transforms.Filter":                       filters,
	"io.debezium.transforms.partitions.PartitionRouting":  scatters,
	"io.debezium.transforms.ExtractChangedRecordState":    harmless, // adds headers
	"io.debezium.transforms.tracing.ActivateTracingSpan":  harmless,
	"io.debezium.transforms.openlineage.OpenLineage":      harmless,
	"org.apache.kafka.connect.transforms.RegexRouter":     renames,
	"org.apache.kafka.connect.transforms.TimestampRouter": renames,
	"org.apache.kafka.connect.transforms.Filter":          filters,
	"org.apache.kafka.connect.transforms.ExtractField":    unwraps,
	"org.apache.kafka.connect.transforms.Flatten":         unwraps,
	"org.apache.kafka.connect.transforms.HoistField":      unwraps,
	"org.apache.kafka.connect.transforms.ValueToKey":      rekeys,
	"org.apache.kafka.connect.transforms.InsertHeader":    harmless,
	"org.apache.kafka.connect.transforms.DropHeaders":     harmless,
	"org.apache.kafka.connect.transforms.HeaderFrom":      harmless,
}

// keyColumns is one part of message.key.columns: a regular expression for tables, and
// the columns.
var keyColumns = regexp.MustCompile(`^\s*([^\s:]+):([^:\s]+)\s*$`)

// RecordKey says of which columns the keys of a table's records are, and which
// setting has made them so; it is empty where they are those of the primary key.
// Columns are nil if nobody can tell which.
func RecordKey(have map[string]string, t Table) (columns []string, setting string) {
	for _, name := range strings.Split(have["transforms"], ",") {
		key := "transforms." + strings.TrimSpace(name) + ".type"
		if have[key] == "org.apache.kafka.connect.transforms.ValueToKey" {
			return nil, key
		}
	}
	const key = "message.key.columns"
	for _, part := range strings.Split(have[key], ";") {
		found := keyColumns.FindStringSubmatch(part)
		if found == nil {
			continue
		}
		pattern, err := regexp.Compile(`(?i)^(?:` + found[1] + `)$`)
		if err != nil {
			return nil, key // only Java knows
		}
		if pattern.MatchString(t.Schema + "." + t.Name) {
			columns = append(columns, strings.Split(found[2], ",")...)
		}
	}
	if columns == nil {
		return nil, ""
	}
	return columns, key
}

func routed(n *Need, _ string) string {
	if n.TopicPrefix == "" {
		return ""
	}
	return "its topics are named otherwise than source.kafka.topic_prefix says: none of its changes is read"
}

// foreign judges keys that are not ours.
func (n *Need) foreign(have map[string]string) []Difference {
	var found []Difference
	add := func(key, value string, r foreignRule) {
		if r.harm == nil {
			return
		}
		if harm := r.harm(n, value); harm != "" {
			found = append(found, Difference{Key: key, Have: value, Wrong: r.wrong, Why: harm, Then: r.instead})
		}
	}
	for _, name := range strings.Split(have["transforms"], ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		key := "transforms." + name + ".type"
		class, _, _ := strings.Cut(have[key], "$")
		r, known := transforms[class]
		if !known {
			r = unknown
		}
		add(key, have[key], r)
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		for _, r := range foreignRules {
			if r.key.MatchString(key) {
				add(key, have[key], r)
			}
		}
	}
	return found
}

// TopicPrefix is what the topics of a connector begin with: PREFIX.SCHEMA.TABLE. It
// is not ok where they may be named otherwise.
func TopicPrefix(have map[string]string) (prefix string, ok bool) {
	for _, name := range strings.Split(have["transforms"], ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		class, _, _ := strings.Cut(have["transforms."+name+".type"], "$")
		if _, known := transforms[class]; !known || strings.HasSuffix(class, "Router") {
			return "", false
		}
	}
	strategy := have["topic.naming.strategy"]
	if strategy != "" && strategy != schemaNaming || have["topic.delimiter"] != "" && have["topic.delimiter"] != "." {
		return "", false
	}
	return have["topic.prefix"], have["topic.prefix"] != ""
}

// Mended is a connector's configuration with every difference set right that a
// value can set right. What else is in it stays: it is somebody's.
func Mended(have map[string]string, differences []Difference) map[string]string {
	mended := maps.Clone(have)
	for _, d := range differences {
		if d.value != "" {
			mended[d.Key] = d.value
		}
	}
	return mended
}

// Mendable reports whether Mended sets it right.
func (d Difference) Mendable() bool { return d.value != "" }
