package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/connect"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
)

// catalogOf looks the tables of the entries up, in their order. It is nil where
// there is no database, or none that can be asked, which is said elsewhere.
func catalogOf(ctx context.Context, c *config.Config, names []database.Name) []database.Table {
	if c.Database.URL == "" {
		return nil
	}
	conn, err := connectDatabase(ctx, c)
	if err != nil {
		return nil
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tables, err := database.Tables(ctx, conn, names)
	if err != nil {
		return nil
	}
	return tables
}

// recordKeys names the entries whose values are never written because changes of
// one key can stand in several partitions, which have no order among them: their
// key lacks a column of the record's, or an old row does not show it. have is the
// connector's configuration, nil where nobody knows it; tables has the catalog's
// word of the tables, or is nil.
func (fs *findings) recordKeys(c *config.Config, names []database.Name, tables []database.Table, have map[string]string) {
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
			Text: why + ": where the topic has more than one partition, its changes have no order: they drop the key in place of writing it"})
	}
}

// lacking returns the columns that are not in the key.
func lacking(key *guard.Template, columns []string) []string {
	return slices.DeleteFunc(slices.Clone(columns), func(column string) bool { return slices.Contains(key.Columns(), column) })
}
