// Package config reads unstale.yaml. It owns the shape of the file: every key,
// its default and its meaning stand once, in the table of settings.go, and the
// parser, the JSON Schema, the reference in docs/configuration.md and the
// printer of the effective configuration all read that table.
//
// It promises to report every problem at once, each with its place and with
// what to write instead, and never to print a secret. It looks at nothing but
// the file, the environment and the files that the configuration names:
// whether a table exists or a key template is sound is for others to say, and
// [Config.Problem] lets them say it in the same form.
package config

import "time"

// Config is a configuration with every default filled in. A value that has a
// problem keeps its default, or is empty where there is none.
type Config struct {
	Database Database
	Redis    Redis
	Source   Source
	Sweep    Sweep
	Load     Loads
	Admin    Admin
	Log      Log
	Entries  []Entry // in the order of the file

	document *document
}

// Database is the primary: for the catalog, the gate and, unless Source says
// otherwise, the replication stream.
type Database struct {
	// URL is a postgres:// URL or a key=value connection string, as written.
	// ConnString is what a driver wants. Only where changes come from Kafka may
	// it be empty: there is no database then.
	URL            URL
	PasswordFile   string
	Password       Secret // the content of PasswordFile
	TLS            TLS
	ConnectTimeout time.Duration
}

// Redis is where the cache lives.
type Redis struct {
	URL          URL // redis:// or rediss://
	Username     string
	Password     Secret // as written, or the content of PasswordFile
	PasswordFile string
	TLS          TLS
	DialTimeout  time.Duration
	ReadTimeout  time.Duration
	WriteTimeout time.Duration
}

// TLS names the files of a TLS connection. Files are relative to the working
// directory: those relative to the configuration file are resolved already.
type TLS struct {
	Mode       string // libpq's sslmode; the database only
	Enabled    bool   // Kafka only: elsewhere the URL says it
	CAFile     string
	CertFile   string
	KeyFile    string
	ServerName string
}

// Source is where changes come from.
type Source struct {
	FromKafka bool // else from Postgres
	Postgres  Postgres
	Kafka     Kafka
}

// Postgres is the direct source: a logical replication slot.
type Postgres struct {
	URL         URL // empty: that of Database
	Slot        string
	Publication string
	Failover    bool // from PostgreSQL 17 on
}

// Sweep bounds what a sweep may cost Redis.
type Sweep struct {
	KeysPerSecond int
}

// Loads bounds what the service itself loads from the database, for the entries
// that Refresh and Warm.
type Loads struct {
	RowsPerSecond int
	Connections   int
}

// Admin is the HTTP server for health, metrics and status.
type Admin struct {
	Listen string // empty: off
}

// Log is how the service logs.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// Entry is a family of cached keys.
type Entry struct {
	Name   string
	Key    string // the key template, as written
	Schema string // empty: search_path decides
	Table  string // empty: Query or DependsOn
	Query  string
	// DependsOn are the tables that the application makes a value of, in the order of
	// the file.
	DependsOn []Dependency
	// AllowSweep: changes that concern every key may drop them all.
	AllowSweep bool
	Lookup     Lookup
	OnChange   OnChange
	Lease      time.Duration

	// What the service writes: of no use to an entry that only invalidates.
	Columns []string // none: all
	Format  string   // json, hash
	Rows    string   // one, many: of a query
	TTL     time.Duration
	// Of a query: that there is no row is cached, as null; how many of the keys that a
	// changed row leads to by a lookup are loaded again; the SELECT of the keys to warm.
	CacheAbsent bool
	RefreshMax  int
	WarmKeys    string
}

// Dependency is a table of DependsOn. One of Key, Lookup and Sweep says how a changed
// row leads to keys; where the key has no placeholder, none of them.
type Dependency struct {
	Name    string // as written, for paths
	Schema  string // empty: search_path decides
	Table   string
	Key     []string // columns of the row, in the order of the key's placeholders
	Lookup  string   // a SELECT over the row's @columns, of what Key would be
	Columns []string // those that matter; none: all
	Sweep   bool     // every change concerns every key
}

// OnChange says what a change does to a key.
type OnChange string

const (
	// Invalidate drops the key; the next reader loads it.
	Invalidate OnChange = "invalidate"
	// Update SETs the key from the change if it is cached.
	Update OnChange = "update"
	// Warm SETs the key from the change, cached or not.
	Warm OnChange = "warm"
	// Refresh drops the key, and the service loads it again.
	Refresh OnChange = "refresh"
)

// Lookup says who answers which keys a change leads to through other tables.
type Lookup string

const (
	// LookupDatabase is the primary.
	LookupDatabase Lookup = "database"
	// LookupIndex are sets in Redis, as far as they can.
	LookupIndex Lookup = "index"
)

// over is what the entry is over: one of kinds.
func (e *Entry) over() string {
	switch {
	case e.Query != "":
		return "query"
	case e.DependsOn != nil:
		return "depends_on"
	}
	return "table"
}

// dependency is the last one: that which is being read or printed.
func (e *Entry) dependency() *Dependency {
	if len(e.DependsOn) == 0 {
		return new(Dependency)
	}
	return &e.DependsOn[len(e.DependsOn)-1]
}

// Path is the path of one of the entry's settings, for [Config.Problem].
func (e Entry) Path(setting string) string { return join(join("entries", e.Name), setting) }

// DependencyPath is the path of a setting of the dependency at index i of DependsOn, or
// of the dependency itself if that is empty.
func (e Entry) DependencyPath(i int, setting string) string {
	path := join(e.Path("depends_on"), e.DependsOn[i].Name)
	if setting == "" {
		return path
	}
	return join(path, setting)
}

// DependencyColumnPath is the path of the column at index at of a dependency's key or
// columns.
func (e Entry) DependencyColumnPath(i int, setting string, at int) string {
	return element(e.DependencyPath(i, setting), at)
}

// Sets reports whether values are written from changes.
func (e Entry) Sets() bool { return e.OnChange == Update || e.OnChange == Warm }

// Loads reports whether the service loads values from the database.
func (e Entry) Loads() bool { return e.OnChange == Warm || e.OnChange == Refresh }

// ColumnPath is the path of the column at index i of Columns.
func (e Entry) ColumnPath(i int) string { return element(e.Path("columns"), i) }
