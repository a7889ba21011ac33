package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/connect"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
)

// A catalogView is what the catalog says of the entries' tables, in their order. Its
// tables are nil where there is no database, or none that can be asked, which is said
// elsewhere.
type catalogView struct {
	tables []database.Table
	// splits has, for each table, the publications that send the changes of its
	// partitions under names of their own.
	splits [][]string
	// publication is the connector's; nil: nobody knows.
	publication *database.PublicationState
}

func viewCatalog(ctx context.Context, c *config.Config, names []database.Name) catalogView {
	if c.Database.URL == "" {
		return catalogView{}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := connectDatabase(ctx, c)
	if err != nil {
		return catalogView{}
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var v catalogView
	tables, err := database.Tables(ctx, conn, names)
	if err != nil {
		return catalogView{}
	}
	for i := range tables {
		var splits []string
		if tables[i].Kind == database.KindPartitioned {
			if splits, err = database.Splits(ctx, conn, &tables[i]); err != nil {
				return catalogView{}
			}
		}
		v.splits = append(v.splits, splits)
	}
	publication, err := database.Publication(ctx, conn, c.Source.Kafka.Connect.Publication)
	if err != nil {
		return catalogView{}
	}
	v.publication = &publication
	v.tables = tables
	return v
}

// unknownConnector says what the catalog alone tells of how changes come, where the
// connector is nobody's business here.
func (fs *findings) unknownConnector(ctx context.Context, c *config.Config) {
	fs.addProblem(database.Problem{Severity: database.Advice, Subject: "source.kafka.connect",
		Text: "it is left out: when Debezium stops sending, the topics look as they do when nothing changes, and nobody notices",
		Then: "write connect: {url: http://host:8083, connector: ..., slot: ..., publication: ...} below source.kafka"})
	names, err := tableNames(ctx, c)
	if err != nil {
		return // it was said of the database
	}
	view := viewCatalog(ctx, c, names)
	fs.partitions(view)
	fs.recordKeys(c, names, view.tables, nil)
	fs.unbrought(c, names, view, nil)
}

// unbrought names the entries whose table none of the topics that are read can
// bring: what they have cached would never be dropped. have is the connector's
// configuration, nil where nobody knows it: then names of topics are all that
// there is to go by, and they prove nothing.
func (fs *findings) unbrought(c *config.Config, names []database.Name, view catalogView, have map[string]string) {
	k := c.Source.Kafka
	if k.TopicPrefix != "" {
		return // the topics are made of the entries; whether it is the connector's is said
	}
	topics, isPattern := kafkaTopics(k, names)
	prefix, known := connect.TopicPrefix(have)
	if !known && (have != nil || isPattern) {
		return
	}
	isRead := func(topic string) bool { return slices.Contains(topics, topic) }
	if pattern, err := regexp.Compile(k.TopicsPattern); isPattern && err == nil {
		isRead = pattern.MatchString
	}
	for i, e := range c.Entries {
		brought := []database.Name{names[i]}
		if view.tables != nil {
			for _, partition := range view.tables[i].Below {
				brought = append(brought, partition.Name)
			}
		}
		is := func(name database.Name) bool { return isRead(topicName(prefix, name)) }
		if !known {
			is = func(name database.Name) bool {
				return slices.ContainsFunc(topics, func(topic string) bool {
					return strings.Contains(strings.ToLower(topic), strings.ToLower(sanitized(name.Table)))
				})
			}
		}
		if slices.ContainsFunc(brought, is) {
			continue
		}
		p := database.Problem{Severity: database.Advice, Subject: "entry " + e.Name,
			Text: fmt.Sprintf("none of the topics %s is named after %s: if none has its changes, what is cached is never dropped", strings.Join(topics, ", "), names[i]),
			Then: "look whether source.kafka.topics has the topic of the table; source.kafka.connect lets check know"}
		if known {
			setting := "topics"
			if isPattern {
				setting = "topics_pattern"
			}
			p.Severity = database.Wrong
			p.Text = fmt.Sprintf("the connector writes the changes of %s into %s, which source.kafka.%s does not have: what is cached is never dropped", names[i], topicName(prefix, names[i]), setting)
			p.Mend, p.Then = []string{"topic_prefix: " + prefix}, fmt.Sprintf("in place of %s, or name the topic there", setting)
		}
		fs.addProblem(p)
	}
}

// tell lets a connector's need know which tables are partitioned, and what the
// publication makes of that.
func (v catalogView) tell(need *connect.Need) {
	if p := v.publication; p != nil {
		need.Published = &connect.Publication{Exists: p.Exists, AllTables: p.AllTables, ViaRoot: p.ViaRoot}
		for _, t := range p.Tables {
			need.Published.Tables = append(need.Published.Tables, connect.Table{Schema: t.Schema, Name: t.Table})
		}
	}
	need.Partitions = map[connect.Table][]connect.Table{}
	for i := range v.tables {
		t := &v.tables[i]
		if t.Kind != database.KindPartitioned {
			continue
		}
		var partitions []connect.Table
		for j := range t.Below {
			partitions = append(partitions, connect.Table{Schema: t.Below[j].Name.Schema, Name: t.Below[j].Name.Table})
		}
		need.Partitions[connect.Table{Schema: t.Name.Schema, Name: t.Name.Table}] = partitions
	}
}

// partitions advises against publications that may be the connector's, which
// nobody has named, and tear a table into its partitions.
func (fs *findings) partitions(v catalogView) {
	for i := range v.tables {
		for _, publication := range v.splits[i] {
			p := database.Problem{
				Severity: database.Advice, Subject: "publication " + publication,
				Text: fmt.Sprintf("it publishes the changes of %s under the names of its partitions: if the connector reads it, those that table.include.list leaves out are not sent, and the others drop keys and set nothing", v.tables[i].Name),
				Mend: []string{database.SetViaRoot(publication)},
				Then: "and give a connector that makes its publication publish.via.partition.root=true",
			}
			if !slices.ContainsFunc(*fs, func(f finding) bool { return f.printed == p.String() }) { // another entry has the table
				fs.addProblem(p)
			}
		}
	}
}

// recordKeys names the entries whose values are never written because changes of
// one key can stand in several partitions, which have no order among them: their
// key lacks a column of the record's, or an old row does not show it. have is the
// connector's configuration, nil where nobody knows it; tables has the catalog's
// word of the tables, or is nil.
func (fs *findings) recordKeys(c *config.Config, names []database.Name, tables []database.Table, have map[string]string) {
	effect := "they drop the key in place of writing it"
	if c.Database.URL != "" {
		effect += ", and the service loads it again"
	}
	for i, e := range c.Entries {
		template, err := guard.ParseTemplate(e.Key)
		if !e.Sets() || err != nil {
			continue
		}
		columns, setting := connect.RecordKey(have, connect.Table{Schema: names[i].Schema, Name: names[i].Table})
		then := "give the topic one partition, or write on_change: refresh or invalidate"
		var why string
		switch {
		case setting != "" && columns == nil:
			why = fmt.Sprintf("what the records of %s are keyed by cannot be told (%s of the connector)", names[i], setting)
		case setting != "":
			then = fmt.Sprintf("take %s out of %s of the connector, or ", names[i], setting) + then
			why = fmt.Sprintf("the records of %s are keyed by %s (%s of the connector)", names[i], strings.Join(columns, ", "), setting)
			if tables != nil && tables[i].OID != 0 && !tables[i].Replica.Holds(columns) {
				why += ", which an old row does not show"
				break
			}
			if lacks := lacking(template, columns); len(lacks) > 0 {
				why += fmt.Sprintf(", and its key lacks %s", strings.Join(lacks, ", "))
				break
			}
			continue
		case tables != nil && tables[i].OID != 0:
			columns = tables[i].Replica.PrimaryKey
			lacks := lacking(template, columns)
			switch {
			case len(columns) == 0:
				why = fmt.Sprintf("the records of %s have no key, as it has no primary key", names[i])
			case len(lacks) > 0:
				why = fmt.Sprintf("the records of %s are keyed by its primary key, and its key lacks %s", names[i], strings.Join(lacks, ", "))
			default:
				continue
			}
		default:
			continue
		}
		fs.addProblem(database.Problem{Severity: database.Advice, Subject: "entry " + e.Name, Then: then,
			Text: why + ": where the topic has more than one partition, its changes have no order: " + effect})
	}
}

// lacking returns the columns that are not in the key.
func lacking(key *guard.Template, columns []string) []string {
	return slices.DeleteFunc(slices.Clone(columns), func(column string) bool { return slices.Contains(key.Columns(), column) })
}
