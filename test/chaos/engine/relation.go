package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// How much there is of what queries read. A lookup that finds 4,096 keys goes on
// beside the stream as a fan-out: each star has more fans than that. A few are read,
// those that are found last.
const (
	memberCount = 64
	groupCount  = 8
	regionCount = 2
	starCount   = 2
	fansEach    = 20000
	fansRead    = 32
)

// relatedWriters is how many change what queries read.
const relatedWriters = 2

// The queries behind the results. A page shows three tables, and the keys that a group
// or a region leads to are looked up; a list shows two, and a member that moves leaves one
// and comes into another; a setting is in each page.
const (
	pageQuery = `SELECT m.id, m.version, m.group_id, g.version AS group_version, r.version AS region_version` +
		` FROM members m JOIN groups g ON g.id = m.group_id JOIN regions r ON r.id = g.region_id WHERE m.id = @id`
	listQuery = `SELECT m.id, m.version, g.version AS group_version` +
		` FROM members m JOIN groups g ON g.id = m.group_id WHERE m.group_id = @id ORDER BY m.id`
	settingQuery = `SELECT m.id, m.version, s.version AS setting FROM members m CROSS JOIN settings s WHERE m.id = @id`
	fanQuery     = `SELECT f.id, f.star_id, f.version, s.version AS star_version` +
		` FROM fans f JOIN stars s ON s.id = f.star_id WHERE f.id = @id`
)

// relatedSchema has what the queries read. Each version is the tag of the transaction
// that wrote it, so no two results of a query look the same unless what was there between
// them has gone again.
const relatedSchema = `
CREATE TABLE regions (id int PRIMARY KEY, version bigint NOT NULL DEFAULT 0);
CREATE TABLE groups (id int PRIMARY KEY, region_id int NOT NULL REFERENCES regions, version bigint NOT NULL DEFAULT 0);
CREATE TABLE members (id int PRIMARY KEY, group_id int NOT NULL REFERENCES groups, version bigint NOT NULL DEFAULT 0);
CREATE TABLE settings (id int PRIMARY KEY, version bigint NOT NULL DEFAULT 0);
CREATE TABLE stars (id int PRIMARY KEY, version bigint NOT NULL DEFAULT 0);
CREATE TABLE fans (id int PRIMARY KEY, star_id int NOT NULL REFERENCES stars, version bigint NOT NULL DEFAULT 0);
CREATE INDEX ON groups (region_id);
CREATE INDEX ON members (group_id);
CREATE INDEX ON fans (star_id);
ALTER TABLE groups REPLICA IDENTITY FULL;
ALTER TABLE members REPLICA IDENTITY FULL;
INSERT INTO regions SELECT i FROM generate_series(0, %[1]d - 1) i;
INSERT INTO groups SELECT i, i %% %[1]d FROM generate_series(0, %[2]d - 1) i;
INSERT INTO members SELECT i, i %% %[2]d FROM generate_series(0, %[3]d - 1) i;
INSERT INTO settings VALUES (1);
INSERT INTO stars SELECT i FROM generate_series(0, %[4]d - 1) i;
INSERT INTO fans SELECT i, abs(i) %% %[4]d FROM generate_series(%[6]d - %[5]d, %[6]d - 1) i;
ANALYZE;`

func createRelated(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, fmt.Sprintf(relatedSchema, regionCount, groupCount, memberCount, starCount, starCount*fansEach, fansRead))
	return err
}

// A place is where members are: in a group, or nowhere. Whoever changes a group or
// what is in it holds its lock, so what a result shows stays while its next version is
// written. Locks have numbers above those of all rows.
const (
	nowhere = groupCount
	places  = groupCount + 1

	placeLocks = 1 << 20
	starLocks  = placeLocks + places
)

// related is a transaction on tables that results are made of. touched are the ledgers
// of what it has changed.
type related struct {
	*Traffic
	tx      pgx.Tx
	tag     int64
	touched []int
}

// relate thinks of a transaction: members change, move, come and go, their groups
// change with them or alone, and now and then something on which many results hang.
func (t *Traffic) relate(random *rand.Rand) *work {
	w := &work{rollback: random.IntN(16) == 0}
	if random.IntN(4) == 0 {
		w.linger = time.Duration(random.Int64N(int64(lingerMax)))
	}
	seed := random.Uint64() // of what is chosen when the locks are held
	change := (*related).changeMembers
	switch n := random.IntN(128); {
	case n < 1:
		w.locks, change = allPlaces(), (*related).changeSetting
	case n < 2:
		w.locks, change = allPlaces(), (*related).changeRegion
	case n < 4:
		w.locks, change = allStars(), (*related).changeStar
	case n < 24:
		w.locks, change = allStars(), (*related).changeFan
	default:
		a, b := random.IntN(places), random.IntN(places-1)
		if b >= a {
			b++
		}
		w.locks = []int{placeLocks + min(a, b), placeLocks + max(a, b)}
	}
	w.run = func(ctx context.Context, tx pgx.Tx, tag int64) error {
		r := &related{Traffic: t, tx: tx, tag: tag}
		if err := change(r, ctx, w.locks, rand.New(rand.NewPCG(seed, 0))); err != nil {
			return err
		}
		return r.describe(ctx, w)
	}
	return w
}

func allPlaces() []int { return numbered(placeLocks, places) }
func allStars() []int  { return numbered(starLocks, starCount) }

func numbered(first, count int) []int {
	numbers := make([]int, count)
	for i := range numbers {
		numbers[i] = first + i
	}
	return numbers
}

