package config

import (
	"fmt"
	"io"
	"os"
)

// Load reads the file at path, "-" being standard input. Every problem with
// what is written comes as one [Problems]; the Config is there even then, so
// that the caller can look for further problems in what could be read.
func Load(path string, getenv func(string) (string, bool)) (*Config, error) {
	if path == "-" {
		text, err := io.ReadAll(io.LimitReader(os.Stdin, fileSizeMax+1))
		if err != nil {
			return nil, fmt.Errorf("read the configuration from standard input: %w", err)
		}
		return Parse("stdin", text, getenv)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, text, getenv)
}
