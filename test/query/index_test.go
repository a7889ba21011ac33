package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/plan"
)

// members are what indexes hold: of each the keys by what the lookup is joined by.
type members map[*plan.Index]map[string][][]string

// hold reads what the indexes of queries hold when they are where the database is.
func hold(ctx context.Context, conn *pgx.Conn, subjects []*subject) (members, error) {
	held := members{}
	batch := &pgx.Batch{}
	for _, s := range subjects {
		for _, d := range s.dependencies {
			for _, path := range d.Paths {
				if path.Lookup == nil || path.Lookup.Index == nil {
					continue
				}
				x := path.Lookup.Index
				held[x] = map[string][][]string{}
				var columns []string
				for i, name := range slices.Concat(x.Join, x.Key) {
					text := name + "::text"
					if x.Types[i] == "boolean" {
						text = "left(" + text + ", 1)"
					}
					columns = append(columns, text)
				}
				only := ""
				if strings.Contains(x.SQL, ", ONLY ") {
					only = "ONLY "
				}
				batch.Queue(fmt.Sprintf("SELECT ARRAY[%s] FROM %s%s.%s", strings.Join(columns, ", "), only, x.Schema, x.Table)).Query(func(rows pgx.Rows) error {
					var row []*string
					_, err := pgx.ForEachRow(rows, []any{&row}, func() error {
						if texts, ok := whole(row); ok {
							set := strings.Join(texts[:len(x.Join)], "\x00")
							held[x][set] = append(held[x][set], texts[len(x.Join):])
						}
						return nil
					})
					return err
				})
			}
		}
	}
	if batch.Len() == 0 {
		return held, nil
	}
	return held, conn.SendBatch(ctx, batch).Close()
}

func whole(row []*string) (texts []string, ok bool) {
	for _, text := range row {
		if text == nil {
			return nil, false
		}
		texts = append(texts, *text)
	}
	return texts, true
}

// answer answers a lookup for rows that have changed; lacking: without one member of each
// set.
func (m members) answer(s *subject, of *plan.Lookup, rows []map[string]*string, into *drops, lacking bool) {
	for _, row := range rows {
		var by []*string
		for _, argument := range of.Index.By {
			by = append(by, row[of.Arguments[argument].Column])
		}
		texts, ok := whole(by)
		if !ok {
			continue
		}
		keys := m[of.Index][strings.Join(texts, "\x00")]
		if lacking && len(keys) > 0 {
			keys = keys[1:]
		}
		for _, key := range keys {
			if at, ok := s.place[strings.Join(key, "\x00")]; ok {
				into.some[at] = true
			}
		}
	}
}

// indexed reports whether an index can answer lookups of the query.
func (s *subject) indexed() bool {
	return slices.ContainsFunc(s.dependencies, func(d plan.Dependency) bool {
		return slices.ContainsFunc(d.Paths, func(p plan.Path) bool { return p.Lookup != nil && p.Lookup.Index != nil })
	})
}
