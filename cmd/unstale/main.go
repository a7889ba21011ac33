// Command unstale keeps a Redis cache coherent with PostgreSQL.
package main

import "os"

func main() {
	os.Exit(execute(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