// describe begins the next version of all that was touched, and notes what it looks like.
func (r *related) describe(ctx context.Context, w *work) error {
	slices.Sort(r.touched)
	r.begin(w, slices.Compact(r.touched))
	for _, f := range r.families {
		var numbers []int
		var versions []int64
		for i, row := range w.rows {
			if f.has(row) {
				numbers, versions = append(numbers, f.number(row)), append(versions, w.versions[i])
			}
		}
		if len(numbers) == 0 {
			continue
		}
		texts, err := f.texts(ctx, r.tx, numbers)
		if err != nil {
			return err
		}
		for i, text := range texts {
			r.oracle.ledgers[f.first+numbers[i]].describeText(versions[i], text)
		}
	}
	return nil
}

func (r *related) touch(k kind, numbers ...int) {
	for _, n := range numbers {
		if n < r.families[k].count {
			r.touched = append(r.touched, r.families[k].first+n)
		}
	}
}

// touchMember notes a member that was in one place and is in another now.
func (r *related) touchMember(id int, places ...int) {
	r.touch(memberPage, id)
	r.touch(settingPage, id)
	r.touch(memberList, places...) // nowhere has none
}

// find returns the numbers that a query gives.
func (r *related) find(ctx context.Context, sql string, arguments ...any) ([]int, error) {
	found, err := r.tx.Query(ctx, sql, arguments...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, pgx.RowTo[int])
}

// changeMembers does a few things to two places and to who is there.
func (r *related) changeMembers(ctx context.Context, locks []int, random *rand.Rand) error {
	for range 1 + random.IntN(3) {
		first := random.IntN(2)
		from, to := locks[first]-placeLocks, locks[1-first]-placeLocks
		var err error
		switch n := random.IntN(8); {
		case from == nowhere:
			err = r.changeMember(ctx, from, to, random, `INSERT INTO members (id, group_id, version) VALUES (@id, @to, @tag)`)
		case n < 1:
			err = r.changeGroup(ctx, from, `UPDATE groups SET version = @tag WHERE id = @id`)
		case n < 2:
			err = r.changeGroup(ctx, from, `UPDATE groups SET version = @tag, region_id = (region_id + 1) % @regions WHERE id = @id`)
		case n < 5:
			err = r.changeMember(ctx, from, from, random, `UPDATE members SET version = @tag WHERE id = @id`)
		case to == nowhere:
			err = r.changeMember(ctx, from, to, random, `DELETE FROM members WHERE id = @id`)
		default:
			err = r.changeMember(ctx, from, to, random, `UPDATE members SET version = @tag, group_id = @to WHERE id = @id`)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *related) changeGroup(ctx context.Context, group int, sql string) error {
	if _, err := r.tx.Exec(ctx, sql, pgx.NamedArgs{"tag": r.tag, "id": group, "regions": regionCount}); err != nil {
		return err
	}
	members, err := r.find(ctx, `SELECT id FROM members WHERE group_id = $1`, group)
	r.touch(memberPage, members...)
	r.touch(memberList, group)
	return err
}

// changeMember does something to one member of a place, if it has any.
func (r *related) changeMember(ctx context.Context, from, to int, random *rand.Rand, sql string) error {
	members, err := r.find(ctx, `SELECT n FROM generate_series(0, $1 - 1) n LEFT JOIN members m ON m.id = n WHERE coalesce(m.group_id, $2) = $3 ORDER BY n`,
		memberCount, nowhere, from)
	if err != nil || len(members) == 0 {
		return err
	}
	id := members[random.IntN(len(members))]
	r.touchMember(id, from, to)
	_, err = r.tx.Exec(ctx, sql, pgx.NamedArgs{"tag": r.tag, "id": id, "to": to})
	return err
}

func (r *related) changeRegion(ctx context.Context, _ []int, random *rand.Rand) error {
	region := random.IntN(regionCount)
	if _, err := r.tx.Exec(ctx, `UPDATE regions SET version = $1 WHERE id = $2`, r.tag, region); err != nil {
		return err
	}
	members, err := r.find(ctx, `SELECT m.id FROM members m JOIN groups g ON g.id = m.group_id WHERE g.region_id = $1`, region)
	r.touch(memberPage, members...)
	return err
}

func (r *related) changeSetting(ctx context.Context, _ []int, _ *rand.Rand) error {
	if _, err := r.tx.Exec(ctx, `UPDATE settings SET version = $1`, r.tag); err != nil {
		return err
	}
	members, err := r.find(ctx, `SELECT id FROM members`)
	r.touch(settingPage, members...)
	return err
}

func (r *related) changeStar(ctx context.Context, _ []int, random *rand.Rand) error {
	star := random.IntN(starCount)
	if _, err := r.tx.Exec(ctx, `UPDATE stars SET version = $1 WHERE id = $2`, r.tag, star); err != nil {
		return err
	}
	fans, err := r.find(ctx, `SELECT id FROM fans WHERE star_id = $1 AND id >= 0`, star)
	r.touch(fanPage, fans...)
	return err
}

func (r *related) changeFan(ctx context.Context, _ []int, random *rand.Rand) error {
	id := r.families[fanPage].number(r.families[fanPage].pick(random))
	r.touch(fanPage, id)
	_, err := r.tx.Exec(ctx, `UPDATE fans SET version = $1, star_id = $2 WHERE id = $3`, r.tag, random.IntN(starCount), id)
	return err
}

// empty takes all members away, and half of them come again.
func (r *related) empty(ctx context.Context) error {
	for id := range memberCount {
		r.touchMember(id)
	}
	r.touch(memberList, numbered(0, groupCount)...)
	if _, err := r.tx.Exec(ctx, `TRUNCATE members`); err != nil {
		return err
	}
	_, err := r.tx.Exec(ctx, `INSERT INTO members SELECT i, i % $2::int, $1 FROM generate_series(0, $3::int - 1, 2) i`, r.tag, groupCount, memberCount)
	return err
}
