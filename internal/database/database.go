// Package database asks PostgreSQL what the stream itself cannot say: which
// transactions are visible (the gate), which server this is (the origin), what
// the tables of the entries look like (the catalog), and what stands in the way
// of a stream (the diagnosis).
//
// It promises to change nothing: every statement that it runs only reads, but for
// a temporary view that is rolled back, and what ought to be changed it prints for
// someone who may. It decides nothing about keys.
package database
