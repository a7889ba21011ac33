package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A parameter of a PostgreSQL connection string.
type parameter struct {
	name, value string
	path        string // the setting that it comes from; empty: a default
}

// parameters are what the settings beside the URL add to it.
func (d Database) parameters() []parameter {
	var ps []parameter
	add := func(name, value, path string) {
		if value != "" {
			ps = append(ps, parameter{name, value, path})
		}
	}
	mode, modePath := d.TLS.Mode, "database.tls.mode"
	if mode == "" && d.TLS.CAFile != "" {
		mode, modePath = "verify-full", ""
	}
	add("password", string(d.Password), "")
	add("sslmode", mode, modePath)
	add("sslrootcert", d.TLS.CAFile, "database.tls.ca_file")
	add("sslcert", d.TLS.CertFile, "database.tls.cert_file")
	add("sslkey", d.TLS.KeyFile, "database.tls.key_file")
	if d.ConnectTimeout > 0 {
		seconds := (d.ConnectTimeout + time.Second - 1) / time.Second
		add("connect_timeout", strconv.FormatInt(int64(seconds), 10), "")
	}
	return ps
}

// ConnString is what a PostgreSQL driver parses: the URL with the password, the
// TLS files and the timeout in it, where the URL does not have its own.
// TLS.ServerName is not in it: connection strings have no word for it. It is
// not for printing.
func (d Database) ConnString() string { return d.connString(string(d.URL)) }

// ReplicationConnString is ConnString for the replication connection, without
// the replication parameter itself.
func (c *Config) ReplicationConnString() string {
	if u := c.Source.Postgres.URL; u != "" {
		d := c.Database
		if hasPassword(u) {
			d.Password = ""
		}
		return d.connString(string(u))
	}
	return c.Database.ConnString()
}

func (d Database) connString(text string) string {
	isURL := isDatabaseURL(text)
	for _, p := range d.parameters() {
		switch {
		case hasParameter(text, p.name):
		case isURL:
			separator := "?"
			if strings.Contains(text, "?") {
				separator = "&"
			}
			if strings.HasSuffix(text, "?") || strings.HasSuffix(text, "&") {
				separator = ""
			}
			text += separator + p.name + "=" + strings.ReplaceAll(url.QueryEscape(p.value), "+", "%20")
		default:
			value := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(p.value)
			text += fmt.Sprintf(" %s='%s'", p.name, value)
		}
	}
	return text
}

func isDatabaseURL(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

// hasParameter reports whether the connection string sets the parameter.
func hasParameter(text, name string) bool {
	_, ok := parameterOf(text, name)
	return ok
}

// parameterOf is what the connection string sets the parameter to.
func parameterOf(text, name string) (value string, ok bool) {
	if isDatabaseURL(text) {
		_, query, _ := strings.Cut(text, "?")
		values, err := url.ParseQuery(query)
		return values.Get(name), err == nil && values.Has(name)
	}
	m := regexp.MustCompile(`(?:^|\s)` + regexp.QuoteMeta(name) + `\s*=\s*(?:'((?:[^'\\]|\\.)*)'?|(\S*))`).FindStringSubmatch(text)
	if m == nil {
		return "", false
	}
	return strings.NewReplacer(`\\`, `\`, `\'`, `'`).Replace(m[1] + m[2]), true
}

func hasPassword(u URL) bool {
	_, rest, isURL := strings.Cut(string(u), "://")
	if from, to := userinfoPassword(rest); isURL && from < to {
		return true
	}
	return hasParameter(string(u), "password")
}

// ConnectorConnString is how Debezium reaches the database: without the files
// and the timeout beside our URL, which are not the workers'. Empty: nothing says
// how. It is not for printing.
func (c *Config) ConnectorConnString() string {
	d := Database{Password: c.Database.Password}
	u := c.Source.Kafka.Connect.Database
	if u == "" {
		u = c.Database.URL
		// Never less than what we do ourselves: then rather an error of Debezium's,
		// that it has no authorities.
		d.TLS.Mode = c.Database.TLS.Mode
		if d.TLS.Mode == "" && c.Database.TLS.CAFile != "" {
			d.TLS.Mode = "verify-full"
		}
	}
	if u == "" {
		return ""
	}
	if hasPassword(u) {
		d.Password = ""
	}
	return d.connString(string(u))
}

// ConnectorTLS has those of names that ConnectorConnString sets, such as sslmode.
func (c *Config) ConnectorTLS(names ...string) map[string]string {
	text, found := c.ConnectorConnString(), map[string]string{}
	for _, name := range names {
		if value, ok := parameterOf(text, name); ok {
			found[name] = value
		}
	}
	return found
}

// Address is the URL without a login.
func (e Endpoint) Address() string {
	u, err := url.Parse(string(e.URL))
	if err != nil || u.User == nil {
		return string(e.URL)
	}
	u.User = nil
	return u.String()
}

// Login is the user and the password, which may stand in the URL.
func (e Endpoint) Login() (username, password string) {
	username, password = e.Username, string(e.Password)
	if u, err := url.Parse(string(e.URL)); err == nil && u.User != nil {
		if username == "" {
			username = u.User.Username()
		}
		if inside, ok := u.User.Password(); ok {
			password = inside
		}
	}
	return username, password
}

// TLSConfig is how to connect to Redis; nil without TLS.
func (r Redis) TLSConfig() (*tls.Config, error) {
	if !strings.HasPrefix(string(r.URL), "rediss://") {
		return nil, nil
	}
	return r.TLS.config("redis.tls", r.URL)
}

// TLSConfig is how to connect to the brokers; nil without TLS. Without a
// server_name the client is to set the name of each broker.
func (k Kafka) TLSConfig() (*tls.Config, error) {
	if !k.TLS.Enabled {
		return nil, nil
	}
	return k.TLS.config("source.kafka.tls", "")
}

// TLSConfig is how to connect to the endpoint; nil without TLS.
func (e Endpoint) TLSConfig() (*tls.Config, error) {
	if !strings.HasPrefix(string(e.URL), "https://") {
		return nil, nil
	}
	return e.TLS.config("tls", e.URL)
}

// config reads the files. The server's name is that of the URL unless t says
// otherwise.
func (t TLS) config(path string, server URL) (*tls.Config, error) {
	result := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if result.ServerName == "" {
		if u, err := url.Parse(string(server)); err == nil {
			result.ServerName = u.Hostname()
		}
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read %s.ca_file: %w", path, err)
		}
		result.RootCAs = x509.NewCertPool()
		if !result.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s.ca_file: no PEM certificate in %s", path, t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s.cert_file and key_file: %w", path, err)
		}
		result.Certificates = []tls.Certificate{pair}
	}
	return result, nil
}
